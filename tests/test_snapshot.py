"A copy of the data of a running app, for the owner of its folder and nobody else."

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from helpers import DEADLINE, Live, ready

from docstral.chat import ChatService
from docstral.serve import create_app
from docstral.settings import Settings
from docstral.snapshot import COPY, DOOR, announced, open_snapshot
from docstral.store import Store, open_store

LOOK = """
import sys
from pathlib import Path
from docstral.snapshot import open_snapshot
from docstral.errors import DocStralError
try:
    with open_snapshot(Path(sys.argv[1])) as data:
        print(*(data.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("messages", "requests")))
except DocStralError as error:
    print(error.code)
"""


def look(folder: Path) -> str:
    "What another process sees of the data: messages and requests, or the code of the error."
    command = [sys.executable, "-c", LOOK, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE).stdout.strip()


@pytest.fixture
def address(settings: Settings, store: Store) -> Iterator[str]:
    "A running app that announced itself."
    with (
        ready(ChatService(settings, store)) as server,
        announced(settings.data_dir, server.url) as server.app.state.snapshot_token,
    ):
        yield server.url


def test_a_running_app_is_looked_at_while_it_answers(address: str, data_dir: Path) -> None:
    with httpx2.Client(base_url=address, timeout=DEADLINE, trust_env=False) as client:
        for number in (1, 2):
            client.post("/chat", json={"message": "How do I stream a chat completion?"}).raise_for_status()
            assert look(data_dir) == f"{2 * number} {number}"  # the answer of this very second is there
    assert (data_dir / COPY).stat().st_mode & 0o077 == 0 and (data_dir / DOOR).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong"])
def test_nobody_else_gets_a_copy(address: str, data_dir: Path, token: str) -> None:
    reply = httpx2.post(f"{address}/snapshot", headers={"authorization": token}, trust_env=False)
    assert reply.status_code == 404 and not (data_dir / COPY).exists()


def test_an_app_without_a_token_gives_none(settings: Settings, store: Store) -> None:
    with Live(create_app(ChatService(settings, store), web=False)) as server:
        for token in ("", "Bearer", "Bearer None"):
            headers = {"authorization": token}
            assert httpx2.post(f"{server.url}/snapshot", headers=headers, trust_env=False).status_code == 404


def test_a_stopped_app_and_a_held_file(data_dir: Path) -> None:
    assert look(data_dir) == "0 0"
    with Store(data_dir / "docstral.duckdb"):
        assert look(data_dir) == "store_locked"
    assert look(data_dir / "nowhere") == "store"


def test_the_data_of_a_server_is_looked_at_in_the_same_way(database_url: str, tmp_path: Path) -> None:
    with open_store(Settings(data_dir=tmp_path, database_url=database_url)) as store:  # several can have it open
        for name in ("ada", "bob"):
            store.write(lambda connection, name=name: connection.insert("users", [(name, "")])).result(DEADLINE)
            with open_snapshot(tmp_path, database_url) as data:
                assert data.execute("SELECT max(id) FROM users").fetchall() == [(name,)]
    assert [path.name for path in tmp_path.iterdir()] == [COPY] and (tmp_path / COPY).stat().st_mode & 0o077 == 0
