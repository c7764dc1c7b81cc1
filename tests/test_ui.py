"The web app without a browser: what its views let through, and what the desk decides."

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hostile import HOSTILE

from docstral.chat import ChatService
from docstral.chats import LONGEST_COMMENT, LONGEST_SEARCH
from docstral.citations import MOST_MARKS
from docstral.errors import DocStralError, ProviderError, RateLimitedError, StoreError
from docstral.providers.base import Finished, Provider, ProviderEvent, Request, Text
from docstral.reproduce import Snippet
from docstral.settings import Settings
from docstral.store import ChatRecord, Store, list_chats, list_messages
from docstral.titles import LONGEST_TITLE
from docstral.types import Citation, Failed, Notice, Passage, Receipt
from docstral.web import desk as desk_module
from docstral.web import markdown
from docstral.web.accounts import show_account, show_reproduce
from docstral.web.desk import (
    LONG,
    Desk,
    Parts,
    Reader,
    ask,
    follow,
    open_chat,
    open_page,
    show_answers,
    show_citation,
    show_metrics,
    show_state,
    stop,
)
from docstral.web.dialogs import show_rename
from docstral.web.markdown import LONGEST_MARKUP, GrowingHTML, render_markdown
from docstral.web.panels import show_chats, show_head
from docstral.web.sources import show_sources
from docstral.web.ui import build_blocks, make_pages
from docstral.web.views import LONGEST_CHAT, Answer, show_answer, show_chat
from docstral.web.words import ENGLISH, FRENCH, Word, Words

WEB = Path(__file__).resolve().parent.parent / "docstral" / "web"


class Reading(HTMLParser):
    "Collects the tags and attributes of some HTML, as a browser would see them."

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(html: str) -> None:
    "Nothing in it loads, runs, or leads to anything but a web page."
    for tag, attributes in Reading(html).found:
        assert tag not in {"script", "img", "iframe", "svg", "style", "link", "object", "form"}, tag
        assert not [name for name in attributes if name.startswith("on")], attributes
        assert re.match(r"(https?://|#|message/|$)", attributes.get("href") or ""), attributes


def links_in(html: str) -> set[str]:
    "The addresses that some HTML links to, but for our own citations."
    found = (attributes.get("href") or "" for tag, attributes in Reading(html).found if tag == "a")
    return {address for address in found if not address.startswith("#source-")}


@pytest.mark.parametrize("growing", [None, GrowingHTML()], ids=["whole", "growing"])
def test_an_answer_links_to_its_sources_alone(growing: GrowingHTML | None) -> None:
    text = (
        "See [the page](https://docs.example.org/streaming#end) and [its twin](https://docs.example.org/streaming?q=1).\n\n"
        "[Mistral](https://evil.example/login), <https://evil.example/phish>, [x](/relative), "
        "[y](https://docs.example.org.evil.example/streaming), [z](https://docs.example.org@evil.example/streaming)\n\nEnd."
    )
    passage = Passage("a::0", "Page", "", "https://docs.example.org/streaming/", text, 0.5)
    answer = Answer("How?", text=text, passages=[passage], outcome=None if growing else "uncited")
    html = show_answer(answer, ENGLISH, growing)
    assert links_in(html) == {"https://docs.example.org/streaming#end"}
    assert "Mistral <code>https://evil.example/login</code>" in html, "where it would lead stands there as text"
    assert html.count("https://evil.example/phish") == 1 + ("data-text" in html)
    assert links_in(show_answer(Answer("How?", text=text, passages=[], outcome="uncited"), ENGLISH)) == set()


@pytest.mark.parametrize("unit", [" ", "\n", "|", "\r\n", " \n", "_", "__", "[", "`"])
def test_passages_that_repeat_a_mark_without_end_are_shown(unit: str) -> None:
    text = f"Begin{unit * 40_000}x{unit * 40_000}end"
    answer = Answer("How?", "chat", "msg", "So [1].", [Passage("a", "Page", "", "", text, 1.0)], outcome="cited")
    answer.citations = [Citation(1, "a", start, len(text), 1.0) for start in range(5)]
    assert 'class="chip"' in show_answer(answer, ENGLISH) and "<mark>" in show_sources(answer, ENGLISH)


