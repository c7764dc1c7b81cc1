"Connections on which nothing is asked, too slowly or not at all; and those that are only slow."

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx2
import pytest
from helpers import DEADLINE, Live, ready
from mistral_server import Gate, Reply, ScriptedMistral
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from docstral import connections
from docstral.chat import ChatService
from docstral.errors import ServerError
from docstral.settings import Settings
from docstral.store import Store

HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
PART = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Padding: "


@pytest.fixture
def live(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    "The API over HTTP, with a key and half a second for headers."
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    with ready(ChatService(settings.but(mistral_api_key="k"), store)) as live:
        yield live


def connect(live: Live) -> socket.socket:
    return socket.create_connection(("127.0.0.1", live.port), timeout=DEADLINE)


def told(raw: socket.socket) -> bytes:
    "All that the server still says, until it closes the connection."
    return b"".join(iter(lambda: raw.recv(65_536), b""))


def asked(raw: socket.socket, *pieces: bytes) -> bytes:
    "The reply to a question that comes in these pieces."
    for piece in pieces:
        raw.sendall(piece)
        time.sleep(0.02)
    reply = b""
    while not reply.endswith(b"}"):
        reply += raw.recv(65_536)
    return reply


def drip(raw: socket.socket, live: Live) -> bytes:
    "What the server says to one who sends a byte now and then, when it has enough. Others are served meanwhile."
    ends, served = time.monotonic() + DEADLINE, 0
    with httpx2.Client(base_url=live.url, timeout=DEADLINE, trust_env=False) as other:
        while not select.select([raw], [], [], 0.05)[0]:
            assert time.monotonic() < ends, "nobody ended it"
            raw.sendall(b"x")
            assert other.get("/health").status_code == 200
            served += 1
    assert served
    return told(raw)


@pytest.mark.parametrize("cuts", [[], [1], [1, 2]], ids=["whole", "in two", "in three"])
def test_a_body_arrives_beside_an_offer_of_another_protocol(live: Live, cuts: list[int]) -> None:
    head, body = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 14\r\n", b'{"model": "x"}'
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
    parts = [head, offer, body]
    sent = [b"".join(parts[start:end]) for start, end in zip([0, *cuts], [*cuts, 3], strict=True)]
    with connect(live) as raw:
        for _ in range(2):  # the connection is as good as before
            reply = asked(raw, *sent)
            assert reply.startswith(b"HTTP/1.1 400") and b"messages: Field required" in reply


def test_headers_that_drip_are_not_waited_for_and_others_are_served(live: Live) -> None:
    with connect(live) as raw:
        raw.sendall(PART)
        assert drip(raw, live).startswith(b"HTTP/1.1 408")


def test_headers_that_drip_after_an_answer_are_not_waited_for_either(live: Live) -> None:
    with connect(live) as raw:
        assert asked(raw, HEALTH).startswith(b"HTTP/1.1 200")
        raw.sendall(PART)
        assert drip(raw, live).startswith(b"HTTP/1.1 408")


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(live: Live) -> None:
    with connect(live) as raw:
        assert told(raw) == b""  # a browser that opened it ahead would take a word for the reply to what it asks


def test_who_is_slow_within_the_limit_is_served_again_and_again(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", DEADLINE)
    with connect(live) as raw:
        for _ in range(3):
            assert asked(raw, HEALTH[:3], HEALTH[3:20], HEALTH[20:-1], HEALTH[-1:]).startswith(b"HTTP/1.1 200")


def test_an_answer_may_take_longer_than_headers(live: Live, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply(["Set `stream` ", gate, "to true [1]."]))
    opening = threading.Timer(2 * connections.HEADER_SECONDS, gate.open)
    with httpx2.stream(
        "POST", f"{live.url}/chat", json={"message": "How do I stream a chat completion?"}, timeout=DEADLINE
    ) as reply:
        gate.reached()
        opening.start()
        assert '"text":"Set `stream` to true [1]."' in reply.read().decode()
    opening.join()


@pytest.mark.parametrize(
    "unsaid", [b"", PART, b"POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\n{"]
)
def test_where_too_many_are_awaited_the_first_of_them_go(
    live: Live, monkeypatch: pytest.MonkeyPatch, mistral: ScriptedMistral, unsaid: bytes
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", DEADLINE)
    monkeypatch.setattr(connections, "most_awaited", lambda: 20)
    gate = Gate()
    mistral.script(Reply(["Set `stream` ", gate, "to true [1]."]))
    body = b'{"message": "How do I stream a chat completion?"}'
    with ExitStack() as held:
        asking = held.enter_context(connect(live))  # an answer is not awaited, however long it takes
        asking.sendall(BEGUN + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        gate.reached()
        silent = []
        for _ in range(60):
            silent.append(held.enter_context(connect(live)))
            silent[-1].sendall(unsaid)
        with connect(live) as other:
            assert asked(other, HEALTH).startswith(b"HTTP/1.1 200")
        for raw in silent[:40]:
            with suppress(ConnectionResetError):
                assert raw.recv(1) == b""
        assert not select.select(silent[41:], [], [], 0)[0]
        gate.open()
        assert b"event: done" in told(asking)


BEGUN = b"POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Padding: ",
        b"GET /",
        BEGUN + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX-Trailer: ",
        BEGUN + b"Transfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["headers", "address", "trailers", "chunk extensions"],
)
def test_what_has_no_end_is_not_read_on(live: Live, monkeypatch: pytest.MonkeyPatch, begin: bytes) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", DEADLINE)
    with connect(live) as raw:
        raw.sendall(begin)
        with pytest.raises(OSError):  # closed long before
            for _ in range(1_000):
                raw.sendall(b"x" * 65_536)


def test_headers_without_end_behind_an_answer_that_runs_end_the_connection(
    live: Live, mistral: ScriptedMistral
) -> None:
    gate = Gate()
    mistral.script(Reply(["Set `stream` ", gate, "to true [1]."]))
    body = b'{"message": "How do I stream a chat completion?"}'
    with connect(live) as raw:
        raw.sendall(BEGUN + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        gate.reached()
        with pytest.raises(OSError):
            raw.sendall(PART)
            for _ in range(1_000):
                raw.sendall(b"x" * 65_536)
        gate.open()


def test_what_comes_after_a_body_is_no_header(live: Live) -> None:
    with connect(live) as raw:
        raw.sendall(BEGUN + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n")
        raw.sendall(b"Host: evil.example\r\n\r\n")
        assert told(raw).startswith(b"HTTP/1.1 422")  # the body was read, and says nothing


def test_a_client_of_ipv4_has_its_own_address_where_the_server_listens_on_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1")

    async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(scope["client"][0])(scope, receive, send)

    try:
        both = Live(whoami, "::")
    except ServerError:
        pytest.skip("this machine has no IPv6")
    with both, httpx2.Client(base_url=both.url, trust_env=False, timeout=DEADLINE) as client:
        assert client.get("/").text == "127.0.0.1"
        assert client.get("/", headers={"x-forwarded-for": "203.0.113.7"}).text == "203.0.113.7"
        assert client.get(f"http://[::1]:{both.port}/", headers={"x-forwarded-for": "203.0.113.7"}).text == "::1"
