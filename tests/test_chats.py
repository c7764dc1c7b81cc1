"One's own chats: found, named, deleted and back, rated, carried elsewhere; from two tabs at once; never another's."

import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from helpers import DEADLINE
from mistral_server import Gate, Reply, ScriptedMistral, refusal

from docstral.chat import ChatService, Question
from docstral.chats import (
    KEPT,
    chat_totals,
    delete_chat,
    purge_chats,
    rate,
    rename_chat,
    restore_chat,
    search_chats,
    snippet,
)
from docstral.errors import NotFoundError, QuestionError, RateLimitedError
from docstral.exports import LARGEST_FILE, as_json, as_markdown, export_chat, import_chat, tamed
from docstral.settings import Settings
from docstral.store import Store, Turn, get_chat, get_message, list_chats, list_messages, open_store, save_turn
from docstral.titles import LONGEST_TITLE, title_of
from docstral.types import Citation, Event, Passage, Receipt, new_id

STREAM = "How do I stream a chat completion?"
PASSAGE = Passage("a.md::0", "Page [1]", "Section", "https://a.example/x", "Text with “quotes”.", 0.5, licence="MIT")
RECEIPT = Receipt("mistral", "small", 1.5, tokens_in=100, tokens_out=20, cost=0.001)


@pytest.fixture
def empty(place: Settings) -> Iterator[Store]:
    "A new database, on each engine."
    with open_store(place) as store:
        yield store


def say(store: Store, question: str, answer: str, user: str = "ada", chat: str = "chat_1", **changes: Any) -> str:
    "Store a turn; returns the id of its answer."
    citations = [Citation(1, "a.md::0", 0, 4, 0.75)] if answer else []
    turn = Turn(user, chat, new_id("msg"), question, answer, "cited", RECEIPT, question, [PASSAGE], citations)
    turn = replace(turn, **changes)
    store.write(lambda connection: save_turn(connection, turn)).result(DEADLINE)
    return turn.message_id


def texts(store: Store, chat: str = "chat_1") -> list[str]:
    "What stands in Ada's chat."
    return [message.content for message in list_messages(store, "ada", chat)]


async def read(events: AsyncGenerator[Event, None]) -> list[Event]:
    "All events."
    return [event async for event in events]


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("How do I stream?", "How do I stream?"),
        ("# **Bold** [link](https://a.example) `code`\n\n- item", "Bold link code item"),
        ("Why?\n```python\nx = 1\n```\nHm.", "Why? Hm."),
        ("```\nonly code\n```", "``` only code ```"),
        ("snake_case and 2 * 3 * 4", "snake_case and 2 * 3 * 4"),
        (
            "What is the difference between a temperature of zero and one?",
            "What is the difference between a temperature of zero and…",
        ),
        ("é" * 100, "é" * 59 + "…"),
    ],
)
def test_titles_are_plain_words_cut_between_words(question: str, title: str) -> None:
    assert title_of(question) == title and len(title) <= 60


def test_a_chat_gets_a_title(empty: Store) -> None:
    say(empty, "How?", "So.")
    assert rename_chat(empty, "ada", "chat_1", " My\n chat ").title == "My chat"
    for wrong in (" ", "x" * (LONGEST_TITLE + 1), "\ud800"):
        with pytest.raises(QuestionError):
            rename_chat(empty, "ada", "chat_1", wrong)
    say(empty, "And?", "So.", begins=False)
    assert get_chat(empty, "ada", "chat_1").title == "My chat"


def test_a_deleted_chat_vanishes_and_comes_back_whole(empty: Store) -> None:
    answer = say(empty, "How?", "So.")
    until = delete_chat(empty, "ada", "chat_1")
    assert timedelta(0) < until - datetime.now(UTC) <= KEPT
    assert list_chats(empty, "ada") == [] and search_chats(empty, "ada", "how") == []
    gone: list[Callable[[], object]] = [
        lambda: get_chat(empty, "ada", "chat_1"),
        lambda: list_messages(empty, "ada", "chat_1"),
        lambda: get_message(empty, "ada", answer),
        lambda: rate(empty, "ada", answer, 1),
        lambda: rename_chat(empty, "ada", "chat_1", "x"),
        lambda: export_chat(empty, "ada", "chat_1"),
        lambda: chat_totals(empty, "ada", "chat_1"),
        lambda: delete_chat(empty, "ada", "chat_1"),
    ]
    for reading in gone:
        with pytest.raises(NotFoundError):
            reading()
    restore_chat(empty, "ada", "chat_1")
    assert texts(empty) == ["How?", "So."] and restore_chat(empty, "ada", "chat_1").id == "chat_1"


