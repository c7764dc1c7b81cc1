"All data from a file to a PostgreSQL server and back: nothing is lost, written over, or left halfway."

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from helpers import DEADLINE, docstral

from docstral import transfer as module
from docstral.engines.duckdb import Connection
from docstral.errors import StoreError
from docstral.journal import Journal
from docstral.metrics import merged, roll_up
from docstral.schema import MIGRATIONS
from docstral.settings import Settings
from docstral.store import Store, Turn, journal_of, list_messages, open_store, save_turn
from docstral.transfer import TABLES, move
from docstral.types import Citation, Passage, Receipt

TEXTS = [
    "plain", "", "quotes ' \" ` and \\ \\x00 \\u0000", "🤖 é e\u0301 \u202e \ufffd \U0010ffff", "a\tb\nc\r\n",
    "%s $1 ? {} NULL \\N", "zero \0 and \0", "x" * 200_000,
]  # fmt: skip
NUMBERS = [0.0, -0.0, 0.1, 1e-30, 3.4e38, float("inf"), float("-inf"), float("nan"), None]


def odd(connection: Connection) -> None:
    "Rows with all that a column can hold."
    zone = timezone(timedelta(hours=5, minutes=30))
    for number, text in enumerate(TEXTS):
        asked = datetime(2026, 3, 29, 2, 30, number, 123_456, tzinfo=zone if number % 2 else UTC)
        turn = Turn(
            "ada", f"chat_{number}", f"msg_{number}", text, f"So: {text}", "cited", Receipt("mistral", text[:100], 1.5),
            text[:80], [Passage("a.md::0", text[:100], "§", "https://a.example", text, float("nan"))],
            [Citation(1, "a.md::0", 0, 4, 0.75)], asked=asked, request={"body": text}, account={"found": [text, None]},
        )  # fmt: skip
        save_turn(connection, turn)
    requests = [
        (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour), f"msg_{hour}", "mistral", f"m'{hour % 2}", "cited",
         "timeout" if hour % 5 == 0 else None, "stop", 1.5, 0.3, 1.1, 0.02, NUMBERS[hour % 9], NUMBERS[hour % 7],
         900, 80, 0.0001, NUMBERS[hour % 8], 2, 0, 1, 0.5, 0, 0, 3, None)
        for hour in range(1_200)
    ]  # fmt: skip
    connection.insert("users", [("ada", ""), ("zoë", "Zoë 🤖")])
    connection.insert("requests", requests)
    roll_up(connection, datetime(2026, 2, 1, tzinfo=UTC), days=10_000)
    vectors = np.random.default_rng(7).standard_normal((1_100, 256)).astype(np.float32)
    connection.insert("embeddings", [("static", f"d{number}", each.tobytes()) for number, each in enumerate(vectors)])
    connection.insert("embeddings", [("mistral-embed", "d1", np.ones(1024, np.float32).tobytes())])


@pytest.fixture
def file(data_dir: Path) -> Path:
    "A database file with indexed pages and odd rows."
    path = data_dir / "docstral.duckdb"
    with Store(path) as store:
        store.write(lambda connection: connection.execute("DELETE FROM embeddings") and None).result(DEADLINE)
        store.write(odd).result(DEADLINE)
    return path


def without_zeros(row: tuple[Any, ...]) -> tuple[Any, ...]:
    "A row as PostgreSQL can hold it."
    return tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row)


def contents(place: Settings | Path) -> dict[str, list[str]]:
    "Every row of every table."
    with Store(place) if isinstance(place, Path) else open_store(place) as store:
        return {
            table: sorted(repr(without_zeros(row)) for row in store.read(f"SELECT * FROM {table}")) for table in TABLES
        }


@pytest.fixture
def other(database_url: str, tmp_path: Path) -> Iterator[Settings]:
    "An empty database on a server."
    yield Settings(data_dir=tmp_path / "other", database_url=database_url)


def test_there_and_back_every_row_is_the_same(file: Path, other: Settings, tmp_path: Path) -> None:
    before = file.read_bytes()
    there = move(str(file), other.database_url)
    assert file.read_bytes() == before
    assert {each.table: each.changed for each in there if each.changed} == {"chats": 1, "messages": 2}
    back = move(other.database_url, str(tmp_path / "back.duckdb"))
    assert [(each.table, each.rows, each.checksum) for each in there] == [
        (each.table, each.rows, each.checksum) for each in back
    ]
    counts = {each.table: each.rows for each in there}
    assert counts["messages"] == 2 * len(TEXTS) and counts["requests"] == 1_200 and counts["embeddings"] == 1_101
    assert all(counts.values()), counts
    assert contents(file) == contents(tmp_path / "back.duckdb")


