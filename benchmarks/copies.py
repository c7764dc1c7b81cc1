"""What several copies of the app on one PostgreSQL server do, beside one copy under the same load in the same run.

Readers ask without a pause, each in a new chat, and each question goes to the next copy. The upstream streams at a
model's pace, 50 tokens a second, so readers wait for the model: answers a second are alike for as long as the copies
keep up. All copies share one core; readers, upstream and PostgreSQL share another. So what more copies could do is
computed from their CPU an answer, as if each had a core, and holds for as long as PostgreSQL keeps up, whose CPU an
answer stands beside: on two cores it cannot be measured. The fuller a copy is, the more tokens it sends together, and
the less an answer costs it, so it is measured with room to spare. PostgreSQL runs without fsync here: a disk adds to
the wait of a turn, not to its CPU.

The vectors are random, of 256 dimensions, and a question looks for the 400 nearest, as the search does. The ratio is to
FAISS in the memory of this process; CPU is that of this process and of the server together.
"""

import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import psutil

from benchmarks.bench import (
    ROOT,
    TOKENS,
    Table,
    cpu_of,
    environment,
    main,
    memory_of,
    new_question,
    ratios,
    serving,
    upstream,
)
from docstral.embed import Vectors, unit
from docstral.index import StoredVectors, VectorIndex, make_vector_index
from docstral.settings import Settings
from docstral.store import Store, open_store

NEAREST = 400
PACE = 0.02  # seconds a token


@contextmanager
def postgres() -> Iterator[tuple[int, str]]:
    "The tests' PostgreSQL server: the process id of its first process, and the URL of a database."
    command = [sys.executable, str(ROOT / "tests" / "postgres_server.py")]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        url = process.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as folder, open_store(Settings(Path(folder), database_url=url)) as store:
            [(backend,)] = store.read("SELECT pg_backend_pid()")
            first = psutil.Process(int(backend)).ppid()
        yield first, url
        process.stdin.close()


def cpu_with_ended(process: int) -> float:
    "CPU seconds of a process and its children, those that have ended too."
    ended = psutil.Process(process).cpu_times()
    return cpu_of(process) + ended.children_user + ended.children_system


@dataclass
class Load:
    "What some seconds of load came to."

    answers: int
    seconds: float
    copies: float  # CPU seconds
    server: float  # the same of PostgreSQL


async def read(addresses: Iterator[str], wait: float, until: Callable[[], bool], count: Callable[[], None]) -> None:
    "A reader: asks again and again, each time the next copy."
    await asyncio.sleep(wait)
    connector = aiohttp.TCPConnector(force_close=True)  # one that is idle may be closed just as it is used again
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        while not until():
            async with client.post(f"{next(addresses)}/chat", json={"message": new_question()}) as reply:
                said = await reply.read()
                assert b"event: done" in said, said[-500:]
            count()


async def load(addresses: Sequence[str], processes: Sequence[int], server: int, readers: int, seconds: float) -> Load:
    "So many readers for so many seconds. They start one by one, and what is counted begins when all are there."
    wave = PACE * len(TOKENS)  # seconds of an answer
    answers, ends, circle = [0], time.monotonic() + 2 * wave + seconds, itertools.cycle(addresses)

    def more() -> None:
        answers[0] += 1

    reading = [
        asyncio.create_task(read(circle, wave * number / readers, lambda: time.monotonic() > ends, more))
        for number in range(readers)
    ]
    await asyncio.sleep(2 * wave)
    before = answers[0], sum(map(cpu_of, processes)), cpu_with_ended(server), time.monotonic()
    await asyncio.sleep(ends - time.monotonic())
    done, copies, servers = answers[0], sum(map(cpu_of, processes)), cpu_with_ended(server)
    found = Load(done - before[0], time.monotonic() - before[3], copies - before[1], servers - before[2])
    await asyncio.gather(*reading)
    return found


def pin(processes: Sequence[int], core: int) -> None:
    "Have these processes, and all that they have started, run on one core, where the system lets us choose."
    for each in processes:
        for process in [psutil.Process(each), *psutil.Process(each).children(recursive=True)]:
            for thread in process.threads():
                os.sched_setaffinity(thread.id, {core % (os.cpu_count() or 1)})


