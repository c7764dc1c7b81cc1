"What machines do to a program: processes that are killed, full disks, damaged files, clocks that jump."

import asyncio
import gc
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import orjson
import psutil
import pytest
from helpers import DEADLINE, ROOT, Live, eventually
from mistral_server import Gate, Reply, ScriptedMistral

from docstral import schema, serve
from docstral.chat import ChatService, Question
from docstral.errors import StoreError
from docstral.providers import attempts
from docstral.settings import Settings
from docstral.store import Store, Turn, list_messages, save_turn
from docstral.types import ChatStarted, Done, Receipt, new_id

STREAM = "How do I stream a chat completion?"
WHOLE = "Set `stream` to true. " * 5 + "That is all [1]."
ROUNDS = int(os.environ.get("DOCSTRAL_TEST_ROUNDS", "50"))


def turn(**changes: Any) -> Turn:
    "A turn to write."
    known = {"user_id": "ada", "chat_id": "chat_1", "message_id": new_id("msg"), "question": "How?", "answer": "So."}
    return Turn(**known | {"outcome": "uncited", "receipt": Receipt("x", "y")} | changes)


# A process that has imported everything forks a server for each line that it reads: 50 starts in the time of a few.
NURSERY = """
import os, signal, sys, threading
from pathlib import Path
import uvicorn
from docstral.chat import ChatService
from docstral.embed import StaticEmbedder
from docstral.serve import create_app, listen
from docstral.settings import Settings
from docstral.store import Store
from docstral.models import estimate_tokens
import bm25s, faiss, llama_index.core.node_parser, mcp.server.mcpserver
StaticEmbedder()
estimate_tokens("")
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
settings = Settings(data_dir=Path(sys.argv[1]), docs=(Path(sys.argv[2]),), mistral_url=sys.argv[3], mistral_api_key="k")

def serve():
    service = ChatService(settings, Store(settings.data_dir / "docstral.duckdb"))
    bound = listen("127.0.0.1", 0)
    def loaded(error):
        print(os.getpid(), bound.getsockname()[1], flush=True)
    app = create_app(service, loaded, web=False)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[bound])

for line in sys.stdin:
    if os.fork() == 0:
        serve()
        os._exit(0)
"""


class Reader(threading.Thread):
    "Asks until the server is gone, and remembers which answers were acknowledged."

    def __init__(self, port: int, seen: threading.Semaphore):
        super().__init__()
        self.port, self.seen = port, seen
        self.done: list[tuple[str, str]] = []  # message and text
        self.start()

    def run(self) -> None:
        body = {"message": STREAM}
        with httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=DEADLINE, trust_env=False) as client:
            try:
                while True:
                    with client.stream("POST", "/chat", json=body) as reply:
                        for line in reply.iter_lines():
                            self.seen.release()
                            if line.startswith("data: ") and '"outcome"' in line:
                                done = httpx2.Response(200, content=line[6:].encode()).json()
                                self.done.append((done["message_id"], done["text"]))
            except httpx2.HTTPError:
                return


@pytest.fixture
def nursery(data_dir: Path, pages: Path, mistral: ScriptedMistral) -> Iterator[subprocess.Popen[str]]:
    "The process that forks servers."
    mistral.answer = lambda body: Reply(["Set `stream` to true. "] * 5 + ["That is all [1]."])
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(data_dir), str(pages), mistral.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    yield process
    process.kill()
    process.communicate()


def test_a_server_that_is_killed_again_and_again_loses_no_acknowledged_answer(
    nursery: subprocess.Popen[str], data_dir: Path
) -> None:
    assert nursery.stdin and nursery.stdout
    dice, acknowledged = random.Random(7), dict[str, str]()
    for _ in range(ROUNDS):
        print("serve", file=nursery.stdin, flush=True)
        number, port = (int(word) for word in nursery.stdout.readline().split())
        seen = threading.Semaphore(0)
        readers = [Reader(port, seen) for _ in range(3)]
        for _line in range(dice.randrange(20, 120)):  # lines of streams: it dies before, within and after answers
            assert seen.acquire(timeout=DEADLINE)
        os.kill(number, signal.SIGKILL)
        for reader in readers:
            reader.join(DEADLINE)
            acknowledged |= dict(reader.done)
        wait_until_gone(number)
    with Store(data_dir / "docstral.duckdb") as store:
        stored = dict(store.read("SELECT id, content FROM messages WHERE role = 'assistant'"))
        outcomes = store.read("SELECT DISTINCT outcome FROM messages WHERE role = 'assistant'")
        halves = store.read("SELECT turn FROM messages GROUP BY turn HAVING count(*) <> 2")
        chats = store.read("SELECT count(*) FROM chats WHERE id NOT IN (SELECT chat_id FROM messages)")
    assert len(acknowledged) >= ROUNDS
    assert {message: stored.get(message) for message in acknowledged} == acknowledged
    assert set(stored.values()) == {WHOLE} and outcomes == [("cited",)]  # what is there is whole
    assert halves == [] and chats == [(0,)]


