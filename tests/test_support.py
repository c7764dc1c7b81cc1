"Support: a passage that says what a sentence says is told from one that does not."

import json
from pathlib import Path

import pytest

from docstral.citations import MOST_MARKS, CitationReader
from docstral.ranking import language_of
from docstral.support import WEAK, check, evidence, sayings, support, supported
from docstral.terms import pieces
from docstral.types import Citation, Passage

CLAIMS = Path(__file__).resolve().parent.parent / "benchmarks" / "claims.jsonl"


def passage(number: int, text: str, title: str = "Page") -> Passage:
    "A passage with a text."
    return Passage(f"p{number}.md::0", f"{title} {number}", "", "", text, 1.0)


def cite(answer: str, *texts: str, language: str = "en") -> list[tuple[Citation, str]]:
    "The citations of an answer, each with the words of its passage that it points at."
    passages = [passage(number, text) for number, text in enumerate(texts, 1)]
    reader = CitationReader(len(passages))
    shown = reader.feed(answer) + reader.close()
    found = check(shown, passages, reader.order, reader.marks, language)
    by_id = {each.id: each.text for each in passages}
    return [(each, by_id[each.source_id][each.start : each.end]) for each in found]


STREAM = "Streams are quick. Set `stream` to true to stream a reply. Prices differ."


def test_a_citation_points_at_the_sentence_that_supports_it() -> None:
    [(found, words)] = cite("To stream a reply, set `stream` to true [2].", "Else.", STREAM)
    assert (found.n, found.source_id, found.weak) == (1, "p2.md::0", False) and found.support > 0.9
    assert words == "Set `stream` to true to stream a reply."


def test_an_index_in_the_code_of_a_claim_is_no_marker() -> None:
    steps = "1. Describe each function.\n2. Read `choices[0].message.tool_calls`.\n3. Run the functions."
    [(found, words)] = cite("Then read `choices[0].message.tool_calls` [1].", steps)
    assert (found.support, found.weak) == (1.0, False)
    assert "choices[0]" in words


def test_each_marker_is_one_citation_and_keeps_its_number() -> None:
    found = cite("One fish [2]. Two fish [1]. Red fish [2].", "Two fish.", "One fish. Red fish.")
    assert [(each.n, each.source_id) for each, _ in found] == [(1, "p2.md::0"), (2, "p1.md::0"), (1, "p2.md::0")]
    assert [words for _, words in found] == ["One fish.", "Two fish.", "Red fish."]