@pytest.mark.parametrize("sign", ["- ", "> ", "1. "])
def test_no_text_is_lost_however_deep_it_lies(sign: str) -> None:
    step = "> " if sign == "> " else " " * len(sign)
    text = "".join(f"{step * depth}{sign}word{depth}.\n\n" for depth in range(60))
    growing = GrowingHTML()
    for html in (render_markdown(text), *(growing.render(text[:end]) for end in (500, len(text)))):
        assert_harmless(html)
    assert all(f"word{depth}." in each for depth in range(60) for each in (html, render_markdown(text)))


def test_an_address_that_can_be_none_is_shown_as_text() -> None:
    answer = Answer("How?", "chat", "msg", "So [1].", [Passage("a", "Page", "", "http://[::1", "[x](y)", 1.0)])
    answer.citations, answer.outcome = [Citation(1, "a", 0, 6, 1.0)], "cited"
    assert 'class="chip"' in show_answer(answer, ENGLISH) and "http://[::1" in show_sources(answer, ENGLISH)


def test_an_answer_shows_as_many_citations_as_one_can_have() -> None:
    answer = Answer("How?", "chat", "msg", "[1]" * 20_000, [Passage("a", "Page", "", "", "Text.", 1.0)])
    answer.citations, answer.outcome = [Citation(1, "a", 0, 5, 1.0)], "cited"
    assert show_answer(answer, ENGLISH).count('class="chip"') == MOST_MARKS


async def test_a_long_chat_becomes_html_while_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(desk_module, "show_chat", lambda answers, words: threads.append(threading.get_ident()) or "")
    for length in (10, LONG + 1):
        await show_answers([Answer("How?", text="x" * length)], ENGLISH)
    assert threads[0] == threading.get_ident() != threads[1]


def test_of_a_chat_of_any_size_so_many_characters_are_read_as_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    parse, read = markdown._PARSER.parse, []
    monkeypatch.setattr(markdown._PARSER, "parse", lambda text, env: read.append(len(text)) or parse(text, env))
    short, long = "So *it* is [1].\n\n" * 100, "[" * 399_000
    answers = [Answer("How?", text=text, outcome="uncited") for text in (long, *[short] * 600, long, long, short)]
    html = show_chat(answers, ENGLISH)
    assert sum(read) <= LONGEST_CHAT and max(read) <= LONGEST_MARKUP, "of 2.2 million"
    assert html.count("<em>it</em>") > 200 * 100 and html.rstrip().count(long) == 3 and html.count(escape(short)) > 300
    growing = GrowingHTML()
    for size in range(0, 399_000, 40_000):
        assert long[:size] in growing.render(long[:size])
    assert max(read) <= LONGEST_MARKUP


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_becomes_html(text: str) -> None:
    passage = Passage("a::0", text, text, "javascript:alert(1)", text, 0.5, licence=text)
    citations = [Citation(1, "a::0", 0, len(text), 1.0), Citation(1, "a::0", 3, 9, 1.0)]
    answer = Answer(text, text, text, f"{text}\n\nSo it is [1].", [passage], citations, "cited", Receipt(text, text))
    page = {"title": text, "score": 1.0, "weight": 1.0, "passages": 0}
    search = {"confidence": 1.0, "threshold": 0.5, "candidates": [page], "parts": []}
    prompt, sent = [{"role": text, "content": text}], [{"provider": text, "url": text, "start": 0.1}]
    account = {
        "stages": [{"name": text, "start": 0.0, "seconds": 1.0}],
        "search": search,
        "prompt": prompt,
        "attempts": sent,
    }
    failed = Answer(text, failed=Failed("x", text, text), notice=Notice("x", text), outcome="error")
    for html in (
        render_markdown(text, spans=[(0, len(text))]),
        show_answer(answer, ENGLISH),
        show_answer(failed, FRENCH),
        show_answer(Answer(text, notice=Notice("x", text)), ENGLISH),
        show_sources(answer, ENGLISH),
        show_account(account, ENGLISH),
        show_reproduce(text, "curl", "provider", Snippet(text, text), ENGLISH),
    ):
        assert_harmless(html)
    now = datetime.now(UTC)
    assert_harmless(show_chats([ChatRecord(text, text, now, now)], text, ENGLISH, now))


