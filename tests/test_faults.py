"Every way in which a server can fail, for every provider over HTTP: the promised code, in time, and nothing left."

import asyncio
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from helpers import DEADLINE, at_once, eventually, read_events, ready
from mistral_server import Gate, Reply, ScriptedMistral, event, refusal

from docstral.chat import ChatService
from docstral.providers.attempts import Attempts
from docstral.retry import ATTEMPTS
from docstral.settings import Settings
from docstral.store import Store

PAGE = b"<html>Welcome to the proxy</html>"
IN_STREAM = b'data: {"error": {"message": "engine died", "type": "InternalServerError", "code": 500}}\n\n'
OLD_SHAPE = b'{"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}'
NEW_SHAPE = b'{"error": {"message": "maximum context length is 9 tokens", "type": "BadRequestError", "code": 400}}'
FIELDS = b'{"detail": [{"loc": ["body", "temperature"], "msg": "too high", "type": "value_error"}]}'

# what the server does, the text that arrives, the code that is promised, and whether it is sent again
FAULTS: dict[str, tuple[Reply, str, str, bool]] = {
    "bad key": (refusal(401, "Unauthorized"), "", "bad_key", False),
    "forbidden": (refusal(403, "Forbidden"), "", "forbidden", False),
    "payment": (refusal(402, "Payment required"), "", "payment", False),
    "unknown model": (refusal(400, "Invalid model: nope"), "", "unknown_model", False),
    "unknown model in another shape": (Reply(status=404, body=OLD_SHAPE), "", "unknown_model", False),
    "too long": (Reply(status=400, body=NEW_SHAPE), "", "too_long", False),
    "wrong field": (Reply(status=422, body=FIELDS), "", "refused_request", False),
    "no quota": (refusal(429, "None", x_ratelimit_limit_req_minute="0"), "", "no_quota", False),
    "rate limit": (refusal(429, "Slow down", retry_after="2"), "", "rate_limited", True),
    "rate limit past the deadline": (refusal(429, "Slow down", retry_after="600"), "", "rate_limited", False),
    "server error": (refusal(500), "", "upstream_error", True),
    "gateway's page": (Reply(status=502, body=PAGE, content_type="text/html"), "", "upstream_error", True),
    "overloaded": (refusal(503, "Overloaded"), "", "overloaded", True),
    "overloaded, 529": (refusal(529), "", "overloaded", True),
    "proxy's page": (Reply(body=PAGE, content_type="text/html"), "", "not_an_api", False),
    "redirect": (Reply(status=302, body=b"", headers={"location": "/login"}), "", "not_an_api", False),
    "slow start": (Reply([], ending="stall"), "", "slow_start", True),
    "stalled": (Reply(["So it is. "], ending="stall"), "So it is. ", "stalled", False),
    "lost": (Reply(["So it is. "], ending="drop"), "So it is. ", "connection_lost", False),
    "lost before a word": (Reply([], ending="drop"), "", "connection_lost", True),
    "malformed": (Reply(["So it is. ", b"data: {not json}\n\n"]), "So it is. ", "malformed", False),
    "wrong shape": (Reply([b'data: {"choices": "none"}\n\n']), "", "malformed", True),
    "empty": (Reply([]), "", "empty_answer", True),
    "blank": (Reply(["  \n"]), "", "empty_answer", False),
    "no reason of its end": (Reply(["So it is. "], finish_reason=None), "So it is. ", "incomplete", False),
    "endless": (Reply(["So it is. " * 20_000] * 10), "So it is. " * 40_000, "endless", False),
    "error in the stream": (Reply(["So it is. ", IN_STREAM]), "So it is. ", "broken_off", False),
    "only an error in the stream": (Reply([IN_STREAM]), "", "broken_off", True),
}


