"The chat service: one stream of events, one stored turn, whatever happens in between."

import asyncio
import re
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from mistral_server import Gate, Reply, ScriptedMistral, refusal

from docstral import answering
from docstral.chat import LONGEST_QUESTION, ChatService, Question
from docstral.errors import DocStralError, QuestionError
from docstral.journal import Journal
from docstral.metrics import recent, totals
from docstral.retry import ATTEMPTS
from docstral.settings import Settings
from docstral.store import Store, list_chats, list_messages
from docstral.types import ChatStarted, Delta, Done, Event, Failed, Notice, Sources

STREAM = "How do I stream a chat completion?"


async def ask(service: ChatService, text: str = STREAM, user: str = "ada", **wishes: Any) -> list[Event]:
    "All events of an answer."
    async with asyncio.timeout(30):
        return [event async for event in service.ask(user, Question(text, **wishes))]


def texts(events: list[Event]) -> str:
    "The deltas joined."
    return "".join(event.text for event in events if isinstance(event, Delta))


def chat_of(events: list[Event]) -> str:
    "The chat that the answer belongs to."
    assert isinstance(events[0], ChatStarted)
    return events[0].chat_id


async def test_events_come_in_order_and_their_deltas_are_the_text(service: ChatService) -> None:
    events = await ask(service)
    names = [event.type for event in events]
    assert names[:2] == ["chat", "sources"] and names[-1] == "done" and set(names[2:-1]) == {"delta"}
    done = events[-1]
    assert isinstance(done, Done) and isinstance(events[1], Sources)
    assert done.text == texts(events) and done.outcome == "cited"
    ids = [passage.id for passage in events[1].sources]
    assert done.citations and all(citation.source_id in ids for citation in done.citations)
    shown = [int(number) for number in re.findall(r"\[(\d+)\]", re.sub(r"(?s)```.*?```|`[^`]*`", "", done.text))]
    assert list(dict.fromkeys(shown)) == list(range(1, len(set(shown)) + 1))


async def test_an_answer_is_stored_once_with_its_sources_and_receipt(service: ChatService, store: Store) -> None:
    events = await ask(service)
    done = events[-1]
    assert isinstance(done, Done)
    question, answer = list_messages(store, "ada", chat_of(events))
    assert (question.content, answer.content, answer.id) == (STREAM, done.text, done.message_id)
    assert answer.receipt == {name: getattr(done.receipt, name) for name in done.receipt.__slots__}
    assert answer.sources and answer.sources[0]["id"] == events[1].sources[0].id  # type: ignore[attr-defined]
    assert [(chat.title) for chat in list_chats(store, "ada")] == [STREAM]
    assert len(recent(store)) == 1 and totals(store)["total"] == 1


async def test_markers_are_made_true_and_the_receipt_has_the_reported_figures(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["Set `stream` [", "2", "]. Wrong [9]. Again [2][", "1]."], usage=(1000, 2000)))
    events = await ask(with_key)
    done = events[-1]
    assert isinstance(done, Done) and isinstance(events[1], Sources)
    assert done.text == texts(events) == "Set `stream` [1]. Wrong. Again [1][2]."
    sources = [passage.id for passage in events[1].sources]
    assert {citation.n: citation.source_id for citation in done.citations} == {1: sources[1], 2: sources[0]}
    receipt = done.receipt
    assert (receipt.provider, receipt.model) == ("mistral", "mistral-small-latest")
    assert (receipt.tokens_in, receipt.tokens_out, receipt.tokens_estimated) == (1000, 2000, False)
    assert receipt.cost == pytest.approx(0.00135)
    assert (receipt.passages_cited, receipt.citations_dropped) == (2, 1)
    assert receipt.first_token_seconds is not None
    assert 0 < receipt.search_seconds <= receipt.first_token_seconds <= receipt.seconds