def shared(readers: Sequence[int], seconds: float) -> Iterator[Table]:
    "The tables of copies: throughput, CPU an answer, memory."
    with ExitStack() as running, tempfile.TemporaryDirectory() as folder:
        server, url = running.enter_context(postgres())
        model = running.enter_context(upstream(seconds=PACE))
        pin([os.getpid(), server], 1)
        started = []
        for number in range(3):
            data = Path(folder) / str(number)
            data.mkdir()
            own = environment(data, port=0, log_level="error", database_url=url, mistral_url=model)
            command = [sys.executable, "-m", "docstral", "serve"]
            started.append(running.enter_context(serving(command, own | {"MISTRAL_API_KEY": "key"}, "is ready at")))
        processes, addresses = [process for process, _ in started], [address for _, address in started]
        pin(processes, 0)
        for many in readers:
            found = {
                count: asyncio.run(load(addresses[:count], processes[:count], server, many, seconds))
                for count in (1, 2, 3)
            }
            yield told(found, many)
        memory = {f"copy {number + 1}": memory_of(process) for number, process in enumerate(processes)}
    yield Table("Memory after the load", ["", "MB"], list(memory.items()))


def told(found: dict[int, Load], readers: int) -> Table:
    "Throughput and CPU."
    costs = {count: each.copies / each.answers * 1000 for count, each in found.items()}
    names = {count: f"{count} {'copy' if count == 1 else 'copies'}" for count in found}
    columns = ["", "answers/s", "ratio", "of the core", "ms of copies", "ms of PostgreSQL", "with a core each", "times"]
    rows = [
        (
            names[count],
            each.answers / each.seconds,
            each.answers / each.seconds / (found[1].answers / found[1].seconds),
            each.copies / each.seconds,
            costs[count],
            each.server / each.answers * 1000,
            count * 1000 / costs[count],
            count * costs[1] / costs[count],
        )
        for count, each in found.items()
    ]
    note = "Milliseconds are CPU an answer; with a core each: answers a second, computed from them."
    return Table(f"{readers} readers, answers of {len(TOKENS)} tokens", columns, rows, note)


def questions(index: VectorIndex, server: int, vectors: Vectors) -> float:
    "Milliseconds of CPU, of this process and the server, that a question's vectors take."
    index.search(vectors[:1], NEAREST)
    before = time.process_time() + cpu_of(server)
    for vector in vectors:
        index.search(vector[None], NEAREST)
    return (time.process_time() + cpu_of(server) - before) / len(vectors) * 1000


def in_graph(store: Store, dimension: int) -> None:
    "A graph (HNSW) over the vectors, and as many of its candidates as a question asks for."
    query = f"CREATE INDEX graph ON vectors USING hnsw ((vector::vector({dimension})) vector_ip_ops)"
    with store.engine.transaction() as connection:
        connection.execute("SET LOCAL maintenance_work_mem = '512MB'")
        connection.execute(query)


class Graph(StoredVectors):
    "The vectors through the graph."

    def search(self, vectors: Vectors, k: int) -> tuple[object, object]:
        "As many of the nearest as the graph finds."
        query = "SELECT -(vector::vector(256) <#> $1), number FROM vectors ORDER BY vector::vector(256) <#> $1 LIMIT $2"
        with self.store.engine.transaction() as connection:
            connection.execute(f"SET LOCAL hnsw.ef_search = {k}")
            found = connection.execute(query, [vectors[0].tobytes(), k]).fetchall()
        return [score for score, _ in found], [number for _, number in found]


def nearest(sizes: Sequence[int], asked: int) -> Iterator[Table]:
    "A table for each number of vectors."
    generator = np.random.default_rng(0)
    with postgres() as (server, url), tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            points = unit(generator.normal(size=(size + asked, 256)).astype(np.float32))
            with open_store(Settings(Path(folder), database_url=url)) as store:
                stored = StoredVectors(store, f"bench-{size}")
                stored.keep_alone()
                stored.fill(points[:size])
                found = {
                    "FAISS, in memory": questions(make_vector_index(points[:size]), server, points[size:]),
                    "pgvector, exact": questions(stored, server, points[size:]),
                }
                in_graph(store, 256)
                found["pgvector, HNSW"] = questions(Graph(store, stored.name), server, points[size:])
                store.write(lambda connection: connection.execute("DROP INDEX graph") and None).result()
            yield ratios(f"{size:,} vectors", "ms of CPU a question", found, "FAISS, in memory")


def measure(readers: list[int], seconds: float, vectors: list[int], asked: int) -> Iterator[Table]:
    "Copies under load, then where the vectors are."
    yield from shared(readers, seconds)
    yield from nearest(vectors, asked)


if __name__ == "__main__":
    main(
        __doc__,
        measure,
        readers=([48], [48], [2]),
        seconds=(12.0, 6.0, 2.0),
        vectors=([1_000, 10_000], [1_000, 10_000], [100]),
        asked=(50, 20, 2),
    )
