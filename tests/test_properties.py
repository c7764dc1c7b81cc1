"Properties rather than examples: what holds for every text, stream and chat that hypothesis makes up."

import ast
import itertools
import json
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import Field, asdict, fields, replace
from datetime import UTC, datetime
from functools import partial
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any, cast

import orjson
import pytest
from helpers import DEADLINE
from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st
from invariants import (
    ANSWER,
    PAGE,
    STREAM,
    holds_for_citations,
    holds_for_markdown,
    holds_for_stream,
    pieces_of,
)
from markdown_it import MarkdownIt
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from docstral.api.http import encode
from docstral.citations import CitationReader
from docstral.corpus import LONGEST_BLOCK, Page, blocks, split_page
from docstral.errors import SettingsError
from docstral.exports import ChatFile, TurnFile, as_json, as_markdown, export_chat, import_chat
from docstral.exposition import Exposition
from docstral.followups import search_text
from docstral.mdx import TAG, clean_markdown, clean_mdx
from docstral.models import estimate_tokens
from docstral.prompt import build_messages, fit
from docstral.providers.stream import EventReader
from docstral.question import as_history
from docstral.receipt import Meter
from docstral.reproduce import reproduce
from docstral.settings import Settings, read_value, variable
from docstral.store import MessageRecord, Store, Turn, get_chat, list_messages, save_turn
from docstral.support import WEAK, _evidence, check, supported
from docstral.titles import title_of
from docstral.types import Citation, Delta, Failed, Outcome, Passage, Receipt, new_id
from docstral.web.markdown import render_markdown

configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "docstral-hypothesis")  # nothing in the tree
settings.register_profile(
    "docstral",
    derandomize=True,  # the same examples in each run
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("docstral")

CUTS = st.lists(st.integers(0, 10_000), max_size=6)
PROSE = st.text("abc XYZ.,é日\n'", min_size=1, max_size=30)
LINES = st.sampled_from(["<Tabs>", "import X from 'x';", ":::tip", "", "  {/* x */}", "<b>[1]</b>"])
FENCE = st.builds(
    lambda ticks, language, lines: "\n".join([f"{ticks}{language}", *lines, ticks]),
    st.sampled_from(["```", "````", "~~~"]),
    st.sampled_from(["", "python", "jsx title='x'"]),
    st.lists(LINES, max_size=5),
)


def made_of(parts: list[str], most: int = 25) -> st.SearchStrategy[str]:
    "Texts of these parts, and of anything else in between."
    return st.lists(st.sampled_from(parts) | st.text(max_size=3), max_size=most).map("".join)


def nothing(path: PurePosixPath) -> None:
    "There are no partials."


# Pages


@given(made_of(PAGE))
def test_a_page_is_cleaned_whatever_stands_in_it(text: str) -> None:
    holds_for_markdown(text)


@given(st.lists(st.tuples(PROSE, FENCE), min_size=1, max_size=4))
def test_fences_come_out_byte_for_byte(parts: list[tuple[str, str]]) -> None:
    text = "\n\n".join(f"{prose}\n\n{fence}" for prose, fence in parts)
    for cleaned in (clean_mdx(text, nothing), clean_markdown(text)):
        place = 0
        for _, fence in parts:
            place = cleaned.index(fence, place) + len(fence)
    assert clean_mdx(clean_mdx(text, nothing), nothing) == clean_mdx(text, nothing)


VALUES = st.sampled_from(['"a > b"', "'x'", "{`y`}", '{<Icon name="x" />}', '{{ color: "red" }}', '"{/*"'])
NAMES = st.sampled_from(["Tabs", "Card", "SectionTab", "TabItem", "FaqItem", "AppLink", "div", "table", "h2", "br"])


def tag(name: str, values: list[str], children: list[str]) -> str:
    "A component with these values for its attributes."
    return f"<{name}{''.join(f' title={value}' for value in values)}>\n{''.join(children)}</{name}>"


INNER = lambda inner: st.builds(tag, NAMES, st.lists(VALUES, max_size=2), st.lists(inner, max_size=3))  # noqa: E731
TREE = st.recursive(PROSE, INNER, max_leaves=12)


@given(TREE)
def test_no_component_survives_and_no_prose_is_lost(text: str) -> None:
    cleaned = clean_mdx(text, nothing)
    assert not TAG.search(cleaned), cleaned
    kept = "".join(letter for letter in cleaned if letter in "é日")  # attributes hold neither
    assert kept == "".join(letter for letter in text if letter in "é日")


def cpu_seconds(work: Callable[[str], object], text: str) -> float:
    "CPU time of some work: the lesser of two times."
    spent = []
    for _ in range(2):
        began = time.process_time()
        work(text)
        spent.append(time.process_time() - began)
    return min(spent)


def read_answer(text: str) -> None:
    "Read an answer that comes in one piece."
    reader = CitationReader(5)
    reader.feed(text)
    reader.close()


def read_letters(text: str) -> None:
    "Read an answer that comes letter by letter."
    reader = CitationReader(5)
    for letter in text:
        reader.feed(letter)
    reader.close()


HARD = ["`", "```", "import \n", "import a\n", "<b ", "<b '", "<b {", "<SectionTab ", "<AppLink >", "<!--", "<A/>"]
HARD_ANSWERS = ["\n[", "\n", " \n", "[1]", "`a", "[", "- ", "【", "\\"]


@pytest.mark.parametrize(
    ("work", "part", "count"),
    [
        *((lambda text: clean_mdx(text, nothing), part, 1_500) for part in HARD),
        *((blocks, part, 1_500) for part in ("```", "~~~\n", "\n\n")),
        *((read_answer, part, 1_000) for part in HARD_ANSWERS),
        *((read_letters, part, 1_000) for part in HARD_ANSWERS),
    ],
)
def test_what_is_nested_or_unclosed_takes_time_that_grows_with_the_text(
    work: Callable[[str], object], part: str, count: int
) -> None:
    once, eightfold = cpu_seconds(work, part * count), cpu_seconds(work, part * count * 8)
    assert eightfold < 0.05 or eightfold < 30 * once, f"{once:.4f} s, then {eightfold:.4f} s: 64 times is quadratic"


# Chunks


@settings(max_examples=60)
@given(made_of([*PAGE, "# A\n", "## B {#b}\n", "| a | b |\n", "word " * 30, "x" * 200, "\n\n"], most=60))
def test_chunks_are_made_of_their_page_and_nothing_is_lost(text: str) -> None:
    page = Page("a/page.md", "A title", clean_markdown(text))
    chunks = split_page(page)
    assert [chunk.id for chunk in chunks] == [f"a/page.md::{number}" for number in range(len(chunks))]
    assert split_page(page) == chunks
    lines = {line.strip() for line in page.text.splitlines()}
    said = {line.strip() for chunk in chunks for line in chunk.text.splitlines()}
    assert said <= lines | {""}
    headings = {line.strip() for line in page.text.split("\n") if line.lstrip().startswith("#")}
    assert {line for line in lines - said - headings if line and len(line) <= LONGEST_BLOCK} == set()


# Citations


@settings(max_examples=400)
@given(made_of(ANSWER), CUTS, st.integers(0, 12))
def test_an_answer_is_shown_alike_however_it_is_cut(text: str, cuts: list[int], passages: int) -> None:
    holds_for_citations(pieces_of(text, cuts), passages)
    holds_for_citations(list(text), passages)


@settings(max_examples=30)
@given(st.sampled_from([" ", "\t", "- ", "> ", "`x", "``` x", "~~~~ ", "\\", "[", "[1, ", "    x"]), st.integers(1, 9))
def test_what_is_held_back_is_bounded(part: str, size: int) -> None:
    text = part * 1_000
    holds_for_citations([text[at : at + size] for at in range(0, len(text), size)], 5)


CODE = st.sampled_from(["`x[1]`", "\n\n```py\na[1] = b[2]\n```\n\n", "``[3]``", "items[0]"])


NUMBERS = st.lists(st.integers(1, 9), min_size=1, max_size=3)
WORDS = st.text("abc XYZ.,é日'", max_size=20).map("a{}".format)  # after a fence four spaces would begin code again


@given(st.lists(WORDS | CODE | NUMBERS))
def test_no_marker_is_lost_or_made_up(parts: list[str | list[int]]) -> None:
    "Against a plain second reading: words, code and markers are known here, so nothing has to be parsed."
    order: list[int] = []
    written, expected = ["So"], ["So"]
    for part in parts:
        if isinstance(part, str):
            written.append(f" {part} ")
            expected.append(f" {part} ")
        else:
            valid = [number for number in dict.fromkeys(part) if number <= 5]
            order += [number for number in valid if number not in order]
            written.append(f"so [{', '.join(map(str, part))}].")
            expected.append(f"so{' ' * bool(valid)}{''.join(f'[{order.index(number) + 1}]' for number in valid)}.")
    assert holds_for_citations(pieces_of("".join(written), [7, 77]), 5) == "".join(expected)


# Streams


@given(st.lists(st.sampled_from(STREAM) | st.text(max_size=3), max_size=30), CUTS)
def test_a_stream_is_read_alike_however_it_is_cut(parts: list[str], cuts: list[int]) -> None:
    data = "".join(parts).encode()
    holds_for_stream(pieces_of(data, cuts))
    holds_for_stream([data[at : at + 1] for at in range(len(data))])


# Prompts


@given(st.lists(st.tuples(st.text("aé日 \n", max_size=400), st.integers(1, 8)), max_size=6), st.integers(40, 2_000))
def test_what_is_kept_of_the_passages_fits_in_their_order(made: list[tuple[str, int]], tokens: int) -> None:
    passages = [Passage(f"p::{n}", "T", "", "", text * times, 1.0) for n, (text, times) in enumerate(made)]
    kept = fit(passages, tokens)
    assert sum(estimate_tokens(f"{passage.label}\n{passage.text}") + 20 for passage in kept) <= tokens
    assert kept[1:] == passages[1 : len(kept)]
    assert all(passages[0].text.startswith(passage.text) for passage in kept[:1])


# What is sent and shown


@given(made_of([*STREAM, '"', "\\", "\u2028", "\x85"]))
def test_an_event_is_read_back_as_it_was_sent(text: str) -> None:
    sent = encode(Delta(text)) + encode(Delta("next"))
    assert [orjson.loads(data) for data in EventReader().feed(sent)] == [{"text": text}, {"text": "next"}]
    names = [line for line in sent.split(b"\n") if line.startswith(b"event:")]
    assert names == [b"event: delta"] * 2


SAFE = {"p", "a", "code", "pre", "div", "span", "button", "em", "strong", "s", "ul", "ol", "li", "blockquote", "mark"}
SAFE |= {"h3", "h4", "h5", "h6", "hr", "br", "table", "thead", "tbody", "tr", "th", "td"}
PLAIN = {"href", "target", "rel", "class", "type", "data-do", "data-copied", "data-copy", "tabindex", "start", "style"}


class Checked(HTMLParser):
    "Fails where HTML holds what no text may bring in."

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SAFE, tag
        for name, value in attrs:
            assert name in PLAIN, name
            assert name != "href" or (value or "").lower().startswith(("http://", "https://")), value
            assert name != "style" or re.fullmatch(r"text-align:(left|right|center)", value or ""), value


HOSTILE = [
    "<script>",
    "<img src=x onerror=a()>",
    "[x](javascript:a())",
    "[x](https://e.org\"onclick='a')",
    "<https://e.org>",
]
HOSTILE += [
    "[x](//e.org)",
    "![x](https://e.org/i)",
    "[x]( java\tscript:a)",
    "```<b>\n",
    "| a |\n|:-:|\n| <b> |\n",
    "&#106;",
    "&lt;",
]


@given(made_of([*ANSWER, *HOSTILE, "# ", "**"]))
def test_no_text_becomes_anything_but_plain_html(text: str) -> None:
    Checked().feed(render_markdown(text, base="https://docs.example.org/a/"))


# Citations that are checked

SAID = [
    "The `max_tokens` is 1,500. ",
    "- Two items\n",
    "| a | 3.5k |\n|---|---|\n",
    "Le modèle-2 ",
    "٣ ",
    "9" * 400,
    ". ",
]


@settings(max_examples=100)
@given(
    made_of([*ANSWER, *SAID]), st.lists(made_of([*PAGE, *SAID]), min_size=1, max_size=4), st.sampled_from(["en", "fr"])
)
def test_a_citation_is_checked_alike_and_points_into_its_passage(answer: str, texts: list[str], language: str) -> None:
    passages = [Passage(f"p::{number}", "A title", text[:9], "", text, 1.0) for number, text in enumerate(texts)]
    reader = CitationReader(len(passages))
    shown = reader.feed(answer) + reader.close()
    found = check(shown, passages, reader.order, reader.marks, language)
    _evidence.cache_clear()
    assert check(shown, passages, reader.order, reader.marks, language) == found
    assert [citation.n for citation in found] == [number for _, number in reader.marks]
    for citation in found:
        source = passages[reader.order[citation.n - 1] - 1]
        assert citation.source_id == source.id
        assert 0 <= citation.support <= 1 and citation.weak == (citation.support < WEAK)
        assert 0 <= citation.start <= citation.end <= len(source.text)
        assert 0 <= citation.at <= len(shown)
    share = supported(found)
    assert share is None if not found else share is not None and 0 <= share <= 1


# Histories

TURNS = st.lists(st.tuples(PROSE, st.just("") | PROSE, st.sampled_from(["cited", "stopped", "error"])), max_size=6)


def messages_of(turns: list[tuple[str, str, str]]) -> list[MessageRecord]:
    "The messages of these questions, answers and outcomes, as the store lists them."
    when, messages = datetime(2026, 1, 1, tzinfo=UTC), list[MessageRecord]()
    for number, (asked, answer, outcome) in enumerate(turns):
        messages.append(MessageRecord(f"q{number}", "c", "user", asked, when, turn=f"t{number}"))
        messages.append(
            MessageRecord(f"t{number}", "c", "assistant", answer, when, cast(Outcome, outcome), turn=f"t{number}")
        )
    return messages


@given(TURNS, st.booleans(), PROSE, st.integers(0, 60))
def test_a_history_is_answered_questions_in_turn(
    turns: list[tuple[str, str, str]], waiting: bool, question: str, tokens: int
) -> None:
    "Also where the last question still waits for its answer."
    messages = messages_of(turns)
    history = as_history(messages[:-1] if waiting else messages)
    answered = [turn for turn in turns[: len(turns) - waiting] if turn[1] and turn[2] != "error"]
    assert [message["content"] for message in history] == [text for turn in answered for text in turn[:2]]
    asked = [message["content"] for message in history[::2]]
    assert search_text(question, history) in ["\n".join([*asked[at:], question]) for at in range(len(asked) + 1)]
    sent = build_messages(question, [], history, history_tokens=tokens)
    assert [message["role"] for message in sent[1:]] == (["user", "assistant"] * len(sent))[: len(sent) - 1]
    assert sent[-1]["role"] == "user" and len(sent) % 2 == 0
    assert sum(estimate_tokens(message["content"]) for message in sent[1:-1]) <= tokens


# Chats in files


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    "A database in a file."
    with Store(tmp_path_factory.mktemp("kept") / "docstral.duckdb") as store:
        yield store


def comparable(message: MessageRecord) -> MessageRecord:
    "A message without the identifiers that a copy has of its own."
    return replace(message, id="", chat_id="", turn="")


ASKED = (st.text(min_size=1, max_size=20) | PROSE).filter(str.strip)


@settings(max_examples=40)
@given(st.lists(st.tuples(ASKED, st.text(max_size=30), st.booleans()), min_size=1, max_size=3), st.text(max_size=10))
def test_a_chat_comes_back_from_its_file_as_it_was(kept: Store, turns: list[tuple[str, str, bool]], text: str) -> None:
    chat, source, before = new_id("chat"), Passage(f"{text}::0", text, text, "/a", f"{text}.", 0.1, page=text), None
    for asked, answer, again in turns:
        citations, failed = [Citation(1, source.id, 0, 1, 1 / 3)], asdict(Failed(text, text, text))
        turn = Turn("ada", chat, new_id("msg"), asked, answer, "cited", Receipt(text, text, 0.1), title_of(asked))
        turn = replace(turn, sources=[source], citations=citations, error=failed, begins=not before)
        turn = replace(turn, replaces=before if again else None)
        kept.write(partial(save_turn, turn=turn)).result()
        before = turn.message_id
    copy = import_chat(kept, "bob", as_json(export_chat(kept, "ada", chat)))
    was, now = list_messages(kept, "ada", chat, replaced=True), list_messages(kept, "bob", copy.id, replaced=True)
    assert len(was) == 2 * len(turns)
    assert list(map(comparable, now)) == list(map(comparable, was))
    assert {message.id for message in now}.isdisjoint(message.id for message in was)
    assert replace(copy, id="") == replace(get_chat(kept, "ada", chat), id="")


LIVE = ["\\", "\\<img src=x>", "![x](y)", "\\![x](y)", "<b ", "<!--", "\r", "\n```\n", "````", "~~~\n", "\n    ", "- "]


@settings(max_examples=300)
@given(made_of([*ANSWER, *HOSTILE, *LIVE]), st.text(max_size=5) | st.sampled_from(HOSTILE))
def test_an_exported_page_keeps_its_questions_and_loads_nothing(answer: str, text: str) -> None:
    when, source = datetime(2026, 1, 1, tzinfo=UTC), Passage("a::0", text, "", text, "", 0.1, licence=text)
    cited, receipt = [Citation(1, "a::0", 0, 0, 1.0)], Receipt(text, f"m{text}")
    turn = partial(TurnFile.model_construct, asked=when, answered=when, citations=cited, receipt=receipt, error=None)
    asked = ["Is this the first?", f"And the second {text}?"]
    turns = [turn(question=each, answer=answer, sources=[source], outcome="stopped", replaced=None) for each in asked]
    page = as_markdown(ChatFile.model_construct(title=f"T {text}", updated=when, turns=turns))
    tokens = MarkdownIt("commonmark").parse(page)
    inner = [child.type for token in tokens for child in (token, *(token.children or []))]
    assert not {"html_block", "html_inline", "image"} & set(inner), page
    headings = [after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    headings = [re.sub(r"\\([\\\[\]<>`])", r"\1", heading) for heading in headings]
    wanted = [" ".join(each.replace("\0", "\ufffd").split()) for each in asked]  # Markdown knows no NUL
    assert [heading for heading in headings if heading in wanted] == wanted, page


# Answers asked for again

QUESTIONS = made_of(["'", '"', "$HOME", "$(id)", "`id`", "\n", "\\", "!!", "%s", "{x}", "'''", "🔑", "\u2028", "EOF\n"])


def asked_again(question: str, form: str) -> tuple[str, str]:
    "The body that was sent with a question, and the code that sends it again."
    sent = {"model": "m", "messages": [{"role": "user", "content": question}], "temperature": 0.1, "stream": True}
    body = orjson.dumps(sent).decode()
    request = {"provider": "mistral", "url": "https://a.example/v1", "body": body, "question": {"message": question}}
    message = MessageRecord("msg_1", "c", "assistant", "", datetime.now(UTC), request=request)
    return body, reproduce(message, form).text


@given(QUESTIONS)
def test_code_that_asks_again_holds_the_body_that_was_sent(question: str) -> None:
    body, command = asked_again(question, "curl")
    assert shlex.split(command)[:3] == ["printf", "%s", body]
    notebook = orjson.loads(asked_again(question, "notebook")[1])
    cells = "\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    for code in (asked_again(question, "python")[1], cells):
        compile(code, "snippet", "exec")
        (literal,) = (
            node.value for node in ast.parse(code).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "body"
        )  # fmt: skip
        assert json.dumps(ast.literal_eval(literal), ensure_ascii=False, separators=(",", ":")) == body


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with a `curl` that prints what it would send."
    path = tmp_path_factory.mktemp("stub") / "curl"
    path.write_text("#!/bin/sh\nexec cat\n")
    path.chmod(0o755)
    return path.parent


@settings(max_examples=15)
@given(question=QUESTIONS)
def test_a_shell_sends_the_bytes_that_were_sent(stub: Path, question: str) -> None:
    body, command = asked_again(question, "curl")
    environment = {"PATH": f"{stub}:/usr/bin:/bin", "MISTRAL_API_KEY": "k"}
    ran = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, timeout=DEADLINE)
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, b"", body.encode())