def wait_until_gone(number: int) -> None:
    "Wait until a process has ended and let go of its files."
    ends = time.monotonic() + DEADLINE
    while Path(f"/proc/{number}").exists() and time.monotonic() < ends:
        time.sleep(0.005)


FULL = """
import asyncio, os, sys
from pathlib import Path
from docstral.chat import ChatService, Question
from docstral.settings import Settings
from docstral.store import Store, list_messages
from docstral.errors import StoreError

folder, pages = Path(sys.argv[1]), Path(sys.argv[2])
filler = folder / "filler"

def fill():
    with filler.open("ab", buffering=0) as file:
        for size in (1_000_000, 10_000, 512):
            try:
                while True:
                    if file.write(b"x" * size) < size:
                        break
            except OSError:
                pass

async def ask(service, **more):
    return [event async for event in service.ask("ada", Question("How do I stream a chat completion?", **more))]

async def main():
    with Store(folder / "docstral.duckdb") as store:
        service = ChatService(store=store, settings=Settings(data_dir=folder, docs=(pages,)))
        service.load()
        first = await ask(service)
        fill()
        for _ in range(2):
            *_, notice, done = await ask(service)
            assert (notice.type, notice.code) == ("notice", "not_kept"), notice
            assert "disk is full" in notice.message and "free space" in notice.message, notice
            assert done.type == "done" and done.text == first[-1].text
        assert len(list_messages(store, "ada", first[0].chat_id)) == 2  # reading goes on
        filler.unlink()
        kept = await ask(service, chat_id=first[0].chat_id)
        assert kept[-1].type == "done" and not any(event.type == "notice" for event in kept)
        assert len(list_messages(store, "ada", first[0].chat_id)) == 4
        # The disk is full when DuckDB merges its log into the file: that makes it give the database up
        store.write(lambda connection: connection.execute("CREATE TABLE much (text VARCHAR)")).result()
        written, opened = 0, store.engine._connection
        try:
            while True:
                text = os.urandom(500_000).hex()
                store.write(lambda connection: connection.execute("INSERT INTO much VALUES (?)", [text])).result()
                written += 1
                if written == 15:  # the log is merged at 16 MB
                    with filler.open("wb") as file:
                        os.posix_fallocate(file.fileno(), 0, int(sys.argv[3]))
        except StoreError as error:
            assert "No space left" in str(error)
        assert written >= 15
        assert store.read("SELECT count(*) FROM much") == [(written,)]
        filler.unlink(missing_ok=True)
        again = await ask(service, chat_id=first[0].chat_id)
        assert again[-1].type == "done" and not any(event.type == "notice" for event in again)
        assert len(list_messages(store, "ada", first[0].chat_id)) == 6
        assert store.engine._connection is not opened  # it was opened again
        await service.close()

asyncio.run(main())
"""


def in_small_room(command: list[str], folder: Path, megabytes: int) -> subprocess.CompletedProcess[str]:
    "Run a command with a folder that is a file system of this size. Skips where that is not allowed."
    mount = f"mount -t tmpfs -o size={megabytes}m none {folder}"
    if subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("a file system of one's own is not allowed here (unshare)")
    copied = f'{mount} && cp -r {folder}.from/. {folder} && exec "$@"'
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-c", copied, "sh", *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


