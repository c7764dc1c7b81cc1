"The thread that writes: what is kept is safe at once and in the database soon, whatever fails meanwhile."

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers import DEADLINE, eventually

from docstral import queue as module
from docstral.engines.duckdb import Connection, DuckDB
from docstral.errors import StoreError
from docstral.journal import Journal
from docstral.queue import WriteQueue
from docstral.schema import migrate


class Users:
    "Users as items that are kept, in a database that can be made to refuse."

    def __init__(self, folder: Path):
        self.engine = DuckDB(folder / "docstral.duckdb")
        migrate(self.engine)
        self.refused: set[str] = set()
        self.sizes: list[int] = []
        self.journal = Journal(folder / "docstral.journal")
        self.queue = WriteQueue[tuple[str, str]](self.engine, self.save, self.journal)

    def save(self, connection: Connection, users: Sequence[tuple[str, str]]) -> None:
        "Write users."
        self.sizes.append(len(users))
        connection.insert("users", users)
        if refused := self.refused & {name for name, _ in users}:
            raise StoreError(f"{refused} refused")

    def keep(self, *names: str) -> None:
        "Keep users, each after the other was safe."
        for name in names:
            self.queue.keep((name, "")).result(DEADLINE)

    def there(self) -> list[str]:
        "Who is in the database."
        return [name for (name,) in self.engine.read("SELECT id FROM users ORDER BY id", [])]


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    "A new database and its queue."
    made = Users(tmp_path)
    with closing(made.engine), closing(made.queue):
        yield made


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    "Nothing moves by itself."
    monkeypatch.setattr(module, "LATER", DEADLINE)


def test_what_is_kept_moves_into_the_database_by_itself(users: Users) -> None:
    users.keep("ada", "bob")
    assert eventually(lambda: users.there() == ["ada", "bob"])


@pytest.mark.usefixtures("patient")
def test_what_is_kept_is_in_the_journal_until_somebody_reads_or_writes(users: Users) -> None:
    users.keep("ada", "bob")
    assert users.there() == [] and len(users.journal.entries()) == 2
    users.queue.catch_up()
    assert users.there() == ["ada", "bob"] and users.sizes == [2] and not users.journal.entries()
    users.keep("eve")
    [(count,)] = users.queue.write(lambda base: base.execute("SELECT count(*) FROM users").fetchall()).result(DEADLINE)
    assert count == 3
    users.keep("fay")
    users.queue.flush()
    assert users.there() == ["ada", "bob", "eve", "fay"]


@pytest.mark.usefixtures("patient")
def test_a_change_may_read_what_was_kept_without_waiting_for_itself(users: Users) -> None:
    users.keep("ada")

    def change(connection: Connection) -> list[str]:
        users.queue.catch_up()
        return users.there()

    assert users.queue.write(change).result(DEADLINE) == ["ada"]


@pytest.mark.usefixtures("patient")
def test_what_is_kept_is_safe_while_the_database_is_busy(users: Users) -> None:
    busy = threading.Event()
    slow = users.queue.write(lambda connection: busy.wait(DEADLINE))
    users.keep("ada", "bob")  # returns although nothing can be written
    assert not slow.done()
    busy.set()
    users.queue.catch_up()
    assert users.there() == ["ada", "bob"]


@pytest.mark.usefixtures("patient")
def test_what_the_database_refuses_stays_and_the_rest_moves(users: Users, caplog: pytest.LogCaptureFixture) -> None:
    users.refused = {"bob"}
    users.keep("ada", "bob", "eve")
    users.queue.catch_up()
    assert users.there() == ["ada", "eve"] and list(users.journal.entries().values()) == [b'["bob",""]']
    assert "stay in the journal for now: 1 " in caplog.text
    users.refused = set()
    users.queue.catch_up()
    assert users.there() == ["ada", "bob", "eve"] and not users.journal.entries()


@pytest.mark.usefixtures("patient")
def test_while_the_database_refuses_everything_a_long_journal_takes_no_more(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 5)
    users.refused = {f"user_{number}" for number in range(6)}
    users.keep(*(f"user_{number}" for number in range(5)))
    with pytest.raises(StoreError, match="refused"):
        users.keep("user_5")
    users.refused = set()
    users.keep("zoe")
    users.queue.catch_up()
    assert users.there() == [f"user_{number}" for number in range(5)] + ["zoe"]  # all that were acknowledged


@pytest.mark.usefixtures("patient")
def test_what_cannot_be_encoded_takes_no_other_with_it(users: Users) -> None:
    arriving = threading.Event()
    users.queue._journaling.submit(arriving.wait, DEADLINE)
    names: list[Any] = ["ada", object(), "eve"]
    written = [users.queue.keep((name, "")) for name in names]
    arriving.set()
    assert [type(each.exception(DEADLINE)) for each in written[::2]] == [type(None)] * 2
    assert isinstance(written[1].exception(DEADLINE), TypeError)
    users.queue.catch_up()
    assert users.there() == ["ada", "eve"]


@pytest.mark.usefixtures("patient")
def test_a_journal_that_cannot_be_emptied_is_emptied_with_the_next(
    users: Users, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(journal: Journal, numbers: Sequence[int]) -> None:
        raise StoreError("The disk is full.")

    users.keep("ada")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", full)
        users.queue.catch_up()
    assert users.there() == ["ada"] and len(users.journal.entries()) == 1 and "disk is full" in caplog.text
    users.keep("bob")
    users.queue.catch_up()
    assert users.there() == ["ada", "bob"] and not users.journal.entries()


@pytest.mark.usefixtures("patient")
def test_closing_writes_all_and_leaves_no_journal(tmp_path: Path) -> None:
    users = Users(tmp_path)
    written = [users.queue.keep((f"user_{number}", "")) for number in range(10)]
    users.queue.later("users", ("late", ""))
    users.queue.close()
    users.queue.close()
    assert all(each.done() and not each.exception() for each in written)
    assert len(users.there()) == 11 and not users.journal.path.exists()
    with pytest.raises(StoreError, match="closed"):
        users.queue.keep(("more", ""))
    users.engine.close()
