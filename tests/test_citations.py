"Citation markers: renumbered by first use, dropped where they name nothing, the same however the answer is cut."

import random

import pytest

from docstral.citations import CitationReader

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
    "an escaped bracket after one": ("a [2]\\] b", "a [1] b", 0),
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
    "words in brackets": ("[a] [b2] [1.5] [v1]", "[a] [b2] [1.5] [v1]", 0),
    "index with a field": ("read items[1].name first", "read items[1].name first", 0),
    "index of an index": ("rows[0][1] is a cell", "rows[0][1] is a cell", 0),
    "glued to a word, unknown": ("word[9].", "word.", 1),
    "glued to a word, then a sentence": ("word[2].Then", "word[1].Then", 0),
    "footnote": ("a [^2]", "a [1]", 0),
    "named passage": ("a [passage 2] b [Source 3]", "a [1] b [2]", 0),
    "range": ("a [2-4] b [3–4]", "a [1][2][3] b [2][3]", 0),
    "range of values": ("from [1-100]", "from [1-100]", 0),
    "list with and": ("a [2 and 3] b [4 et 2]", "a [1][2] b [3][1]", 0),
    "list with spaces": ("a [2 3].", "a [1][2].", 0),
    "list with no end": ("a [2, 3, ].", "a [1][2].", 0),
    "nested list": ("a [[2], [3]].", "a [1], [2].", 0),
    "nested neighbours": ("a [[2][3]].", "a [1][2].", 0),
    "one bracket too many before": ("a [[2].", "a [1].", 0),
    "one bracket too many behind": ("a [2]].", "a [1].", 0),
    "within brackets": ("(a [as said [2]])", "(a [as said [1]])", 0),
    "mixed brackets": ("a 【2] b [3】", "a [1] b [2]", 0),
    "wide brackets": ("a ［2］", "a [1]", 0),
    "with its lines": ("a 【2†L1-L7】 b 【3†source】", "a [1] b [2]", 0),
    "escaped brackets": (r"a \[2\].", "a [1].", 0),
    "over two lines": ("a [2,\n3].", "a [1][2].", 0),
    "leading zero": ("a [02].", "a [1].", 0),
    "definition of a link": ("a [2]\n\n[2]: https://a.example", "a [1]\n\n[1] : https://a.example", 0),
    "inline code": ("`x[1]` and [2]", "`x[1]` and [1]", 0),
    "inline code of two ticks": ("``x ` [1]`` and [2]", "``x ` [1]`` and [1]", 0),
    "inline code left open": ("`x [3]\nthen [2]", "`x [1]\nthen [2]", 0),
    "fence": ("```python\nx[1] = [2]\n```\nso [3]", "```python\nx[1] = [2]\n```\nso [1]", 0),
    "indented fence": ("- a\n  ```\n  x[1]\n  ```\n- b [2]", "- a\n  ```\n  x[1]\n  ```\n- b [1]", 0),
    "tilde fence": ("~~~\n[1]\n~~~\n[2]", "~~~\n[1]\n~~~\n[1]", 0),
    "fence in a longer fence": ("````\n```\n[1]\n```\n````\n[2]", "````\n```\n[1]\n```\n````\n[1]", 0),
    "fence left open": ("```\nx[1]\nand [2]", "```\nx[1]\nand [2]", 0),
    "inline code over two lines": ("`a\nb[1]` and [2]", "`a\nb[1]` and [1]", 0),
    "inline code ends with its paragraph": ("a ` b [2]\n\n` c [3]", "a ` b [1]\n\n` c [2]", 0),
    "inline code ends with its list item": ("- a ` b [2]\n- ` c [3]", "- a ` b [1]\n- ` c [2]", 0),
    "ticks of other lengths": ("`` a ` [2]", "`` a ` [1]", 0),
    "three ticks in a line": ("```x[1]``` and [2]", "```x[1]``` and [1]", 0),
    "fence with a language in a fence": ("```md\n```py\nx[1]\n```\n[2]", "```md\n```py\nx[1]\n```\n[1]", 0),
    "tilde fence in a fence": ("```\n~~~\n[1]\n```\n[2]", "```\n~~~\n[1]\n```\n[1]", 0),
    "fence closed by more": ("```\n[1]\n`````\n[2]", "```\n[1]\n`````\n[1]", 0),
    "fence right in a list item": ("1. ```\n   x[1]\n   ```\n2. b [2]", "1. ```\n   x[1]\n   ```\n2. b [1]", 0),
    "fence in a quotation": ("> ```\n> x[1]\n> ```\n> [2]", "> ```\n> x[1]\n> ```\n> [1]", 0),
    "indented code": ("So:\n\n    x[1]\n\n    y[2]\n\nnow [3]", "So:\n\n    x[1]\n\n    y[2]\n\nnow [1]", 0),
    "indented text of a list": ("- a\n\n    more [2]", "- a\n\n    more [1]", 0),
    "indented text of a paragraph": ("a\n    more [2]", "a\n    more [1]", 0),
    "fence with ticks inside a line": ("```\na ``` b [1]\n```\n[2]", "```\na ``` b [1]\n```\n[1]", 0),
    "marker right after a fence": ("```\nx\n```\n[2]", "```\nx\n```\n[1]", 0),
    "strikethrough": ("~~old [2]~~ new [3]", "~~old [1]~~ new [2]", 0),
    "windows lines": ("```\r\n[1]\r\n```\r\n[2]", "```\r\n[1]\r\n```\r\n[1]", 0),
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
    places = range(len(text) + 1)
    in_two = [[text[:at], text[at:]] for at in places]
    in_three = [[text[:at], text[at:then], text[then:]] for at in places for then in places[at:]]
    sizes = [[text[at : at + size] for at in range(0, len(text), size)] for size in range(1, 7)]
    for pieces in in_two + in_three + sizes:
        assert read(pieces) == (expected, dropped), pieces


