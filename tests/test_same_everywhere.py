"One question, one scripted model, three ways to ask: the same text, sources, citations and receipt."

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from helpers import DEADLINE, docstral, read_events, ready
from mistral_server import Reply, ScriptedMistral

from docstral.chat import ChatService
from docstral.library import DocStral
from docstral.settings import Settings
from docstral.store import Store

QUESTION = "How do I stream a chat completion?"
TIMES = {"seconds", "first_token_seconds", "search_seconds", "tokens_per_second"}
Answer = dict[str, Any]


@pytest.fixture
def environment(plain_environment: dict[str, str], settings: Settings, pages: Path) -> dict[str, str]:
    "The settings as environment variables, with a key."
    return plain_environment | {
        "DOCSTRAL_DATA_DIR": str(settings.data_dir),
        "DOCSTRAL_DOCS": str(pages),
        "DOCSTRAL_MISTRAL_URL": settings.mistral_url,
        "MISTRAL_API_KEY": "k",
    }


def over_http(settings: Settings) -> Answer:
    "The answer through `POST /chat`."
    with Store(settings.data_dir / "docstral.duckdb") as store, ready(ChatService(settings, store)) as server:
        body = {"message": QUESTION}
        events = read_events(httpx2.post(f"{server.url}/chat", json=body, timeout=DEADLINE, trust_env=False).text)
    done = events[-1][1]
    deltas = "".join(data["text"] for name, data in events if name == "delta")
    assert deltas == done["text"]
    return done | {"sources": events[1][1]["sources"]}


def on_the_command_line(environment: dict[str, str], folder: Path) -> Answer:
    "The answer through `docstral ask --json`."
    ran = docstral("ask", QUESTION, "--json", environment=environment, folder=folder)
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def in_python(settings: Settings) -> Answer:
    "The answer through `DocStral.ask`, as JSON."
    import orjson

    with DocStral(settings) as docs:
        answer = docs.ask(QUESTION)
    names = ("text", "outcome", "sources", "citations", "receipt")
    return dict(orjson.loads(orjson.dumps({name: getattr(answer, name) for name in names})))


def comparable(answer: Answer) -> Answer:
    "What has to be the same: everything but times."
    receipt = {name: value for name, value in answer["receipt"].items() if name not in TIMES}
    return {name: answer[name] for name in ("text", "outcome", "sources", "citations")} | {"receipt": receipt}


@pytest.mark.parametrize("provider", ["mistral", "extractive"])
def test_the_same_question_has_the_same_answer_everywhere(
    provider: str, settings: Settings, environment: dict[str, str], mistral: ScriptedMistral, tmp_path: Path
) -> None:
    mistral.answer = lambda body: Reply(
        ["Set `stream` to true [", "2", "][1]. Wrong [9]; `x[1]`. It has 77 rows【", "1】."], usage=(900, 30)
    )
    environment["DOCSTRAL_PROVIDER"] = provider
    chosen = settings.but(provider=provider, mistral_api_key="k")
    http, line, python = (
        over_http(chosen),
        on_the_command_line(environment, tmp_path),
        in_python(chosen),
    )
    assert comparable(http) == comparable(line) == comparable(python)
    assert http["receipt"]["provider"] == provider and http["outcome"] == "cited" and http["sources"]
    bodies = [seen.body for seen in mistral.chats]
    seeds = {body.pop("random_seed") for body in bodies}  # each request has one of its own, to be had again
    assert len(bodies) == len(seeds) == (3 if provider == "mistral" else 0)
    assert all(body == bodies[0] for body in bodies)
    if provider == "mistral":
        assert "Wrong; `x[1]`. It has 77 rows[2]." in http["text"] and http["citations"][-1]["weak"]