def test_markers_in_code_are_no_citations() -> None:
    html = render_markdown("Use `messages[1]` [1].\n\n```python\nx[1]\n```\n", lambda n: f"<b>{n}</b>")
    assert html.count("<b>1</b>") == 1


def test_every_word_is_used_and_there_in_both_languages() -> None:
    source = "\n".join(path.read_text(encoding="utf8") for path in WEB.glob("*.py") if path.name != "words.py")
    table = {name: word for base in Words.__mro__ for name, word in vars(base).items() if isinstance(word, Word)}
    assert len(table) > 80
    for name, word in table.items():
        assert all(word.texts.values()), name
        english, french = ({*re.findall(r"\{\w*\}", text)} for text in word.texts.values())
        assert english == french, f"{name} is filled in differently"
        used = name.startswith(("failure_", "hint_")) or re.search(rf'words\.{name}\b|"{name}": lay_out', source)
        assert used, f"nothing shows {name}"


def codes(kind: type[DocStralError]) -> set[str]:
    "The codes of an error and of all that are kinds of it."
    return {kind.code}.union(*(codes(each) for each in kind.__subclasses__() if each.__module__ == "docstral.errors"))


def test_every_failure_of_a_provider_has_a_title_in_both_languages() -> None:
    for code in codes(ProviderError):
        failed = Answer("?", message_id="msg_1", failed=Failed(code, "So it was.", "Do this."), outcome="error")
        assert ENGLISH.failed not in show_answer(failed, ENGLISH), code
        assert FRENCH.failed not in show_answer(failed, FRENCH), code
    assert codes(ProviderError) >= {"bad_key", "timeout", "unreachable"}


def test_french_readers_read_in_french_what_to_do_about_every_failure() -> None:
    never = {"settings", "corpus", "server", "too_large"}  # no answer fails with those, nor with what the guard says
    never |= {"foreign_page", "unknown_host", "long_headers", "slow_request", "too_many_requests"}
    for code in codes(DocStralError) - never:
        card = show_answer(Answer("?", failed=Failed(code, "So it was.", "Do this."), outcome="error"), FRENCH)
        assert "Do this." not in card and FRENCH.failed not in card, code
        assert card.count("So it was.") == card.count('lang="en"') <= 1, code


async def test_the_page_says_who_would_answer_its_reader_and_with_whose_key(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk.service, "settings", replace(desk.service.settings, provider="auto"))
    grete = reader("grete")
    assert "extractive · scripted · 2 pages" in show_state(desk, grete)["status"]
    desk.choices.of("grete").key = "a-key-of-my-own"
    assert "mistral · mistral-small-latest · your key · 2 pages" in show_state(desk, grete)["status"]
    desk.choices.of("grete").model = "mistral-large-latest"
    assert "mistral · mistral-large-latest · votre clé" in show_state(desk, reader("grete", words=FRENCH))["status"]
    desk.choices.of("grete").provider = "extractive"
    assert "key" not in show_state(desk, grete)["status"]
    assert "key" not in show_state(desk, reader("dorothy"))["status"], "another reader's key is not theirs"


def test_a_field_takes_as_many_characters_as_the_server() -> None:
    answer = Answer("How?", message_id="msg_1", text="So.", outcome="uncited", rating=1)
    html = show_head(ENGLISH) + show_rename(ENGLISH) + show_answer(answer, ENGLISH)
    fields = [attributes for tag, attributes in Reading(html).found if tag == "input"]
    longest = {field.get("name") or field["id"]: field.get("maxlength") for field in fields}
    assert longest == {"find": str(LONGEST_SEARCH), "title": str(LONGEST_TITLE), "comment": str(LONGEST_COMMENT)}


# The desk, with a real service over two pages


