"What strangers, other sites and broken clients try over HTTP: nobody reads or changes what is another's."

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from helpers import DEADLINE, DOCSTRAL, ROOT, Live, docstral, eventually, read_events, ready
from hostile import HOSTILE
from markdown_it import MarkdownIt
from mistral_server import Gate, Reply, ScriptedMistral, refusal
from starlette.routing import Mount, Route

from docstral.api import guard
from docstral.api.http import OtherMethods
from docstral.chat import ChatService
from docstral.serve import create_app
from docstral.settings import Settings
from docstral.store import Store
from docstral.web.actions import ACTIONS
from docstral.web.ui import build_blocks

SECRET = "Xyzzyplugh"  # a word of Ada's that nobody else may see
QUESTION = f"{SECRET}: How do I stream a chat completion?"
NAMES = re.compile(r"\{[^}]*\}")


class App:
    "The whole application over HTTP, and its readers."

    def __init__(self, url: str, app: FastAPI, mistral: ScriptedMistral, store: Store):
        self.url, self.app, self.mistral, self.store = url, app, mistral, store
        self.clients: list[httpx2.Client] = []

    def reader(self, **headers: str) -> httpx2.Client:
        "A browser with a cookie of its own."
        client = httpx2.Client(base_url=self.url, timeout=DEADLINE, trust_env=False, headers=headers)
        client.get("/chats").raise_for_status()
        self.clients.append(client)
        return client


@pytest.fixture(scope="module")
def shop(indexed: Path, pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    "The application with its pages, as it runs on a reader's own machine; a scripted model answers."
    data = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("secure") / "data"))
    with ScriptedMistral() as mistral, Store(data / "docstral.duckdb") as store:
        settings = Settings(data_dir=data, docs=(pages,), mistral_url=mistral.url, mistral_api_key="k")
        with ready(ChatService(settings, store), web=True) as server:
            made = App(server.url, server.app, mistral, store)
            yield made
            for client in made.clients:
                client.close()


@pytest.fixture
def ada(shop: App) -> httpx2.Client:
    "A reader with a chat."
    return shop.reader()


@pytest.fixture
def eve(shop: App) -> httpx2.Client:
    "Another one, who wants to see it."
    return shop.reader()


def asked(client: httpx2.Client, text: str = QUESTION) -> tuple[str, str]:
    "The ids of the chat and of the answer to a question."
    events = read_events(client.post("/chat", json={"message": text}).text)
    assert events[-1][0] == "done", events[-1]
    return events[0][1]["chat_id"], events[0][1]["message_id"]


# Every address. A new one has to come into this table, with what a stranger would try there and may get.
Tried = tuple[dict[str, Any], set[int]]
STRANGER: dict[str, Tried] = {
    "POST /chat": ({"json": {"message": "And?", "chat_id": "CHAT"}}, {404}),
    "GET /chats": ({"params": {"q": SECRET}}, {200}),
    "GET /chat/{chat_id}": ({}, {404}),
    "PATCH /chat/{chat_id}": ({"json": {"title": "Mine"}}, {404}),
    "DELETE /chat/{chat_id}": ({}, {404}),
    "POST /chat/{chat_id}/restore": ({}, {404}),
    "GET /chat/{chat_id}/export": ({"params": {"format": "json"}}, {404}),
    "POST /chats/import": ({"content": b'{"id": "CHAT"}'}, {422}),
    "POST /message/{message_id}/feedback": ({"json": {"rating": -1, "comment": "mine"}}, {404}),
    "GET /message/{message_id}/reproduce": ({}, {404}),
    "GET /message/{message_id}/explain": ({}, {404}),
    "GET /search": ({"params": {"q": SECRET}}, {200}),
    "GET /health": ({}, {200}),
    "GET /metrics": ({}, {200}),
    "POST /snapshot": ({"headers": {"authorization": "Bearer guess"}}, {404}),
    "GET /models": ({}, {200}),
    "POST /v1/chat/completions": ({"json": {"messages": [{"role": "user", "content": "CHAT"}]}}, {200}),
    "GET /v1/models": ({}, {200}),
    "GET /openapi.json": ({}, {200}),
    "GET /demo.mp4": ({"headers": {"range": "bytes=0-0"}}, {206}),
    "POST /mcp": ({"json": {}}, {400, 406, 422}),
    "GET /mcp": ({}, {405}),
    "DELETE /mcp": ({}, {405}),
}


def addresses(found: list[Any]) -> Iterator[str]:
    "Every method and path of a route table; what is mounted has a test of its own."
    for route in found:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from addresses(inner.routes)
        elif isinstance(route, Route | APIRoute) and not isinstance(route.endpoint, OtherMethods):
            for method in (route.methods or {"GET", "POST", "DELETE"}) - {"HEAD", "OPTIONS"}:
                yield f"{method} {route.path}"
        elif not isinstance(route, Route | APIRoute | Mount):
            raise AssertionError(f"a route of a kind that this test does not know: {route}")


def test_a_stranger_gets_nothing_at_any_address(shop: App, ada: httpx2.Client, eve: httpx2.Client) -> None:
    chat, message = asked(ada)
    before = ada.get(f"/chat/{chat}/export?format=json").content
    there = set(addresses(shop.app.routes))
    assert there - set(STRANGER) == set(), "addresses without a check"
    assert set(STRANGER) - there <= {"GET /demo.mp4", "POST /mcp", "GET /mcp", "DELETE /mcp"}, (
        "checks without an address"
    )
    for address in sorted(there, key=lambda each: each.startswith("DELETE")):
        request, statuses = STRANGER[address]
        method, path = address.split()
        path = path.replace("{chat_id}", chat).replace("{message_id}", message)
        body = json.loads(json.dumps(request.get("json")).replace("CHAT", chat))
        reply = eve.request(method, path, **request | ({"json": body} if body is not None else {}))
        assert reply.status_code in statuses, f"{address}: {reply.status_code} {reply.text}"
        assert SECRET not in reply.text.replace(path, ""), address
    assert ada.get(f"/chat/{chat}/export?format=json").content == before, "the chat is as it was"


