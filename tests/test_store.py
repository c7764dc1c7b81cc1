"The database, on both engines: what was acknowledged is kept, what is another's stays hidden, errors say what to do."

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from helpers import DEADLINE, ROOT

from docstral import schema as module
from docstral.engines.duckdb import Connection, connect
from docstral.errors import NotFoundError, StoreError, StoreLockedError
from docstral.journal import Journal
from docstral.queue import WriteQueue
from docstral.schema import FIRST_ON_SERVER, MIGRATIONS, ON_SERVER, SHARED, migrate
from docstral.settings import Settings
from docstral.store import (
    Store,
    Turn,
    get_chat,
    get_message,
    journal_of,
    list_chats,
    list_messages,
    open_store,
    save_turn,
    save_turns,
)
from docstral.types import Citation, Passage, Receipt, new_id

PASSAGE = Passage("a.md::0", "Page", "Section", "https://a.example", "Text with “quotes”.", 0.5)


def turn(user: str = "ada", chat: str = "chat_1", **changes: object) -> Turn:
    "A turn to write."
    made = Turn(user, chat, new_id("msg"), "How?", "So [1].", "cited", Receipt("mistral", "small", 1.5), "How?")
    return replace(made, **changes)


def save(store: Store, *turns: Turn) -> None:
    "Write turns, and wait until they are written."
    for each in turns:
        store.write(lambda connection, each=each: save_turn(connection, each)).result(DEADLINE)


@pytest.fixture
def empty(place: Settings) -> Iterator[Store]:
    "A new database."
    with open_store(place) as store:
        yield store


@pytest.fixture
def process() -> Iterator[list[subprocess.Popen[str]]]:
    "Processes that a test starts; they end with it."
    started: list[subprocess.Popen[str]] = []
    yield started
    for each in started:
        each.kill()
        each.communicate()


def start(code: str, place: Settings) -> subprocess.Popen[str]:
    "A program of these lines that opens this database."
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DOCSTRAL_DATA_DIR": str(place.data_dir),
        "DOCSTRAL_DATABASE_URL": place.database_url,
    }
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def test_a_turn_comes_back_as_it_was(empty: Store) -> None:
    written = turn(
        sources=[PASSAGE], citations=[Citation(1, "a.md::0", 0, 4, 0.75)], question="Où ça?\n\0 🤖 '\"%s $1 ?"
    )
    save(empty, written)
    question, answer = list_messages(empty, "ada", "chat_1")
    zero = "\0" if empty.dialect == "duckdb" else "\ufffd"  # PostgreSQL's text cannot hold it
    assert (question.role, question.receipt) == ("user", None)
    assert question.content == f"Où ça?\n{zero} 🤖 '\"%s $1 ?"
    assert (answer.id, answer.content, answer.outcome) == (written.message_id, "So [1].", "cited")
    assert answer.sources and answer.sources[0]["text"] == PASSAGE.text
    assert answer.citations == [asdict(written.citations[0])]
    assert answer.receipt and answer.receipt["seconds"] == 1.5
    assert answer.created.utcoffset() is not None


def test_chats_are_listed_by_last_use(empty: Store) -> None:
    save(empty, turn(chat="chat_1", title="first"), turn(chat="chat_2", title="second"))
    save(empty, turn(chat="chat_1", title="x", begins=False))
    assert [(chat.id, chat.title) for chat in list_chats(empty, "ada")] == [("chat_1", "first"), ("chat_2", "second")]


def test_another_users_chat_is_not_found(empty: Store) -> None:
    save(empty, turn(user="bob", chat="chat_of_bob"))
    assert list_chats(empty, "ada") == []
    for reading in (get_chat, list_messages):
        with pytest.raises(NotFoundError) as other:
            reading(empty, "ada", "chat_of_bob")
        with pytest.raises(NotFoundError) as unknown:
            reading(empty, "ada", "chat_unknown")
        assert str(other.value).replace("chat_of_bob", "chat_unknown") == str(unknown.value)


def test_a_write_that_fails_leaves_nothing(empty: Store) -> None:
    def change(connection: Connection) -> None:
        save_turn(connection, turn())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        empty.write(change).result(DEADLINE)
    assert list_chats(empty, "ada") == []
    save(empty, turn())  # and the next one works
    assert len(list_messages(empty, "ada", "chat_1")) == 2


