"One's own chats over HTTP: every address does what it says, for its owner alone."

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import orjson
import pytest
from helpers import DEADLINE, Live, eventually, read_events

from docstral.chat import ChatService
from docstral.chats import KEPT
from docstral.serve import create_app
from docstral.settings import Settings
from docstral.store import Store, Turn, save_turn
from docstral.types import Receipt

STREAM = "How do I stream a chat completion?"


@pytest.fixture(params=["duckdb", "postgresql"])
def store(request: pytest.FixtureRequest, store: Store) -> Store:
    "A database of the test's own on each engine, with the pages indexed."
    return store if request.param == "duckdb" else request.getfixturevalue("on_server")


def ask(client: httpx2.Client, message: str = STREAM, **body: Any) -> tuple[str, str]:
    "Ask, and wait for the answer; returns the ids of the chat and of the answer."
    reply = client.post("/chat", json={"message": message, **body})
    assert reply.status_code == 200, reply.text
    started, done = read_events(reply.text)[0], read_events(reply.text)[-1]
    assert done[0] == "done"
    return started[1]["chat_id"], started[1]["message_id"]


def standing(client: httpx2.Client, chat: str) -> list[dict[str, Any]]:
    "The messages of a chat."
    return list(client.get(f"/chat/{chat}").json()["messages"])


def test_a_chat_is_named_found_deleted_and_restored(client: httpx2.Client) -> None:
    chat, _ = ask(client)
    assert client.patch(f"/chat/{chat}", json={"title": "Flux été"}).json()["title"] == "Flux été"
    [found] = client.get("/chats", params={"q": "ETE flux"}).json()["chats"]
    assert found["id"] == chat and found["snippet"]
    assert client.get("/chats", params={"q": "zebra"}).json() == {"chats": []}
    deleted = client.delete(f"/chat/{chat}").json()
    assert deleted["id"] == chat and deleted["restorable_until"] > "2026"
    assert client.get("/chats").json() == client.get("/chats", params={"q": "flux"}).json() == {"chats": []}
    assert client.get(f"/chat/{chat}").status_code == client.delete(f"/chat/{chat}").status_code == 404
    assert client.post("/chat", json={"message": "And?", "chat_id": chat}).status_code == 404
    assert client.post(f"/chat/{chat}/restore").json()["title"] == "Flux été"
    assert len(standing(client, chat)) == 2


def test_a_question_is_edited_and_an_answer_made_anew(client: httpx2.Client) -> None:
    chat, first = ask(client)
    _, second = ask(client, "What does HTTP 429 mean?", chat_id=chat, replaces=first)
    assert [message["content"] for message in standing(client, chat)][::2] == ["What does HTTP 429 mean?"]
    _, third = ask(client, "", chat_id=chat, replaces=second)
    question, answer = standing(client, chat)
    assert question["content"] == "What does HTTP 429 mean?" and answer["id"] == third
    assert client.get(f"/chat/{chat}").json()["totals"]["answers"] == 3
    stale = client.post("/chat", json={"message": "", "chat_id": chat, "replaces": first})
    assert stale.status_code == 404 and "replaced" in stale.json()["error"]["message"]


def test_thumbs_are_kept(client: httpx2.Client) -> None:
    chat, answer = ask(client)
    rated = client.post(f"/message/{answer}/feedback", json={"rating": -1, "comment": "Old."})
    assert rated.json() == {"id": answer, "rating": -1}
    message = standing(client, chat)[1]
    assert (message["rating"], message["comment"]) == (-1, "Old.")
    for wrong in ({"rating": 5}, {"rating": "1"}, {"rating": True}, {}, {"rating": 1, "stars": 5}):
        assert client.post(f"/message/{answer}/feedback", json=wrong).status_code == 422


def test_a_chat_goes_into_a_file_and_comes_back(client: httpx2.Client, stranger: httpx2.Client) -> None:
    chat, answer = ask(client)
    page = client.get(f"/chat/{chat}/export")
    assert page.headers["content-type"].startswith("text/markdown") and f"## {STREAM}" in page.text
    assert page.headers["content-disposition"] == f'attachment; filename="{chat}.md"'
    file = client.get(f"/chat/{chat}/export", params={"format": "json"})
    made = stranger.post("/chats/import", content=file.content)
    assert made.status_code == 201 and made.json()["id"] != chat
    copy = stranger.get(f"/chat/{made.json()['id']}/export", params={"format": "json"})
    assert copy.content == file.content
    assert [each["id"] for each in client.get("/chats").json()["chats"]] == [chat]
    assert client.get(f"/chat/{chat}/export", params={"format": "pdf"}).status_code == 422
    hostile = orjson.loads(file.content)
    hostile["turns"][0]["id"] = answer
    refused = stranger.post("/chats/import", json=hostile)
    assert refused.status_code == 422 and "turns.0.id" in refused.json()["error"]["message"]
    large = stranger.post("/chats/import", content=b" " * 5_000_001)
    assert large.status_code == 413 and large.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize(
    ("method", "address", "body"),
    [
        ("GET", "/chat/{chat}", None),
        ("PATCH", "/chat/{chat}", {"title": "Mine"}),
        ("DELETE", "/chat/{chat}", None),
        ("POST", "/chat/{chat}/restore", None),
        ("GET", "/chat/{chat}/export", None),
        ("GET", "/chat/{chat}/export?format=json", None),
        ("POST", "/chat", {"message": "x", "chat_id": "{chat}"}),
        ("POST", "/chat", {"message": "x", "chat_id": "{chat}", "replaces": "{answer}"}),
        ("POST", "/message/{answer}/feedback", {"rating": 1}),
        ("GET", "/message/{answer}/explain", None),
        ("GET", "/message/{answer}/reproduce", None),
    ],
)
def test_nobody_reaches_anothers_chat(
    client: httpx2.Client, stranger: httpx2.Client, method: str, address: str, body: dict[str, Any] | None
) -> None:
    chat, answer = ask(client)
    before = client.get(f"/chat/{chat}").json()

    def name(text: Any) -> Any:
        return text.format(chat=chat, answer=answer) if isinstance(text, str) else text

    sent = {key: name(value) for key, value in body.items()} if body else None
    reply = stranger.request(method, name(address), json=sent)
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "not_found", reply.text
    assert client.get(f"/chat/{chat}").json() == before
    assert stranger.get("/chats", params={"q": "stream"}).json() == {"chats": []}


def test_starting_deletes_for_good_what_was_deleted_long_ago(settings: Settings, store: Store) -> None:
    def old(connection: Any) -> None:
        turn = Turn("ada", "chat_1", "msg_1", "Old?", "Old.", "uncited", Receipt("x", "y"), "Old?")
        save_turn(connection, turn)
        connection.execute("UPDATE chats SET deleted = ?", [datetime.now(UTC) - KEPT - timedelta(hours=1)])

    store.write(old).result(DEADLINE)
    with Live(create_app(ChatService(settings, store), web=False)):
        eventually(lambda: store.read("SELECT count(*) FROM messages") == [(0,)])
    assert store.read("SELECT count(*) FROM chats") == [(0,)]