def test_deleting_restoring_and_replacing_are_for_the_owner(ada: httpx2.Client, eve: httpx2.Client) -> None:
    chat, message = asked(ada)
    mine, _ = asked(eve, "How do I embed?")
    for attempt in (
        {"chat_id": mine, "replaces": message},
        {"replaces": message},
        {"chat_id": chat, "replaces": message},
    ):
        reply = eve.post("/chat", json={"message": "Mine now", **attempt})
        assert reply.status_code in (404, 422), reply.text
    ada.delete(f"/chat/{chat}").raise_for_status()
    assert eve.post(f"/chat/{chat}/restore").status_code == 404
    assert ada.post(f"/chat/{chat}/restore").status_code == 200
    assert len(ada.get(f"/chat/{chat}").json()["messages"]) == 2


def test_ids_and_cookies_cannot_be_guessed(shop: App, ada: httpx2.Client) -> None:
    ids = [asked(ada) for _ in range(3)]
    random = [part[-16:] for pair in ids for part in pair]
    assert len(set(random)) == 6 and all(re.fullmatch(r"[0-9a-f]{16}", part) for part in random), "64 random bits each"
    cookies = [shop.reader().cookies["docstral_session"] for _ in range(3)]
    assert len(set(cookies)) == 3 and all(len(cookie) == 43 for cookie in cookies), "256 random bits in base 64"


# --- Gradio's events


class Tab:
    "A browser tab as Gradio's own script speaks for it."

    def __init__(self, client: httpx2.Client, session: str):
        self.client, self.session = client, session
        self.config = client.get("/config").json()
        self.events = {event["id"]: event for event in self.config["dependencies"] if event["backend_fn"]}

    def named(self, part: str, trigger: str) -> int:
        "The event of a part of the screen."
        components = {each["id"]: each["props"].get("elem_id") for each in self.config["components"]}
        found = [
            number
            for number, event in self.events.items()
            for component, name in event["targets"]
            if name == trigger and (components.get(component) == part or not part)
        ]
        return int(found[0])

    def body(self, number: int, data: list[Any], event: Any = None) -> dict[str, Any]:
        "What is sent for an event."
        return {"fn_index": number, "data": data, "event_data": event, "session_hash": self.session, "trigger_id": None}

    def run(self, number: int, data: list[Any], event: Any = None) -> httpx2.Response:
        "An event with one reply."
        return self.client.post("/gradio_api/run/predict", json=self.body(number, data, event))

    def join(self, number: int, data: list[Any]) -> httpx2.Response:
        "An event whose replies stream."
        return self.client.post("/gradio_api/queue/join", json=self.body(number, data))

    def stream(self) -> str:
        "What streams to this tab, to its end."
        return self.client.get("/gradio_api/queue/data", params={"session_hash": self.session}).text

    def ask(self, text: str = QUESTION) -> str:
        "Ask; gives the token by which the answer is followed."
        reply = self.run(self.named("question", "submit"), [text, "", ""])
        return next(found for found in re.findall(r"look_\w+", reply.text))


def forged(chat: str, message: str) -> list[dict[str, str]]:
    "Event data for each action, with another reader's ids."
    fields = {
        "chat": chat,
        "message": message,
        "q": SECRET,
        "title": "Mine",
        "rating": "1",
        "comment": "mine",
        "n": "1",
    }
    fields |= {"growing": message, "question": "", "open": "True", "name": "rag", "value": "", "opened": "yes"}
    return [fields | {"act": act} for act in ACTIONS if act not in ("key", "forget")]


def test_a_stranger_gets_nothing_from_any_event_of_the_web_app(
    shop: App, ada: httpx2.Client, eve: httpx2.Client
) -> None:
    chat, message = asked(ada)
    before = ada.get(f"/chat/{chat}/export?format=json").content
    gate = Gate()
    shop.mistral.script(Reply([f"{SECRET} one ", gate, f"{SECRET} two."]))
    own, theirs = Tab(ada, "samesession"), Tab(eve, "samesession")  # as if Eve knew the name of Ada's session
    token = own.ask()
    follow = next(number for number, event in own.events.items() if event["queue"])
    own.join(follow, [token]).raise_for_status()
    shop.mistral.wait_until(lambda: shop.mistral.active > 0)

    seen = []
    assert set(theirs.events) == set(own.events) and len(theirs.events) >= 8
    for number, event in theirs.events.items():
        inputs = [chat] * len(event["inputs"])
        if event["queue"]:
            theirs.join(number, [token]).raise_for_status()
            seen.append(theirs.stream())
            continue
        for data in (inputs, [message] * len(inputs), [token] * len(inputs)):
            for fields in forged(chat, message) if number == theirs.named("bridge", "act") else [None]:
                reply = theirs.run(number, data, fields)
                assert reply.status_code == 200, f"{event['targets']} {fields}: {reply.text}"
                seen.append(reply.text)
    for text in seen:
        assert f"{SECRET} " not in text and "mine\\" not in text, text[:2000]
    assert ada.get(f"/chat/{chat}/export?format=json").content == before, "the chat is as it was"
    gate.open()
    assert f"{SECRET} two." in own.stream(), "nobody stopped the answer or took its stream"