def test_turns_that_wait_are_written_together_and_none_fails_because_of_another(place: Settings) -> None:
    arrived, sizes = threading.Event(), []

    def save(connection: Connection, turns: Sequence[Turn]) -> None:
        sizes.append(len(turns))
        save_turns(connection, turns)

    with open_store(place) as store, closing(WriteQueue(store.engine, save)) as queue:
        queue.write(lambda connection: arrived.wait(DEADLINE))  # keeps it busy until all of them wait
        turns = [turn(chat=f"chat_{number}") for number in range(20)]
        again = turn(chat="chat_0", begins=False)
        turns += [again, replace(again, question="The same id?"), turn(chat="chat_gone", begins=False)]
        written = [queue.keep(each) for each in turns]
        arrived.set()
        failed = [number for number, each in enumerate(written) if each.exception(DEADLINE)]
        assert failed == [21] and isinstance(written[21].exception(), StoreError)
        assert sizes == [23] + [1] * 23
        assert len(list_chats(store, "ada")) == 20  # and none for the chat that is gone
        assert [message.content for message in list_messages(store, "ada", "chat_7")] == ["How?", "So [1]."]
        assert len(list_messages(store, "ada", "chat_0")) == 4


def test_readers_and_writers_at_once(empty: Store) -> None:
    errors: list[Exception] = []

    def read() -> None:
        try:
            for _ in range(40):
                for chat in list_chats(empty, "ada"):
                    assert len(list_messages(empty, "ada", chat.id)) % 2 == 0
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    save(empty, *(turn(chat=f"chat_{number % 5}") for number in range(40)))
    for reader in readers:
        reader.join(DEADLINE)
    assert errors == []
    assert sum(len(list_messages(empty, "ada", chat.id)) for chat in list_chats(empty, "ada")) == 80


def contents(store: Store, replaced: bool = False) -> list[str]:
    "The texts of Ada's chat."
    return [message.content for message in list_messages(store, "ada", "chat_1", replaced)]


def test_a_turn_takes_the_place_of_another_and_of_those_after_it(empty: Store) -> None:
    first, second, third = (turn(question=f"{number}?", answer=f"{number}.") for number in (1, 2, 3))
    save(empty, first, second, third)
    save(empty, turn(question="2b?", answer="2b.", begins=False, replaces=second.message_id))
    assert contents(empty) == ["1?", "1.", "2b?", "2b."]
    assert contents(empty, replaced=True) == ["1?", "1.", "2?", "2.", "3?", "3.", "2b?", "2b."]
    kept = get_message(empty, "ada", second.message_id)
    assert kept.content == "2." and kept.replaced is not None


def test_an_answer_without_a_word_takes_nobodys_place(empty: Store) -> None:
    save(empty, first := turn(answer="Good."))
    save(empty, turn(answer="", outcome="error", error_code="timeout", begins=False, replaces=first.message_id))
    assert contents(empty) == ["How?", "Good."]
    assert contents(empty, replaced=True) == ["How?", "Good.", "How?", ""]


def test_a_turn_replaces_another_that_is_written_together_with_it(empty: Store) -> None:
    first, second = turn(), turn(question="Why?", begins=False)
    again = turn(question="How so?", begins=False, replaces=first.message_id)
    last = turn(question="And then?", begins=False)
    empty.write(lambda connection: save_turns(connection, [first, second, again, last])).result(DEADLINE)
    questions = [message.content for message in list_messages(empty, "ada", "chat_1") if message.role == "user"]
    assert questions == ["How so?", "And then?"]


def test_a_turn_does_not_bring_back_a_chat_that_was_deleted_for_good(empty: Store) -> None:
    save(empty, turn())
    empty.write(lambda connection: connection.execute("DELETE FROM chats")).result(DEADLINE)
    save(empty, turn(begins=False))
    assert list_chats(empty, "ada") == [] and empty.read("SELECT count(*) FROM messages") == [(2,)]


def test_what_was_sent_and_what_failed_is_kept_with_the_answer(empty: Store) -> None:
    known = {"error": {"code": "timeout"}, "request": {"body": "é\u2028"}, "account": {"stages": [1.5]}}
    save(empty, written := turn(**known))
    found = get_message(empty, "ada", written.message_id)
    assert {name: getattr(found, name) for name in known} == known
    _, listed = list_messages(empty, "ada", "chat_1")
    assert (listed.error, listed.request, listed.account) == (known["error"], None, None)
    with pytest.raises(NotFoundError):
        get_message(empty, "bob", written.message_id)


WRITER = """
from docstral.settings import Settings
from docstral.store import Turn, open_store
from docstral.types import Receipt
store = open_store(Settings.load())
for number in range(100_000):
    turn = Turn("ada", "chat_1", f"msg_{number:06}", "How?", "So.", "uncited", Receipt("x", "y"), begins=not number)
    store.keep(turn).result()
    print(number, flush=True)
"""


