"What waits in the web app for a browser to fetch it: no page can have much of it, or keep another from its answer."

import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import orjson
import pytest
from helpers import DEADLINE, Live, eventually, ready
from mistral_server import Gate, Reply, ScriptedMistral

from docstral.chat import ChatService
from docstral.settings import Settings
from docstral.store import Store
from docstral.web import outbox

QUESTION = "How do I stream a chat completion?"
JOIN = "/gradio_api/queue/join"
DATA = "/gradio_api/queue/data?session_hash=tab"


@pytest.fixture
def live(settings: Settings, store: Store, mistral: ScriptedMistral) -> Iterator[Live]:
    "The app with its pages."
    with ready(ChatService(settings.but(mistral_api_key="k"), store), web=True) as live:
        yield live


def queue_of(live: Live) -> Any:
    "Gradio's own queue."
    return live.app.state.pages.get_blocks()._queue


class Page:
    "What a page sends, without a browser."

    def __init__(self, live: Live):
        self.client = httpx2.Client(base_url=live.url, timeout=DEADLINE, trust_env=False)
        events = self.client.get("/config").json()["dependencies"]
        self.submit = next(event["id"] for event in events if event["targets"][0][1] == "submit")
        self.event = next(event["id"] for event in events if event["queue"] and event["backend_fn"])

    def ask(self) -> str:
        "Ask; gives the name under which the answer can be followed."
        body = {"fn_index": self.submit, "data": [QUESTION, "", ""], "session_hash": "tab"}
        changes = self.client.post("/gradio_api/run/predict", json=body).raise_for_status().json()["data"]
        values = [change.get("value") for change in changes if isinstance(change, dict)]
        return next(value for value in values if str(value).startswith("look_"))

    def follow(self, token: str) -> httpx2.Response:
        return self.client.post(JOIN, json={"fn_index": self.event, "data": [token], "session_hash": "tab"})

    def fetch(self, kind: str) -> list[dict[str, Any]]:
        "The messages up to the first of this kind."
        found = []
        with self.client.stream("GET", DATA) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: "):
                    found.append(orjson.loads(line[6:]))
                    if found[-1]["msg"] == kind:
                        return found
        raise AssertionError(found)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.close()


def test_a_page_that_asks_and_never_fetches_gets_no_more_and_others_get_their_answers(live: Live) -> None:
    with Page(live) as eve, Page(live) as ada:
        replies = [eve.follow("look_of_nothing") for _ in range(200)]
        refused = [reply for reply in replies if reply.status_code != 200]
        assert {reply.json()["error"]["code"] for reply in refused} == {"too_many_requests"}
        assert refused[0].headers["retry-after"] and len(replies) - len(refused) < 2 * outbox.UNFETCHED
        assert len(queue_of(live).event_analytics) <= 1  # Gradio would add them up
        ada.follow(ada.ask()).raise_for_status()
        assert any("to true" in orjson.dumps(message).decode() for message in ada.fetch("close_stream"))


def test_what_nobody_waits_for_holds_no_place(live: Live) -> None:
    "Forged events, or those of a page that shows something else by now: each would hold a place for seconds."
    with Page(live) as page:
        began = time.monotonic()
        for _ in range(10):
            page.follow("look_of_nothing").raise_for_status()
            page.fetch("process_completed")
        assert time.monotonic() - began < DEADLINE / 2


def test_one_answer_is_followed_once_by_a_tab(live: Live, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply(["Set `stream` ", gate, "to true [1]."]))
    with Page(live) as page:
        token = page.ask()
        for _ in range(5):
            page.follow(token).raise_for_status()
        gate.reached()
        eventually(lambda: sum(job is not None for job in queue_of(live).active_jobs) == 1)
        gate.open()


def test_a_full_house_of_events_says_so(live: Live) -> None:
    queue_of(live).max_size = 0
    with Page(live) as page:
        refused = page.follow("look_of_nothing")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")


@pytest.mark.parametrize("opened", [False, True], ids=["never opens the stream", "opens it and does not read"])
def test_an_answer_that_is_not_fetched_waits_in_few_messages_and_not_for_ever(
    live: Live, mistral: ScriptedMistral, store: Store, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    monkeypatch.setattr(outbox, "UNREAD", 3.0)
    gates = [Gate() for _ in range(20)]
    mistral.script(Reply([*itertools.chain(*(["word " * 3_800, gate] for gate in gates)), "The end."]))
    with Page(live) as page, socket.socket() as raw:
        page.follow(page.ask()).raise_for_status()
        [messages] = queue_of(live).pending_messages_per_session.values()
        if opened:
            for end, size in ((live.socket, socket.SO_SNDBUF), (raw, socket.SO_RCVBUF)):
                end.setsockopt(socket.SOL_SOCKET, size, 4_096)  # so that little of it fits into the system's buffers
            raw.connect(("127.0.0.1", live.port))
            cookies = "; ".join(f"{name}={value}" for name, value in page.client.cookies.items())
            raw.sendall(f"GET {DATA} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookies}\r\n\r\n".encode())
        most = 0
        for gate in gates:
            gate.reached()
            time.sleep(0.12)  # for a change of the page to be made
            most = max(most, messages.qsize())
            gate.open()
        assert most <= outbox.AHEAD + 1
        eventually(lambda: not any(queue_of(live).active_jobs))
        if not opened:
            assert messages.qsize() <= outbox.AHEAD + 3  # and the two that end it
    [(content,)] = eventually(lambda: store.read("SELECT content FROM messages WHERE role = 'assistant'"))
    assert content.endswith("The end."), "the answer itself waits for no page"
