"MDX pages: components become what they mean, and code stays as it was written."

from itertools import pairwise
from pathlib import PurePosixPath

import pytest

from docstral.mdx import Aside, attribute, clean_markdown, clean_mdx


def cleaned(text: str, **partials: str) -> str:
    "A page without partials beside it, but for those given."
    return clean_mdx(text, lambda path: partials.get(path.stem.lstrip("_")), PurePosixPath("chat"))


@pytest.mark.parametrize(
    "code",
    [
        "```jsx\nimport X from 'x';\nexport default <Tabs><TabItem/></Tabs>;\n:::tip\n```",
        "~~~html\n<div><!-- kept --></div>\n~~~",
        "````md\n```js\n<Card/>\n```\n````",
        "Inline `<Card title='x'/>` and ``<b>` tick</b>``.",
        "```python\nx = {'a': 1}\n\n\n\ny = 2\n```",
    ],
)
def test_code_is_left_alone(code: str) -> None:
    assert cleaned(code) == code
    assert clean_markdown(code) == code


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<SectionTab as="h1" sectionId="a">One\n  two</SectionTab>', "## One two {#a}"),
        ("<SectionTab>Plain</SectionTab>", "## Plain"),
        ('<FaqItem question="Why?">Because.</FaqItem>', "#### Why? {#-}\nBecause."),
        ('<LinkCard title="T" href="/x" description="D" />', "- [T](/x): D"),
        ("{/* hidden */}Shown<!-- hidden -->.", "Shown."),
        (":::warning\nTake care.\n:::", "Take care."),
        ("a <b>bold</b> <br/> word", "a bold  word"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("List<String> and <YOUR_KEY>", "List and <YOUR_KEY>"),
    ],
)
def test_components_become_markdown(text: str, expected: str) -> None:
    assert cleaned(text) == expected


def test_a_tag_over_several_lines_with_markup_in_its_attributes() -> None:
    text = '<Card\n  title="a > b"\n  icon={<Icon name="x" />}\n  style={{ color: "red" }}\n>\nInside.\n</Card>'
    assert "Inside." in cleaned(text) and "style" not in cleaned(text)


def test_partials_are_put_in_place_and_need_not_exist() -> None:
    page = "import Part from './_part.mdx';\nimport Gone from './_gone.mdx';\n\nBefore.\n\n<Part/>\n<Gone/>\n\nAfter."
    assert cleaned(page, part="---\ntitle: no\n---\nThe part.").split() == "Before. The part. After.".split()


def test_partials_that_hold_each_other_end() -> None:
    files = {"a": "import B from './_b.mdx';\nIn a. <B/>", "b": "import A from './_a.mdx';\nIn b. <A/>"}
    text = cleaned("import A from './_a.mdx';\n\n<A/>", **files)
    assert text.count("In a.") == 1 and text.count("In b.") == 1


def test_a_partial_is_looked_for_where_it_is_named_from() -> None:
    asked: list[str] = []
    clean_mdx(
        "import A from '../x/../../../etc/a.mdx';\n<A/>", lambda path: asked.append(str(path)), PurePosixPath("c")
    )
    assert asked == ["etc/a.mdx"]


@pytest.mark.parametrize("text", ["", " ", "<", "<Card", "</", "{", ":::", "```", "`", "---"])
def test_what_is_no_page_breaks_nothing(text: str) -> None:
    assert isinstance(cleaned(text), str)
    assert isinstance(clean_markdown(text), str)


def test_prose_that_looks_like_an_import_stays() -> None:
    assert cleaned("import your data from the console.") == "import your data from the console."


def test_what_was_put_aside_comes_back_in_its_place() -> None:
    aside = Aside()
    first, second = aside.put("one"), aside.put("two")
    assert aside.back(f"{second} and {first}") == "two and one"


def test_attributes_are_read_in_each_way_of_writing_them() -> None:
    assert [attribute(text, "a") for text in ('a="1"', "a='2'", 'a={"3"}', "a={`4`}", 'b="5"')] == [
        "1",
        "2",
        "3",
        "4",
        "",
    ]


def test_the_character_of_the_markers_is_dropped_from_pages() -> None:
    assert cleaned("a \x007\x00 b") == clean_markdown("a \x007\x00 b") == "a 7 b"


def test_small_partials_cannot_make_a_page_of_any_size() -> None:
    "Each holds the next one a hundred times: without a limit that is 10^10 characters."
    files = {letter: f"import N from './_{after}.mdx';\n{'<N/>' * 100}" for letter, after in pairwise("abcdef")}
    text = cleaned("import A from './_a.mdx';\n<A/>", f="some words", **files)
    assert len(text) < 3_000_000


def test_partials_within_partials_end_at_some_depth() -> None:
    files = {f"p{number}": f"import N from './_p{number + 1}.mdx';\nPart {number}. <N/>" for number in range(2_000)}
    text = cleaned("import A from './_p0.mdx';\n<A/>", **files)
    assert text.startswith("Part 0.") and "Part 3." in text and "Part 100." not in text