@pytest.mark.skipif(not shutil.which("unshare"), reason="there is no unshare")
def test_a_full_disk_costs_no_answer_and_is_forgotten_when_there_is_room(
    indexed: Path, pages: Path, tmp_path: Path
) -> None:
    (tmp_path / "room").mkdir()
    shutil.copytree(indexed, tmp_path / "room.from")
    ran = in_small_room(
        [sys.executable, "-c", FULL, str(tmp_path / "room"), str(pages), "26000000"], tmp_path / "room", 56
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.skipif(not shutil.which("unshare"), reason="there is no unshare")
def test_a_data_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    read_only = f'mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} && exec "$@"'
    if subprocess.run(["unshare", "-Urm", "sh", "-c", read_only, "sh", "true"], capture_output=True).returncode:
        pytest.skip("a file system of one's own is not allowed here (unshare)")
    ran = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", read_only, "sh", sys.executable, str(ROOT / "app.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "DOCSTRAL_DATA_DIR": str(tmp_path), "DOCSTRAL_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "Read-only file system" in ran.stderr and "permissions" in ran.stderr


KILLED = """
import os, sys
from pathlib import Path
from docstral.store import Store, Turn, save_turn
from docstral.types import Receipt
store = Store(Path(sys.argv[1]))
for number in range(20):
    turn = Turn("ada", "chat_1", f"msg_{number:06}", "How?", "So. " * 1000, "uncited", Receipt("x", "y"))
    store.write(lambda connection: save_turn(connection, turn)).result()
os._exit(9)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    "The database of a process that was killed: 20 turns are in its log."
    path = tmp_path / "docstral.duckdb"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    return path


def test_half_a_change_at_the_end_of_the_log_is_dropped(killed: Path) -> None:
    log = killed.with_name("docstral.duckdb.wal")
    log.write_bytes(log.read_bytes()[:-500])
    with Store(killed) as store:
        assert len(list_messages(store, "ada", "chat_1")) == 2 * 19


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_damaged_log_is_refused_and_left_as_it_is(killed: Path, part: float) -> None:
    log = killed.with_name("docstral.duckdb.wal")
    data = bytearray(log.read_bytes())
    at = int(len(data) * part)
    data[at : at + 50] = b"\xff" * 50
    log.write_bytes(data)
    with pytest.raises(StoreError, match="wal is damaged") as error:
        Store(killed)
    assert "move the log away" in error.value.action and log.read_bytes() == data


def test_a_file_is_copied_before_it_is_upgraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, copy = tmp_path / "docstral.duckdb", tmp_path / "docstral.before-upgrade.duckdb"
    with Store(path) as store:
        store.write(lambda connection: save_turn(connection, turn())).result(DEADLINE)
    assert not copy.exists()  # a new one has nothing to go back to
    steps = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", [*steps, "DELETE FROM messages"])
    with caplog.at_level(logging.WARNING), Store(path) as store:
        assert store.read("SELECT count(*) FROM messages") == [(0,)]
    assert str(copy) in caplog.text and copy.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    with Store(copy) as store:
        assert len(list_messages(store, "ada", "chat_1")) == 2


def test_an_upgrade_that_cannot_be_copied_first_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "docstral.duckdb"
    with Store(path):
        (tmp_path / "docstral.before-upgrade.duckdb.new").mkdir()  # where the copy should go
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, "DROP TABLE messages"])
    with pytest.raises(StoreError, match="cannot be copied first"):
        Store(path)
    monkeypatch.undo()
    with Store(path) as store:
        assert store.read("SELECT count(*) FROM messages") == [(0,)]


async def test_turns_stay_in_their_order_when_the_clock_jumps(
    service: ChatService, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, shift, asked, chat = time.time_ns, 0, [], None
    monkeypatch.setattr(time, "time_ns", lambda: real() + shift)
    for hours in (0, -1, 1, -2, 0):
        shift = hours * 3600 * 10**9
        events = [event async for event in service.ask("ada", Question(f"{STREAM} {hours}", chat_id=chat))]
        started, done = events[0], events[-1]
        assert isinstance(started, ChatStarted) and isinstance(done, Done)
        chat = started.chat_id
        asked.append(f"{STREAM} {hours}")
        assert 0 < done.receipt.search_seconds <= done.receipt.seconds < DEADLINE
    assert [each.content for each in list_messages(service.store, "ada", chat or "")][::2] == asked


def test_an_identifier_sorts_after_those_of_a_machine_whose_clock_is_ahead() -> None:
    ahead = f"msg_{time.time_ns() // 1000 + 10**12:014x}0123456789abcdef"
    assert new_id("msg", ahead) > ahead
    assert new_id("msg", "msg_of_old") > "msg_0"


async def test_one_who_does_not_read_is_let_go_and_takes_no_memory(
    settings: Settings, store: Store, mistral: ScriptedMistral, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("only Linux closes such connections by itself")
    monkeypatch.setattr(serve, "UNREAD", 1.0)
    monkeypatch.setattr(attempts, "LONGEST_ANSWER", 10**12)
    mistral.answer = lambda body: Reply(["x" * 4_000 + " "] * 100_000)  # 400 MB
    service = ChatService(settings.but(mistral_api_key="k"), store)
    with Live(serve.create_app(service, web=False)) as live:
        await asyncio.to_thread(eventually, lambda: service.search)
        before, body = psutil.Process().memory_info().rss, orjson.dumps({"message": STREAM})
        head = "POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
        with socket.create_connection(("127.0.0.1", live.port), timeout=DEADLINE) as client:
            client.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
            await asyncio.to_thread(eventually, lambda: service.limits.open == 1)
            await asyncio.to_thread(eventually, lambda: service.limits.open == 0)
            assert psutil.Process().memory_info().rss - before < 150e6
        await asyncio.to_thread(eventually, lambda: mistral.active == 0)
    assert store.read("SELECT outcome FROM messages WHERE role = 'assistant'") == [("stopped",)]


def asking(port: int, address: str = "127.0.0.1", reads: bool = True) -> socket.socket:
    "A connection on which a question was asked; who does not read it takes little in."
    raw, body = socket.socket(), orjson.dumps({"message": STREAM})
    if not reads:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.settimeout(DEADLINE)
    raw.connect(("127.0.0.1", port))
    head = f"POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: {address}\r\nContent-Type: application/json\r\n"
    raw.sendall(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return raw


def whole(raw: socket.socket) -> bytes:
    "A reply to its end."
    return b"".join(iter(lambda: raw.recv(65_536), b""))


@pytest.mark.parametrize("reads", [True, False], ids=["and reads them", "and reads nothing"])
def test_one_who_asks_for_three_hundred_answers_at_once_leaves_places_for_others(
    reads: bool, settings: Settings, store: Store, mistral: ScriptedMistral, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reads and not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("only Linux closes such connections by itself")
    monkeypatch.setattr(serve, "UNREAD", DEADLINE if reads else 1.0)
    gate, long = Gate(), ["x" * 4_000 + " "] * 30
    mistral.answer = lambda body: Reply([WHOLE, gate, *long])
    service = ChatService(settings.but(mistral_api_key="k"), store)
    with Live(serve.create_app(service, web=False)) as live, ExitStack() as held:
        eventually(lambda: service.search)
        before = psutil.Process().memory_info().rss
        many = [held.enter_context(asking(live.port, reads=reads)) for _ in range(300)]
        eventually(lambda: service.limits.open == 256 and mistral.active == 256)
        other = held.enter_context(asking(live.port, "203.0.113.7"))
        eventually(lambda: service.limits.open == 257)
        gate.open()
        assert b"event: done" in whole(other)
        if reads:
            refused = [reply for reply in map(whole, many) if b"event: done" not in reply]
            assert len(refused) == 44
            for reply in refused:
                assert reply.startswith(b"HTTP/1.1 429") and b"retry-after: 5\r\n" in reply
                assert b"too_many_answers" in reply
        eventually(lambda: service.limits.open == 0 and mistral.active == 0)
        assert b"event: done" in whole(held.enter_context(asking(live.port)))
        assert psutil.Process().memory_info().rss - before < 500e6


async def test_memory_is_steady_over_many_answers(with_key: ChatService, mistral: ScriptedMistral) -> None:
    total, sizes = int(os.environ.get("DOCSTRAL_TEST_ANSWERS", "1200")), []
    mistral.answer = lambda body: Reply([WHOLE])
    for number in range(1, total + 1):
        events = [event async for event in with_key.ask("ada", Question(STREAM))]
        assert isinstance(events[-1], Done)
        if number in (total // 3, total):
            mistral.requests.clear()
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss)
    grown = (sizes[1] - sizes[0]) / (total - total // 3)
    assert grown < 25_000, "bytes for each answer, where the database's cache of them takes a few thousand"


def test_thousands_of_answers_are_written_with_the_memory_of_a_few(tmp_path: Path) -> None:
    batch, long = 50, {"body": "A word of the prompt. " * 800}
    sizes = []
    with Store(tmp_path / "docstral.duckdb") as store:
        for number in range(8_000 // batch):
            kept = [store.keep(turn(chat_id=new_id("chat"), request=long | {"n": number})) for _ in range(batch)]
            for each in kept:
                each.result(DEADLINE)
            store.flush()
            sizes.append(psutil.Process().memory_info().rss)
    grown = max(sizes) - sizes[1_000 // batch]
    assert grown < 150e6, "where DuckDB's joining of row groups took 0.3 GB, and more the more there are"