def test_forged_events_are_refused_or_change_nothing(
    shop: App, eve: httpx2.Client, capfd: pytest.CaptureFixture[str]
) -> None:
    tab = Tab(eve, "evesession")
    bridge, submit = tab.named("bridge", "act"), tab.named("question", "submit")
    odd: list[Any] = [
        1,
        "text",
        [1],
        {"act": 1},
        {"act": ["open"]},
        {"act": "rate", "rating": "x", "message": "m"},
        {"act": "open", "chat": {"a": 1}},
        {"act": "metrics", "window": "'; DROP TABLE"},
        {"act": "__class__"},
        {"act": "reproduce", "form": "../../x", "message": "m"},
        {"act": "cite", "n": "1'><b>"},
    ]
    for event in odd:
        assert tab.run(bridge, [""], event).status_code == 200, event
        assert tab.run(bridge, [{"a": 1}], event).status_code == 200, event
        assert tab.run(bridge, [None], event).status_code == 200, event
    for data in ([None, None, None], [1, 2, 3], [{}, [], {}], ["x", "../..", "\x00"]):
        assert tab.run(submit, data).status_code == 200, data
    for minutes in ("9" * 30, "-1441", "x", "nan", "٣"):
        eve.cookies["docstral_offset"] = minutes.encode("ascii", "replace").decode()
        assert tab.run(bridge, [""], {"act": "find"}).status_code == 200, minutes
    assert "Traceback" not in "".join(capfd.readouterr())
    for body in (b"", b"[]", b"{}", b'{"data": {}}', b"\xff", b'{"data": [], "session_hash": "../x"}', b'{"data": []}'):
        for path in ("/gradio_api/run/predict", "/gradio_api/queue/join"):
            assert eve.post(path, content=body).status_code == 422, (path, body)
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    assert tab.run(bridge, [deep]).status_code == 422, "Gradio could not read it"
    events = eve.get("/config").json()["dependencies"]
    only_in_the_browser = [event["id"] for event in events if not event["backend_fn"]]
    assert only_in_the_browser
    for number in only_in_the_browser:
        assert tab.run(number, []).status_code == 422, number
    for number in (-1, 10_000, "x", None):
        assert tab.run(number, []).status_code == 422, number  # type: ignore[arg-type]
    assert tab.run(submit, []).status_code == 422 and tab.run(submit, [""] * 99).status_code == 422
    for query in ("", "?session_hash=", "?session_hash=..%2f", "?session_hash=a&session_hash=b"):
        assert eve.get(f"/gradio_api/queue/data{query}").status_code == 422, query


# --- Gradio's addresses

NEEDED = {
    "/",
    "/theme.css",
    "/favicon.ico",
    "/robots.txt",
    "/config",
    "/assets/{path:path}",
    "/static/{path:path}",
    "/gradio_api/app_id",
    "/gradio_api/queue/data",
    "/gradio_api/queue/join",
    "/gradio_api/run/{api_name}",
    "/openapi.json",  # the API's own answers there
}


def test_every_address_of_gradio_that_the_page_does_not_need_is_closed(shop: App, eve: httpx2.Client) -> None:
    found = set(addresses(shop.app.state.pages.routes))
    assert len(found) > 60 and {address.split()[1] for address in found} >= NEEDED, "Gradio's routes are looked at"
    for address in found:
        method, path = address.split()
        if path not in NEEDED:
            reply = eve.request(method, NAMES.sub("x", path))
            assert reply.status_code == 404, f"{address}: {reply.status_code}"
            assert reply.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://huggingface.co/x",
        "/gradio_api/proxy=http://127.0.0.1:9/x",
        "/gradio_api/file=https://example.org/",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/stream/x/0/1/playlist.m3u8",
        "/gradio_api/heartbeat/x",
        "/gradio_api/run/on_ask",
        "/gradio_api/info",
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/runs",
        "/gradio_api/queue/status",
        "/gradio_api/upload_progress?upload_id=x",
        "/gradio_api/openapi.json",
        "/monitoring",
        "/login",
        "/logout",
        "/docs",
        "/svelte/index.js",
        "/static/../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static/js/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static/js/..%5c..%5cetc%5cpasswd",
        "/static/%252e%252e%252fetc/passwd",
        "/assets/..%2findex.html",
        "/assets//etc/passwd",
        "/assets/%00",
        "/assets/x%00.js",
        "/.env",
        "/settings.ini",
        "/docstral.duckdb",
        "/chat/..%2f..%2fetc%2fpasswd",
        "/chat/%00",
        "/chat/../chats/x",
        "/chat/x%0d%0aset-cookie:%20a=b/export",
        "/message/%2e%2e%2fx/explain",
        "/message/x%00y/reproduce",
        "/mcp/../../etc/passwd",
        "/index/x",
        "//etc/passwd",
    ],
)
def test_no_path_leads_out_or_to_another_server(shop: App, path: str) -> None:
    with socket.create_connection(("127.0.0.1", int(shop.url.rpartition(":")[2])), timeout=DEADLINE) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())  # as it stands
        reply = b"".join(iter(lambda: raw.recv(65_536), b""))
    status = int(reply.split()[1])
    assert status in (400, 404, 405), reply[:300]
    assert b"root:" not in reply and b"\r\nset-cookie: a=b" not in reply.lower()


# --- Hosts, pages of other sites


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "192.168.0.1",
        "evil",
        "a@localhost",
        "localhost:80:80",
    ],
)
def test_a_name_that_is_not_the_apps_is_refused(shop: App, host: str) -> None:
    for name in ("host", "x-forwarded-host"):
        reply = httpx2.get(f"{shop.url}/chats", headers={name: host}, trust_env=False)
        assert reply.status_code == 421 and reply.json()["error"]["code"] == "unknown_host"
        assert "set-cookie" not in reply.headers or SECRET not in reply.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST:1234"])
def test_this_machines_names_are_answered(shop: App, host: str) -> None:
    assert httpx2.get(f"{shop.url}/health", headers={"host": host}, trust_env=False).status_code == 200


