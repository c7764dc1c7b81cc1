"The API over real HTTP: statuses, the one shape of errors, who sees what, and hanging up."

import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from fastapi import FastAPI
from helpers import DEADLINE, Live, eventually, read_events, ready
from mistral_server import Gate, Reply, ScriptedMistral, refusal
from starlette.requests import Request

from docstral.api.app import create_api
from docstral.api.http import error_reply
from docstral.chat import LONGEST_QUESTION, ChatService
from docstral.errors import BusyError
from docstral.serve import create_app
from docstral.settings import Settings
from docstral.store import Store

STREAM = {"message": "How do I stream a chat completion?"}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def refusing(indexed: Path, pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    "A visitor of an application that several tests share: none of them asks what can be answered."
    data = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("refusing") / "data"))
    with Store(data / "docstral.duckdb") as store:
        service = ChatService(Settings(data_dir=data, docs=(pages,)), store)
        with ready(service) as server, httpx2.Client(base_url=server.url, timeout=DEADLINE, trust_env=False) as made:
            yield made


def ask(client: httpx2.Client, key: str = "", **body: Any) -> list[tuple[str, dict[str, Any]]]:
    "Ask, and read the whole stream."
    reply = client.post("/chat", json=STREAM | body, headers={"x-mistral-api-key": key} if key else {})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    return read_events(reply.text)


def error_of(reply: httpx2.Response, status: int) -> dict[str, Any]:
    "The error that a reply tells of, in the one shape."
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()["error"]
    assert (
        {"code", "message", "action", "request_id"}
        <= set(error)
        <= {
            "code",
            "message",
            "action",
            "request_id",
            "retry_after",
        }
    )
    assert error["message"] and error["action"] and error["request_id"] == reply.headers["x-request-id"]
    return dict(error)


def test_an_answer_streams_and_can_be_read_again(client: httpx2.Client) -> None:
    events = ask(client)
    names = [name for name, _ in events]
    assert names[:2] == ["chat", "sources"] and names[-1] == "done" and set(names[2:-1]) == {"delta"}
    started, sources, done = events[0][1], events[1][1]["sources"], events[-1][1]
    assert "".join(data["text"] for name, data in events if name == "delta") == done["text"]
    assert {"id", "title", "section", "url", "score", "language", "licence", "text"} <= set(sources[0])
    assert {"n", "source_id", "start", "end", "support", "at", "weak"} == set(done["citations"][0])
    [chat] = client.get("/chats").json()["chats"]
    assert (chat["id"], chat["title"]) == (started["chat_id"], STREAM["message"])
    question, answer = client.get(f"/chat/{chat['id']}").json()["messages"]
    assert (question["role"], question["content"]) == ("user", STREAM["message"])
    assert (answer["id"], answer["content"], answer["outcome"]) == (started["message_id"], done["text"], "cited")
    assert answer["sources"] == sources and answer["citations"] == done["citations"]
    assert answer["receipt"] == done["receipt"]


def test_deltas_arrive_while_the_model_still_writes(client: httpx2.Client, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply(["First words. ", gate, "Last words."]))
    with client.stream("POST", "/chat", json=STREAM, headers={"x-mistral-api-key": "k"}) as reply:
        pieces = reply.iter_text()
        text = ""
        while "First words." not in text:
            text += next(pieces)
        assert "Last words." not in text
        gate.open()
        text += "".join(pieces)
        assert read_events(text)[-1][1]["text"] == "First words. Last words."