MARKERS = [
    "[2]",
    " [2, 9]",
    "[[3]]",
    "【4】",
    "[2][3]",
    "[^1]",
    "[1-3]",
    "[passage 2]",
    "`x[1]`",
    "x[0]",
    "[2](u)",
    "[9]",
]


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("around", ["a{}.", "{}", "- {} b", "| {} |", "a\n\n{}\nb", "```\n{}\n```\n", "`{}` c"])
def test_every_way_to_cut_a_marker_shows_the_same(marker: str, around: str) -> None:
    "All the ways to cut a marker, not some: two for each place between its characters."
    before, after = around.split("{}")
    expected = read([before + marker + after])
    for cuts in range(2 ** (len(marker) - 1)):
        ends = [at for at in range(1, len(marker)) if cuts >> (at - 1) & 1]
        pieces = [marker[start:end] for start, end in zip([0, *ends], [*ends, len(marker)], strict=True)]
        assert read([before, *pieces, after]) == expected, pieces
        assert read([before + pieces[0], *pieces[1:-1], pieces[-1] + after if pieces[1:] else after]) == expected


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
    parts += ["    ", "- ", "> ", "1. ", "\n\n", "py", "\\", "-", "^", "†", "passage", ":", "=", "\t", "| ", "é"]
    for _ in range(1500):
        text = "".join(chance.choices(parts, k=chance.randint(1, 18)))
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


def test_the_places_of_markers_are_those_in_the_text_shown() -> None:
    reader = CitationReader(5)
    shown = "".join(map(reader.feed, "a [4, 9][2] `x[1]`\n- b [4]: c [2, 4]")) + reader.close()
    assert [shown[place : place + 3] for place, _ in reader.marks] == ["[1]", "[2]", "[1]", "[2]", "[1]"]
    assert [number for _, number in reader.marks] == [1, 2, 1, 2, 1]


def test_no_number_that_names_no_passage_is_shown_whatever_stands_around_it() -> None:
    chance = random.Random(1)
    parts = ["[7]", "[8, 1]", "[[9]]", " a", ". ", "【6】", "\n", "- ", ",", "[1]", "**", "| ", ": ", "(", ") "]
    for _ in range(800):
        text = "".join(chance.choices(parts, k=chance.randint(1, 12)))
        if "](" not in text.replace("】", "]"):
            shown, _ = read(list(text))
            assert not set("6789") & set(shown), (text, shown)


@pytest.mark.parametrize("long", ["[" + " " * 60 + "1]", "[" + "1, " * 40 + "2]", "`" + "x" * 700 + "[1]`", "[" * 50])
def test_what_is_longer_than_any_marker_is_text_in_every_split(long: str) -> None:
    assert read([long]) == read(list(long)) == read([long[:30], long[30:]])