CHANGING = [address for address in STRANGER if not address.startswith("GET")]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ],
    ids=lambda headers: " ".join(headers.values()),
)
def test_a_page_of_another_site_can_change_nothing(shop: App, ada: httpx2.Client, headers: dict[str, str]) -> None:
    chat, message = asked(ada)
    before = ada.get(f"/chat/{chat}/export?format=json").content
    for address in [*CHANGING, "POST /gradio_api/run/predict", "POST /gradio_api/queue/join"]:
        method, path = address.split()
        path = path.replace("{chat_id}", chat).replace("{message_id}", message)
        reply = ada.request(method, path, headers=headers, content=b'{"message": "x"}')
        assert reply.status_code == 403 and reply.json()["error"]["code"] == "foreign_page", address
        assert "access-control-allow-origin" not in reply.headers
    preflight = {"access-control-request-method": "DELETE", **headers}
    assert ada.options(f"/chat/{chat}", headers=preflight).status_code == 403
    assert ada.get(f"/chat/{chat}/export?format=json").content == before


def test_our_own_page_a_link_and_a_program_are_let_in(shop: App, ada: httpx2.Client) -> None:
    own = {"origin": shop.url, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    assert ada.post("/chat", json={"message": "How?"}, headers=own).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert ada.get("/", headers=link | {"accept": "text/html"}).status_code == 200
    assert ada.get("/chats", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}).status_code == 403
    assert ada.post("/chat", json={"message": "How?"}).status_code == 200


@pytest.fixture
def serving(data_dir: Path, pages: Path, store: Store) -> Iterator[Any]:
    "Serves the API alone with other settings."
    started: list[Live] = []

    def start(**changes: Any) -> str:
        settings = Settings(data_dir=data_dir, docs=(pages,), **changes)
        server = Live(create_app(ChatService(settings, store), web=False))
        started.append(server.__enter__())
        return server.url

    yield start
    for server in started:
        server.__exit__()


def test_pages_that_are_named_may_ask_from_elsewhere_without_a_cookie(serving: Any) -> None:
    url = serving(origins="https://docs.example.org", hosts="docs.example.net")
    there, wish = {"origin": "https://docs.example.org"}, {"access-control-request-method": "POST"}
    allowed = httpx2.options(f"{url}/v1/chat/completions", headers=there | wish, trust_env=False)
    assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == there["origin"]
    reply = httpx2.get(f"{url}/v1/models", headers=there, trust_env=False)
    assert reply.headers["access-control-allow-origin"] == there["origin"] and "Origin" in reply.headers["vary"]
    assert "access-control-allow-credentials" not in reply.headers
    assert httpx2.get(f"{url}/v1/models", headers={"origin": "https://a.example"}, trust_env=False).status_code == 403
    proxied = {"host": "127.0.0.1:7860", "origin": "https://docs.example.net"}  # a proxy that does not hand the name on
    assert httpx2.get(f"{url}/v1/models", headers=proxied, trust_env=False).status_code == 200
    assert httpx2.get(f"{url}/health", headers={"host": "docs.example.net"}, trust_env=False).status_code == 200


def test_over_tls_the_cookie_belongs_to_this_host_alone(shop: App) -> None:
    secure = {"x-forwarded-proto": "https"}
    first = httpx2.get(f"{shop.url}/chats", headers=secure, trust_env=False)
    cookie = first.headers["set-cookie"]
    assert cookie.startswith("__Host-docstral_session=") and all(
        rule in cookie for rule in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/")
    )
    value = cookie.partition(";")[0]
    again = httpx2.get(f"{shop.url}/chats", headers=secure | {"cookie": value}, trust_env=False)
    assert "set-cookie" not in again.headers
    planted = secure | {"cookie": value.removeprefix("__Host-")}  # as a neighbouring domain could set it
    assert "set-cookie" in httpx2.get(f"{shop.url}/chats", headers=planted, trust_env=False).headers