BAD = {
    "empty question": (b'{"message": ""}', 422, "invalid_request", "empty"),
    "blank question": (b'{"message": " \\n "}', 422, "invalid_request", "empty"),
    "too long": (orjson.dumps({"message": "x" * (LONGEST_QUESTION + 1)}), 422, "invalid_request", "4000"),
    "no message": (b"{}", 422, "invalid_request", "message"),
    "not JSON": (b'{"message": ', 400, "invalid_request", "JSON"),
    "no body": (b"", 422, "invalid_request", ""),
    "a list": (b"[1]", 422, "invalid_request", ""),
    "null": (b"null", 422, "invalid_request", ""),
    "number as text": (b'{"message": 5}', 422, "invalid_request", "message"),
    "text as number": (b'{"message": "x", "temperature": "0.5"}', 422, "invalid_request", "temperature"),
    "fraction as integer": (b'{"message": "x", "max_tokens": 1.5}', 422, "invalid_request", "max_tokens"),
    "text as boolean": (b'{"message": "x", "rag": "yes"}', 422, "invalid_request", "rag"),
    "unknown field": (b'{"message": "x", "temprature": 1}', 422, "invalid_request", "temprature"),
    "too hot": (b'{"message": "x", "temperature": 9}', 422, "invalid_request", "temperature"),
    "not a number": (b'{"message": "x", "temperature": NaN}', 422, "invalid_request", "temperature"),
    "unknown provider": (b'{"message": "x", "provider": "nope"}', 422, "invalid_request", "nope"),
    "no key": (b'{"message": "x", "provider": "mistral"}', 401, "no_key", "key"),
    "not set up": (b'{"message": "x", "provider": "openai"}', 422, "invalid_request", "openai"),
    "no model": (b'{"message": "x", "provider": "vllm"}', 422, "invalid_request", "vllm"),
    "unknown chat": (b'{"message": "x", "chat_id": "chat_0"}', 404, "not_found", "chat_0"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_its_status_and_is_not_counted(refusing: httpx2.Client, name: str) -> None:
    body, status, code, words = BAD[name]
    error = error_of(refusing.post("/chat", content=body, headers=JSON), status)
    assert error["code"] == code and words in error["message"]
    assert refusing.get("/chats").json() == {"chats": []}
    assert refusing.get("/metrics").json()["total"] == 0


@pytest.mark.parametrize(
    ("provider", "status", "code"),
    [
        ("mistral", 401, "no_key"),
        ("openai", 422, "invalid_request"),
        ("vllm", 422, "invalid_request"),
        ("nope", 422, "invalid_request"),
    ],
)
def test_the_models_of_a_provider_that_is_not_set_up_are_refused(
    refusing: httpx2.Client, provider: str, status: int, code: str
) -> None:
    error = error_of(refusing.get("/models", params={"provider": provider}), status)
    assert error["code"] == code and provider in error["message"]


@pytest.mark.parametrize(
    "body", [b'{"message": "\xff"}', b"[" * 100_000, b'{"message": "x", "seed": ' + b"9" * 5000 + b"}"]
)
def test_a_body_that_cannot_be_decoded_is_no_valid_json(refusing: httpx2.Client, body: bytes) -> None:
    error = error_of(refusing.post("/chat", content=body, headers=JSON), 400)
    assert error["code"] == "invalid_request" and "JSON" in error["message"]


@pytest.mark.parametrize("field", ["message", "chat_id", "model"])
def test_text_that_is_no_unicode_is_refused(client: httpx2.Client, field: str) -> None:
    body = orjson.dumps(STREAM | {field: "AAAA"}).replace(b"AAAA", rb"stream \ud800")
    error = error_of(client.post("/chat", content=body, headers=JSON), 422)
    assert error["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/chat", 405, "method_not_allowed"),
        ("PUT", "/chats", 405, "method_not_allowed"),
        ("GET", "/chat/chat_0", 404, "not_found"),
        ("GET", "/chat/%ff%00%22", 404, "not_found"),
        ("GET", "/chat/" + "x" * 2000, 404, "not_found"),
    ],
)
def test_a_wrong_address_or_method_is_an_error_in_the_one_shape(
    refusing: httpx2.Client, method: str, path: str, status: int, code: str
) -> None:
    assert error_of(refusing.request(method, path), status)["code"] == code


def test_a_wrong_method_is_told_the_right_one(refusing: httpx2.Client) -> None:
    assert refusing.get("/chat").headers["allow"] == "POST"