async def test_others_have_their_turn_while_a_long_piece_is_read(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["\n" * 100_000 + "So [1]."]))
    turns, seen = 0, list[int]()

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    async for each in with_key.ask("ada", Question(STREAM)):
        if isinstance(each, Delta):
            seen.append(turns)
    counting.cancel()
    assert isinstance(each, Done) and len(set(seen)) == len(seen) > 20


async def test_passages_and_question_reach_the_model(with_key: ChatService, mistral: ScriptedMistral) -> None:
    events = await ask(with_key)
    system, question = mistral.chats[0].body["messages"]
    assert isinstance(events[1], Sources)
    for number, passage in enumerate(events[1].sources, 1):
        assert re.search(rf"<passage {number} [0-9a-f]{{8}}>\nTitle: {re.escape(passage.label)}\n", system["content"])
    assert STREAM in question["content"]


async def test_a_follow_up_sends_the_history_without_markers(with_key: ChatService, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["First [1][2]."]), Reply(["Second [1]."]))
    first = await ask(with_key)
    second = await ask(with_key, "And in TypeScript?", chat_id=chat_of(first))
    roles = [(message["role"], message["content"]) for message in mistral.chats[1].body["messages"][1:-1]]
    assert roles == [("user", STREAM), ("assistant", "First.")]
    assert chat_of(second) == chat_of(first)
    assert [m.content for m in list_messages(with_key.store, "ada", chat_of(first))] == [
        STREAM,
        "First [1][2].",
        "And in TypeScript?",
        "Second [1].",
    ]
    assert len(list_chats(with_key.store, "ada")) == 1


async def test_without_documentation_no_source_is_claimed(with_key: ChatService, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["It is so [1]."]))
    events = await ask(with_key, rag=False)
    done = events[-1]
    assert events[1] == Sources([]) and isinstance(done, Done)
    assert (done.text, done.outcome, done.citations) == ("It is so.", "uncited", [])
    assert "<passage" not in mistral.chats[0].body["messages"][0]["content"]


async def test_a_question_that_no_page_knows_is_not_sent_to_the_model(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    events = await ask(with_key, "xyzzy qwfp?")
    done = events[-1]
    assert isinstance(done, Done) and (done.outcome, done.citations) == ("not_in_docs", [])
    assert texts(events) == done.text and mistral.chats == []


async def test_a_model_that_finds_no_answer_counts_as_not_in_docs(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["The documentation at hand does ", "not answer this."]))
    done = (await ask(with_key))[-1]
    assert isinstance(done, Done) and done.outcome == "not_in_docs"


async def test_a_model_that_goes_on_to_cite_has_found_something(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["The documentation at hand does not answer this. To stream, set `stream` to `true` [1]."]))
    done = (await ask(with_key))[-1]
    assert isinstance(done, Done) and (done.outcome, len(done.citations)) == ("cited", 1)


async def test_half_a_marker_at_the_end_of_an_answer_is_not_shown(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["Set `stream` to `true` [1]. Then wait [", "2"], finish_reason="length"))
    events = await ask(with_key)
    done = events[-1]
    assert isinstance(done, Done) and done.text == texts(events) == "Set `stream` to `true` [1]. Then wait"