# Figures


@settings(max_examples=40)
@given(made_of(["\\", '"', "\n", "\\n", "{", "}", ",", "=", "\r", "#"], 8), st.text(min_size=1, max_size=8))
def test_prometheus_reads_the_names_that_were_counted(model: str, code: str) -> None:
    exposition, chat = Exposition(), ("ada", "c", "m", "How?")
    meter = Meter("mistral", model, searched=0.0, asked=0.0)
    exposition.count(Turn(*chat, "", "cited", Receipt("mistral", model)), meter)
    exposition.count(Turn(*chat, "", "error", Receipt(code, model), error_code=code), meter)
    for accept, read in (("text/plain", read_plain), ("application/openmetrics-text", read_open)):
        text = exposition.text(accept)[0].decode()
        labels = [sample.labels for family in read(text) for sample in family.samples]
        assert {each["gen_ai_request_model"] for each in labels if "gen_ai_request_model" in each} == {model}
        assert {each["error_type"] for each in labels if "error_type" in each} == {"", code}
        assert {each["code"] for each in labels if "code" in each} == {code}


# Settings

WORD = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=",~"), min_size=1, max_size=12)
PATHS = WORD.map(lambda word: Path("/a b", word.replace("/", "")))
WRITTEN: dict[Any, st.SearchStrategy[tuple[str, Any]]] = {  # by type: a text, and the value that it stands for
    int: st.integers(2, 65_535).map(lambda number: (str(number), number)),
    float: st.floats(0, allow_infinity=False).map(lambda number: (repr(number), number)),
    str: WORD.map(lambda word: (f"{word} %(x)s # {word}", f"{word} %(x)s # {word}")),
    Path: PATHS.map(lambda path: (str(path), path)),
    tuple[str, ...]: st.lists(WORD, max_size=3).map(lambda words: (", ".join(words), tuple(words))),
    tuple[Path, ...]: st.lists(PATHS, max_size=3).map(lambda paths: (",".join(map(str, paths)), tuple(paths))),
}
ADDRESSES = st.from_regex(r"https?://[a-z0-9.-]{1,20}\.org(:[1-9][0-9]{1,3})?(/[a-z0-9%#]{1,9}){0,3}", fullmatch=True)
FIELDS = [field for field in fields(Settings) if not field.metadata["choices"]]
CHOSEN = ("database_url", "fallback", "origins", "frames")  # not any text is a value of these


