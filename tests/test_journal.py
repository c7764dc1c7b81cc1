"The journal: what was added is there after a crash, whole; a full disk or a damaged file is said."

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import DEADLINE, ROOT

from docstral.errors import StoreError
from docstral.journal import Journal

KILLED = """
import os, sys
from pathlib import Path
from docstral.journal import Journal
journal = Journal(Path(sys.argv[1]))
numbers = [journal.add([b"entry %d " % number + b"x" * 5000])[0] for number in range(20)]
journal.remove(numbers[:5])
os._exit(9)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    "The journal of a process that was killed: 15 of its 20 entries are left."
    path = tmp_path / "docstral.journal"
    subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=DEADLINE
    )
    return path


def names(journal: Journal) -> list[bytes]:
    "What the entries begin with."
    return [entry[:8].rstrip() for entry in journal.entries().values()]


def test_what_was_added_is_there_after_a_crash_in_its_order(killed: Path) -> None:
    journal = Journal(killed)
    assert names(journal) == [b"entry %d" % number for number in range(5, 20)]
    journal.close()
    assert killed.exists()  # it holds something
    assert names(journal) == [b"entry %d" % number for number in range(5, 20)]
    journal.remove(journal.entries())
    journal.close()
    assert list(killed.parent.iterdir()) == []


def test_half_an_entry_at_the_end_is_dropped(killed: Path) -> None:
    log = killed.with_name(killed.name + "-wal")
    log.write_bytes(log.read_bytes()[:-9000])  # more than the last change, which removed five
    assert names(Journal(killed))[:5] == [b"entry %d" % number for number in range(5)]


def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "docstral.journal"
    path.write_bytes(b"not a journal " * 1000)
    with pytest.raises(StoreError, match="journal is damaged") as error:
        Journal(path).entries()
    assert "move this file away" in error.value.action
    assert path.read_bytes() == b"not a journal " * 1000


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "docstral.journal")
    journal.add([b"a question"])
    assert [path.stat().st_mode & 0o077 for path in tmp_path.iterdir()] == [0, 0]  # its log too
    journal.close()


def test_of_entries_that_do_not_fit_none_is_there_and_later_ones_are(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "docstral.journal")
    journal.add([b"first"])
    assert journal._connection
    [(pages,)] = journal._connection.execute("PRAGMA page_count")
    journal._connection.execute(f"PRAGMA max_page_count = {pages + 10}")  # as if the disk were full
    with pytest.raises(StoreError, match="disk is full"):
        journal.add([b"second", b"x" * 100_000])
    assert names(journal) == [b"first"]
    journal.add([b"third"])
    assert names(journal) == [b"first", b"third"]
    journal.close()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        Journal(tmp_path / "gone" / "docstral.journal").add([b"x"])


def test_each_addition_is_flushed_to_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "docstral.journal")
    journal.add([b"x"])
    assert isinstance(journal._connection, sqlite3.Connection)
    asked = [journal._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
    assert asked == [2, "wal"]  # 2 is FULL: the log is synced at each commit
    journal.close()