async def test_stopping_keeps_what_was_written_and_stops_the_provider(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    gate = Gate()
    mistral.script(Reply(["Kept [1]. ", "Also ", gate, "never"]))
    answering = with_key.ask("ada", Question(STREAM))
    events: list[Event] = []
    while "Also" not in texts(events):
        events.append(await anext(answering))
    await answering.aclose()
    await asyncio.to_thread(mistral.wait_until, lambda: mistral.disconnects == 1)
    gate.open()
    _, answer = list_messages(with_key.store, "ada", chat_of(events))
    assert (answer.content, answer.outcome) == (texts(events), "stopped")
    assert answer.receipt and answer.receipt["finish_reason"] == "stopped" and answer.citations
    assert totals(with_key.store)["outcomes"] == {"stopped": 1}


async def test_cancelling_keeps_what_was_written(with_key: ChatService, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply(["Kept. ", gate]))
    events: list[Event] = []
    written = asyncio.Event()

    async def read() -> None:
        async for event in with_key.ask("ada", Question(STREAM)):
            events.append(event)
            if "Kept" in texts(events):
                written.set()

    reading = asyncio.create_task(read())
    await written.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    gate.open()
    _, answer = list_messages(with_key.store, "ada", chat_of(events))
    assert (answer.content.strip(), answer.outcome) == ("Kept.", "stopped")


async def test_cancelling_while_the_answer_is_stored_stores_it_once(
    with_key: ChatService, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()

    add = Journal.add

    def slow(journal: Journal, entries: list[bytes]) -> list[int]:
        gate._reached.set()
        gate._opened.result(30)
        return add(journal, entries)

    monkeypatch.setattr(Journal, "add", slow)
    asking = asyncio.create_task(ask(with_key))
    await asyncio.to_thread(gate.reached)
    asking.cancel()
    await asyncio.sleep(0)
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await asking
    [chat] = list_chats(with_key.store, "ada")
    assert len(list_messages(with_key.store, "ada", chat.id)) == 2
    assert totals(with_key.store)["total"] == 1


@pytest.mark.parametrize(
    ("reply", "code", "partial"),
    [
        (Reply(["Kept [2]. ", "And"], ending="drop"), "connection_lost", True),
        (Reply(["Kept [2]. ", "And", b"data: {\n\n"]), "malformed", True),
        (refusal(401, "no"), "bad_key", False),
        (refusal(429, "no", retry_after="5"), "rate_limited", False),
        (Reply(["Kept [2]. Set `stream", " to true, and [2"], ending="drop"), "connection_lost", True),
        (Reply([]), "empty_answer", False),
        (Reply(["[77]", " [88]"]), "empty_answer", False),
    ],
    ids=["dropped", "malformed", "key refused", "rate limit", "dropped in code", "empty", "only wrong citations"],
)
async def test_a_failure_is_the_last_event_and_keeps_the_text(
    with_key: ChatService, mistral: ScriptedMistral, reply: Reply, code: str, partial: bool
) -> None:
    mistral.script(*[reply] * ATTEMPTS)
    events = await ask(with_key)
    failed = events[-1]
    assert isinstance(failed, Failed)
    said_something = any(isinstance(piece, str) for piece in reply.pieces) and reply.body is None
    assert len(mistral.chats) == (1 if said_something or not failed.retryable else ATTEMPTS)
    assert (failed.code, failed.partial) == (code, partial) and failed.message and failed.action
    assert failed.retry_after == (5 if code == "rate_limited" else None)
    question, answer = list_messages(with_key.store, "ada", chat_of(events))
    assert (question.content, answer.content, answer.outcome) == (STREAM, texts(events), "error")
    assert texts(events).startswith("Kept [1]." if partial else "")
    assert texts(events).endswith("to true, and") or "`" not in texts(events)  # held back, then cut: kept
    figures = totals(with_key.store)
    assert (figures["total"], figures["errors"], figures["error_rate"]) == (1, 1, 1.0)
    assert recent(with_key.store)["error_code"].tolist() == [code]


async def test_a_failed_turn_is_no_history(with_key: ChatService, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["Half"], ending="drop"), Reply(["Whole [1]."]))
    first = await ask(with_key)
    await ask(with_key, "Again, how do I stream a chat?", chat_id=chat_of(first))
    assert [message["role"] for message in mistral.chats[1].body["messages"]] == ["system", "user"]


async def test_what_is_not_foreseen_is_an_event_without_inner_workings(
    service: ChatService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("inner workings")

    monkeypatch.setattr(answering, "build_messages", broken)
    failed = (await ask(service))[-1]
    assert isinstance(failed, Failed) and failed.code == "internal" and "inner" not in failed.message
    assert "inner workings" in caplog.text


async def test_twenty_questions_at_once_do_not_mix(with_key: ChatService, mistral: ScriptedMistral) -> None:
    def echo(body: Any) -> Reply:
        question = body["messages"][-1]["content"].split("\n")[0]
        return Reply([f"{question} ", *"abcdefgh", " [1]."])

    mistral.answer = echo
    questions = [f"How do I stream chat number {number}?" for number in range(20)]
    answers = await asyncio.gather(*(ask(with_key, text, f"user{n % 4}") for n, text in enumerate(questions)))
    for number, (question, events) in enumerate(zip(questions, answers, strict=True)):
        done = events[-1]
        assert isinstance(done, Done) and done.text == texts(events) == f"{question} abcdefgh [1]."
        stored = list_messages(with_key.store, f"user{number % 4}", chat_of(events))
        assert [message.content for message in stored] == [question, done.text]
    assert len({chat_of(events) for events in answers}) == 20
    assert totals(with_key.store)["total"] == 20


async def test_two_questions_at_once_in_one_chat_stay_with_their_answers(
    with_key: ChatService, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["Zero."]))
    chat = chat_of(await ask(with_key))
    gates = [Gate(), Gate()]
    mistral.script(Reply([gates[0], "One."]), Reply([gates[1], "Two."]), Reply(["Three."]))
    one = asyncio.create_task(ask(with_key, "How to stream a chat once?", chat_id=chat))
    await asyncio.to_thread(gates[0].reached)
    two = asyncio.create_task(ask(with_key, "How to stream a chat twice?", chat_id=chat))
    await asyncio.to_thread(gates[1].reached)
    for gate, asking in zip(gates, (one, two), strict=True):
        gate.open()
        await asking
    stored = [message.content for message in list_messages(with_key.store, "ada", chat)][2:]
    assert stored == ["How to stream a chat once?", "One.", "How to stream a chat twice?", "Two."]
    await ask(with_key, "How to stream a chat thrice?", chat_id=chat)
    sent = [message["content"] for message in mistral.chats[-1].body["messages"][1:-1]]
    assert sent == [STREAM, "Zero.", *stored]


REFUSED: dict[str, tuple[Callable[[], Question], str]] = {
    "empty": (lambda: Question(""), "invalid_request"),
    "blank": (lambda: Question(" \n\t"), "invalid_request"),
    "too long": (lambda: Question("x" * (LONGEST_QUESTION + 1)), "invalid_request"),
    "too hot": (lambda: Question("x", temperature=9), "invalid_request"),
    "not a number": (lambda: Question("x", temperature=float("nan")), "invalid_request"),
    "no tokens": (lambda: Question("x", max_tokens=0), "invalid_request"),
    "negative seed": (lambda: Question("x", seed=-1), "invalid_request"),
    "unknown provider": (lambda: Question("x", provider="nope"), "invalid_request"),
    "no key": (lambda: Question("x", provider="mistral"), "no_key"),
    "unknown chat": (lambda: Question("x", chat_id="chat_0"), "not_found"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_asked_fails_before_anything_is_stored(
    name: str, service: ChatService, store: Store, mistral: ScriptedMistral
) -> None:
    question, code = REFUSED[name]
    with pytest.raises(DocStralError) as error:
        await ask_question(service, question())
    assert error.value.code == code and 400 <= error.value.status < 500 and error.value.action
    assert list_chats(store, "ada") == [] and totals(store)["total"] == 0 and mistral.requests == []


async def ask_question(service: ChatService, question: Question) -> None:
    "Ask, and read the first event."
    async with aclosing(service.ask("ada", question)) as events:
        await anext(events)


async def test_text_that_is_no_unicode_cannot_be_asked(service: ChatService) -> None:
    with pytest.raises(DocStralError) as error:
        await ask_question(service, Question("How do I stream \ud800 a chat?"))
    assert error.value.code == "invalid_request"


async def test_another_users_chat_cannot_be_continued(service: ChatService) -> None:
    chat = chat_of(await ask(service, user="bob"))
    with pytest.raises(DocStralError) as error:
        await ask(service, user="ada", chat_id=chat)
    assert error.value.code == "not_found"
    assert len(list_messages(service.store, "bob", chat)) == 2


async def test_the_longest_question_can_be_asked(service: ChatService) -> None:
    question = ("stream a chat " * LONGEST_QUESTION)[:LONGEST_QUESTION]
    events = await ask(service, question)
    assert isinstance(events[-1], Done)
    assert list_messages(service.store, "ada", chat_of(events))[0].content == question
    assert len(list_chats(service.store, "ada")[0].title) <= 60


async def test_before_the_index_is_loaded_questions_wait(settings: Settings, store: Store) -> None:
    service = ChatService(settings, store)
    assert service.status()["status"] == "starting"
    with pytest.raises(DocStralError) as error:
        await ask(service)
    assert (error.value.code, error.value.status, error.value.retryable) == ("starting", 503, True)
    service.load()
    assert service.status()["status"] == "ok" and service.status()["pages"] == 4
    assert isinstance((await ask(service))[-1], Done)


async def test_an_index_that_could_not_be_loaded_says_why(settings: Settings, store: Store) -> None:
    service = ChatService(settings.but(docs=(settings.data_dir / "nowhere",)), store)
    with pytest.raises(DocStralError, match="nowhere"):
        service.load()
    with pytest.raises(DocStralError, match="nowhere"):
        await ask(service)


async def test_a_visitors_key_is_used_once_and_kept_nowhere(
    service: ChatService, store: Store, mistral: ScriptedMistral
) -> None:
    question = Question(STREAM, api_key="visitors-key")
    assert "visitors-key" not in repr(question)
    [*_, done] = [event async for event in service.ask("ada", question)]
    assert isinstance(done, Done) and done.receipt.provider == "mistral"
    assert mistral.chats[0].headers["authorization"] == "Bearer visitors-key"
    for (table,) in store.read("SELECT table_name FROM information_schema.tables"):
        assert "visitors-key" not in str(store.read(f"SELECT * FROM {table}"))
    done = (await ask(service))[-1]
    assert isinstance(done, Done) and done.receipt.provider == "extractive"


async def test_the_mistral_embedder_is_used_for_pages_and_questions(
    settings: Settings, mistral: ScriptedMistral
) -> None:
    with Store(settings.data_dir / "other.duckdb") as store:
        service = ChatService(settings.but(embedder="mistral", mistral_api_key="settings-key"), store)
        await asyncio.to_thread(service.load)
        sent = len(mistral.embeddings)
        assert sent >= 1 and service.status()["embedder"] == "mistral-embed"
        done = (await ask(service))[-1]
        await service.close()
    assert isinstance(done, Done) and done.outcome == "cited"
    assert mistral.embeddings[-1].body["model"] == "mistral-embed" and len(mistral.embeddings) == sent + 1


async def test_an_embedder_that_fails_is_announced_and_words_alone_decide(
    settings: Settings, mistral: ScriptedMistral
) -> None:
    with Store(settings.data_dir / "other.duckdb") as store:
        service = ChatService(settings.but(embedder="mistral", mistral_api_key="k"), store)
        await asyncio.to_thread(service.load)
        mistral.script_embeddings(refusal(503, "overloaded"))
        events = await ask(service)
        await service.close()
    assert [event.code for event in events if isinstance(event, Notice)] == ["words_only"]
    assert isinstance(events[-1], Done) and events[-1].outcome == "cited"


async def test_without_documentation_there_is_nothing_to_quote(service: ChatService) -> None:
    with pytest.raises(QuestionError, match="nothing to quote"):
        await anext(service.ask("ada", Question("Hello there", rag=False)))