@pytest.mark.parametrize(("trusted", "believed"), [("192.0.2.1", False), ("", False), ("127.0.0.1", True)])
def test_who_is_no_trusted_proxy_is_not_believed_that_the_page_came_over_tls(
    serving: Any, monkeypatch: pytest.MonkeyPatch, trusted: str, believed: bool
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    url = serving()
    for claim in ({"x-forwarded-proto": "https"}, {"x-forwarded-proto": "https", "forwarded": "proto=https"}):
        cookie = httpx2.get(f"{url}/chats", headers=claim, trust_env=False).headers["set-cookie"]
        assert cookie.startswith("__Host-") is believed and ("Secure" in cookie) is believed
    plain = httpx2.get(f"{url}/chats", headers={"forwarded": "proto=https"}, trust_env=False)
    assert "Secure" not in plain.headers["set-cookie"]


# --- Headers of every reply


def test_every_reply_says_what_browsers_may_do_with_it(
    shop: App, ada: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, _ = asked(ada)
    monkeypatch.setattr("docstral.api.metrics.totals", lambda *arguments: 1 / 0)
    asset = re.search(r"assets/index-[\w-]+\.js", ada.get("/", headers={"accept": "text/html"}).text)
    assert asset
    statuses = {}
    for method, path, headers in (
        ("GET", "/", {"accept": "text/html"}),
        ("GET", "/", {}),
        ("GET", f"/{asset[0]}", {}),
        ("GET", "/assets/none.js", {}),
        ("GET", "/theme.css", {}),
        ("GET", "/nowhere", {"accept": "text/html"}),
        ("GET", "/chats", {}),
        ("GET", f"/chat/{chat}/export", {}),
        ("PUT", "/chats", {}),
        ("POST", "/chat", {}),
        ("GET", "/chats", {"host": "evil.example"}),
        ("GET", "/metrics", {}),
    ):
        with ada.stream(method, path, headers=headers) as reply:
            statuses[reply.status_code] = path
            policy = reply.headers["content-security-policy"]
            assert (
                "default-src 'none'" in policy
                and "frame-ancestors 'none'" in policy
                and "unsafe-inline' '" not in policy
            )
            assert "base-uri 'none'" in policy and "form-action 'none'" in policy
            assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["x-frame-options"] == "DENY"
            assert (
                reply.headers["referrer-policy"] == "same-origin" and "camera=()" in reply.headers["permissions-policy"]
            )
            assert path.startswith(("/assets", "/theme")) or reply.headers["cache-control"] == "no-store", path
    assert set(statuses) == {200, 404, 405, 421, 422, 500}, statuses


def test_the_page_runs_its_own_scripts_alone(ada: httpx2.Client) -> None:
    pages = [ada.get("/", headers={"accept": "text/html"}) for _ in range(2)]
    found = [re.findall(r"script-src ([^;]*)", page.headers["content-security-policy"])[0] for page in pages]
    assert found[0] != found[1], "a new number for each page"
    assert all(rules.startswith("'self' 'nonce-") and "unsafe-inline" not in rules for rules in found)
    assert re.findall(r"<script(?! nonce=)", pages[0].text) == [] and "<base" not in pages[0].text


def test_a_space_is_shown_by_the_hub_alone(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/docstral")
    monkeypatch.setenv("SPACE_HOST", "someone-docstral.hf.space")
    url = serving(host="0.0.0.0")
    own = {
        "host": "someone-docstral.hf.space",
        "origin": "https://someone-docstral.hf.space",
        "sec-fetch-site": "same-origin",
    }
    reply = httpx2.post(f"{url}/chats/import", headers=own, content=b"{}", trust_env=False)
    assert reply.status_code == 422
    assert "frame-ancestors https://huggingface.co" in reply.headers["content-security-policy"]
    assert "x-frame-options" not in reply.headers
    framed = {
        "host": own["host"],
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "iframe",
    }
    assert httpx2.get(f"{url}/health", headers=framed, trust_env=False).status_code == 200
    assert httpx2.get(f"{url}/health", headers={"host": "evil.example"}, trust_env=False).status_code == 421


def test_frames_are_a_setting(serving: Any) -> None:
    reply = httpx2.get(f"{serving(frames='https://docs.example.org')}/health", trust_env=False)
    assert "frame-ancestors https://docs.example.org" in reply.headers["content-security-policy"]
    with pytest.raises(Exception, match="an origin is like"):
        Settings(frames=("https://a.example; script-src *",))


# --- Sizes, times, rates


def exchange(url: str, *pieces: bytes, wait: float = 0.0) -> bytes:
    "The reply to a request that is sent in pieces, to the end of the connection."
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=DEADLINE) as raw:
        try:
            for piece in pieces:
                raw.sendall(piece)
                time.sleep(wait)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was told enough
        try:
            return b"".join(iter(lambda: raw.recv(65_536), b""))
        except ConnectionResetError:
            return b"reset"


HEAD = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "path", [b"/chat", b"/chats/import", b"/v1/chat/completions", b"/gradio_api/queue/join", b"/nowhere"]
)
def test_a_body_is_refused_before_it_is_read(shop: App, path: bytes) -> None:
    told = exchange(shop.url, HEAD % path + b"Content-Length: 99000000\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 413") and b"nosniff" in told, "no byte of it was sent"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    limit = guard.LARGEST.get(path.decode(), guard.LARGEST_BODY)
    chunks = [chunk] * (limit // 0x10000 + 2)
    untold = exchange(shop.url, HEAD % path + b"Transfer-Encoding: chunked\r\n\r\n", *chunks)
    assert untold.startswith((b"HTTP/1.1 413", b"reset")), untold[:200]


def test_a_body_that_drips_is_not_waited_for(shop: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    reply = exchange(shop.url, HEAD % b"/chat" + b"Content-Length: 50\r\n\r\n", b"{", b'"')
    assert reply.startswith(b"HTTP/1.1 408") and b"slow_request" in reply


@pytest.mark.parametrize("path", ["/chat", "/chats/import", "/v1/chat/completions", "/gradio_api/queue/join"])
def test_one_who_leaves_within_a_body_is_no_failure_of_the_server(
    shop: App, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    def counted(status: str) -> float:
        metrics = httpx2.get(f"{shop.url}/metrics", headers={"accept": "text/plain"}, trust_env=False).text
        counts = re.findall(rf'^docstral_http_requests_total{{.*status="{status}"}} ([\d.]+)$', metrics, re.MULTILINE)
        return sum(map(float, counts))

    before, failed = counted("408"), counted("500")
    with socket.create_connection(("127.0.0.1", int(shop.url.rpartition(":")[2])), timeout=DEADLINE) as raw:
        raw.sendall(HEAD % path.encode() + b'Content-Length: 500\r\n\r\n{"mes')
    eventually(lambda: counted("408") == before + 1)
    assert counted("500") == failed and "Traceback" not in caplog.text


def test_too_many_or_too_long_headers_are_refused(shop: App) -> None:
    many = b"".join(b"x-%d: a\r\n" % number for number in range(200))
    long = b"cookie: " + b"x" * 40_000 + b"\r\n"
    for headers in (many, long):
        reply = exchange(
            shop.url, b"GET /chats HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" + headers + b"\r\n"
        )
        assert reply.startswith(b"HTTP/1.1 431") and b"long_headers" in reply
    endless = exchange(shop.url, b"GET /chats HTTP/1.1\r\nHost: 127.0.0.1\r\nx: ", b"y" * 200_000)
    assert endless.startswith((b"HTTP/1.1 400", b"reset"))


def test_a_request_that_names_no_host_is_refused_unless_it_is_of_the_time_before_them(shop: App) -> None:
    assert exchange(shop.url, b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 421")
    assert exchange(shop.url, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


LAST = b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 5 + b"GET /health HTTP/1.1\r\n" + LAST, [b"200"] * 6),
        (b"GET http://127.0.0.1/health HTTP/1.1\r\n" + LAST, [b"200"]),
        (
            HEAD % b"/chat" + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
            [b"100", b"422"],
        ),
        (HEAD % b"/chat" + b"Expect: 100-continue\r\nContent-Length: 99000000\r\n\r\n", [b"413"]),
        (b"OPTIONS * HTTP/1.1\r\n" + LAST, [b"404"]),
        (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n" + LAST, [b"400"]),
        (b"GET http://[::1 HTTP/1.1\r\n" + LAST, [b"400"]),
        (b"GET /chat/\x00 HTTP/1.1\r\n" + LAST, [b"400"]),
        (HEAD % b"/chat" + b"Content-Length: -1\r\n\r\n", [b"400"]),
        (HEAD % b"/chat" + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", [b"400"]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [b"400"]),
        (b"\x16\x03\x01\x02\x00\x01\x00", [b"400"]),
    ],
)
def test_requests_of_every_form_are_answered_or_refused(shop: App, request_: bytes, statuses: list[bytes]) -> None:
    assert re.findall(rb"HTTP/1\.1 (\d+) ", exchange(shop.url, request_)) == statuses
    assert httpx2.get(f"{shop.url}/health", trust_env=False).json()["status"] == "ok"


def test_a_body_whose_end_is_told_in_two_ways_is_refused_with_what_comes_after_it(shop: App) -> None:
    hidden = b"GET /chats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    begin = b"POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for lengths in (
        b"Content-Length: 6\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0",
    ):
        reply = exchange(shop.url, begin + lengths + b"\r\n\r\n0\r\n\r\n" + hidden)
        assert reply.startswith(b"HTTP/1.1 400") and reply.count(b"HTTP/1.1") == 1


def test_requests_over_time_are_limited_by_reader_and_by_address(serving: Any) -> None:
    url = serving(rate_limit=20)

    def statuses(count: int, headers: Mapping[str, str] = {}, path: str = "/chats") -> list[int]:
        with httpx2.Client(base_url=url, trust_env=False, headers=headers, timeout=DEADLINE) as client:
            replies = [client.get(path) for _ in range(count)]
            refused = [reply for reply in replies if reply.status_code == 429]
            for reply in refused:
                assert int(reply.headers["retry-after"]) >= 1
                assert reply.json()["error"]["code"] == "too_many_requests"
            return [reply.status_code for reply in replies]

    assert statuses(30).count(429) >= 5, "one reader has 20 and what comes in meanwhile"
    assert statuses(10).count(429) == 0, "another reader is not hindered"
    assert statuses(200, path="/health").count(429) == 0, "a monitor is never refused"
    elsewhere = {"x-forwarded-for": "203.0.113.7", "cookie": "docstral_session=none"}
    assert statuses(120, elsewhere).count(429) >= 5, "an address has 100, whichever cookie it sends"
    assert statuses(1, {"x-forwarded-for": "203.0.113.8"}) == [200]
    question = httpx2.post(f"{url}/chat", json={}, headers={"x-forwarded-for": "203.0.113.9"}, trust_env=False)
    assert question.status_code == 422


def test_by_default_this_machine_is_not_limited_and_others_are(serving: Any) -> None:
    url = serving()
    with httpx2.Client(base_url=url, trust_env=False, timeout=DEADLINE) as client:
        client.get("/chats")
        post = {"json": {}, "headers": {"x-forwarded-for": "203.0.113.7"}}
        assert {client.post("/chat", json={}).status_code for _ in range(70)} == {422}
        assert client.post("/chat", **post).status_code == 422
        assert 429 in {client.post("/chat", **post).status_code for _ in range(70)}


@pytest.mark.parametrize("trusted", ["192.0.2.1", "", "localhost"])
def test_who_is_no_trusted_proxy_is_counted_by_their_own_address(
    serving: Any, monkeypatch: pytest.MonkeyPatch, trusted: str
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    url, began = serving(rate_limit=1), time.monotonic()  # five a minute for an address
    with httpx2.Client(base_url=url, trust_env=False, timeout=DEADLINE) as client:
        said = [
            {"x-forwarded-for": f"203.0.113.{number}", "x-real-ip": f"2001:db8:{number}::1"} for number in range(40)
        ]
        replies = [client.get("/chats", headers=claim | {"cookie": ""}) for claim in said]
    refilled = (time.monotonic() - began) / 12
    assert [reply.status_code for reply in replies].count(200) <= 5 + refilled + 1


def test_there_are_no_websockets(shop: App) -> None:
    upgrade = (
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(shop.url.rpartition(":")[2])), timeout=DEADLINE) as raw:
        raw.sendall(b"GET /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1\r\n" + upgrade)
        assert not raw.recv(65_536).startswith(b"HTTP/1.1 101")


def test_addresses_where_nothing_is_say_so(eve: httpx2.Client) -> None:
    page = eve.get("/nowhere", headers={"accept": "text/html", "accept-language": "fr"})
    assert page.status_code == 404 and 'lang="fr"' in page.text and "Il n'y a rien" in page.text
    assert eve.get("/nowhere/<script>").json()["error"]["code"] == "not_found"
    for file in ("/assets/none.js", "/assets/none/none.css", "/static/fonts/None/none.woff2", "/static/img/none.svg"):
        assert eve.get(file).json()["error"]["code"] == "not_found", "where Gradio would look for a file, too"
        page = eve.get(file, headers={"accept": "text/html"})
        assert page.status_code == 404 and "There is nothing" in page.text and "detail" not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")


async def test_the_table_of_events_is_the_apps(shop: App) -> None:
    service: Any = shop.app.state.desk.service
    assert len([each for each in build_blocks(service).fns.values() if each.fn]) == len(Tab(shop.reader(), "x").events)


# --- Hostile texts


def test_hostile_texts_come_back_as_they_were_and_break_no_reply(shop: App, ada: httpx2.Client) -> None:
    chat = ""
    for text in HOSTILE:
        shop.mistral.script(Reply([text, " So [1]."]))
        body = {"message": text, **({"chat_id": chat} if chat else {})}
        reply = ada.post("/chat", json=body)
        assert reply.status_code in (200, 422), text
        if reply.status_code == 422:
            continue
        events = read_events(reply.text)
        assert [name for name, _ in events].count("done") == 1, text
        done, started = events[-1][1], events[0][1]
        chat, message = started["chat_id"], started["message_id"]
        assert {citation["n"] for citation in done["citations"]} <= {1}, "no citation but of a passage that was read"
        for change in (
            ada.patch(f"/chat/{chat}", json={"title": text}),
            ada.post(f"/message/{message}/feedback", json={"rating": 1, "comment": text}),
            ada.get("/chats", params={"q": text[:200]}),
            ada.get("/search", params={"q": text[:200], "language": text[:20], "source": text[:20]}),
            ada.get(f"/message/{message}/reproduce", params={"form": text[:50]}),
            ada.get(f"/chat/{chat}/export", params={"format": text[:50]}),
            ada.get("/models", params={"provider": text[:50]}),
        ):
            assert change.status_code in (200, 422), f"{change.request.url}: {change.status_code}"
            assert change.headers["content-type"].startswith(("application/json", "text/x-")), "nothing is a page"
            assert change.headers["x-content-type-options"] == "nosniff" and "a=b" not in str(change.headers)
    whole = ada.get(f"/chat/{chat}/export?format=json")
    assert whole.headers["content-disposition"] == f'attachment; filename="{chat}.json"'
    questions = [turn["question"] for turn in whole.json()["turns"]]
    assert len(questions) > 55 and set(questions) <= {text.strip() for text in HOSTILE} | set(HOSTILE)
    again = ada.post("/chats/import", content=whole.content)
    assert again.status_code == 201, again.text


def test_an_exported_page_loads_nothing_and_leads_to_sources_alone(shop: App, ada: httpx2.Client) -> None:
    for number, text in enumerate(HOSTILE):
        shop.mistral.script(Reply([text, "\n\nSo [1]."]))
        reply = ada.post("/chat", json={"message": f"How do I stream a chat completion? {number}"})
        chat = read_events(reply.text)[0][1]["chat_id"]
        ada.patch(f"/chat/{chat}", json={"title": text[:100]})
        page = ada.get(f"/chat/{chat}/export?format=md").text
        tokens = MarkdownIt("commonmark").parse(page)
        inline = [child for token in tokens for child in token.children or []]
        kinds = {token.type for token in [*tokens, *inline]}
        assert not kinds & {"image", "html_block", "html_inline"}, (text, page)
        assert [token.tag for token in tokens if token.type == "heading_open"][:2] == ["h1", "h2"], page
        assert page.rstrip().endswith("*"), "the receipt is the last line, and no code"
        assert tokens[-1].type == "paragraph_close", (text, page)


# --- Secrets

PLANTED = {
    name: f"planted-{name}-0123456789abcdef"
    for name in ("settings", "server", "visitor", "bearer", "typed", "field", "password")
}


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    "A collector of traces: its address, and what it was sent."
    sent: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            "Say nothing."

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


@pytest.fixture(params=["text", "json"])
def spoken(
    request: pytest.FixtureRequest,
    data_dir: Path,
    pages: Path,
    mistral: ScriptedMistral,
    collector: tuple[str, list[bytes]],
    plain_environment: dict[str, str],
    free_port: int,
) -> Iterator[tuple[str, list[str]]]:
    "A server that logs and traces everything it can; and, once it has ended, all that it has said."
    environment = plain_environment | {
        "DOCSTRAL_DATA_DIR": str(data_dir), "DOCSTRAL_DOCS": str(pages), "DOCSTRAL_PORT": str(free_port),
        "DOCSTRAL_LOG_LEVEL": "debug", "DOCSTRAL_MISTRAL_URL": mistral.url, "MISTRAL_API_KEY": PLANTED["settings"],
        "DOCSTRAL_FIRST_TOKEN_TIMEOUT": "1", "PYTHONPATH": str(ROOT), "DOCSTRAL_LOG_FORMAT": request.param,
        "DOCSTRAL_OPENAI_URL": mistral.url, "DOCSTRAL_OPENAI_API_KEY": PLANTED["server"],
        "DOCSTRAL_TRACES_URL": collector[0], "DOCSTRAL_TRACES_TEXT": "yes",
    }  # fmt: skip
    said: list[str] = []
    command = [*DOCSTRAL, "serve"]
    with subprocess.Popen(
        command, cwd=data_dir, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout

        def listen() -> None:
            assert process.stdout
            said.extend(process.stdout)

        listening = threading.Thread(target=listen)
        listening.start()
        ends = time.monotonic() + DEADLINE
        while not any("is ready at" in line for line in said):
            assert time.monotonic() < ends and process.poll() is None, said
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{free_port}", said
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE)
            listening.join(DEADLINE)


def failures(key: str) -> list[Reply]:
    "What a server may answer that has seen this key, and repeats it."
    said = f"the key {key} (Authorization: Bearer {key}) is not good"
    refused = [refusal(status, said) for status in (401, 403, 422, 500)]
    events = Reply(body=b"data: {" + said.encode() + b"\n\n", content_type="text/event-stream")
    inner = b'data: {"error": {"message": "' + said.encode() + b'", "code": 500}}\n\n'
    pieces = Reply(["Your key is ", key[:5], key[5:20], key[20:], " [1]. " + key])
    ended = Reply(["Fine [1]."], finish_reason=key)
    answers = [Reply(["So it is. ", inner]), Reply([said]), pieces, Reply([key[:-1]], ending="drop"), ended]
    return [*refused, Reply(body=said.encode()), events, *answers, Reply(["Fine [1]."])]


def test_no_secret_comes_out_whatever_fails(
    spoken: tuple[str, list[str]], mistral: ScriptedMistral, collector: tuple[str, list[bytes]], data_dir: Path
) -> None:
    url, said = spoken
    seen: list[str] = []
    files: list[tuple[Path, bytes]] = []
    visitor, bearer = {"x-mistral-api-key": PLANTED["visitor"]}, {"authorization": f"Bearer {PLANTED['bearer']}"}

    with httpx2.Client(base_url=url, timeout=DEADLINE, trust_env=False) as client:

        def note(reply: httpx2.Response) -> httpx2.Response:
            seen.append(f"{reply.text} {[header for header in reply.headers.items() if header[0] != 'set-cookie']}")
            return reply

        ids = []
        for number in range(len(failures(""))):
            for name, key in (("settings", {}), ("visitor", visitor), ("server", {})):
                mistral.script(*[failures(PLANTED[name])[number]] * 3)
                asking = {"message": "How do I stream?", "provider": "openai" if name == "server" else "mistral"}
                events = read_events(note(client.post("/chat", json=asking, headers=key)).text)
                ids.append(events[0][1]["message_id"])
                mistral._replies.clear()
            mistral.script(*[failures(PLANTED["bearer"])[number]] * 3)
            asked = {"messages": [{"role": "user", "content": "How do I stream?"}]}
            note(client.post("/v1/chat/completions", json=asked, headers=bearer))
            mistral._replies.clear()
            mistral.script_models(failures(PLANTED["visitor"])[number])
            note(client.get("/models", params={"provider": "mistral"}, headers=visitor))
            mistral._model_replies.clear()
        note(client.post("/chat", content=f'{{"api_key": "{PLANTED["visitor"]}"', headers=visitor))
        for path in ("/chat", "/v1/chat/completions", "/chats/import", "/message/msg_0/feedback"):
            note(client.post(path, json={"message": "How?", "messages": [], "api_key": PLANTED["field"]}))
        note(client.post("/snapshot", headers=bearer))
        note(client.get(f"/nowhere?key={PLANTED['visitor']}", headers=visitor))
        note(client.get("/chats", headers={"host": "evil.example", **visitor}))
        tab = Tab(client, "tab")
        bridge = tab.named("bridge", "act")
        for name in ("typed", "visitor"):
            note(tab.run(bridge, [""], {"act": "key", "key": PLANTED[name]}))
        note(tab.run(bridge, [""], {"act": "key", "key": PLANTED["typed"] + " with a space"}))
        for chat in client.get("/chats").json()["chats"]:
            for path in (f"/chat/{chat['id']}", f"/chat/{chat['id']}/export", f"/chat/{chat['id']}/export?format=json"):
                note(client.get(path))
        for message in ids:
            for form in ("curl", "python", "javascript", "notebook"):
                note(client.get(f"/message/{message}/reproduce", params={"form": form}))
            note(client.get(f"/message/{message}/explain"))
        for path in ("/health", "/metrics", "/openapi.json", "/config", "/"):
            for accept in ("application/json", "text/plain", "text/html"):
                note(client.get(path, headers={"accept": accept}))
        session = client.cookies["docstral_session"]
        files += [(path, path.read_bytes()) for path in data_dir.rglob("*") if path.is_file()]  # with its journals
        token = orjson.loads((data_dir / "server.json").read_bytes())["token"]
        client.post("/snapshot", headers={"authorization": f"Bearer {token}"}).raise_for_status()
        eventually(lambda: len(collector[1]) > 1)
    assert any(b"How do I stream?" in spans for spans in collector[1])
    assert len(mistral.chats) > 20 and any(PLANTED["visitor"] in str(each.headers) for each in mistral.requests)
    assert len(said) > 20, "the log says something"
    secrets = [*PLANTED.values(), session]
    files += [(path, path.read_bytes()) for path in data_dir.rglob("*") if path.is_file()]
    assert {"docstral.duckdb", "docstral.journal-wal", "snapshot.duckdb"} <= {path.name for path, _ in files}
    for secret in secrets:
        for known in (secret, secret[: len(secret) - 1]):
            assert not [text[:500] for text in [*seen, *said] if known in text], secret
            assert not [path for path, content in files if known.encode() in content], secret
            assert not [spans for spans in collector[1] if known.encode() in spans], secret


def test_the_password_of_a_database_that_does_not_answer_is_not_shown(
    plain_environment: dict[str, str], tmp_path: Path, free_port: int
) -> None:
    address = f"postgresql://docstral:{PLANTED['password']}@127.0.0.1:{free_port}/docstral"
    environment = plain_environment | {"DOCSTRAL_DATABASE_URL": address, "DOCSTRAL_LOG_LEVEL": "debug"}
    ran = docstral("ask", "How do I stream?", environment=environment, folder=tmp_path)
    assert ran.returncode != 0 and ran.stderr and PLANTED["password"] not in ran.stdout + ran.stderr


def test_no_page_commands_the_terminal(
    plain_environment: dict[str, str], tmp_path: Path, mistral: ScriptedMistral
) -> None:
    (tmp_path / "pages").mkdir()
    page = "---\ntitle: Streaming\n---\nTo stream a chat, set stream to true\x1b[2J\x1b]0;owned\x07\x9b31m.\n"
    (tmp_path / "pages" / "streaming.md").write_text(page, encoding="utf8")
    for command in ("search", "ask"):
        arguments = (command, "How do I stream a chat?", "--docs", str(tmp_path / "pages"))
        ran = docstral(*arguments, environment=plain_environment, folder=tmp_path)
        assert "set stream to true" in ran.stdout, ran.stderr
        assert not set(ran.stdout + ran.stderr) & {"\x1b", "\x07", "\x9b"}
