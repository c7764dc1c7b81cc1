"A folder of pages: what cannot be a page is left out with a reason, and never stops the others."

import itertools
import os
from pathlib import Path

import pytest
from helpers import at_most

from docstral.collection import files_signature
from docstral.corpus import LARGEST_PAGE, LONGEST_CHUNK, Page, Problem, blocks, read_folders, shipped_corpus, split_page
from docstral.errors import CorpusError

GOOD = "# Good\n\nThis page can be read.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    "A folder with one good page."
    made = tmp_path / "docs"
    made.mkdir()
    (made / "good.md").write_text(GOOD)
    return made


def left_out(folder: Path) -> list[Problem]:
    "What is left out beside the one good page, which is read whatever else there is."
    pages, problems = read_folders([folder])
    assert [page.path for page in pages] == ["good.md"]
    return problems


BAD = {
    "open.md": (b"---\ntitle: Never closed\n\nText.\n", "no closing ---"),
    "yaml.md": (b"---\ntitle: [a\n---\nText.\n", "not valid YAML (line"),
    "tabs.md": (b"---\n\ttitle: a\n---\nText.\n", "not valid YAML"),
    "list.md": (b"---\n- a\n- b\n---\nText.\n", "not a list of names and values"),
    "binary.md": (b"# A\0\x01\x02", "binary"),
    "latin.md": ("# Réponse".encode("latin-1"), "not UTF-8 (byte 3)"),
    "empty.md": (b"", "no text"),
    "blank.md": (b" \n\n\t\n", "no text"),
    "matter.md": (b"---\ntitle: Nothing below\n---\n", "no text"),
    "large.md": (b"a" * (LARGEST_PAGE + 1), "larger than 5 MB"),
    "imports.mdx": (b"import Tabs from './tabs';\n\n<Tabs/>\n", "no text"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_page_is_left_out_with_its_reason(folder: Path, name: str) -> None:
    data, reason = BAD[name]
    (folder / name).write_bytes(data)
    [problem] = left_out(folder)
    assert problem.path == name and reason in problem.reason


@pytest.mark.parametrize(
    "target",
    ["outside", "loop", "none"],
)
def test_a_link_that_leads_to_no_page_of_the_folder_is_left_out(folder: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "secret.md").write_text("# Secret\n\nNot to be read.")
    (folder / "link.md").symlink_to({"outside": tmp_path / "secret.md", "loop": "link.md", "none": "gone.md"}[target])
    [problem] = left_out(folder)
    assert problem.path == "link.md" and problem.reason


def test_front_matter_is_read_and_never_run(folder: Path) -> None:
    made = folder / "made"
    (folder / "code.md").write_text(f"---\ntitle: !!python/object/apply:os.mkdir [{made}]\n---\n# Code\n\nText.\n")
    pages, _ = read_folders([folder])
    assert "Code" in {page.title for page in pages} and not made.exists()


def test_what_is_no_file_is_left_out(folder: Path) -> None:
    os.mkfifo(folder / "pipe.md")
    with at_most(2):
        read_folders([folder])


def test_a_file_name_that_is_no_unicode_is_left_out(folder: Path) -> None:
    try:
        (folder / os.fsdecode(b"\xff.md")).write_text("# Odd\n\nOdd text.\n")
    except OSError:
        pytest.skip("this file system has no such names")
    files_signature([folder])
    pages, _ = read_folders([folder])
    assert all(page.path.isprintable() for page in pages)


SLOW = {
    "spaces in a heading": "# Title" + " " * 3000 + "end\n\nText.\n",
    "spaces in a line": "# Title\n\nText." + " " * 100_000 + "end\n",
    "blank lines": "# Title\n" + " \n" * 50_000 + "Text.\n",
    "ticks": "# Title\n\n" + "`" * 20_000 + "\n",
    "comments that never end": "# Title\n\n" + "<!-- " * 50_000 + "\n",
    "tabs that never end": "# Title\n\n" + '<SectionTab as="h2">x' * 10_000 + "\n",
    "angles": "# Title\n\n" + "<Card " * 5_000 + "\n",
    "references": "---\na: &a [x, x, x, x, x, x, x, x]\n"
    + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in itertools.pairwise("abcdefghijk"))
    + "title: *k\n---\nText.\n",
}


@pytest.mark.parametrize("suffix", ["md", "mdx"])
@pytest.mark.parametrize("name", SLOW)
def test_no_page_takes_long(folder: Path, name: str, suffix: str) -> None:
    (folder / f"slow.{suffix}").write_text(SLOW[name])
    split_page(Page("a.md", "A", "Loads the parser."))
    with at_most(2):
        pages, _ = read_folders([folder])
        for page in pages:
            split_page(page)


def test_a_folder_that_links_to_itself_is_read_once(folder: Path) -> None:
    (folder / "again").symlink_to(folder, target_is_directory=True)
    [problem] = left_out(folder)
    assert (problem.path, problem.reason) == ("again", "it is a link to a folder")


def test_folders_of_one_name_keep_their_pages_apart(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name / "docs").mkdir(parents=True)
        (tmp_path / name / "docs" / "start.md").write_text(f"# Start {name}\n\nText of {name}.\n")
    pages, problems = read_folders([tmp_path / "a" / "docs", tmp_path / "b" / "docs"])
    assert [page.path for page in pages] == ["a/docs/start.md", "b/docs/start.md"] and problems == []


@pytest.mark.parametrize(("place", "language"), [("fr/docs", "en"), ("docs/fr", "fr")])
def test_only_the_folder_itself_says_that_pages_are_french(tmp_path: Path, place: str, language: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "a.md").write_text("# A\n\nText.\n")
    [page], _ = read_folders([tmp_path / place])
    assert page.language == language


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_page_without_permission_is_left_out(folder: Path) -> None:
    (folder / "private.md").write_text(GOOD)
    (folder / "private.md").chmod(0)
    [problem] = left_out(folder)
    assert "denied" in problem.reason


def test_hidden_files_and_packages_are_no_pages(folder: Path) -> None:
    for name in (".hidden.md", ".git/x.md", "node_modules/pkg/readme.md", "notes.txt", "_partial.mdx"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("# Else\n\nOther text.")
    assert left_out(folder) == []


def test_a_partial_cannot_lead_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "_secret.mdx").write_text("the secret")
    (folder / "page.mdx").write_text("import S from '../_secret.mdx';\n\nShown text.\n\n<S/>\n")
    pages, _ = read_folders([folder])
    assert all("the secret" not in page.text for page in pages)


def test_the_same_page_twice_is_one_page(folder: Path) -> None:
    (folder / "copy.md").write_text(GOOD)
    pages, _ = read_folders([folder])
    assert len(pages) == 1


def test_two_folders_keep_pages_of_one_name_apart(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "good.md").write_text("# Other\n\nAnother text.")
    pages, problems = read_folders([folder, other])
    assert [page.path for page in pages] == ["docs/good.md", "other/good.md"] and problems == []


def test_two_folders_of_one_name_say_which_page_is_left_out(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "second" / "docs"
    other.mkdir(parents=True)
    (other / "good.md").write_text("# Other\n\nAnother text.")
    pages, problems = read_folders([folder, other])
    assert len(pages) + len(problems) == 2
    assert len({page.path for page in pages}) == len(pages)


@pytest.mark.parametrize("name", ["nowhere", "docs/good.md"])
def test_what_is_no_folder_is_an_error(folder: Path, name: str) -> None:
    with pytest.raises(CorpusError, match="is not a folder"):
        read_folders([folder.parent / name])


def test_a_folder_without_pages_is_an_error_that_names_reasons(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no page"):
        read_folders([tmp_path])
    (tmp_path / "bad.md").write_bytes(b"\xff")
    with pytest.raises(CorpusError, match=r"bad\.md: it is not UTF-8"):
        read_folders([tmp_path])


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(folder: Path) -> None:
    text = "---\ntitle: T\n---\n# H\n\nOne.\n\n## Two\n\nThree.\n"
    (folder / "good.md").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    [page], _ = read_folders([folder])
    assert page.title == "T" and "\r" not in page.text and "﻿" not in page.text


@pytest.mark.parametrize(
    ("matter", "title"),
    [
        ("title: From the matter", "From the matter"),
        ("title: 42", "42"),
        ("title:", "The heading"),
        ("", "The heading"),
    ],
)
def test_the_title_is_the_front_matters_or_the_heading(folder: Path, matter: str, title: str) -> None:
    (folder / "good.md").write_text(f"---\n{matter}\n---\n# The heading\n\nText.\n")
    [page], _ = read_folders([folder])
    assert page.title == title


def test_what_chunks_say_changes_with_the_page_and_with_nothing_else(folder: Path) -> None:
    [before], _ = read_folders([folder])
    (folder / "good.md").write_text(GOOD)
    [same], _ = read_folders([folder])
    (folder / "good.md").write_text(GOOD + "\nMore.\n")
    [changed], _ = read_folders([folder])
    assert before.digest == same.digest != changed.digest


def test_sections_carry_their_headings() -> None:
    page = Page("a.md", "Guide", "# Guide\n\nOpening.\n\n## First part\n\nText.\n\n### Deeper\n\nMore.\n")
    assert [(chunk.section, chunk.text.strip()) for chunk in split_page(page)] == [
        ("", "Opening."),
        ("First part", "Text."),
        ("First part > Deeper", "More."),
    ]


def test_a_heading_within_code_is_code() -> None:
    page = Page("a.md", "A", "Opening.\n\n```bash\n# not a heading\nls\n```\n\nEnd.\n")
    [chunk] = split_page(page)
    assert "# not a heading" in chunk.text and chunk.section == ""


def test_a_fence_that_is_never_closed_loses_nothing() -> None:
    page = Page("a.md", "A", "Opening.\n\n```bash\nls\n# comment\nthe last line\n")
    assert "the last line" in "".join(chunk.text for chunk in split_page(page))


def test_long_sections_are_cut_between_paragraphs_and_keep_every_word() -> None:
    paragraphs = [f"Paragraph {number} " + "word " * 60 for number in range(40)]
    chunks = split_page(Page("a.md", "A", "\n\n".join(paragraphs)))
    assert len(chunks) > 4 and all(len(chunk.text) <= LONGEST_CHUNK for chunk in chunks)
    assert " ".join(chunk.text for chunk in chunks).split() == " ".join(paragraphs).split()


def test_one_huge_line_of_data_does_not_become_a_chunk() -> None:
    image = "![](data:image/png;base64," + "A" * 100_000 + ")"
    assert all(len(block) < 10_000 for block in blocks(f"Before.\n\n{image}\n\nAfter."))


def test_chunk_ids_are_unique_and_name_their_page() -> None:
    chunks = [chunk for page in read_folders([shipped_corpus()])[0] for chunk in split_page(page)]
    assert len({chunk.id for chunk in chunks}) == len(chunks) > 100
    assert all(chunk.id.startswith(f"{chunk.path}::") for chunk in chunks)


def test_the_shipped_corpus_has_no_problem_and_names_its_sources() -> None:
    pages, problems = read_folders([shipped_corpus()])
    assert problems == [] and len(pages) >= 12
    assert all(page.url.startswith("https://") and page.licence for page in pages)