@dataclass
class Running:
    "An application over HTTP, its service, and a visitor of it."

    service: ChatService
    client: httpx2.Client
    server: ScriptedMistral

    def ask(self, provider: str, **more: object) -> list[tuple[str, dict[str, object]]]:
        "The events of an answer."
        body = {"message": "How do I stream a chat completion?", "provider": provider} | more
        reply = self.client.post("/chat", json=body)
        assert reply.status_code == 200, reply.text
        return read_events(reply.text)

    def leaves_nothing(self, provider: str) -> None:
        "No request goes on, here or there, and no connection is held."
        self.server.wait_until(lambda: self.server.active == 0)
        sessions = list(self.service.provider(provider)._sessions._sessions.items())  # type: ignore[attr-defined]
        for loop, session in sessions:
            eventually(lambda session=session: not session.connector._acquired)
            eventually(lambda loop=loop: not any("stream" in repr(task.get_coro()) for task in asyncio.all_tasks(loop)))


@pytest.fixture(scope="module")
def running(indexed: Path, pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    "One application for all faults."
    data = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("faults") / "data"))
    with ScriptedMistral() as server, Store(data / "docstral.duckdb") as store:
        settings = Settings(
            data_dir=data,
            docs=(pages,),
            mistral_url=server.url,
            mistral_api_key="owners-key",
            openai_url=server.url,
            openai_model="local-model",
            answers_per_reader=100,
            request_timeout=20,
        )
        service = ChatService(settings, store)
        with ready(service) as live, httpx2.Client(base_url=live.url, timeout=DEADLINE, trust_env=False) as client:
            yield Running(service, client, server)


SILENT = {"slow start", "stalled"}  # what is waited for to its end, and so not for long


@pytest.fixture(autouse=True)
def afresh(running: Running, request: pytest.FixtureRequest) -> None:
    "Nothing is known of the servers yet, and waits between attempts take no time."
    seconds = 0.5 if "name" in request.fixturenames and request.getfixturevalue("name") in SILENT else DEADLINE
    limits = {"first_token_timeout": seconds, "stall_timeout": seconds, "request_timeout": DEADLINE}
    for provider in ("mistral", "openai"):
        running.service.provider(provider).settings = running.service.settings.but(**limits)  # type: ignore[attr-defined]
    running.service.attempts = Attempts(running.service.settings, running.service.provider, sleep=at_once)
    running.server.requests.clear()


@pytest.mark.parametrize("provider", ["mistral", "openai"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_code_in_time_and_leaves_nothing(name: str, provider: str, running: Running) -> None:
    reply, text, code, again = FAULTS[name]
    running.server.script(*[reply] * (ATTEMPTS if again else 1))
    events = running.ask(provider)
    kind, failed = events[-1]
    shown = "".join(str(data["text"]) for kind, data in events if kind == "delta")
    assert (kind, failed["code"], shown.strip()) == ("error", code, text.strip())
    assert failed["message"] and failed["action"] and failed["partial"] == bool(shown)
    assert len(running.server.chats) == (ATTEMPTS if again else 1)
    assert [data["code"] for kind, data in events if kind == "notice"] == ["retrying"] * (ATTEMPTS - 1) * again
    running.leaves_nothing(provider)
    messages = running.client.get(f"/chat/{events[0][1]['chat_id']}").json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[1]["outcome"] == "error" and messages[1]["content"] == shown
    assert messages[1]["error"]["code"] == code and messages[1]["error"]["action"] == failed["action"]
    assert running.ask(provider)[-1][0] == "done"  # and the next one is answered


@pytest.mark.parametrize("provider", ["mistral", "openai"])
def test_a_second_attempt_that_succeeds_is_one_answer(provider: str, running: Running) -> None:
    running.server.script(refusal(503), Reply([], ending="drop"))
    events = running.ask(provider)
    assert events[-1][0] == "done" and events[-1][1]["receipt"]["attempts"] == 3  # type: ignore[index]
    assert [data["code"] for kind, data in events if kind == "notice"] == ["retrying"] * 2
    messages = running.client.get(f"/chat/{events[0][1]['chat_id']}").json()["messages"]
    assert len(messages) == 2 and messages[1]["content"] == events[-1][1]["text"]


@pytest.mark.parametrize("provider", ["mistral", "openai"])
def test_hanging_up_cancels_upstream_and_leaves_nothing(provider: str, running: Running) -> None:
    gate, before = Gate(), running.server.disconnects
    running.server.script(Reply(["So it is. And so on. ", gate, "never"]))
    body = {"message": "How do I stream a chat completion?", "provider": provider}
    with running.client.stream("POST", "/chat", json=body) as reply:
        next(line for line in reply.iter_lines() if line.startswith("event: delta"))
    running.server.wait_until(lambda: running.server.disconnects == before + 1)
    running.leaves_nothing(provider)
    gate.open()


def test_merged_tokens_thinking_and_references_are_one_answer(running: Running) -> None:
    chunks = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}]},
        {"type": "text", "text": "Set "},
    ]
    reference = [{"type": "text", "text": "`stream` to true"}, {"type": "reference", "reference_ids": [1, "x]", None]}]
    running.server.script(Reply([event({"content": chunks}) + event({"content": reference}), "."], usage=None))
    kind, done = running.ask("mistral")[-1]
    assert kind == "done" and done["text"] == "Set `stream` to true[1]."
    receipt = done["receipt"]
    assert receipt["tokens_estimated"] and receipt["tokens_out"] == 6 + 3  # type: ignore[index]