async def test_an_error_that_is_not_foreseen_has_the_one_shape(
    service: ChatService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docstral.api.metrics.totals", lambda store: 1 / 0)
    transport = httpx2.ASGITransport(create_api(service), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        reply = await client.get("/metrics")
    error = error_of(reply, 500)
    assert error["code"] == "internal" and "division" not in error["message"]
    assert reply.headers["connection"] == "close"  # as the server does: a pool of connections has to know


async def test_before_the_index_is_loaded_there_is_503(settings: Settings, store: Store) -> None:
    transport = httpx2.ASGITransport(create_api(ChatService(settings, store)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "starting")
        refused = await client.post("/chat", json=STREAM)
        assert error_of(refused, 503)["code"] == "starting" and "retry-after" in refused.headers


def test_health_says_what_runs(client: httpx2.Client) -> None:
    reply = client.get("/health")
    assert reply.status_code == 200
    status = reply.json()
    assert {"version", "model", "embedder"} <= set(status)
    assert (status["status"], status["provider"], status["pages"]) == ("ok", "extractive", 4)
    assert status["chunks"] >= 4


def test_metrics_count_answers_errors_tokens_and_cost(client: httpx2.Client, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["So [1]."], usage=(1000, 100)), refusal(422))
    ask(client)
    ask(client, key="k")
    assert client.get("/metrics").json()["cost"] == pytest.approx(0.00021)
    assert ask(client, key="k")[-1][0] == "error"
    figures = client.get("/metrics").json()
    assert (figures["total"], figures["errors"]) == (3, 1)
    assert figures["error_rate"] == pytest.approx(1 / 3)
    assert figures["tokens"]["in"] >= 1000
    assert figures["outcomes"] == {"cited": 2, "error": 1}
    assert 0 < figures["latency"]["average"] <= figures["latency"]["p95"]


def test_a_refused_request_costs_nothing(client: httpx2.Client, mistral: ScriptedMistral) -> None:
    mistral.script(refusal(401, "no"))
    ask(client, key="k")
    figures = client.get("/metrics").json()
    assert (figures["cost"], figures["tokens"]) == (0, {"in": 0, "out": 0})


def test_each_visitor_sees_only_their_own_chats(client: httpx2.Client, stranger: httpx2.Client) -> None:
    chat = ask(client)[0][1]["chat_id"]
    assert stranger.get("/chats").json() == {"chats": []}
    assert error_of(stranger.get(f"/chat/{chat}"), 404)["code"] == "not_found"
    assert error_of(stranger.post("/chat", json=STREAM | {"chat_id": chat}), 404)["code"] == "not_found"
    assert len(client.get(f"/chat/{chat}").json()["messages"]) == 2


def test_the_cookie_is_private_and_set_once(client: httpx2.Client) -> None:
    first = client.get("/chats")
    cookie = SimpleCookie(first.headers["set-cookie"])["docstral_session"]
    assert cookie["httponly"] and cookie["samesite"].lower() == "lax" and cookie["path"] == "/"
    assert len(cookie.value) >= 40 and int(cookie["max-age"]) > 0
    assert "set-cookie" not in client.get("/chats").headers


def test_the_cookie_is_kept_within_the_frame_of_a_space(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/docstral")
    with Live(create_api(ChatService(settings, store))) as live:
        cookie = httpx2.get(f"{live.url}/chats", trust_env=False).headers["set-cookie"]
    assert cookie.endswith("; SameSite=None; Secure; Partitioned") and "HttpOnly" in cookie


def test_no_visitor_can_choose_another_ones_name(client: httpx2.Client, stranger: httpx2.Client) -> None:
    for made_up in ("ada", "", "x" * 500, '"', "a" * 42):
        reply = stranger.get("/chats", headers={"cookie": f"docstral_session={made_up}"})
        assert reply.status_code == 200 and "set-cookie" in reply.headers


def test_monitors_get_no_cookie(refusing: httpx2.Client) -> None:
    assert "set-cookie" not in refusing.get("/health").headers
    assert "set-cookie" not in refusing.get("/metrics").headers


@pytest.mark.parametrize("other", ['prefs={"a":1}', "a b=1", "x", "name=é".encode().decode("latin-1")])
def test_cookies_of_other_apps_do_not_hide_ours(client: httpx2.Client, stranger: httpx2.Client, other: str) -> None:
    ask(client)
    cookie = f"{other}; docstral_session={client.cookies['docstral_session']}"
    reply = stranger.get("/chats", headers={"cookie": cookie.encode("latin-1")})
    assert len(reply.json()["chats"]) == 1


def test_hanging_up_stores_what_was_written_and_stops_the_provider(
    client: httpx2.Client, mistral: ScriptedMistral
) -> None:
    gate = Gate()
    mistral.script(Reply(["Kept. ", "And ", gate, "never"]))
    text = ""
    with client.stream("POST", "/chat", json=STREAM, headers={"x-mistral-api-key": "k"}) as reply:
        for piece in reply.iter_text():
            text += piece
            if "And" in text:
                break
    mistral.wait_until(lambda: mistral.disconnects == 1 and mistral.active == 0)
    [chat] = eventually(lambda: client.get("/chats").json()["chats"])
    answer = client.get(f"/chat/{chat['id']}").json()["messages"][-1]
    assert (answer["content"], answer["outcome"]) == ("Kept. And", "stopped")
    assert answer["receipt"]["finish_reason"] == "stopped"
    gate.open()


def test_many_visitors_at_once_each_get_their_own_answer(live: str, mistral: ScriptedMistral) -> None:
    mistral.answer = lambda body: Reply([body["messages"][-1]["content"].split("\n")[0], " [1]."])

    def visit(number: int) -> None:
        with httpx2.Client(base_url=live, timeout=DEADLINE, trust_env=False) as client:
            question = f"How do I stream chat {number}?"
            events = ask(client, key=f"key-{number}", message=question)
            assert events[-1][1]["text"] == f"{question} [1]."
            [chat] = client.get("/chats").json()["chats"]
            assert chat["title"] == question

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(visit, range(24)))
    for seen in mistral.chats:
        number = seen.headers["authorization"].removeprefix("Bearer key-")
        assert f"chat {number}?" in seen.body["messages"][-1]["content"]


def test_bytes_that_are_no_http_do_no_harm(refusing: httpx2.Client) -> None:
    with socket.create_connection((refusing.base_url.host, refusing.base_url.port or 0), DEADLINE) as raw:
        raw.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert b"400" in raw.recv(1000)
    assert refusing.get("/health").status_code == 200


def test_nothing_is_loaded_from_elsewhere(refusing: httpx2.Client) -> None:
    assert refusing.get("/docs").status_code == refusing.get("/redoc").status_code == 404
    schema = refusing.get("/openapi.json").json()
    assert {"/chat", "/chats", "/chat/{chat_id}", "/health", "/metrics"} <= set(schema["paths"])


def test_an_index_that_cannot_be_loaded_is_told(settings: Settings, store: Store, tmp_path: Path) -> None:
    told: list[Exception | None] = []
    loaded = threading.Event()

    def note(error: Exception | None) -> None:
        told.append(error)
        loaded.set()

    app = create_app(ChatService(settings.but(docs=(tmp_path / "nowhere",)), store), note, web=False)
    with Live(app) as server, httpx2.Client(base_url=server.url, trust_env=False) as client:
        assert loaded.wait(DEADLINE) and "nowhere" in str(told[0])
        health = client.get("/health")
        assert health.status_code == 503 and health.json()["status"] == "failed"
        assert "nowhere" in error_of(client.post("/chat", json=STREAM), 422)["message"]


async def test_streams_end_when_the_server_is_stopped(
    settings: Settings, store: Store, mistral: ScriptedMistral
) -> None:
    gate = Gate()
    mistral.script(Reply(["Kept. ", gate]))
    service = ChatService(settings, store)
    service.load()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    with httpx2.Client(timeout=DEADLINE, trust_env=False) as client:
        with Live(create_api(service, lifespan=lifespan)) as server:
            body = {"json": STREAM, "headers": {"x-mistral-api-key": "k"}}
            with client.stream("POST", f"{server.url}/chat", **body) as reply:
                for piece in reply.iter_text():
                    if "Kept" in piece:
                        break
        gate.open()
    store.flush()
    [(outcome,)] = store.read("SELECT outcome FROM requests")
    assert outcome == "stopped"


def test_a_search_is_explained_over_http(refusing: httpx2.Client) -> None:
    found = refusing.get("/search", params={"q": STREAM["message"], "k": 2, "explain": "true"}).json()
    assert [part["id"] for part in found["explanation"]["parts"] if part["number"]] == [
        passage["id"] for passage in found["passages"]
    ]
    assert "explanation" not in refusing.get("/search", params={"q": STREAM["message"]}).json()


@pytest.mark.parametrize(
    "body", [b'{"message": "Hi", "\\ud800": 1}', b'{"message": "Hi", "history": [{"role": "\\ud800", "content": "a"}]}']
)
def test_half_a_character_in_the_name_of_a_field_is_refused(client: httpx2.Client, body: bytes) -> None:
    reply = client.post("/chat", content=body, headers={"content-type": "application/json"})
    assert reply.status_code in (400, 422) and reply.json()["error"]["code"] == "invalid_request"


def test_half_a_character_in_a_history_is_refused(client: httpx2.Client) -> None:
    turns = b'[{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "a"}]'
    body = b'{"message": "How do I stream it?", "history": ' + turns + b"}"
    reply = client.post("/chat", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 422 and reply.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.4, "1"), (1.2, "2"), (5.0, "5")])
@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions", "/mcp"])
def test_who_is_told_to_come_back_is_told_in_whole_seconds(path: str, seconds: float, header: str) -> None:
    request = Request({"type": "http", "method": "POST", "path": path, "headers": []})
    refused = error_reply(request, BusyError("All places are taken.", retry_after=seconds))
    assert (refused.headers["retry-after"], orjson.loads(refused.body)["error"]["retry_after"]) == (header, seconds)
