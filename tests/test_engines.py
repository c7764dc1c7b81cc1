"A PostgreSQL server as the place of the data: what it is told, what it says when it is away, and coming back."

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from helpers import DEADLINE, ROOT, eventually
from postgres_server import PostgresServer

from docstral.engines.postgres import numbered
from docstral.errors import SettingsError, StoreError, StoreUnreachableError
from docstral.schema import FIRST_ON_SERVER, ON_SERVER
from docstral.settings import Settings
from docstral.store import Store, Turn, list_chats, open_store, save_turn
from docstral.types import Receipt

TURN = Turn("ada", "chat_1", "msg_1", "How?", "So.", "uncited", Receipt("mistral", "small"), "How?")


@pytest.fixture
def own_server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    "A server of the test's own, to stop and start."
    with PostgresServer() as server:
        yield server


def test_only_parameters_become_numbers() -> None:
    assert numbered("SELECT '?', \"a?\", 'it''s ?' WHERE a = ? AND b = ?") == (
        "SELECT '?', \"a?\", 'it''s ?' WHERE a = $1 AND b = $2"
    )
    assert numbered("SELECT $1, receipt->>'seconds'") == "SELECT $1, receipt->>'seconds'"


def test_copies_that_start_together_make_the_tables_once(postgres: PostgresServer, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=postgres.database())
    code = "from docstral.settings import Settings; from docstral.store import open_store; open_store(Settings.load())"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DOCSTRAL_DATABASE_URL": settings.database_url}
    copies = [
        subprocess.Popen(
            [sys.executable, "-c", f"{code}.close()"], env=environment | {"DOCSTRAL_DATA_DIR": str(tmp_path)}
        )
        for _ in range(3)
    ]
    assert [copy.wait(DEADLINE) for copy in copies] == [0, 0, 0]
    with ThreadPoolExecutor(3) as threads:  # and a version later
        for store in list(threads.map(open_store, [settings] * 3)):
            store.close()
    with open_store(settings) as store:
        numbers = [(FIRST_ON_SERVER + number,) for number in range(len(ON_SERVER))]
        assert store.read("SELECT number FROM migrations ORDER BY number") == numbers
    postgres.drop(settings.database_url)


def test_a_server_that_was_restarted_is_found_again(own_server: PostgresServer, tmp_path: Path) -> None:
    with open_store(Settings(data_dir=tmp_path, database_url=own_server.database())) as store:
        store.write(lambda connection: save_turn(connection, TURN)).result(DEADLINE)
        own_server.stop()
        with pytest.raises(StoreUnreachableError) as away:
            list_chats(store, "ada")
        assert away.value.retry_after and own_server.password not in str(away.value)
        with pytest.raises(StoreUnreachableError):
            store.write(lambda connection: save_turn(connection, TURN)).result(DEADLINE)
        own_server.start()
        eventually(lambda: _works(store))
        own_server.stop("immediate")  # as if it was killed
        own_server.start()
        eventually(lambda: _works(store))
        assert [chat.id for chat in list_chats(store, "ada")] == ["chat_1"]


def _works(store: Store) -> bool:
    "Whether a read and a write succeed."
    try:
        store.write(lambda connection: connection.execute("UPDATE chats SET title = 'x'") and None).result(DEADLINE)
        return len(list_chats(store, "ada")) == 1
    except StoreUnreachableError:
        return False


def test_rows_for_the_metrics_wait_for_a_server_that_is_away(own_server: PostgresServer, tmp_path: Path) -> None:
    url = own_server.database()
    with open_store(Settings(data_dir=tmp_path, database_url=url)) as store:
        own_server.stop()
        store.later("users", ("ada", ""))
        store.flush()  # in vain
        store.later("users", ("bob", ""))
        own_server.start()
        with psycopg.connect(url) as connection:  # they arrive by themselves, without anybody asking for them
            query = "SELECT id FROM users ORDER BY id"
            assert eventually(lambda: connection.execute(query).fetchall()) == [("ada",), ("bob",)]


def test_what_is_wrong_with_the_server_is_said_without_the_password(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.url("postgres")
    wrong = {
        url.replace(postgres.password, "s3cret"): "password authentication failed",
        url.replace("/postgres", "/nowhere"): "nowhere",
        re.sub(r":\d+/", ":1/", url): "cannot be reached",
    }
    for database_url, says in wrong.items():
        with pytest.raises(StoreError, match=says) as error:
            open_store(Settings(data_dir=tmp_path, database_url=database_url))
        told = f"{error.value} {error.value.action}"
        assert "s3cret" not in told and postgres.password not in told and error.value.action


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://ada:s3cret@localhost/x", "does not begin with postgresql"),
        ("postgresql://ada:s3c/ret@lo cal:x:y/z?bad", "cannot be read"),
    ],
)
def test_a_url_that_is_none_is_not_repeated(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=says) as error:
        open_store(Settings(data_dir=tmp_path, database_url=url))
    assert "s3c" not in f"{error.value} {error.value.action}" and "postgresql://user" in error.value.action


def test_the_url_is_a_secret(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url="postgresql://ada:s3cret@localhost/x")
    assert "s3cret" not in repr(settings)
    (tmp_path / "settings.ini").write_text("[docstral]\ndatabase_url = postgresql://ada:s3cret@localhost/x\n")
    with pytest.raises(SettingsError, match="belong in the environment") as error:
        Settings.load({"DOCSTRAL_SETTINGS": str(tmp_path / "settings.ini")})
    assert "s3cret" not in str(error.value)


def test_without_its_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "docstral.engines.postgres", raising=False)
    with pytest.raises(SettingsError) as error:
        open_store(Settings(data_dir=tmp_path, database_url="postgresql://localhost/x"))
    assert "pip install 'docstral[postgres]'" in error.value.action


def test_many_readers_share_few_connections(database_url: str, tmp_path: Path) -> None:
    with open_store(Settings(data_dir=tmp_path, database_url=database_url)) as store:
        store.write(lambda connection: save_turn(connection, TURN)).result(DEADLINE)
        found: list[int] = []
        readers = [threading.Thread(target=lambda: found.append(len(list_chats(store, "ada")))) for _ in range(40)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(DEADLINE)
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        [(connections,)] = store.read(count)
    assert found == [1] * 40 and connections <= 8
