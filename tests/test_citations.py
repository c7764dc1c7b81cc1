"Citation markers: renumbered by first use, dropped where they name nothing, the same however the answer is cut."

import random

import pytest

from docstral.citations import CitationReader, check, support
from docstral.types import Passage

PASSAGES = 5  # valid numbers are 1 to 5

# What the model writes, what readers see, and how many numbers were dropped.
CASES = {
    "one marker": ("Set `stream` [3].", "Set `stream` [1].", 0),
    "numbers by first use": ("a [4] b [2] c [4]", "a [1] b [2] c [1]", 0),
    "neighbours": ("a [2][4] b [4][2]", "a [1][2] b [2][1]", 0),
    "comma list": ("a [2, 4].", "a [1][2].", 0),
    "semicolon list": ("a [2; 4].", "a [1][2].", 0),
    "list with a doublet": ("a [2, 2].", "a [1].", 0),
    "doubled brackets": ("a [[2]].", "a [1].", 0),
    "lenticular brackets": ("a 【2】.", "a [1].", 0),
    "spaces inside": ("a [ 2 ].", "a [1].", 0),
    "unknown number": ("a [9].", "a.", 1),
    "number zero": ("a [0].", "a.", 1),
    "three digits": ("a [999].", "a.", 1),
    "unknown among known": ("a [9, 2, 8].", "a [1].", 2),
    "unknown after known": ("a [1][9].", "a [1].", 1),
    "only an unknown one": ("[9]", "", 1),
    "four digits are a year": ("In [2024] it was.", "In [2024] it was.", 0),
    "glued to a word": ("word[2].", "word[1].", 0),
    "index in prose": ("items[0] is first", "items[0] is first", 0),
    "a link": ("see [1](https://a.example)", "see [1](https://a.example)", 0),
    "a named link": ("see [docs](https://a.example/[2])", "see [docs](https://a.example/[1])", 0),
    "before punctuation": ("a [2], b [3]; c [4]!", "a [1], b [2]; c [3]!", 0),
    "after the full stop": ("A claim. [2] Another.", "A claim. [1] Another.", 0),
    "at the start": ("[2] says so.", "[1] says so.", 0),
    "at the start of a line": ("a\n[2] b", "a\n[1] b", 0),
    "in bold": ("**sure [2]**", "**sure [1]**", 0),
    "in a list": ("- one [2]\n- two [3]\n", "- one [1]\n- two [2]\n", 0),
    "in a table": ("| a [2] | b |\n|---|---|\n", "| a [1] | b |\n|---|---|\n", 0),
    "in a heading": ("## Title [2]\n", "## Title [1]\n", 0),
    "task list": ("- [ ] open\n- [x] done", "- [ ] open\n- [x] done", 0),
    "footnote": ("a [^1]", "a [^1]", 0),
    "words in brackets": ("[a] [b2] [1.5] [1-3]", "[a] [b2] [1.5] [1-3]", 0),
    "inline code": ("`x[1]` and [2]", "`x[1]` and [1]", 0),
    "inline code of two ticks": ("``x ` [1]`` and [2]", "``x ` [1]`` and [1]", 0),
    "inline code left open": ("`x[1]\nthen [2]", "`x[1]\nthen [1]", 0),
    "fence": ("```python\nx[1] = [2]\n```\nso [3]", "```python\nx[1] = [2]\n```\nso [1]", 0),
    "indented fence": ("- a\n  ```\n  x[1]\n  ```\n- b [2]", "- a\n  ```\n  x[1]\n  ```\n- b [1]", 0),
    "tilde fence": ("~~~\n[1]\n~~~\n[2]", "~~~\n[1]\n~~~\n[1]", 0),
    "fence in a longer fence": ("````\n```\n[1]\n```\n````\n[2]", "````\n```\n[1]\n```\n````\n[1]", 0),
    "fence left open": ("```\nx[1]\nand [2]", "```\nx[1]\nand [2]", 0),
    "fence with ticks inside a line": ("```\na ``` b [1]\n```\n[2]", "```\na ``` b [1]\n```\n[1]", 0),
    "marker right after a fence": ("```\nx\n```\n[2]", "```\nx\n```\n[1]", 0),
    "strikethrough": ("~~old [1]~~ new [2]", "~~old [1]~~ new [2]", 0),
    "unfinished marker": ("a [2", "a [2", 0),
    "unfinished list": ("a [2, ", "a [2, ", 0),
    "lone bracket": ("a [", "a [", 0),
    "trailing spaces": ("a [2]  ", "a [1]  ", 0),
    "other scripts": ("Clé d’API 🔑 [2]。日本語【3】", "Clé d’API 🔑 [1]。日本語[2]", 0),
    "nothing": ("", "", 0),
    "long digits": ("[" + "1" * 60 + "]", "[" + "1" * 60 + "]", 0),
    "many spaces": ("a" + " " * 30 + "[2]", "a" + " " * 30 + "[1]", 0),
}