def test_after_thirty_days_it_is_deleted_for_good_with_its_messages(empty: Store) -> None:
    say(empty, "How?", "So.")
    say(empty, "Why?", "Because.", chat="chat_2")
    delete_chat(empty, "ada", "chat_1")
    early, late = (datetime.now(UTC) + KEPT + timedelta(minutes=minutes) for minutes in (-1, 1))
    empty.write(lambda connection: purge_chats(connection, early)).result(DEADLINE)
    assert restore_chat(empty, "ada", "chat_1")
    delete_chat(empty, "ada", "chat_1")
    empty.write(lambda connection: purge_chats(connection, late)).result(DEADLINE)
    with pytest.raises(NotFoundError):
        restore_chat(empty, "ada", "chat_1")
    assert empty.read("SELECT count(*) FROM messages") == [(2,)] and texts(empty, "chat_2") == ["Why?", "Because."]


def test_another_user_reaches_nothing(empty: Store) -> None:
    answer = say(empty, "How?", "So.")
    tries: list[Callable[[], object]] = [
        lambda: rename_chat(empty, "bob", "chat_1", "Mine"),
        lambda: delete_chat(empty, "bob", "chat_1"),
        lambda: rate(empty, "bob", answer, 1),
        lambda: export_chat(empty, "bob", "chat_1"),
        lambda: chat_totals(empty, "bob", "chat_1"),
        lambda: get_message(empty, "bob", answer),
    ]
    for attempt in tries:
        with pytest.raises(NotFoundError):
            attempt()
    assert search_chats(empty, "bob", "how") == []
    delete_chat(empty, "ada", "chat_1")
    with pytest.raises(NotFoundError):
        restore_chat(empty, "bob", "chat_1")
    restore_chat(empty, "ada", "chat_1")
    [chat] = list_chats(empty, "ada")
    assert chat.title == "How?" and list_messages(empty, "ada", "chat_1")[1].rating is None


def test_two_tabs_at_once(empty: Store) -> None:
    for number in range(8):
        say(empty, "How?", "So.", chat=f"chat_{number}")

    def tab(number: int) -> int:
        deleted = 0
        for chat in range(8):
            with suppress(NotFoundError):
                rename_chat(empty, "ada", f"chat_{chat}", f"Tab {number}")
            with suppress(NotFoundError):
                delete_chat(empty, "ada", f"chat_{chat}")
                deleted += 1
        return deleted

    with ThreadPoolExecutor(4) as tabs:
        assert sum(tabs.map(tab, range(4))) == 8  # each was deleted by one of them
    assert list_chats(empty, "ada") == []