def test_a_killed_process_loses_no_acknowledged_turn(place: Settings, process: list[subprocess.Popen[str]]) -> None:
    writer = start(WRITER, place)
    process.append(writer)
    assert writer.stdout
    for line in writer.stdout:
        if int(line) >= 40:
            break
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read().split()
    writer.wait(DEADLINE)
    acknowledged = int(rest[-1]) if rest else 40
    with open_store(place) as store:
        messages = list_messages(store, "ada", "chat_1")
    kept = {message.id for message in messages if message.role == "assistant"}
    assert {f"msg_{number:06}" for number in range(acknowledged + 1)} <= kept
    assert len(messages) == 2 * len(kept)  # a turn is there whole, or not at all


def left_behind(folder: Path, *turns: Turn) -> Path:
    "A new database, and a journal beside it as a process leaves it that is killed."
    path = folder / "docstral.duckdb"
    Store(path).close()
    journal = Journal(journal_of(path))
    journal.add([orjson.dumps(each) for each in turns])
    journal.close()
    return path


def test_what_a_killed_process_left_in_the_journal_is_written_once_and_with_its_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked, answered = datetime(2026, 1, 2, 3, 4, 5, 6, UTC), datetime(2026, 1, 2, 3, 4, 9, tzinfo=UTC)
    first = turn(sources=[PASSAGE], citations=[Citation(1, PASSAGE.id, 0, 2, 1.0)], asked=asked, answered=answered)
    path = left_behind(tmp_path, first, turn(begins=False), turn(chat="chat_gone", begins=False))
    with Store(path) as store:  # killed between the two: the turn is in the database, and still in the journal
        assert "3 answers" in caplog.text and not journal_of(path).exists()
        journal = Journal(journal_of(path))
        journal.add([orjson.dumps(first)])
        journal.close()
    with Store(path) as store:
        messages = list_messages(store, "ada", "chat_1")
    assert len(messages) == 4 and (messages[0].created, messages[1].created) == (asked, answered)
    assert messages[1].sources == [asdict(PASSAGE)] and messages[1].citations and messages[1].receipt
    assert not journal_of(path).exists()


@pytest.mark.parametrize("entry", [b'{"user_id": "ada"}', b"[]", b"no JSON", b'{"of_the_future": 1}'])
def test_a_journal_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path, entry: bytes) -> None:
    path = left_behind(tmp_path)
    journal = Journal(journal_of(path))
    journal.add([entry])
    journal.close()
    with pytest.raises(StoreError, match="another version") as error:
        Store(path)
    assert "move this file away" in error.value.action and list(journal.entries().values()) == [entry]
    journal.close()
    journal_of(path).rename(tmp_path / "away")
    Store(path).close()


HOLDER = """
import sys
from docstral.settings import Settings
from docstral.store import open_store
with open_store(Settings.load()):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_which_one_has_the_database(
    tmp_path: Path, process: list[subprocess.Popen[str]]
) -> None:
    path = tmp_path / "docstral.duckdb"
    process.append(holder := start(HOLDER, Settings(data_dir=tmp_path)))
    assert holder.stdout and holder.stdout.readline() == "open\n"
    with pytest.raises(StoreLockedError, match=f"process {holder.pid}") as error:
        Store(path)
    assert "DOCSTRAL_DATA_DIR" in error.value.action
    holder.communicate("", timeout=DEADLINE)
    Store(path).close()  # free again


AS_FIRST_WRITTEN = """
    INSERT INTO users VALUES ('ada', '');
    INSERT INTO chats VALUES ('chat_1', 'ada', 'Old?', now(), now());
    INSERT INTO messages VALUES
        ('msg_0q', 'chat_1', 'msg_0', 'user', 'Old?', now(), NULL, NULL, NULL, NULL),
        ('msg_0', 'chat_1', 'msg_0', 'assistant', 'Old.', now(), 'uncited', '[]', '[]', '{}');
