"Properties rather than examples: what holds for every text, stream and chat that hypothesis makes up."

import re
import tempfile
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import orjson
import pytest
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

from docstral.api.http import encode
from docstral.citations import CitationReader
from docstral.corpus import LONGEST_BLOCK, Page, blocks, split_page
from docstral.mdx import TAG, clean_markdown, clean_mdx
from docstral.models import estimate_tokens
from docstral.prompt import fit
from docstral.providers.stream import EventReader
from docstral.types import Delta, Passage
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


@given(st.lists(st.text("abc XYZ.,é日'", max_size=20) | CODE | NUMBERS))
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