async def test_an_answer_does_not_bring_back_the_chat_that_was_deleted_under_it(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    first = await read(with_key.ask("ada", Question(STREAM)))
    chat: str = first[0].chat_id  # type: ignore[attr-defined]
    gate, store = Gate(), with_key.store
    mistral.script(Reply(["Late ", gate, "words."]))
    events = with_key.ask("ada", Question(STREAM, chat_id=chat))
    await anext(events)
    delete_chat(store, "ada", chat)
    gate.open()
    assert (await read(events))[-1].type == "done"
    assert list_chats(store, "ada") == []
    restore_chat(store, "ada", chat)
    assert texts(store, chat)[-1] == "Late words."


async def test_an_answer_does_not_bring_back_what_was_deleted_for_good(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    first = await read(with_key.ask("ada", Question(STREAM)))
    chat: str = first[0].chat_id  # type: ignore[attr-defined]
    store, later = with_key.store, datetime.now(UTC) + 2 * KEPT
    events = with_key.ask("ada", Question(STREAM, chat_id=chat))
    await anext(events)
    delete_chat(store, "ada", chat)
    store.write(lambda connection: purge_chats(connection, later)).result(DEADLINE)
    assert (await read(events))[-1].type == "done"
    assert store.read("SELECT count(*) FROM chats") == store.read("SELECT count(*) FROM messages") == [(0,)]


async def test_an_answer_is_made_anew_and_the_model_does_not_read_the_old_one(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["First."]), Reply(["Old answer."]), Reply(["Later."]), Reply(["New answer."]))
    chat = ""
    for question in (STREAM, "and in Python?", "and in curl?"):
        events = await read(with_key.ask("ada", Question(question, chat_id=chat or None)))
        chat = events[0].chat_id  # type: ignore[attr-defined]
    old = list_messages(with_key.store, "ada", chat)[3]
    await read(with_key.ask("ada", Question("", chat_id=chat, replaces=old.id)))
    assert texts(with_key.store, chat) == [STREAM, "First.", "and in Python?", "New answer."]
    sent = [message["content"] for message in mistral.chats[-1].body["messages"]]
    assert "First." in sent and "and in Python?" in sent[-1] and not {"Old answer.", "Later."} & set(sent)
    kept = get_message(with_key.store, "ada", old.id)
    assert kept.content == "Old answer." and kept.replaced
    with pytest.raises(NotFoundError, match="replaced already"):
        await anext(with_key.ask("ada", Question("", chat_id=chat, replaces=old.id)))


async def test_an_edited_question_takes_its_place_by_either_id(with_key: ChatService, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["One."]), Reply(["Two."]))
    events = await read(with_key.ask("ada", Question(STREAM)))
    chat: str = events[0].chat_id  # type: ignore[attr-defined]
    question, _ = list_messages(with_key.store, "ada", chat)
    await read(with_key.ask("ada", Question("What does HTTP 429 mean?", chat_id=chat, replaces=question.id)))
    assert texts(with_key.store, chat) == ["What does HTTP 429 mean?", "Two."]


async def test_an_answer_that_fails_at_once_replaces_nothing(with_key: ChatService, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["Good."]), refusal(401, "Unauthorized"))
    events = await read(with_key.ask("ada", Question(STREAM)))
    chat: str = events[0].chat_id  # type: ignore[attr-defined]
    answer = list_messages(with_key.store, "ada", chat)[1]
    again = Question("", chat_id=chat, replaces=answer.id)
    assert (await read(with_key.ask("ada", again)))[-1].type == "error"
    assert texts(with_key.store, chat) == [STREAM, "Good."]


async def test_a_message_of_another_chat_cannot_be_replaced(service: ChatService) -> None:
    mine, other = [await read(service.ask(user, Question(STREAM))) for user in ("ada", "bob")]
    chat: str = mine[0].chat_id  # type: ignore[attr-defined]
    for replaces in (other[0].message_id, "msg_0"):  # type: ignore[attr-defined]
        with pytest.raises(NotFoundError):
            await anext(service.ask("ada", Question("x", chat_id=chat, replaces=replaces)))
    with pytest.raises(QuestionError, match="no chat"):
        await anext(service.ask("ada", Question("x", replaces=mine[0].message_id)))  # type: ignore[attr-defined]


def test_search_knows_no_case_and_no_accents(empty: Store) -> None:
    say(empty, "Où est la clé ?", "Dans l'en-tête : ÉCRIVEZ-LA.", chat="chat_1")
    say(empty, "How do I stream?", "Set `stream`. 100 % sure_thing", chat="chat_2")

    def found(words: str) -> list[str]:
        return [chat.id for chat in search_chats(empty, "ada", words)]

    assert found("ou CLE") == found("en-tete") == found("ecrivez") == found("e\u0301crivez") == ["chat_1"]
    assert found("STREAM") == found("set stream") == ["chat_2"]
    assert found("100 %") == found("e_t") == ["chat_2"] and found("%") == ["chat_2"] and found("_x") == []
    assert found("clé stream") == found("absent") == found(" ") == []
    say(empty, "ПОТОК ΡΟΉ", "🤖", chat="chat_3")
    assert found("поток ροη") == found("🤖") == ["chat_3"]
    rename_chat(empty, "ada", "chat_2", "Zebra")
    assert found("zebra") == ["chat_2"]
    with pytest.raises(QuestionError):
        found("x" * 201)


def test_a_snippet_shows_the_place(empty: Store) -> None:
    say(empty, "How?", f"{'before ' * 50}the Straße NEEDLE here{' after' * 50}")
    [found] = search_chats(empty, "ada", "needle")
    assert "NEEDLE" in found.snippet and len(found.snippet) < 200 and found.snippet.startswith("…")
    assert found.message_id == list_messages(empty, "ada", "chat_1")[1].id
    assert snippet("e\u0301te\u0301 " * 100 + "là", ["la"]).endswith("là") and snippet("", ["x"]) == ""


