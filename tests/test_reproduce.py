"""Each form of "reproduce this" is run by the program it is meant for, and sends the bytes that were sent before."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from helpers import DEADLINE, Live, read_events
from mistral_server import Reply, ScriptedMistral

from docstral.chat import ChatService, Question
from docstral.errors import QuestionError
from docstral.reproduce import FORMS, THROUGH, reproduce
from docstral.serve import create_app
from docstral.settings import Settings
from docstral.store import MessageRecord, Store, get_message
from docstral.types import Done

HOSTILE = (
    "How do I stream a chat completion? It's \"so\" `whoami` $(id) ${HOME} !! \\n \\u0041 %s {x} [1] 'EOF'\n"
    "EOF\n\t</script><!-- é 日本 🔑 \u2028\u2029\u200b\x00\x01\x1b\x7f\x85\ufeff ''' \"\"\" ``` // /* */ \\"
)
ANSWER = Reply(["Set `stream` [", "1].", " Voilà 🔑."])
REQUIRED = bool(os.environ.get("DOCSTRAL_REQUIRE_NODE"))  # as in CI: a machine without Node fails


@dataclass
class Asked:
    "An answer, the message that was stored, and the bytes that were sent for it."

    message: MessageRecord
    data: bytes
    address: str  # of DocStral, which answers there


@pytest.fixture
async def asked(settings: Settings, mistral: ScriptedMistral) -> Iterator[Asked]:  # type: ignore[misc]
    "A hostile question that continues a chat, with parameters; and DocStral, serving."
    mistral.answer = lambda body: ANSWER
    with Store(settings.data_dir / "docstral.duckdb") as store:
        service = ChatService(settings.but(mistral_api_key="settings-key"), store)
        service.load()
        first = [each async for each in service.ask("ada", Question("How do I stream?\u2028"))]
        question = Question(HOSTILE, first[0].chat_id, temperature=0.0, max_tokens=50)
        events = [each async for each in service.ask("ada", question)]
        assert isinstance(events[-1], Done), events[-1]
        message = get_message(store, "ada", events[-1].message_id)
        with Live(create_app(service, lambda error: None, web=False)) as server:
            yield Asked(message, mistral.chats[-1].data, server.url)


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with @mistralai/mistralai from npm."
    folder = tmp_path_factory.mktemp("node")
    if not (npm := shutil.which("npm")) or not shutil.which("node"):
        return _missing("node and npm are not installed")
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf8")
    command = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", "@mistralai/mistralai@2"]
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        return _missing("npm did not install @mistralai/mistralai in three minutes")
    return folder if ran.returncode == 0 else _missing(f"npm cannot install @mistralai/mistralai: {ran.stderr[-300:]}")


def _missing(reason: str) -> Path:
    "Skip, or fail where Node is required."
    (pytest.fail if REQUIRED else pytest.skip)(reason)
    raise AssertionError


def environment() -> dict[str, str]:
    "What a reader's shell has: a key, and no proxy."
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SYSTEMROOT") if name in os.environ}
    return kept | {"MISTRAL_API_KEY": "reader-key", "PYTHONUTF8": "1"}


def run(command: list[str], folder: Path) -> str:
    "What a program printed. It has to succeed."
    ran = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, timeout=DEADLINE * 3)
    assert ran.returncode == 0, ran.stderr.decode(errors="replace")
    return ran.stdout.decode()


def execute(form: str, text: str, filename: str, folder: Path) -> str:
    "Run a snippet with the program that it is meant for."
    path = folder / filename
    path.write_text(text, encoding="utf8", newline="")
    if form == "curl":
        return run(["bash", str(path)], folder)
    if form == "python":
        return run([sys.executable, str(path)], folder)
    if form == "javascript":
        return run(["node", str(path)], folder)
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    runner = "import sys, json\nfrom execnb.shell import CaptureShell\nshell = CaptureShell()\n"
    runner += "for source in json.load(open('cells.json')):\n    out = shell.run(source)\n"
    runner += "    assert shell.exc is None, shell.exc\n    print(*(part.get('text', '') if isinstance("
    runner += "part.get('text', ''), str) else ''.join(part['text']) for part in out), end='')\n"
    (folder / "cells.json").write_text(json.dumps([cell["source"] for cell in cells]), encoding="utf8")
    return run([sys.executable, "-c", runner], folder)


@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("form", FORMS)
async def test_it_runs_and_sends_the_same_bytes(
    form: str, through: str, asked: Asked, mistral: ScriptedMistral, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    import asyncio

    folder = request.getfixturevalue("node_modules") if form == "javascript" else tmp_path
    snippet = reproduce(asked.message, form, through, asked.address)
    assert "settings-key" not in snippet.text and "reader-key" not in snippet.text
    before = len(mistral.chats)
    shown = await asyncio.to_thread(execute, form, snippet.text, snippet.filename, folder)
    assert len(mistral.chats) == before + 1
    assert mistral.chats[-1].data == asked.data
    assert mistral.chats[-1].headers["authorization"] == "Bearer reader-key"
    assert "Set `stream` [" in shown and "Voilà 🔑" in shown


async def test_what_is_sent_through_docstral_is_the_same_in_every_form(asked: Asked, tmp_path: Path) -> None:
    "The body of POST /chat, byte for byte, as a plain server sees it."
    import asyncio

    assert asked.message.request
    expected = json.dumps(asked.message.request["question"], ensure_ascii=False, separators=(",", ":")).encode()
    with ScriptedMistral(path="/chat") as plain:
        for form in ("curl", "python", "notebook"):
            snippet = reproduce(asked.message, form, "docstral", plain.url)
            await asyncio.to_thread(execute, form, snippet.text, snippet.filename, tmp_path)
            assert plain.requests[-1].data == expected, form


async def test_a_notebook_is_valid_and_shows_the_question(asked: Asked) -> None:
    import nbformat

    for through in THROUGH:
        text = reproduce(asked.message, "notebook", through).text
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
        assert HOSTILE in notebook.cells[0].source


async def test_every_request_has_a_seed_and_the_one_that_was_asked_for(asked: Asked, mistral: ScriptedMistral) -> None:
    bodies = [seen.body for seen in mistral.chats]
    assert len({body["random_seed"] for body in bodies}) == len(bodies) == 2
    assert asked.message.request and asked.message.request["question"]["seed"] == bodies[-1]["random_seed"]


def test_another_provider_has_its_own_address_and_key(asked: Asked) -> None:
    sent = {"provider": "openai", "url": "http://127.0.0.1:9/v1/chat/completions"}
    message = replace(asked.message, request=(asked.message.request or {}) | sent)
    for form in FORMS:
        text = reproduce(message, form).text
        assert sent["url"] in text and "DOCSTRAL_OPENAI_API_KEY" in text and "MISTRAL_API_KEY" not in text


def test_what_cannot_be_asked_again_is_said(asked: Asked) -> None:
    quoted = {"provider": "extractive", "question": {"message": "How?", "provider": "extractive"}}
    with pytest.raises(QuestionError, match="extractive wrote it here") as refused:
        reproduce(replace(asked.message, request=quoted))
    assert "through=docstral" in refused.value.action
    assert "How?" in reproduce(replace(asked.message, request=quoted), "python", "docstral").text
    for message, form in ((replace(asked.message, request=None), "curl"), (asked.message, "cobol")):
        with pytest.raises(QuestionError):
            reproduce(message, form)


async def test_an_answer_is_reproduced_and_explained_over_http_for_its_reader_alone(
    settings: Settings, mistral: ScriptedMistral
) -> None:
    import asyncio

    import httpx2

    mistral.answer = lambda body: ANSWER
    with Store(settings.data_dir / "docstral.duckdb") as store:
        service = ChatService(settings.but(mistral_api_key="k"), store)
        service.load()
        with Live(create_app(service, lambda error: None, web=False)) as server:

            def read() -> list[httpx2.Response]:
                with httpx2.Client(base_url=server.url, trust_env=False, timeout=DEADLINE) as reader:
                    asked = reader.post("/chat", json={"message": "How do I stream?"}).text
                    message = f"/message/{read_events(asked)[0][1]['message_id']}"
                    found = [reader.get(f"{message}/explain")]
                    found += [
                        reader.get(f"{message}/reproduce?form={form}&through={way}")
                        for form in FORMS
                        for way in THROUGH
                    ]
                    unknown = reader.get(f"{message}/reproduce?form=cobol")
                    reader.cookies.clear()
                    return [unknown, reader.get(f"{message}/reproduce"), reader.get(f"{message}/explain"), *found]

            unknown, *found = await asyncio.to_thread(read)
    assert unknown.status_code == 422 and unknown.json()["error"]["code"] == "invalid_request"
    assert [each.status_code for each in found[:2]] == [404, 404]
    explained, _, through_docstral, *rest = found[2:]
    assert all(each.status_code == 200 and each.text for each in rest)
    assert f"{server.url}/chat" in through_docstral.text
    account = explained.json()
    assert account["prompt"] == mistral.chats[0].body["messages"]
    assert account["parameters"]["random_seed"] == mistral.chats[0].body["random_seed"]
    assert account["search"]["confidence"] >= account["search"]["threshold"]
    assert all(part["reason"] for part in account["search"]["parts"]) and len(account["attempts"]) == 1
    assert [stage["name"] for stage in account["stages"]][-3:] == ["first token", "writing", "checking"]


async def test_a_history_that_is_not_in_turn_is_refused(asked: Asked) -> None:
    import asyncio

    import httpx2

    body = {"message": "And?", "history": [{"role": "assistant", "content": "So."}]}
    found = await asyncio.to_thread(httpx2.post, f"{asked.address}/chat", json=body, trust_env=False)
    assert found.status_code == 422 and "in turn" in found.json()["error"]["message"]
