"""What every benchmark shares: its command line, CPU and memory, tables, a scripted upstream, DocStral as a process.

A benchmark is a module whose docstring says what it measures and against what, with a function that yields tables:

    def measure(rounds: int) -> Iterator[Table]: ...

    if __name__ == "__main__":
        main(__doc__, measure, rounds=(9, 3, 1))  # as a rule, with --quick, with --least
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson
import psutil
from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 120.0  # seconds within which a process of ours is ready
TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds of CPU: what another process took is counted in these
Cell = str | int | float


@dataclass(frozen=True)
class Table:
    "Figures of one kind. In the column `ratio` stands how many times the baseline's a figure is."

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)  # each begins with what was measured
    note: str = ""

    def text(self) -> str:
        "The table for a terminal."
        cells = [list(self.columns), *([shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(self.columns))]
        lines = [f"{line[0]:{widths[0]}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(line[1:], widths[1:],
                 strict=True)) for line in cells]  # fmt: skip
        return "\n".join([self.title, *lines, *([self.note] if self.note else [])])


def shown(cell: Cell) -> str:
    "A figure to about three digits."
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 100:
        return f"{cell:,.0f}"
    digits = 1 if abs(cell) >= 10 else 2 if abs(cell) >= 1 else 3
    return f"{cell:.{digits}f}" if abs(cell) >= 0.01 or not cell else f"{cell:.2g}"


def ratios(title: str, unit: str, found: Mapping[str, float], baseline: str, note: str = "") -> Table:
    "A table of figures in one unit, each with its ratio to one of them."
    rows: list[Sequence[Cell]] = [(name, figure, figure / found[baseline]) for name, figure in found.items()]
    return Table(title, ["", unit, "ratio"], rows, note)


def main(doc: str | None, measure: Callable[..., Iterable[Table]], **sizes: tuple[Any, Any, Any]) -> None:
    "The command line of a benchmark: an option for each size. Prints the tables, and writes them where `--json` says."
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes: seconds instead of minutes")
    parser.add_argument("--least", action="store_true", help="the smallest sizes: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables here as well")
    for name, (full, *_) in sizes.items():
        several = {"nargs": "*"} if isinstance(full, list) else {}
        kind = type(full) if not isinstance(full, list) else type(full[0]) if full else Path
        parser.add_argument(f"--{name}", type=kind, help=f"default: {full}", **several)  # type: ignore[arg-type]
    given = vars(parser.parse_args())
    default = 2 if given["least"] else 1 if given["quick"] else 0
    chosen = {name: size[default] if given[name] is None else given[name] for name, size in sizes.items()}
    tables = []
    for table in measure(**chosen):
        print(table.text(), end="\n\n", flush=True)
        tables.append(asdict(table))
    if given["json"]:
        about = {"about": doc, "machine": machine(), "date": f"{datetime.now(UTC):%Y-%m-%d}", "sizes": chosen}
        given["json"].write_text(json.dumps(about | {"tables": tables}, indent=1, default=str) + "\n", encoding="utf8")


def machine() -> str:
    "One line on what this runs on."
    name = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).is_file():
        lines = cpuinfo.read_text(encoding="utf8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    memory = psutil.virtual_memory().total / 2**30
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores of {name}, {memory:.0f} GB, {platform.system()}, {python}"


def cpu(work: Callable[[], object]) -> float:
    "CPU seconds of this process that some work takes."
    began = time.process_time()
    work()
    return time.process_time() - began


def wall(work: Callable[[], object]) -> float:
    "Seconds that some work takes, waiting included."
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternate(
    works: Mapping[str, Callable[[], object]], rounds: int, by: Callable[[Any], float] = cpu
) -> dict[str, float]:
    "The least figure of each work over some rounds, all works in each round: so all see the same machine."
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(by(work))
    return {name: min(figures) for name, figures in found.items()}


def family(process: int) -> list[psutil.Process]:
    "A process and all that it started."
    top = psutil.Process(process)
    return [top, *top.children(recursive=True)]


def cpu_of(process: int) -> float:
    "CPU seconds that a process and its children have taken so far."
    times = [each.cpu_times() for each in family(process)]
    return float(sum(each.user + each.system for each in times))


def memory_of(process: int) -> float:
    "Megabytes of a process and its children that are in memory now."
    return float(sum(each.memory_info().rss for each in family(process)) / 1e6)


def environment(data: Path, **settings: object) -> dict[str, str]:
    "This process's environment with settings of DocStral's own: `port=0` is DOCSTRAL_PORT."
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCSTRAL_", "MISTRAL_"))}
    own = {f"DOCSTRAL_{name.upper()}": str(value) for name, value in settings.items()}
    return kept | {"DOCSTRAL_DATA_DIR": str(data), "PYTHONPATH": str(ROOT)} | own


def spent(command: Sequence[str], own: Mapping[str, str]) -> tuple[float, float]:
    "CPU seconds of a command with this environment, and the most megabytes that it had in memory. It must succeed."
    process = subprocess.Popen(command, env=dict(own), cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


_numbers = itertools.count(1)


def new_question() -> str:
    "A question that nobody has asked before: the app remembers what it found for the last ones."
    return f"How do I stream a chat completion? ({next(_numbers)})"


@contextmanager
def serving(command: Sequence[str], own: Mapping[str, str], until: str) -> Iterator[tuple[int, str]]:
    "A server as a process, once it has printed `until` in a line with its address: its process id and that address."
    with subprocess.Popen(command, env=dict(own), cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            said = ""
            while until not in said:
                if not (line := process.stdout.readline()):
                    raise SystemExit(f"{' '.join(command)} ended before it said {until!r}: {said}")
                said += line
            yield process.pid, re.findall(r"http://[\w.:]+", said)[-1].rstrip(":")
        finally:
            process.terminate()
            process.wait(DEADLINE)


@contextmanager
def docstral(data: Path, until: str = "is ready at", **settings: object) -> Iterator[tuple[int, str]]:
    '`docstral serve` on a free port: as soon as it listens with `until="is starting at"`, else once it is ready.'
    own = environment(data, **({"port": 0, "log_level": "warning"} | settings))
    with serving([sys.executable, "-m", "docstral", "serve"], own, until) as server:
        yield server


TOKENS = tuple(f" word{number}" for number in range(200))  # what the upstream says if nothing else is asked of it


PACE = re.compile(r"(\d+)-tokens-every-(\d+)-ms")  # the name of a model that writes in its own way


def event(text: str, reason: str | None = None) -> bytes:
    "One server-sent event as Mistral's API sends it."
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    chunk = {"id": "c" * 32, "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


@contextmanager
def upstream(tokens: Sequence[str] = TOKENS, seconds: float = 0.0) -> Iterator[str]:
    "The address of a model service in a process of its own, which streams these tokens, so many seconds apart."
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=_serve, args=(there, list(tokens), seconds), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        server.terminate()
        server.join()


def _serve(told: Connection, tokens: list[str], seconds: float) -> None:
    "The upstream: runs until it is ended, tells its port. Each token is a write of its own."
    events = [event(token) for token in tokens]

    async def complete(request: web.Request) -> web.StreamResponse:
        paced = PACE.fullmatch((await request.json()).get("model", ""))
        count, pause = (int(paced[1]), int(paced[2]) / 1000) if paced else (len(events), seconds)
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        for each in events[:count]:
            await reply.write(each)
            await asyncio.sleep(pause)
        await reply.write(event("", "stop") + b"data: [DONE]\n\n")
        return reply

    async def embed(request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        vector = [((number * 7) % 13 - 6) / 100 for number in range(1024)]
        rows = [{"object": "embedding", "index": number, "embedding": vector} for number in range(len(texts))]
        usage = {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}
        return web.json_response({"id": "e", "object": "list", "model": "mistral-embed", "data": rows, "usage": usage})

    async def run() -> None:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", complete)
        application.router.add_post("/v1/embeddings", embed)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())
