"What several test files use: a live application, server-sent events, the command line."

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson
import pytest
import uvicorn

from docstral.chat import ChatService
from docstral.serve import create_app, doors, listen, server_config

ROOT = Path(__file__).resolve().parent.parent
DOCSTRAL = [sys.executable, "-c", "import sys; from docstral.cli import main; sys.exit(main())"]
Found = TypeVar("Found")
DEADLINE = 60.0  # seconds for a program or a server to do what takes about one


async def at_once(seconds: float) -> None:
    "A wait between attempts that takes no time."
    await asyncio.sleep(0)


def eventually(read: Callable[[], Found]) -> Found:
    "What a reading finds, as soon as it finds something: for what another thread is about to write."
    ends = time.monotonic() + DEADLINE
    while not (found := read()):
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.005)
    return found


class TooSlow(BaseException):
    "What `at_most` raises: no handler for errors catches it."


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    "Fail what takes longer, even where it hangs in a system call or in a regular expression."

    def end(*signal_and_frame: object) -> None:
        raise TooSlow(f"it took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# `docstral serve`, whose import of Gradio waits for a line on standard input
HELD_SERVER = """
import sys
from docstral.cli import main

class Held:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "gradio":
            sys.meta_path.remove(Held)
            if sys.stdin.readline() == "broken\\n":
                raise ImportError("this Gradio is broken")

sys.meta_path.insert(0, Held)
sys.exit(main(["serve"]))
"""


@contextmanager
def held_server(environment: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    "That server in a process of its own, and its address; it listens, and has not begun to import Gradio."
    process = subprocess.Popen(
        [sys.executable, "-c", HELD_SERVER], cwd=ROOT, env=dict(environment) | {"DOCSTRAL_PORT": "0"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("DocStral is starting at "), line
        yield process, line.split()[4].rstrip(";")
    finally:
        process.kill()
        process.communicate()


class Live:
    "An application served over HTTP on a free port, by a thread."

    def __init__(self, app: Any, host: str = "127.0.0.1"):
        self.app = app
        self.socket = listen(host, 0)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(server_config(app))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": doors(self.socket)}, name="live")

    def __enter__(self) -> Self:
        self._thread.start()  # the socket listens already: who connects early waits
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.should_exit = True
        self._thread.join(DEADLINE)
        self.socket.close()
        assert not self._thread.is_alive()


@contextmanager
def ready(service: ChatService, web: bool = False) -> Iterator[Live]:
    "An application over HTTP as `docstral serve` runs it, its index loaded. `web`: with its pages."
    loaded = threading.Event()
    with Live(create_app(service, lambda error: loaded.set(), web=web)) as live:
        assert loaded.wait(DEADLINE)
        yield live


def read_events(text: str) -> list[tuple[str, dict[str, Any]]]:
    "A stream of server-sent events as pairs of name and data; anything else in it is an error."
    assert text.endswith("\n\n"), "the stream ends within an event"
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        assert name.startswith("event: ") and data.startswith("data: "), block
        found.append((name[7:], orjson.loads(data[6:])))
    return found


def docstral(*arguments: str, environment: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    "Run `docstral` with these arguments in a process of its own; never with a traceback."
    ran = subprocess.run(
        [*DOCSTRAL, *arguments],
        cwd=folder,
        env=dict(environment) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf8",
        timeout=DEADLINE,
    )
    assert "Traceback" not in ran.stderr + ran.stdout, ran.stderr
    return ran


def tool(name: str, required: str = "DOCSTRAL_REQUIRE_TOOLS") -> str:
    "A program of the environment for development, or of the PATH. Where that variable is set, nothing is skipped."
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if not found and os.environ.get(required):
        pytest.fail(f"there is no {name} on this machine")
    if not found:
        pytest.skip(f"there is no {name} on this machine")
    return found


def free_port() -> int:
    "A port on 127.0.0.1 that nothing listens on."
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def caddy(environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    "The real proxy with the configuration of docker/, on a free port; yields its address."
    address = f"http://127.0.0.1:{free_port()}"
    own = {"DOCSTRAL_SITE": address, "CADDY_ADMIN": f"127.0.0.1:{free_port()}"}
    own |= dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
    command = [tool("caddy"), "run", "--config", "docker/Caddyfile", "--adapter", "caddyfile"]
    with subprocess.Popen(command, cwd=ROOT, env=dict(environment) | own, stderr=subprocess.DEVNULL) as proxy:
        try:
            eventually(lambda: proxy.poll() is not None or listens(address))
            assert proxy.poll() is None, "the proxy did not start"
            yield address
        finally:
            proxy.terminate()


def listens(address: str) -> bool:
    "Whether anything accepts connections there."
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