TABLE = "| Model | Dimensions |\n|---|---|\n| `small` | 1024 |\n| `large` | 3072 |"
SUPPORTED = {
    "a marker behind the full stop": ("Set `stream` to true. [1] Then go home.", STREAM, 1),
    "a marker glued to the full stop": ("Set `stream` to true.[1] Then go home.", STREAM, 1),
    "a marker at the beginning": ("[1] says: set `stream` to true.", STREAM, 1),
    "a marker on a line of its own": ("Set `stream` to true.\n\n[1]", STREAM, 1),
    "a list": ("- Set `stream` to true [1]\n- Prices differ [1]", STREAM, 2),
    "a numbered list": ("1. Set `stream` to true [1]\n2. Prices differ [1]", STREAM, 2),
    "a heading": ("## Streams are quick [1]\n\nYes.", STREAM, 1),
    "a row of a table": ("| Model | Dimensions |\n|---|---|\n| `large` | 3,072 [1] |", TABLE, 1),
    "a sentence about a row": ("The model `large` has 3072 dimensions [1].", TABLE, 1),
    "an abbreviation": ("Set `stream`, e.g. Mistral's, to true to stream [1].", STREAM, 1),
    "two halves": ("Streams are quick [1], while cats sleep all day on the sofa.", STREAM, 1),
    "bold": ("**Set `stream` to true** [1]", STREAM, 1),
    "code": ("```python\nchat.stream(model)\n```\n[1]", "So:\n\n```python\nchat.stream(model)\n```", 1),
    "numbers written otherwise": ("It has 1,024 rows and a 256k context [1].", "It has 1024 rows; context 256,000.", 1),
    "numbers in words": ("There are two limits [1].", "There are 2 limits.", 1),
    "the title": ("Page 1 says that prices differ [1].", STREAM, 1),
    "a word of reference": ("Set `stream` to true. See [1].", STREAM, 1),
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_what_a_passage_says_is_supported(name: str) -> None:
    answer, text, count = SUPPORTED[name]
    found = cite(answer, text)
    assert len(found) == count and not any(each.weak for each, _ in found), found


UNSUPPORTED = {
    "another number": ("The model `large` has 1536 dimensions [1].", TABLE),
    "the number of another row": ("The model `large` has 1024 dimensions [1].", TABLE),
    "another name": ("The model `huge` has 3072 dimensions [1].", TABLE),
    "another parameter": ("Set `streaming_mode` to true to stream a reply [1].", STREAM),
    "another subject": ("Quokkas live on Rottnest Island [1].", STREAM),
    "other code": ("```js\nfetch(url)\n```\n[1]", "```python\nchat.stream(model)\n```"),
    "a number put in": ("Set `stream` to true to stream 9 replies [1].", STREAM),
    "an empty passage": ("Set `stream` to true [1].", ""),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_a_passage_does_not_say_is_weak(name: str) -> None:
    [(found, _)] = cite(*UNSUPPORTED[name])
    assert found.weak and found.support < WEAK


def test_a_french_answer_is_compared_with_an_english_passage() -> None:
    text = "Wait for the seconds in the `Retry-After` header after an error 429."
    good = "Après une erreur 429, attendez les secondes de l'en-tête `Retry-After` [1]."
    [(found, _)] = cite(good, text, language="fr")
    [(other, _)] = cite(good.replace("429", "503"), text, language="fr")
    assert not found.weak and other.weak


def test_the_threshold_tells_examples_apart() -> None:
    "The figures of docs/DECISIONS.md: claims beside passages that say so, and beside ones that do not."
    weak: dict[str, list[bool]] = {"supported": [], "unsupported": []}
    for line in CLAIMS.read_text(encoding="utf8").splitlines():
        row = json.loads(line)
        found = evidence(Passage("p::0", row["title"], row["section"], "", row["text"], 1.0, row["language"]))
        for kind, shares in weak.items():
            shares += [support(claim, found, language_of(claim))[1] < WEAK for claim in row[kind]]
    assert len(weak["supported"]) >= 50 and len(weak["unsupported"]) >= 50
    assert sum(weak["supported"]) / len(weak["supported"]) <= 0.06
    assert sum(weak["unsupported"]) / len(weak["unsupported"]) >= 0.9


def test_the_share_of_supported_sentences_counts_sentences_and_not_markers() -> None:
    answer = "Set `stream` to true [1][2]. Quokkas live on islands [1][2]."
    found = [each for each, _ in cite(answer, STREAM, "Nothing.")]
    assert [each.weak for each in found] == [False, True, True, True]
    assert len({each.at for each in found}) == 2 and supported(found) == 0.5


def test_the_words_pointed_at_lie_within_the_passage() -> None:
    for text in ("", "x", "| a | b |\n|---|---|\n| c | d |", "# Only a heading", "- item one\n- item two"):
        [(found, _)] = cite("Item two is here [1].", text)
        assert 0 <= found.start <= found.end <= len(text) and 0 <= found.support <= 1


def test_an_index_in_code_is_no_citation() -> None:
    assert cite("Use `x[1]` and\n\n```\ny[1]\n```\n\nor items[0].", STREAM) == []


@pytest.mark.parametrize(
    "answer",
    ["So it goes [1]. " * 25_000, "[1]" * 130_000, "word [1] " * 44_000, "The. " * 70_000 + "[1] " * 5_000],
    ids=["sentences", "markers alone", "one sentence", "sentences that say nothing"],
)
def test_an_answer_that_cites_without_end_is_checked_up_to_a_number(answer: str) -> None:
    found = cite(answer, STREAM)
    assert len(found) == MOST_MARKS


@pytest.mark.parametrize("unit", [".", "!", "?!", "…", "`", "``", '."', "  ", "\n", "|"])
def test_texts_that_repeat_a_mark_without_end_are_read(unit: str) -> None:
    text = unit * 150_000
    [(found, words)] = cite(f"Wait{text}x. To stream a reply, set `stream` to true [1].", STREAM)
    assert found.support > 0.9 and words == "Set `stream` to true to stream a reply."
    assert [piece.of(f"{text}One. Two.") for piece in pieces(f"{text}One. Two.")][-1].endswith(("Two.", "One. Two."))
    assert sayings(f"{text}mistral-embed-2`{text}", "en")
