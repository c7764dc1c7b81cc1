"DocStral from Python: plain, awaited, streamed, in a script and where a loop runs already."

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import DEADLINE, ROOT, eventually
from mistral_server import Gate, Reply, ScriptedMistral, refusal

from docstral import Answer, DocStral, DocStralError, Settings, library
from docstral.errors import CorpusError, QuestionError, RateLimitedError, StoreError
from docstral.library import as_error
from docstral.store import list_chats, list_messages
from docstral.types import ChatStarted, Delta, Done, Failed

STREAM = "How do I stream a chat completion?"


@pytest.fixture
def docs(settings: Settings) -> Iterator[DocStral]:
    "DocStral over the four pages, without a key."
    with DocStral(settings) as opened:
        yield opened


@pytest.fixture
def keyed(settings: Settings) -> Iterator[DocStral]:
    "DocStral over the four pages, with a key."
    with DocStral(settings, mistral_api_key="k") as opened:
        yield opened


def same(first: Answer, second: Answer) -> bool:
    "Whether two answers say the same, but for their times and identifiers."
    times = {"seconds": 0.0, "first_token_seconds": 0.0, "search_seconds": 0.0, "tokens_per_second": 0.0}

    def bare(answer: Answer) -> Answer:
        return replace(answer, receipt=replace(answer.receipt, **times), chat_id="", message_id="")

    return bare(first) == bare(second)


def test_an_answer_has_text_sources_citations_and_a_receipt(docs: DocStral) -> None:
    answer = docs.ask(STREAM)
    assert answer.outcome == "cited" and "set `stream` to `true`" in answer.text
    number, source = answer.cited[0]
    assert number == 1 and source.page == "streaming.md" and source in answer.sources
    assert answer.receipt.provider == "extractive"


def test_an_answer_prints_and_displays_itself(docs: DocStral) -> None:
    answer = docs.ask(STREAM)
    for shown in (str(answer), answer._repr_markdown_()):
        assert shown.startswith(answer.text) and "https://docs.example.org/streaming" in shown
        assert answer.receipt.line() in shown


async def test_plain_and_awaited_answers_are_the_same_where_a_loop_runs(docs: DocStral) -> None:
    plain = docs.ask(STREAM)  # as in a notebook cell
    awaited = await docs.ask_async(STREAM)
    assert same(plain, awaited)


async def test_streams_are_the_same_plain_and_async(docs: DocStral) -> None:
    plain = list(docs.stream(STREAM))
    awaited = [event async for event in docs.stream_async(STREAM)]
    for events in (plain, awaited):
        assert isinstance(events[0], ChatStarted) and isinstance(events[-1], Done)
        assert "".join(event.text for event in events if isinstance(event, Delta)) == events[-1].text
    assert [event for event in plain if isinstance(event, Delta)] == [e for e in awaited if isinstance(e, Delta)]


def test_a_chat_goes_on(keyed: DocStral, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["One [1]."]), Reply(["Two."]))
    first = keyed.ask(STREAM)
    second = keyed.ask("And in TypeScript?", chat_id=first.chat_id)
    assert second.chat_id == first.chat_id
    assert [message["content"] for message in mistral.chats[1].body["messages"][1:3]] == [STREAM, "One."]
    assert len(list_messages(keyed.store, "local", first.chat_id)) == 4


def test_questions_from_many_threads_at_once(docs: DocStral) -> None:
    alone = docs.ask(STREAM)
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(docs.ask(STREAM))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(answers) == 8 and all(same(answer, alone) for answer in answers)


def test_search_finds_passages(docs: DocStral) -> None:
    assert docs.search("rate limit 429", k=1)[0].page == "guides/errors.mdx"


@pytest.mark.parametrize("question", ["", "x" * 5000])
def test_what_cannot_be_asked_raises(docs: DocStral, question: str) -> None:
    with pytest.raises(DocStralError) as error:
        docs.ask(question)
    assert error.value.code == "invalid_request" and error.value.action
    with pytest.raises(DocStralError):
        list(docs.stream(question))


def test_a_misspelt_wish_raises(docs: DocStral) -> None:
    with pytest.raises(TypeError, match="temprature"):
        docs.ask(STREAM, temprature=1)


async def test_a_failed_answer_raises_its_own_kind_of_error(keyed: DocStral, mistral: ScriptedMistral) -> None:
    mistral.script(refusal(429, "Slow down", retry_after="700"), refusal(429, "Slow down", retry_after="800"))
    with pytest.raises(RateLimitedError) as plain:
        keyed.ask(STREAM)
    with pytest.raises(RateLimitedError) as awaited:
        await keyed.ask_async(STREAM)
    assert (plain.value.retry_after, awaited.value.retry_after) == (700, 800)  # too long to be waited for


