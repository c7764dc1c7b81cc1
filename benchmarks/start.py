"""What a start costs: commands, the server's first answer, the server once it is ready, and how long it stays silent.

    python -m benchmarks.start [--rounds 5] [--looks 5]

CPU seconds of the process, the least of the rounds, all in turn; `MB` is its memory then, and of a command the most
that it had (40 at the least: that is this benchmark's own). The ratio is to a bare `import gradio`. The bare server is
FastAPI on uvicorn with one address, which it answers as soon as it listens. The index was built before.

The second table is the longest time that `/health` was not answered while the rest was loaded, beside the bare server
that imports Gradio in a thread: seconds on the clock, so other work on the machine shows.
"""

import http.client
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.bench import Cell, Table, cpu_of, docstral, environment, main, memory_of, ratios, serving, spent

BARE = """
import socket, sys, threading
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

app, loaded = FastAPI(), threading.Event()

@app.get("/health")
async def health():
    return JSONResponse({}, 200 if loaded.is_set() else 503)

def load():
    import gradio
    loaded.set()

if "load" in sys.argv:
    threading.Thread(target=load).start()
bound = socket.create_server(("127.0.0.1", 0))
print("listens at http://127.0.0.1:%d" % bound.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[bound])
"""
QUESTION = "How do I stream a chat completion?"
PAUSE = 0.02  # seconds between two looks at a server that starts


def health(address: str) -> int:
    "The status of `/health`; waits for as long as it takes."
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
    try:
        connection.request("GET", "/health")
        reply = connection.getresponse()
        reply.read()
        return reply.status
    finally:
        connection.close()


def longest_silence(address: str) -> float:
    "Ask until the server is ready; returns the longest time that it took to answer, in seconds."
    longest = 0.0
    while True:
        began = time.perf_counter()
        status = health(address)
        longest = max(longest, time.perf_counter() - began)
        if status == 200:
            return longest
        time.sleep(PAUSE)


def bare_server() -> tuple[float, float]:
    "CPU seconds and megabytes of the bare server at its first answer."
    with serving([sys.executable, "-c", BARE], environment(Path()), "listens at") as (process, address):
        health(address)
        return cpu_of(process), memory_of(process)


def first_answer(data: Path) -> tuple[float, float]:
    "CPU seconds and megabytes of our server at its first answer."
    with docstral(data, until="is starting at") as (process, address):
        health(address)
        found = cpu_of(process), memory_of(process)
        psutil.Process(process).kill()  # told to end, it would first load the rest
        return found


def ready(data: Path) -> tuple[float, float]:
    "CPU seconds and megabytes of our server once it is ready; nobody asks it anything meanwhile."
    with docstral(data) as (process, _):
        return cpu_of(process), memory_of(process)


def silences(data: Path) -> tuple[float, float]:
    "The longest silence of the bare server that imports Gradio, and of ours, in seconds."
    with serving([sys.executable, "-c", BARE, "load"], environment(Path()), "listens at") as (_, address):
        health(address)
        bare = longest_silence(address)
    with docstral(data, until="is starting at") as (_, address):
        health(address)
        return bare, longest_silence(address)


def measure(rounds: int, looks: int) -> Iterator[Table]:
    "Two tables, or without `looks` one."
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        python, own = sys.executable, environment(data)
        spent([python, "-m", "docstral", "index"], own)
        works: dict[str, Callable[[], tuple[float, float]]] = {
            "import gradio": lambda: spent([python, "-c", "import gradio"], own),
            "a bare server": bare_server,
            "serve, first answer": lambda: first_answer(data),
            "serve, ready": lambda: ready(data),
            "import docstral": lambda: spent([python, "-c", "import docstral"], own),
            "docstral --version": lambda: spent([python, "-m", "docstral", "--version"], own),
            "docstral ask": lambda: spent([python, "-m", "docstral", "ask", QUESTION], own),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                found[name].append(work())
        waited = [silences(data) for _ in range(looks)]
    least = {name: min(figures) for name, figures in found.items()}
    base = least["import gradio"][0]
    rows: list[tuple[Cell, ...]] = [(name, cpu, memory, cpu / base) for name, (cpu, memory) in least.items()]
    yield Table("Starting", ["", "s of CPU", "MB", "ratio"], list(rows))
    if waited:
        names = ("a bare server that imports Gradio", "serve while it loads")
        least_wait = dict(zip(names, (min(figures) for figures in zip(*waited, strict=True)), strict=True))
        yield ratios("Longest silence", "s", least_wait, names[0])


if __name__ == "__main__":
    main(__doc__, measure, rounds=(5, 2, 1), looks=(5, 2, 0))