def test_replaced_answers_are_not_found_but_counted(empty: Store) -> None:
    old = say(empty, "How?", "Obsolete.")
    say(empty, "How?", "Current.", begins=False, replaces=old)
    assert search_chats(empty, "ada", "obsolete") == [] and search_chats(empty, "ada", "current")
    totals = chat_totals(empty, "ada", "chat_1")
    assert (totals["answers"], totals["tokens_in"], totals["tokens_out"], totals["unpriced"]) == (2, 200, 40, 0)
    assert totals["cost"] == pytest.approx(0.002) and totals["seconds"] == pytest.approx(3)


def test_thumbs(empty: Store) -> None:
    answer = say(empty, "How?", "So.")

    def rated() -> tuple[int | None, str | None]:
        message = get_message(empty, "ada", answer)
        return message.rating, message.comment

    rate(empty, "ada", answer, 1, "  Clear. ")
    assert rated() == (1, "Clear.")
    rate(empty, "ada", answer, -1)
    assert rated() == (-1, None)
    rate(empty, "ada", answer, 0, "ignored")
    assert rated() == (None, None)
    question = list_messages(empty, "ada", "chat_1")[0].id
    with pytest.raises(NotFoundError):
        rate(empty, "ada", question, 1)
    for wrong in ((2, ""), (1, "x" * 1001), (1, "\ud800")):
        with pytest.raises(QuestionError):
            rate(empty, "ada", answer, *wrong)


def test_a_chat_that_was_read_back_exports_as_the_same_file(empty: Store) -> None:
    first = say(empty, "How?\n\0 \u2028 “é”", "So [1].")
    say(empty, "Again?", "So [1]!", begins=False, replaces=first)
    say(empty, "Then?", "", begins=False, outcome="error", error=asdict(RateLimitedError("Slow.").event()))
    rate(empty, "ada", list_messages(empty, "ada", "chat_1")[1].id, -1, "Hm.")
    file = as_json(export_chat(empty, "ada", "chat_1"))
    copy = import_chat(empty, "bob", file)
    assert as_json(export_chat(empty, "bob", copy.id)) == file
    assert {message.id for message in list_messages(empty, "bob", copy.id)}.isdisjoint(
        message.id for message in list_messages(empty, "ada", "chat_1", replaced=True)
    )
    assert len(orjson.loads(file)["turns"]) == 3 and b"chat_1" not in file and b"ada" not in file


def test_markdown_has_what_stands_with_sources_and_receipts(empty: Store) -> None:
    first = say(empty, "How?", "Old.")
    say(empty, "How so?", "Like this [1].", begins=False, replaces=first, outcome="stopped")
    text = as_markdown(export_chat(empty, "ada", "chat_1"))
    assert text.startswith("# How?\n") and "## How so?" in text and "Like this [1]." in text and "Old." not in text
    assert r"1. [Page \[1\] > Section](<https://a.example/x>) (MIT)" in text.replace(r"\>", ">")
    assert "*Stopped.*" in text and RECEIPT.line() in text and "unofficial demo" in text.lower()


@pytest.mark.parametrize(
    ("answer", "exported"),
    [
        (r"\<img src=x> \![x](y)", r"\<img src=x> \![x](y)"),  # escaped already
        (r"\\<img src=x>", r"\\\<img src=x>"),
        ("\r\r```\nx\n```\n\n<img src=x>", "\n\n```\nx\n```\n\n\\<img src=x>"),  # lines as Markdown counts them
        ("```\nx\n````", "```\nx\n````"),  # closed, with one more
        ("```\nx\n```\n", "```\nx\n```\n"),
        ("So:\n```", "So:\n```\n```"),  # cut before its code
    ],
)
def test_an_exported_answer_loads_nothing_and_ends_its_code(answer: str, exported: str) -> None:
    assert tamed(answer) == exported


def test_what_a_file_says_of_its_model_and_sources_is_text_in_markdown(empty: Store) -> None:
    sources, citations = (
        [PASSAGE, replace(PASSAGE, id="b.md::0")],
        [Citation(1, f"{page}.md::0", 0, 4, 1.0) for page in "ab"],
    )
    receipt = replace(RECEIPT, model="<img src=x>")
    say(empty, "How?", "So [1].", sources=sources, citations=citations, receipt=receipt)
    text = as_markdown(export_chat(empty, "ada", "chat_1"))
    assert "<img" not in text.replace("\\<", "") and text.count("\n1. [") == 2  # two with one number