@pytest.fixture(scope="module")
def ini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Where a settings file may be written."
    return tmp_path_factory.mktemp("ini") / "settings.ini"


@given(field=st.sampled_from(FIELDS), data=st.data())
def test_a_setting_that_is_written_as_text_is_read_back(ini: Path, field: Field[Any], data: st.DataObject) -> None:
    addresses = ADDRESSES.map(lambda address: (address, address))
    written = addresses if field.name.endswith("_url") else WRITTEN[field.type]
    text, value = data.draw(written)
    assert read_value(field.name, f" {text}\n", field.type) == value
    ini.write_text("[docstral]\n" if field.metadata["secret"] else f"[docstral]\n{field.name} = {text}\n", "utf8")
    environ = {variable(field.name): text} if field.metadata["secret"] else {"DOCSTRAL_SETTINGS": str(ini)}
    if text and field.name not in CHOSEN:
        assert getattr(Settings.load(environ), field.name) == value
        assert getattr(Settings.load({variable(field.name): text}), field.name) == value


@given(made_of(["~", "~x", ",", "/", "1", "-", "e9", "nan", "://", "a", "[", "\\"], 6))
def test_an_odd_setting_is_read_or_refused_with_an_error_of_ours(text: str) -> None:
    for field in fields(Settings):
        try:
            loaded = Settings.load({variable(field.name): text})
        except SettingsError as error:
            assert field.name in str(error).lower() and error.action
        else:
            assert type(getattr(loaded, field.name)) is type(getattr(Settings(), field.name))
