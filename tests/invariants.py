"What holds for every input: checked with what hypothesis makes up, and with what the fuzzer finds (tests/fuzz/)."

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import AnyStr

import orjson

from docstral.citations import LONGEST_SPAN, CitationReader
from docstral.corpus import split_front_matter
from docstral.mdx import clean_markdown, clean_mdx
from docstral.providers.base import Finished, Text, Usage
from docstral.providers.stream import END, EventReader, read_events
from docstral.upstream import error_for

# Characters and words that mean something to the parsers: texts are made of them, so that they meet in every order
ANSWER = """[1] [2,9] [[3]] 【4】 [^1] [1-3] [0] ( ) [ ] ` `` ``` ~~~ ~~~~ | - > \\ : . † = 9 , x é http://""".split()
ANSWER += ["\n", "\n\n", "\r\n", "\t", " ", "    ", "- ", "> ", "1. ", "passage "]
PAGE = """</SectionTab> <LinkCard <AppLink </AppLink> <A/> <TabItem <b </td> <td> /> > < { } {/* */} <!-- -->""".split()
PAGE += ['<SectionTab as="h2"', '<FaqItem question="', "import A from './a.mdx'\n", "export ", "---\n", ":::"]
PAGE += ["```", "~~~", "`", "'", '"', "\n", "\n\n", "\0", "0", "x", " ", "    "]
STREAM = ["data:", "data: ", "event: ", ": ", "\r", "\n", "\r\n", "\n\n", "\ufeff", "[DONE]", '"}}]}', "9", "}", "]"]
STREAM += ['{"choices": [{"delta": {"content": "', '{"error": ', '{"message": "', '"usage": {"prompt_tokens": ']
STREAM += ['"finish_reason": "', '"type": "reference"', "[1"]

MOST_HELD = LONGEST_SPAN + 200  # characters that a reader may hold back: code, or the beginning of a line, and a marker


def pieces_of(text: AnyStr, cuts: Iterable[int]) -> list[AnyStr]:
    "A text cut at these places, each taken modulo its length."
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(places)]


def holds_for_markdown(text: str) -> None:
    "A page is cleaned whatever stands in it, and no marker of the cleaning is left in it."
    for cleaned in (clean_markdown(text), clean_mdx(text, lambda path: "<A/>" if path.stem == "a" else None)):
        assert "\0" not in cleaned
        assert len(cleaned) <= 2 * len(text) + 100
    asked: list[PurePosixPath] = []
    clean_mdx(text, asked.append, PurePosixPath("folder"))
    assert not any(path.is_absolute() or ".." in path.parts for path in asked)
    try:
        matter, body = split_front_matter(text)
    except ValueError as error:
        assert str(error).startswith("its front matter")
    else:
        assert text.endswith(body) and (body == text or text.startswith("---"))
        assert isinstance(matter, dict)


def holds_for_citations(pieces: Sequence[str], passages: int) -> str:
    "However an answer is cut, it is shown alike, and its marks stand where they say. Returns what is shown."
    reader, shown = CitationReader(passages), []
    for piece in pieces:
        shown.append(reader.feed(piece))
        assert len(reader._held) <= MOST_HELD + len(piece)
    text = "".join(shown) + reader.close()
    whole = CitationReader(passages)
    assert text == whole.feed("".join(pieces)) + whole.close()
    assert (reader.order, reader.marks, reader.dropped) == (whole.order, whole.marks, whole.dropped)
    for place, number in reader.marks:
        assert text[place:].startswith(f"[{number}]")
    assert [place for place, _ in reader.marks] == sorted({place for place, _ in reader.marks})
    numbers = list(dict.fromkeys(number for _, number in reader.marks))
    assert numbers == list(range(1, len(reader.order) + 1))
    assert len(set(reader.order)) == len(reader.order) and set(reader.order) <= set(range(1, passages + 1))
    return text


def holds_for_stream(pieces: Sequence[bytes]) -> None:
    "However a stream is cut, the same events come of it, each read or refused with an error of ours."
    reader, whole = EventReader(), EventReader()
    found = [data for piece in pieces for data in reader.feed(piece)]
    assert found == whole.feed(b"".join(pieces))
    assert reader.waiting == whole.waiting <= sum(map(len, pieces))
    for data in found:
        holds_for_event(data)


def holds_for_event(data: bytes) -> None:
    "An event is read, or refused with an error of ours that keeps the secret."
    events, error = read_events([data], "the-secret")
    if error:
        assert len(str(error)) < 1_000 and "the-secret" not in str(error)
    else:
        assert data == END or isinstance(orjson.loads(data), dict)
    for event in events:
        if isinstance(event, Text):
            assert event.text and event.text.encode()
        elif isinstance(event, Usage):
            assert 0 <= event.tokens_in < 2**31 and 0 <= event.tokens_out < 2**31
        elif isinstance(event, Finished):
            assert re.fullmatch(r"[\s\S]{1,40}", event.reason)


def holds_for_refusal(body: bytes) -> None:
    "A refusal becomes an error of ours that keeps the secret, whatever its status and headers are."
    for status in (400, 401, 404, 413, 422, 429, 500, 503, 504):
        headers = {"retry-after": body[:40].decode("latin-1"), "content-type": "application/json"}
        error = error_for(status, body, headers, "model", "the-secret")
        assert len(str(error)) < 1_000 and "the-secret" not in str(error)
        assert error.retry_after is None or 0 <= error.retry_after < float("inf")
