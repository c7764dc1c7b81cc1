"The server as a process: how it starts, how it ends, and what stands beside the pages."

import asyncio
import platform
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx2
import pytest
from helpers import DEADLINE, ROOT, Live, eventually, held_server, read_events
from mistral_server import Gate, Reply, ScriptedMistral
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from docstral.serve import DOORS, listen
from docstral.settings import Settings
from docstral.store import Store


@pytest.fixture
def server(
    settings: Settings,
    mistral: ScriptedMistral,
    free_port: int,
    plain_environment: dict[str, str],
    request: pytest.FixtureRequest,
) -> Iterator[subprocess.Popen[str]]:
    "The real app in a process of its own, ready, and a scripted Mistral behind it. Its parameter: settings, `ulimit`."
    own = {"DOCSTRAL_DATA_DIR": settings.data_dir, "DOCSTRAL_DOCS": settings.docs[0], "DOCSTRAL_PORT": free_port,
           "DOCSTRAL_MISTRAL_URL": mistral.url, "MISTRAL_API_KEY": "k"}  # fmt: skip
    own |= getattr(request, "param", {})
    environment = plain_environment | {name: str(value) for name, value in own.items()}
    command = [sys.executable, "app.py"]
    if limit := environment.pop("ulimit", ""):
        command = ["sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *command]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    while "is ready at" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("server", [{"DOCSTRAL_STOP_TIMEOUT": "0.5"}], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_is_ended_and_kept_when_the_server_stops(
    server: subprocess.Popen[str], free_port: int, mistral: ScriptedMistral, settings: Settings, number: signal.Signals
) -> None:
    gate = Gate()
    mistral.script(Reply(["Kept. ", gate, "Never."]))
    streamed: list[str] = []

    def ask() -> None:
        body = {"message": "How do I stream a chat completion?"}
        reply = httpx2.post(f"http://127.0.0.1:{free_port}/chat", json=body, timeout=DEADLINE)
        streamed.append(reply.text)

    asking = threading.Thread(target=ask)
    asking.start()
    gate.reached()
    with open_page(free_port):
        server.send_signal(number)
        said, _ = server.communicate(timeout=DEADLINE)
    asking.join(DEADLINE)
    assert "Traceback" not in said and "ERROR" not in said and "leaked" not in said
    assert "event: error" in streamed[0] and '"stopping"' in streamed[0]
    with Store(settings.data_dir / "docstral.duckdb") as store:
        [(outcome, content)] = store.read("SELECT outcome, content FROM messages WHERE role = 'assistant'")
    assert (outcome, content.strip()) == ("stopped", "Kept.")


@contextmanager
def open_page(port: int) -> Iterator[None]:
    "What a page of the web app holds that follows an answer: a connection on which more may come."
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE, trust_env=False) as page:
        events = page.get("/config").json()["dependencies"]
        follow = next(event["id"] for event in events if event["queue"] and event["backend_fn"])
        body = {"fn_index": follow, "data": [""], "session_hash": "tab"}
        page.post("/gradio_api/queue/join", json=body).raise_for_status()
        with page.stream("GET", "/gradio_api/queue/data?session_hash=tab") as reply:
            assert reply.status_code == 200
            yield