class Scripted(Provider):
    "Writes words slowly, or fails, as the question says."

    name = "extractive"

    def model(self, request: Request) -> str:
        return "scripted"

    async def stream(self, request: Request) -> AsyncGenerator[ProviderEvent, None]:
        for word in "Set stream to true [1]. It ends with DONE [1].".split(" "):
            await asyncio.sleep(0.02)
            yield Text(f"{word} ")
            if "fail" in request.question:
                raise RateLimitedError("Too <many> requests.")
        yield Finished("stop")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatService]:
    "A chat service over two pages, whose provider is scripted."
    folder = tmp_path_factory.mktemp("desk")
    pages = {"chat.md": "# Chat\n\n## Streaming\n\nSet stream to true. The stream ends with DONE.\n",
             "tools.md": "# Tools\n\nDeclare tools with a JSON schema.\n"}  # fmt: skip
    (folder / "docs").mkdir()
    for name, text in pages.items():
        (folder / "docs" / name).write_text(text, encoding="utf8")
    settings = Settings(data_dir=folder / "data", docs=(folder / "docs",), provider="extractive")
    with Store(settings.data_dir / "docstral.duckdb") as store:
        service = ChatService(settings, store)
        service.load()
        service._providers["extractive"] = Scripted()
        yield service


@pytest.fixture
def desk(service: ChatService) -> Desk:
    "A desk of its own for each test."
    return Desk(service)


def reader(name: str, tab: str = "tab", words: Words = ENGLISH) -> Reader:
    "A reader with a tab that no other test has."
    return Reader(name, f"{name} {tab}", words)


async def watch(desk: Desk, reader: Reader, parts: Parts) -> Parts:
    "What the screen shows in the end, when what streams has been followed."
    screen = dict(parts)
    async for parts in follow(desk, reader, screen.get("following", "")):
        screen |= parts
    return screen


async def asked(desk: Desk, reader: Reader, text: str, chat_id: str = "") -> Parts:
    "What the screen shows at the end of an answer."
    return await watch(desk, reader, await ask(desk, reader, text, chat_id))


async def begun(desk: Desk) -> None:
    "Wait until the answer being written has text."
    while not (desk.live and desk.live[0].answer.text):  # noqa: ASYNC110  what it waits for has no event
        await asyncio.sleep(0.01)


async def test_a_question_is_answered_with_chips_sources_and_receipt(desk: Desk) -> None:
    ada = reader("ada")
    first = await ask(desk, ada, "How do I stream?", "")
    assert (first["question"], first["settled"], first["busy"]) == ("", "", True)
    steps = [parts async for parts in follow(desk, ada, first["following"])]
    assert 3 < len(steps) < 14, "it grows in steps, not with every word"
    last = steps[-1]
    assert last["growing"].count('data-act="cite"') == 2 and "scripted · " in last["growing"]
    assert 'aria-label="Source 1: Chat &gt; Streaming"' in last["growing"]
    assert 'id="source-1"' in last["sources"] and "<mark>" in last["sources"]
    assert "How do I stream?" in last["chats"] and "aria-current" in last["chats"] and last["busy"] is False


async def test_a_second_question_continues_the_chat(desk: Desk) -> None:
    grace = reader("grace")
    first = await asked(desk, grace, "How do I stream?")
    second = await asked(desk, grace, "And tools, what of them?", first["chat_id"])
    assert second["chat_id"] == first["chat_id"] and "How do I stream?" in second["settled"]
    assert len(list_chats(desk.service.store, "grace")) == 1
    assert len(list_messages(desk.service.store, "grace", first["chat_id"])) == 4


async def test_two_questions_at_once_are_one(desk: Desk) -> None:
    dorothy = reader("dorothy")
    both = await asyncio.gather(ask(desk, dorothy, "How?", ""), ask(desk, dorothy, "How?", ""))
    assert len(desk.live) == 1 and {"busy": True} in both
    await desk.close()


async def test_stop_stores_what_was_written(desk: Desk) -> None:
    joan = reader("joan")
    screen = await ask(desk, joan, "How do I stream?", "")
    async for parts in follow(desk, joan, screen["following"]):
        screen |= parts
        if "Set stream" in screen["growing"]:
            await stop(desk, reader("eve"))  # another's tab stops nothing
            await stop(desk, joan)
    assert ENGLISH.stopped in screen["growing"] and "DONE" not in screen["growing"]
    assert "scripted · " in screen["growing"], "a stopped answer has a receipt too"
    _, stored = list_messages(desk.service.store, "joan", screen["chat_id"])
    assert stored.outcome == "stopped" and stored.content.startswith("Set stream")