"""


def test_old_databases_are_brought_up_to_date_and_keep_their_chats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "docstral.duckdb"
    steps = module.MIGRATIONS
    monkeypatch.setattr(module, "MIGRATIONS", steps[:1])
    with Store(path) as store:  # as the first version wrote it
        store.write(lambda connection: connection.execute(AS_FIRST_WRITTEN)).result(DEADLINE)
    monkeypatch.setattr(module, "MIGRATIONS", [*steps, "ALTER TABLE chats ADD COLUMN colour VARCHAR"])
    with Store(path) as store:
        save(store, turn(begins=False))
        assert [each.content for each in list_messages(store, "ada", "chat_1")] == ["Old?", "Old.", "How?", "So [1]."]
        assert store.read("SELECT count(*), max(number) FROM migrations") == [(len(steps) + 1, len(steps) + 1)]
        assert store.read("SELECT colour FROM chats") == [(None,)]


def add_step(monkeypatch: pytest.MonkeyPatch, statements: str) -> None:
    "A step that the next version takes, on both engines."
    for name in ("MIGRATIONS", "ON_SERVER"):
        monkeypatch.setattr(module, name, [*getattr(module, name), statements])


def test_a_later_version_takes_the_steps_that_are_new(place: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(place) as store:
        save(store, turn())
    add_step(monkeypatch, "ALTER TABLE chats ADD COLUMN colour VARCHAR; UPDATE chats SET colour = 'orange';")
    for _ in range(2):
        with open_store(place) as store:
            assert store.read("SELECT colour FROM chats") == [("orange",)]
            assert store.read("SELECT max(number) FROM migrations") == [(len(MIGRATIONS) + 1,)]


def test_a_migration_that_fails_changes_nothing(place: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(place) as store:
        save(store, turn())
    add_step(monkeypatch, "CREATE TABLE extra (a INTEGER); SELECT nonsense;")
    with pytest.raises(StoreError):
        open_store(place)
    monkeypatch.undo()
    with open_store(place) as store:
        assert len(list_messages(store, "ada", "chat_1")) == 2
        assert store.read("SELECT count(*) FROM information_schema.tables WHERE table_name = 'extra'") == [(0,)]


def test_migrating_twice_does_nothing(empty: Store) -> None:
    assert migrate(empty.engine) == 0


def test_a_database_of_a_later_version_is_left_alone(place: Settings) -> None:
    with open_store(place) as store:
        store.write(lambda connection: connection.execute("INSERT INTO migrations VALUES (99, now())")).result()
    with pytest.raises(StoreError, match="99 schema steps") as error:
        open_store(place)
    assert "Upgrade" in error.value.action


COLUMNS = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position
"""


def test_both_engines_have_the_same_tables(place: Settings, tmp_path: Path) -> None:
    assert FIRST_ON_SERVER + len(ON_SERVER) == 1 + len(MIGRATIONS)
    with open_store(place) as store, Store(tmp_path / "file.duckdb") as file:
        columns = [tuple(row) for row in store.read(COLUMNS)]
        assert [(table, name) for table, name in columns if table not in SHARED] == file.read(COLUMNS)


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "docstral.duckdb"
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(StoreError, match="not a DuckDB database") as error:
        Store(path)
    assert not isinstance(error.value, StoreLockedError)
    assert path.read_bytes().startswith(b"not a database")


def test_a_damaged_file_in_a_folder_named_blocks_is_not_called_locked(tmp_path: Path) -> None:
    path = tmp_path / "blocks" / "docstral.duckdb"
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(StoreError) as error:
        connect(path)
    assert not isinstance(error.value, StoreLockedError)


def test_a_damaged_database_is_not_called_locked(indexed: Path, tmp_path: Path) -> None:
    data = (indexed / "docstral.duckdb").read_bytes()
    path = tmp_path / "docstral.duckdb"
    path.write_bytes(data[:20_000] + b"\xff" * 20_000 + data[40_000:])
    with pytest.raises(StoreError, match="damaged"), Store(path) as store:
        list_chats(store, "ada")


def test_a_truncated_database_says_so(indexed: Path, tmp_path: Path) -> None:
    path = tmp_path / "docstral.duckdb"
    path.write_bytes((indexed / "docstral.duckdb").read_bytes()[:600_000])
    with pytest.raises(StoreError), Store(path) as store:
        for table in ("chunks", "embeddings", "pages"):
            store.read(f"SELECT * FROM {table}")


def test_a_data_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "file" / "docstral.duckdb")


def test_closing_writes_what_is_queued_and_can_be_done_twice(place: Settings) -> None:
    store = open_store(place)
    turns = [turn(chat=f"chat_{number}") for number in range(10)]
    writes = [store.write(lambda connection, each=each: save_turn(connection, each)) for each in turns]
    store.close()
    store.close()
    assert all(write.done() and not write.exception() for write in writes)
    with pytest.raises(StoreError, match="closed"):
        list_chats(store, "ada")


def test_writing_to_a_closed_database_says_so(place: Settings) -> None:
    store = open_store(place)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        save(store, turn())
