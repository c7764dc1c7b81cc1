"""Pages are cut in a process of their own, and here where that cannot be."""

import subprocess
import sys

import psutil
import pytest

from docstral import splitting
from docstral.corpus import Page, split_page
from docstral.splitting import START, split_pages

PAGES = [Page(f"{number}.md", "A page", f"# A page\n\nBegins.\n\n## Part {number}\n\nEnds.") for number in range(4)]
CHUNKS = [split_page(page) for page in PAGES]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    "As where the parser was never imported."
    monkeypatch.setattr(splitting, "PARSER", "not.imported")


def test_another_process_cuts_as_this_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "split_page", lambda page: pytest.fail("a page was cut here"))
    assert list(split_pages(PAGES)) == CHUNKS
    assert list(split_pages([])) == []


def test_the_parser_is_not_imported_here() -> None:
    code = "import sys; from docstral.splitting import *; from docstral.corpus import Page\n"
    code += "print(len(next(split_pages([Page('a.md', 'A', '# A')]))), 'llama_index' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["0", "False"]


@pytest.mark.parametrize(
    "start",
    [
        "raise SystemExit(1)",
        "print('no chunks')",
        "print('INFO: no chunks')",
        "print('cuda\\nno chunks')",
        START.replace("answer()", "import docstral.splitting as s; cut = s.split_page; "
                      "s.split_page = lambda page: exit() if page.path == '2.md' else cut(page); answer()"),
    ],
    ids=["ends", "prints", "prints a number", "prints a name", "dies half-way"],
)  # fmt: skip
def test_what_another_process_does_not_cut_is_cut_here(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    monkeypatch.setattr(splitting, "START", start)
    assert list(split_pages(PAGES)) == CHUNKS


def test_pages_are_cut_where_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert list(split_pages(PAGES)) == CHUNKS


def test_a_process_whose_chunks_nobody_wants_is_ended() -> None:
    before = set(psutil.Process().children())
    pieces = split_pages(PAGES * 1000)
    assert next(pieces) == CHUNKS[0] and set(psutil.Process().children()) - before
    pieces.close()
    assert not set(psutil.Process().children()) - before