async def test_an_answer_that_is_stopped_and_cannot_be_kept_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Store, turn: object) -> None:
        raise StoreError("No space left on device.")

    monkeypatch.setattr(Store, "keep", full)
    frances = reader("frances")
    await ask(desk, frances, "How do I stream?", "")
    await begun(desk)
    growing = (await stop(desk, frances))["growing"]
    assert str(ENGLISH.not_kept) in growing and str(ENGLISH.stopped) not in growing


async def test_of_a_question_that_is_too_long_the_page_shows_the_beginning(desk: Desk) -> None:
    text = "How? " * 200_000
    last = await asked(desk, reader("rosalind"), text)
    assert last["question"] == text.strip() and "the limit is 4000" in last["growing"]
    assert len(last["growing"]) < 2_000


async def test_an_error_is_a_card_and_keeps_the_text(desk: Desk) -> None:
    screen = await asked(desk, reader("mary", words=FRENCH), "please fail to stream")
    assert "Too &lt;many&gt; requests." in screen["growing"] and FRENCH.kept in screen["growing"]
    assert screen["busy"] is False and screen["question"] == ""
    assert "scripted · " in screen["growing"], "what was written has a receipt, as when the chat is opened again"


async def test_what_cannot_be_asked_stays_in_the_field(desk: Desk) -> None:
    assert await asked(desk, reader("kay"), "   ") == {"busy": False}
    long = "stream " * 1000
    screen = await asked(desk, reader("kay"), long)
    assert screen["question"] == long.strip() and "characters" in screen["growing"]
    assert list_chats(desk.service.store, "kay") == []


async def test_nobody_sees_another_readers_chat(desk: Desk) -> None:
    mine = await asked(desk, reader("lin"), "How do I stream?")
    [_, message] = list_messages(desk.service.store, "lin", mine["chat_id"])
    screen = await open_page(desk, reader("mallory"), mine["chat_id"])
    assert screen["chat_id"] == "" and 'class="welcome"' in screen["settled"] and mine["chat_id"] not in screen["chats"]
    stolen = await show_citation(desk, reader("mallory"), mine["chat_id"], message.id, "1")
    assert ENGLISH.no_sources in stolen["sources"]
    screen = await asked(desk, reader("mallory"), "How do I stream?", mine["chat_id"])
    assert screen["chat_id"] != mine["chat_id"]


async def test_an_answer_goes_on_when_its_reader_leaves(desk: Desk) -> None:
    hedy = reader("hedy")
    watching = asyncio.create_task(asked(desk, hedy, "How do I stream?"))
    await begun(desk)
    elsewhere = await open_chat(desk, hedy, "")
    assert (await watching)["busy"] is True, "the view that was left hears nothing more"
    assert "How do I stream?" in elsewhere["chats"], "it is listed before it is stored"
    back = await watch(desk, hedy, await open_chat(desk, hedy, desk.live[0].answer.chat_id))
    assert "DONE" in back["growing"] and back["busy"] is False and desk.live == []


async def test_a_page_that_opens_late_does_not_hide_the_question(desk: Desk) -> None:
    rosa = reader("rosa")
    asking = await ask(desk, rosa, "How do I stream?", "")
    assert "settled" not in await open_page(desk, rosa, "")
    assert "DONE" in (await watch(desk, rosa, asking))["growing"]


def held(monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool]) -> tuple[asyncio.Event, asyncio.Event]:
    "Make one reading of the chats wait: an event that tells that it does, and one that lets it go on."
    read, waiting, released = desk_module.read_chats, asyncio.Event(), asyncio.Event()

    async def read_later(*given: Any) -> str:
        if when() and not waiting.is_set():
            waiting.set()
            await released.wait()
        return await read(*given)

    monkeypatch.setattr(desk_module, "read_chats", read_later)
    return waiting, released