def test_the_owners_key_is_not_sent_to_the_other_server_nor_a_visitors(running: Running) -> None:
    body = {"message": "How do I stream a chat completion?", "provider": "openai", "seed": 7}
    running.client.post("/chat", json=body, headers={"x-mistral-api-key": "visitors-key"})
    [seen] = running.server.chats
    assert "authorization" not in seen.headers and "owners-key" not in str(seen) and "visitors-key" not in str(seen)
    assert seen.body["seed"] == 7 and "random_seed" not in seen.body
    assert seen.body["stream_options"] == {"include_usage": True} and seen.body["model"] == "local-model"


def test_a_hundred_questions_at_once_to_a_dead_server_cause_few_more_requests(running: Running) -> None:
    running.server.answer = lambda body: refusal(503, "Overloaded")
    try:
        with ThreadPoolExecutor(100) as readers:
            answers = list(readers.map(lambda number: running.ask("mistral")[-1], range(100)))
    finally:
        running.server.answer = lambda body: Reply()
    assert {kind for kind, _ in answers} == {"error"}
    assert {str(failed["code"]) for _, failed in answers} <= {"overloaded", "paused", "slow_start"}
    assert len(running.server.chats) <= 130
    running.leaves_nothing("mistral")
    assert running.ask("openai")[-1][0] == "done"  # another server is another matter


def test_a_thousand_connections_that_ask_nothing_keep_nobody_from_an_answer(running: Running) -> None:
    address = "127.0.0.1", int(str(running.client.base_url).rpartition(":")[2].strip("/"))
    with ExitStack() as held:
        for number in range(1_000):
            idle = held.enter_context(socket.create_connection(address, timeout=DEADLINE))
            if number % 2:
                idle.sendall(b"POST /chat HTTP/1.1\r\nHost: ")  # half a request
        assert running.ask("mistral")[-1][0] == "done"


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions"])
def test_a_question_of_a_megabyte_is_refused_with_the_limit(path: str, running: Running) -> None:
    text = "How? " * 200_000
    refused = running.client.post(path, json={"message": text} if path == "/chat" else {"messages": [said(text)]})
    assert refused.status_code in (400, 413, 422) and refused.json()["error"]["code"] in (
        "invalid_request",
        "too_large",
    )
    assert "limit" in refused.json()["error"]["message"] or refused.status_code == 413
    assert len(refused.content) < 2_000


def said(text: str) -> dict[str, str]:
    "A message of OpenAI's protocol."
    return {"role": "user", "content": text}