def read(pieces: list[str]) -> tuple[str, int]:
    "What readers see of an answer in these pieces, and how many numbers were dropped."
    reader = CitationReader(PASSAGES)
    shown = [reader.feed(piece) for piece in pieces]
    return "".join(shown) + reader.close(), reader.dropped


@pytest.mark.parametrize("name", CASES)
def test_every_split_of_an_answer_shows_the_same(name: str) -> None:
    text, expected, dropped = CASES[name]
    whole = [[text], list(text)]
    in_two = [[text[:at], text[at:]] for at in range(len(text) + 1)]
    sizes = [[text[at : at + size] for at in range(0, len(text), size)] for size in range(2, 7)]
    for pieces in whole + in_two + sizes:
        assert read(pieces) == (expected, dropped), pieces


def test_a_range_of_values_is_no_citation() -> None:
    text = "The temperature lies in [0, 1] and is optional."
    assert read([text]) == (text, 0)


def test_a_marker_far_to_the_right_is_renumbered_in_every_split() -> None:
    text = "| a" + " " * 60 + "[2] |"
    for at in range(len(text)):
        assert read([text[:at], text[at:]]) == (text.replace("[2]", "[1]"), 0)


def test_random_answers_show_the_same_however_they_are_cut() -> None:
    chance = random.Random(0)
    parts = ["[1]", "[2, 9]", "[[3]]", " ", "\n", "`", "```", "~~~", "x", "[", "]", "(", ")", "9", ",", "【4】", ". "]
    for _ in range(400):
        text = "".join(chance.choices(parts, k=chance.randint(1, 14)))
        cuts = sorted(chance.choices(range(len(text) + 1), k=4))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert read(pieces) == read([text]) == read(list(text)), text


def test_nothing_is_held_back_longer_than_needed() -> None:
    reader = CitationReader(PASSAGES)
    assert [reader.feed(piece) for piece in ("Plain text", " [", "2", "]", ".")] == ["Plain text", "", "", "", " [1]."]
    long = CitationReader(PASSAGES)
    assert long.feed("a [" + "1, " * 40) != ""  # no marker is that long


def test_without_passages_every_marker_goes() -> None:
    reader = CitationReader(0)
    assert reader.feed("A claim [1]. Another [2, 3].") + reader.close() == "A claim. Another."
    assert reader.dropped == 3 and reader.order == []


def passage(number: int, text: str) -> Passage:
    "A passage with a text."
    return Passage(f"p{number}.md::0", f"Page {number}", "", "", text, 1.0)


def citations(answer: str, *texts: str) -> list[tuple[int, str, str, float]]:
    "Number, passage, supporting words and support of each citation of an answer."
    passages = [passage(number, text) for number, text in enumerate(texts, 1)]
    reader = CitationReader(len(passages))
    shown = reader.feed(answer) + reader.close()
    by_id = {each.id: each.text for each in passages}
    return [
        (found.n, found.source_id, by_id[found.source_id][found.start : found.end], found.support)
        for found in check(shown, passages, reader.order)
    ]


def test_a_citation_points_at_the_sentence_that_supports_it() -> None:
    text = "Streams are quick. Set `stream` to true to stream a reply. Prices differ."
    [(n, source, words, share)] = citations("To stream a reply, set `stream` to true [2].", "Else.", text)
    assert (n, source, share) == (1, "p2.md::0", 1.0)
    assert words == "Set `stream` to true to stream a reply."


def test_a_claim_that_its_passage_does_not_make_has_little_support() -> None:
    [(*_, share)] = citations("Quokkas live on Rottnest Island [1].", "Set `stream` to true.")
    assert share == 0


def test_each_marker_is_one_citation_and_keeps_its_number() -> None:
    found = citations("One fish [2]. Two fish [1]. Red fish [2].", "Two fish.", "One fish. Red fish.")
    assert [(n, source) for n, source, *_ in found] == [(1, "p2.md::0"), (2, "p1.md::0"), (1, "p2.md::0")]
    assert [words for _, _, words, _ in found] == ["One fish.", "Two fish.", "Red fish."]


def test_a_marker_behind_code_stands_for_the_code() -> None:
    code = "```python\nclient.chat.stream(model=model)\n```"
    [(_, _, words, share)] = citations(f"{code}\n[1]", f"Intro.\n\n{code}\n")
    assert words == code and share == 1


def test_the_words_pointed_at_lie_within_the_passage() -> None:
    for text in ("", "x", "| a | b |\n|---|---|\n| c | d |", "# Only a heading", "- item one\n- item two"):
        piece, share = support("item two", text)
        assert 0 <= piece.start <= piece.end <= len(text) and 0 <= share <= 1