@pytest.mark.parametrize("ended", [False, True])
async def test_a_tab_shows_nothing_more_of_the_chat_that_it_left(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    maria = reader("maria")
    waiting, released = held(monkeypatch, lambda: bool(desk.live) != ended)
    screen = await ask(desk, maria, "How do I stream?", "")
    watching = asyncio.create_task(watch(desk, maria, screen))
    await waiting.wait()
    opening = asyncio.create_task(open_chat(desk, maria, ""))
    await asyncio.wait({opening}, timeout=0.1)
    assert not opening.done(), "what is on its way comes first"
    released.set()
    shown = await watching
    assert shown["busy"] is True and ("chat_id" in shown) == ended, "nothing came after it had left"
    assert (await opening)["chat_id"] == "" and desk.tabs == {}
    await desk.close()


@pytest.mark.parametrize("first", ["open", "stop"])
async def test_of_two_clicks_the_last_one_is_shown_in_the_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    emmy = reader("emmy")
    other = (await asked(desk, emmy, "How do I stream?"))["chat_id"]
    await ask(desk, emmy, "And tools, what of them?", "")
    await begun(desk)
    written = desk.live[0].answer.chat_id
    waiting, released = held(monkeypatch, lambda: True)
    order: list[str] = []
    clicks = [open_chat(desk, emmy, written) if first == "open" else stop(desk, emmy), open_chat(desk, emmy, other)]
    done = []
    for name, click in zip(("first", "last"), clicks, strict=True):
        done.append(asyncio.create_task(click))
        done[-1].add_done_callback(lambda _, name=name: order.append(name))
        await waiting.wait()
    await asyncio.wait(done, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
    released.set()
    _, last = await asyncio.gather(*done)
    assert order == ["first", "last"] and last["chat_id"] == other and desk.tabs == {}
    await desk.close()


async def test_a_question_right_after_a_stop_is_followed(desk: Desk) -> None:
    olga = reader("olga")
    first = await ask(desk, olga, "How do I stream?", "")
    looks = follow(desk, olga, first["following"])
    await anext(looks)
    await begun(desk)
    await stop(desk, olga)
    second = await ask(desk, olga, "And tools, what of them?", "")
    assert [parts async for parts in looks] == [], "the first one ends where the second begins"
    assert "DONE" in (await watch(desk, olga, second))["growing"] and desk.tabs == {}


async def test_a_list_of_models_that_fails_leaves_a_line_in_the_log(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*given: object) -> None:
        raise ProviderError("The provider lists no models.")

    monkeypatch.setattr(desk.service, "models", refuse)
    with caplog.at_level("INFO", logger="docstral.web.desk"):
        await open_page(desk, reader("sonia"), "")
    assert "The provider lists no models." in caplog.text


async def test_closing_the_desk_stores_what_is_being_written(desk: Desk) -> None:
    watching = asyncio.create_task(asked(desk, reader("edith"), "How do I stream?"))
    await begun(desk)
    await desk.close()
    screen = await watching
    assert ENGLISH.stopped in screen["growing"]
    assert list_messages(desk.service.store, "edith", screen["chat_id"])[1].outcome == "stopped"


async def test_metrics_count_every_answer(desk: Desk) -> None:
    await asked(desk, reader("alan"), "How do I stream?")
    shown = await asyncio.to_thread(show_metrics, desk, reader("alan"), "1h")
    assert ENGLISH.latency_p95 in shown["figures"] and "<polyline" in shown["figures"]
    assert ENGLISH.no_gpu in shown["figures"] or ENGLISH.gpu_memory in shown["figures"]
    split = await asyncio.to_thread(show_metrics, desk, reader("alan"), "no such window", True)
    assert "scripted" in split["figures"] and split["window"] == "all by model"


# Gradio. These tests are coroutines since, without a running event loop, Gradio makes some that it never closes.


async def test_the_page_loads_nothing_from_elsewhere(service: ChatService) -> None:
    with TestClient(make_pages(service), base_url="http://127.0.0.1") as client:
        page = client.get("/", headers={"accept": "text/html"}).text
        loaded = [
            attributes.get("src") or attributes.get("href") or ""
            for tag, attributes in Reading(page).found
            if tag in {"script", "link", "img"}
        ]
        assert loaded and not [address for address in loaded if address.startswith(("http", "//"))]
        upload = client.post("/gradio_api/upload", files={"files": b"more than a byte"})
        assert upload.status_code >= 400


async def test_gradio_keeps_nothing_and_offers_no_api_of_its_own(service: ChatService) -> None:
    blocks = build_blocks(service)
    assert not blocks.analytics_enabled
    assert {function.api_visibility for function in blocks.fns.values()} == {"private"}
    assert all(function.concurrency_limit is None for function in blocks.fns.values() if function.fn)