def test_what_was_moved_works(file: Path, other: Settings) -> None:
    move(str(file), other.database_url)
    since = datetime(2025, 1, 1, tzinfo=UTC)
    with open_store(other) as server, Store(file) as store:
        for number, text in enumerate(TEXTS):
            question, answer = list_messages(server, "ada", f"chat_{number}")
            [_, old] = list_messages(store, "ada", f"chat_{number}")
            assert question.content == text.replace("\0", "\ufffd") and question.created.second == number
            assert (answer.sources, answer.citations, answer.receipt) == (old.sources, old.citations, old.receipt)
        [ours], [theirs] = ([row for row in merged(each, since) if row["model"] == "m'1"] for each in (server, store))
        assert (ours["total"], ours["latency"]) == (theirs["total"], theirs["latency"]) and ours["total"] == 600


def test_nothing_is_written_over(file: Path, other: Settings, tmp_path: Path) -> None:
    with open_store(other) as store:
        store.write(lambda connection: connection.insert("users", [("bob", "")])).result(DEADLINE)
    with pytest.raises(StoreError, match="not empty: users has 1 rows") as error:
        move(str(file), other.database_url)
    assert "secret" not in str(error.value) and other.database_url.split(":")[2].split("@")[0] not in str(error.value)
    assert contents(other)["users"] == ["('bob', '')"] and contents(other)["chats"] == []
    before = file.read_bytes()
    with pytest.raises(StoreError, match="not empty"):
        move(other.database_url, str(file))
    with pytest.raises(StoreError, match="the same"):
        move(str(file), str(file))
    assert file.read_bytes() == before


@pytest.mark.parametrize("way", ["to a server", "to a file"])
def test_a_move_that_breaks_off_leaves_nothing(
    way: str, file: Path, other: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = str(file), str(tmp_path / "new" / "copy.duckdb")
    if way == "to a server":
        target = other.database_url

    def stop(table: str, done: int, total: int) -> None:
        if table == "embeddings":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move(source, target, stop)
    if way == "to a server":
        assert not any(contents(other).values())
    else:
        assert list((tmp_path / "new").iterdir()) == []
    monkeypatch.setattr(module.Checksum, "__str__", lambda checksum: f"{id(checksum)}")  # as if a row was not the same
    with pytest.raises(StoreError, match="users arrived with"):
        move(source, target)
    monkeypatch.undo()
    assert len(move(source, target)) == len(TABLES)  # and then it can be done


def test_a_place_without_data_and_an_old_one_say_so(
    other: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="There is no database"):
        move(str(tmp_path / "nowhere.duckdb"), other.database_url)
    assert not (tmp_path / "nowhere.duckdb").exists()
    with monkeypatch.context() as older:
        older.setattr("docstral.schema.MIGRATIONS", MIGRATIONS[:3])
        Store(tmp_path / "old.duckdb").close()
    with pytest.raises(StoreError, match="at step 3") as error:
        move(str(tmp_path / "old.duckdb"), other.database_url)
    assert "Start the app" in error.value.action


def test_the_command_moves_and_reports(
    file: Path, other: Settings, plain_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = plain_environment | {"DOCSTRAL_DATA_DIR": str(file.parent)}
    ran = docstral("migrate", "--to", other.database_url, environment=environment, folder=tmp_path)
    assert ran.returncode == 0 and "2 with a character 0" in ran.stdout, ran.stderr
    assert ran.stdout.count("sha256") == len(TABLES) and "The source is as it was" in ran.stdout
    environment |= {"DOCSTRAL_DATABASE_URL": other.database_url}
    again = docstral("migrate", "--from", str(file), environment=environment, folder=tmp_path)  # to what is configured
    assert again.returncode == 1 and "not empty" in again.stderr and again.stdout == ""
    back = docstral("migrate", "--to", "back.duckdb", environment=environment, folder=tmp_path)
    assert back.returncode == 0, back.stderr
    assert [line.split()[:4] for line in back.stdout.splitlines()] == [
        line.split()[:4] for line in ran.stdout.splitlines()
    ]
    with Store(file):
        held = docstral("migrate", "--from", str(file), "--to", "x.duckdb", environment=environment, folder=tmp_path)
    assert held.returncode == 1 and "in use by process" in held.stderr and not (tmp_path / "x.duckdb").exists()
    nothing = docstral("migrate", environment=environment, folder=tmp_path)
    assert nothing.returncode == 1 and "--to" in nothing.stderr


def test_what_a_killed_process_left_in_its_journal_is_moved_too(file: Path, tmp_path: Path) -> None:
    journal = Journal(journal_of(file))
    kept = Turn("ada", "chat_kept", "msg_kept", "How?", "So.", "uncited", Receipt("x", "y"), "How?")
    journal.add([orjson.dumps(kept)])
    journal.close()
    move(str(file), str(tmp_path / "copy.duckdb"))
    with Store(tmp_path / "copy.duckdb") as store:
        assert [message.content for message in list_messages(store, "ada", "chat_kept")] == ["How?", "So."]