@pytest.mark.parametrize("server", [{"DOCSTRAL_STOP_TIMEOUT": DEADLINE}], indirect=True)
def test_open_answers_may_end_and_new_questions_are_refused_when_the_server_stops(
    server: subprocess.Popen[str], free_port: int, mistral: ScriptedMistral, settings: Settings
) -> None:
    gate = Gate()
    mistral.script(Reply(["Set `stream` ", gate, "to true [1]."]))
    body = {"message": "How do I stream a chat completion?"}
    with (
        httpx2.Client(base_url=f"http://127.0.0.1:{free_port}", timeout=DEADLINE, trust_env=False) as client,
        client.stream("POST", "/chat", json=body) as reply,
    ):
        gate.reached()
        server.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/health").json()["status"] == "stopping")
        assert client.get("/health").status_code == 503
        refused = client.post("/chat", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
        assert refused.headers["retry-after"] == "5"
        gate.open()
        kind, done = read_events(reply.read().decode())[-1]
    assert (kind, done["text"]) == ("done", "Set `stream` to true [1].")
    said, _ = server.communicate(timeout=DEADLINE)
    assert "open answers have ended: 1." in said and "Traceback" not in said
    assert server.returncode == 128 + signal.SIGTERM
    with Store(settings.data_dir / "docstral.duckdb") as store:
        assert store.read("SELECT outcome FROM messages WHERE role = 'assistant'") == [("cited",)]


def test_wrong_methods_are_refused_beside_the_pages_too(server: subprocess.Popen[str], free_port: int) -> None:
    refused = httpx2.delete(f"http://127.0.0.1:{free_port}/chats")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
    assert refused.json()["error"]["code"] == "method_not_allowed"
    assert "text/html" in httpx2.get(f"http://127.0.0.1:{free_port}/").headers["content-type"]


HEAPS = """
import ctypes, threading
from docstral.serve import share_heaps

share_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for _ in range(8):
    thread = threading.Thread(target=lambda: libc.malloc(1000))
    thread.start()
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no heaps of threads")
def test_threads_share_one_heap() -> None:
    ran = subprocess.run([sys.executable, "-c", HEAPS], capture_output=True, text=True, check=True)
    assert ran.stdout.count("<heap nr=") == 1


def test_small_pieces_of_an_answer_leave_at_once() -> None:
    "Nagle's algorithm would hold each back until the reader's system confirms the one before: 40 ms on Linux."

    async def accepted() -> bool:
        reached = asyncio.get_running_loop().create_future()
        with listen("127.0.0.1", 0) as bound:
            async with await asyncio.start_server(
                lambda reader, writer: reached.set_result(writer), sock=bound
            ) as server:
                _, out = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer = await reached
                delays_nothing = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                for each in (writer, out):
                    each.close()
        return bool(delays_nothing)

    assert asyncio.run(accepted())


def test_the_api_answers_before_gradio_is_imported_and_pages_ask_to_wait(
    settings: Settings, plain_environment: dict[str, str]
) -> None:
    own = {"DOCSTRAL_DATA_DIR": str(settings.data_dir), "DOCSTRAL_DOCS": str(settings.docs[0])}
    with (
        held_server(plain_environment | own) as (process, address),
        httpx2.Client(base_url=address, timeout=DEADLINE, trust_env=False) as client,
    ):
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "starting")
        assert client.get("/chats").json() == {"chats": []}
        early = client.get("/?chat=x", headers={"accept": "text/html", "accept-language": "fr"})
        assert (early.status_code, early.headers["retry-after"]) == (503, "1")
        assert '<html lang="fr">' in early.text and "DocStral démarre" in early.text
        assert 'http-equiv="refresh"' in early.text and "src=" not in early.text
        for reply in (client.post("/chat", json={"message": "?"}), client.post("/mcp", json={}), client.get("/config")):
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "starting")
            assert int(reply.headers["retry-after"]) >= 1

        assert process.stdin and process.stdout
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert "is ready at" in process.stdout.readline()
        assert client.get("/health").json()["status"] == "ok"
        page = client.get("/?chat=x", headers={"accept": "text/html", "accept-language": "fr"})
        assert page.status_code == 200 and "gradio" in page.text and "DocStral démarre" not in page.text


@pytest.mark.parametrize("how", ["broken", "interrupted"])
def test_a_server_that_cannot_start_or_shall_not_ends_with_one_clear_line(
    how: str, plain_environment: dict[str, str]
) -> None:
    with held_server(plain_environment) as (process, address):
        assert httpx2.get(f"{address}/health", timeout=DEADLINE, trust_env=False).status_code == 503
        if how == "interrupted":
            process.send_signal(signal.SIGINT)
        said, errors = process.communicate(f"{how}\n", timeout=DEADLINE)
    assert "ready" not in said and "Traceback" not in errors
    if how == "broken":
        assert "docstral: The web app could not be loaded: this Gradio is broken\n" in errors
        assert process.returncode == 1
    else:
        assert process.returncode in (0, 130)


UNSAID = {  # what a client says that never comes to ask
    "nothing": b"",
    "half a header": b"GET /health HTTP/1.1\r\nHost: ",
    "half a body": b"POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\n{",
}


@pytest.mark.parametrize(
    ("server", "kept"),
    [({"ulimit": "-Sn 128"}, 500), ({"ulimit": "-n 256", "DOCSTRAL_ANSWERS": "100"}, 128)],
    indirect=["server"],
    ids=["a limit that can be raised", "a limit that cannot"],
)
def test_connections_that_ask_nothing_leave_open_files_for_those_who_ask(
    server: subprocess.Popen[str], kept: int, free_port: int
) -> None:
    held: list[socket.socket] = []
    try:
        for said in UNSAID.values():
            for _ in range(500 // len(UNSAID) + 1):
                held.append(socket.create_connection(("127.0.0.1", free_port), timeout=DEADLINE))
                held[-1].sendall(said)
            reply = httpx2.post(
                f"http://127.0.0.1:{free_port}/chat",
                json={"message": "How do I stream a chat completion?"},
                timeout=DEADLINE,
                trust_env=False,
            )
            assert read_events(reply.text)[-1][0] == "done"
        closed = sum(bool(select.select([raw], [], [], 0)[0]) for raw in held)
        assert kept - 10 <= len(held) - closed <= kept + 10
    finally:
        for raw in held:
            raw.close()


def test_many_new_connections_are_taken_in_few_turns_of_the_loop() -> None:
    turn, asked = 0, []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            asyncio.get_running_loop().call_soon(next_turn)
        else:
            asked.append(turn)
        await Response()(scope, receive, send) if scope["type"] == "http" else None

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        asyncio.get_running_loop().call_soon(next_turn)

    live, count = Live(app), 10 * DOORS
    with ExitStack() as waiting:
        for _ in range(count):
            raw = waiting.enter_context(socket.create_connection(("127.0.0.1", live.port), timeout=DEADLINE))
            raw.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with live:
            eventually(lambda: len(asked) == count)
    assert max(asked) - min(asked) < count / 2, "one in a turn would take as many turns as there are"