HOSTILE: dict[str, tuple[list[Any], Any]] = {  # the field that is named: where it is, and what it is changed to
    "docstral": (["docstral"], 2),
    "title": (["title"], ""),
    "title: ": (["title"], "x" * 81),
    "user_id": (["user_id"], "user_of_bob"),
    "turns": (["turns"], []),
    "turns.0.question": (["turns", 0, "question"], 5),
    "turns.0.outcome": (["turns", 0, "outcome"], "excellent"),
    "turns.0.chat_id": (["turns", 0, "chat_id"], "chat_of_bob"),
    "turns.0.rating": (["turns", 0, "rating"], 7),
    "turns.0.asked": (["turns", 0, "asked"], "0001-01-01T00:00:00Z"),
    "turns.0.answered": (["turns", 0, "answered"], "2026-01-01T00:00:00"),
    "turns.0.sources.0": (["turns", 0, "sources", 0, "url"], "javascript:alert(1)"),
    "turns.0.sources.0: Value error, its title": (["turns", 0, "sources", 0, "title"], "x" * 2_001),
    "turns.0.sources.0: Value error, its text": (["turns", 0, "sources", 0, "text"], "x" * 50_001),
    "turns.0.error": (["turns", 0, "error"], {"code": 5}),
    "turns.0.sources.0: Value error, Invalid IPv6": (["turns", 0, "sources", 0, "url"], "http://[::1"),
    "turns.0: Value error, its receipt": (["turns", 0, "receipt", "tokens_in"], 2**64 - 1),
    "turns.0: Value error, its receipt has": (["turns", 0, "receipt", "seconds"], 1e308),
    "turns.0.sources.0: ": (["turns", 0, "sources", 0, "url"], "\t JaVaScRiPt\n:alert(1)"),
    "turns.0.sources.0.score": (["turns", 0, "sources", 0, "score"], "high"),
    "turns.0: ": (["turns", 0, "citations", 0, "end"], 9999),
    "turns.0": (["turns", 0, "citations", 0, "source_id"], "b.md::0"),
    "turns.0.receipt.seconds": (["turns", 0, "receipt", "seconds"], None),
    "turns.0.receipt.cost": (["turns", 0, "receipt", "cost"], float("inf")),  # as JSON, Infinity
    "turns.0: Value error, it cannot": (["turns", 0, "receipt", "tokens_in"], 10**30),
}


@pytest.mark.parametrize("field", HOSTILE)
def test_a_file_that_does_not_fit_is_refused_with_the_field(empty: Store, field: str) -> None:
    say(empty, "How?", "So [1].")
    content = orjson.loads(as_json(export_chat(empty, "ada", "chat_1")))
    path, value = HOSTILE[field]
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(QuestionError) as error:
        import_chat(empty, "ada", json.dumps(content).encode())
    assert str(error.value).startswith(field)
    assert len(list_chats(empty, "ada")) == 1


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b'{"title": "\\ud800"}', b"[" * 100_000])
def test_what_is_no_chat_at_all_is_refused(empty: Store, data: bytes) -> None:
    with pytest.raises(QuestionError):
        import_chat(empty, "ada", data)


def test_a_file_that_is_too_large_is_refused(empty: Store) -> None:
    with pytest.raises(QuestionError, match="limit"):
        import_chat(empty, "ada", b" " * (LARGEST_FILE + 1))


def test_readers_and_a_purge_at_once(empty: Store) -> None:
    errors: list[Exception] = []
    ids = [f"chat_{number}" for number in range(20)]
    for chat in ids:
        say(empty, "How?", "So.", chat=chat)

    def reader() -> None:
        try:
            for chat in ids * 3:
                with suppress(NotFoundError):
                    assert len(list_messages(empty, "ada", chat)) in (0, 2)
                search_chats(empty, "ada", "so")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    for chat in ids:
        delete_chat(empty, "ada", chat)
    empty.write(lambda connection: purge_chats(connection, datetime.now(UTC) + 2 * KEPT)).result(DEADLINE)
    for thread in threads:
        thread.join(DEADLINE)
    assert errors == [] and empty.read("SELECT count(*) FROM messages") == [(0,)]
