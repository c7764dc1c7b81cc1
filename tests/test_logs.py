"Logs: one line for each request and answer, with the id that the reply has; no key and no question."

import io
import json
import logging
from collections.abc import Iterator

import httpx2
import pytest
from helpers import DEADLINE
from mistral_server import Reply, ScriptedMistral

from docstral.api.app import create_api
from docstral.chat import ChatService
from docstral.logs import JsonLines, TextLines, configure


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    "What DocStral logs, as JSON; its loggers are as they were afterwards."
    log = logging.getLogger("docstral")
    before = log.handlers, log.propagate, log.level
    configure("json")
    stream = io.StringIO()
    log.handlers[0].setStream(stream)  # type: ignore[attr-defined]
    yield stream
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])


def client_of(service: ChatService) -> httpx2.AsyncClient:
    "A client of the API in this process."
    transport = httpx2.ASGITransport(create_api(service))
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=DEADLINE)


async def test_a_request_and_its_answer_have_the_id_of_the_reply(
    service: ChatService, mistral: ScriptedMistral, written: io.StringIO
) -> None:
    mistral.script(Reply(["Set stream [1]."]))
    async with client_of(service) as client:
        body = {"message": "How do I stream a purple elephant chat completion?"}
        reply = await client.post("/chat", json=body, headers={"x-mistral-api-key": "k-secret"})
    answer, request = (json.loads(line) for line in written.getvalue().splitlines())
    assert answer["message"] == "answer cited" and request["message"] == "POST /chat" and request["status"] == 200
    assert answer["request_id"] == request["request_id"] == reply.headers["x-request-id"]
    assert "elephant" not in written.getvalue() and "k-secret" not in written.getvalue()


async def test_a_search_leaves_its_question_out(service: ChatService, written: io.StringIO) -> None:
    async with client_of(service) as client:
        reply = await client.get("/search?q=purple+elephant")
        missing = await client.get("/chat/chat_of_another")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["GET /search", "GET /chat/{chat_id}"] and reply.status_code == 200
    assert "elephant" not in written.getvalue()
    assert lines[1]["request_id"] == missing.json()["error"]["request_id"]


@pytest.mark.parametrize("kind", [TextLines, JsonLines])
def test_an_exception_is_logged_with_its_traceback(kind: type[logging.Formatter]) -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    line = kind().format(logging.LogRecord("docstral", logging.ERROR, "", 0, "it failed", (), info))
    assert "it failed" in line and "Traceback" in line and "ValueError: broken" in line