def test_every_code_becomes_its_own_error() -> None:
    kinds = [DocStralError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    for kind in kinds:
        failed = Failed(kind.code, "What happened.", "What to do.", retry_after=3)
        error = as_error(failed)
        assert error.code == kind.code and (str(error), error.action, error.retry_after) == (
            "What happened.",
            "What to do.",
            3,
        )
    assert type(as_error(Failed("of a later version", "m", "a"))) is DocStralError


def test_leaving_a_stream_early_stores_what_was_written(keyed: DocStral, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply(["Kept. ", "And ", gate]))
    events = keyed.stream(STREAM)
    started = next(events)
    assert isinstance(started, ChatStarted)
    for event in events:
        if isinstance(event, Delta) and "And" in event.text:
            break
    events.close()  # type: ignore[attr-defined]
    mistral.wait_until(lambda: mistral.disconnects == 1)
    gate.open()
    _, answer = list_messages(keyed.store, "local", started.chat_id)
    assert (answer.content.strip(), answer.outcome) == ("Kept. And", "stopped")


async def test_cancelling_an_awaited_answer_stops_it(keyed: DocStral, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply([gate]))
    asking = asyncio.create_task(keyed.ask_async(STREAM))
    await asyncio.to_thread(gate.reached)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.to_thread(mistral.wait_until, lambda: mistral.disconnects == 1)
    await asyncio.to_thread(eventually, lambda: list_chats(keyed.store, "local"))
    gate.open()


def test_closing_waits_until_cancelled_answers_are_stored(settings: Settings, mistral: ScriptedMistral) -> None:
    mistral.script(*[Reply([], ending="stall")] * 8)
    child = start(CANCELLING, settings)
    mistral.wait_until(lambda: mistral.active == 8)
    printed, errors = child.communicate("go on\n", timeout=DEADLINE)
    assert (printed, errors) == ("[('stopped', 8)]\n", "")


CANCELLING = """
import asyncio, gc, sys
from docstral import DocStral
from docstral.store import Store
async def main():
    docs = DocStral(data_dir=sys.argv[1], docs=[sys.argv[2]], mistral_url=sys.argv[3], mistral_api_key="k")
    asking = [asyncio.create_task(docs.ask_async("How do I stream a chat completion?")) for _ in range(8)]
    await asyncio.to_thread(sys.stdin.readline)
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    docs.close()
    gc.collect()
    with Store(docs.store.path) as store:
        print(store.read("SELECT outcome, count(*) FROM requests GROUP BY 1"))
asyncio.run(main())
"""


def test_closing_ends_a_stream_that_is_being_read(settings: Settings, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["Kept. "], ending="stall"))
    child = start(READING, settings)
    try:
        _, errors = child.communicate(timeout=6)
    finally:
        child.kill()
        child.communicate()
    assert (child.returncode, errors) == (0, "")


READING = """
import sys
from docstral import DocStral
with DocStral(data_dir=sys.argv[1], docs=[sys.argv[2]], mistral_url=sys.argv[3], mistral_api_key="k") as docs:
    events = docs.stream("How do I stream a chat completion?")
    print(next(events), next(events))
"""


def start(code: str, settings: Settings) -> subprocess.Popen[str]:
    "A program that uses DocStral with these settings."
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    arguments = [str(settings.data_dir), str(settings.docs[0]), settings.mistral_url]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], text=True, env=environment, **pipes)


def test_a_closed_docstral_says_so_and_frees_its_database(settings: Settings) -> None:
    docs = DocStral(settings)
    docs.close()
    docs.close()
    with pytest.raises(DocStralError, match="closed"):
        docs.ask(STREAM)
    with pytest.raises(StoreError, match="closed"):
        list_messages(docs.store, "local", "chat_0")
    DocStral(settings).close()


def test_a_docstral_that_cannot_open_leaves_nothing_open(settings: Settings, tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(CorpusError, match="nowhere"):
        DocStral(settings, docs=(tmp_path / "nowhere",))
    assert threading.active_count() <= before
    DocStral(settings).close()


def test_folders_and_paths_may_be_text(settings: Settings, pages: Path) -> None:
    with DocStral(docs=[str(pages)], data_dir=str(settings.data_dir)) as docs:
        assert docs.search("stream a chat")[0].page == "streaming.md"


def test_users_of_one_machine_do_not_see_each_others_chats(settings: Settings) -> None:
    with DocStral(settings, user="ada") as docs:
        chat = docs.ask(STREAM).chat_id
    with DocStral(settings, user="bob") as docs, pytest.raises(DocStralError) as error:
        docs.ask(STREAM, chat_id=chat)
    assert error.value.code == "not_found"


async def test_the_functions_use_the_machines_settings(
    settings: Settings, pages: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    monkeypatch.setenv("DOCSTRAL_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("DOCSTRAL_DOCS", str(pages))
    library.default.cache_clear()
    try:
        assert same(library.ask(STREAM), await library.ask_async(STREAM))
        assert library.search("rate limit 429")[0].page == "guides/errors.mdx"
    finally:
        library.default().close()
        library.default.cache_clear()


def test_chats_are_found_and_carried_elsewhere(docs: DocStral) -> None:
    answer = docs.ask(STREAM)
    assert [chat.id for chat in docs.chats()] == [chat.id for chat in docs.chats("CHAT stream")] == [answer.chat_id]
    assert docs.chats("absent") == []
    assert answer.text in docs.export(answer.chat_id)
    file = docs.export(answer.chat_id, "json")
    assert docs.export(docs.import_chat(file).id, "json") == file and len(docs.chats()) == 2
    with pytest.raises(QuestionError):
        docs.export(answer.chat_id, "pdf")
