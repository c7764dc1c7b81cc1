"""What the metrics cost as the history grows: reading by window, Prometheus' text, recording.

    python -m benchmarks.metrics [--rows 10000 1000000 10000000] [--days 1]

All rows lie within the last `days`, spread evenly over four providers and six models: one day is the hardest case for
the 24-hour window. Reading is the fastest of fifteen in wall-clock milliseconds, since other work only adds to it;
recording is CPU, for an answer of 200 tokens. The ratios are to one bare scan of the same rows, which adds up the cost
of the last 24 hours, and to a bare insert of one row. Databases are made in a temporary folder and deleted.
"""

import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks.bench import Table, alternate, cpu, main, ratios, wall
from docstral.metrics import WINDOWS, disk, roll_up, series, totals
from docstral.receipt import Meter
from docstral.recorder import Recorder
from docstral.store import Store, Turn
from docstral.types import Citation

FILL = """
INSERT INTO requests BY NAME SELECT
    now() - to_microseconds(((1 - range / {rows}) * {days} * 86400000000)::BIGINT) AS created,
    'msg_' || printf('%014x', range) || printf('%010x', (hash(range) % 1099511627776)::BIGINT) AS message_id,
    ['mistral', 'openai', 'vllm', 'extractive'][1 + (hash(range * 7) % 4)::INT] AS provider,
    'model-' || hash(range * 11) % 6 AS model,
    ['cited', 'uncited', 'not_in_docs', 'stopped', 'error'][1 + (hash(range * 13) % 5)::INT] AS outcome,
    CASE WHEN hash(range * 13) % 5 = 4 THEN 'timeout' END AS error_code,
    'stop' AS finish_reason, exp(random() * 3 - 1) AS seconds, exp(random() * 2 - 2) AS first_token_seconds,
    random() * 5 AS writing_seconds, random() * 0.05 AS search_seconds, (1000 + random() * 3000)::INT AS tokens_in,
    (random() * 500)::INT AS tokens_out, random() * 0.001 AS cost, random() AS best_score, hash(range) % 5 AS citations,
    random() AS supported, hash(range * 3) % 2 AS retries, 0 AS fallbacks, 0 AS cache_hits, 0 AS cache_misses
FROM range({rows})
"""


SCAN = "SELECT sum(cost) FROM requests WHERE created > now() - INTERVAL 1 DAY"


def reading(store: Store, recorder: Recorder, rounds: int) -> dict[str, float]:
    "Wall-clock milliseconds of what readers and Prometheus ask for."
    works: dict[str, Callable[[], object]] = {"a bare scan": lambda: store.read(SCAN)}
    works |= {f"totals, {name}": partial(totals, store, window) for name, window in WINDOWS.items()}
    works["plots, 24h by model"] = lambda: series(store, "24h", by_model=True)
    works["Prometheus' text"] = lambda: recorder.exposition.text("")
    alternate(works, 1, wall)  # once to warm up
    return {name: seconds * 1000 for name, seconds in alternate(works, rounds, wall).items()}


def recording(store: Store, recorder: Recorder, count: int) -> dict[str, float]:
    "CPU milliseconds to record an answer with 200 tokens, the writing of its row included, beside a bare insert."
    meter = Meter("mistral", "mistral-small-latest")
    meter.ask()
    for _ in range(200):
        meter.text()
    citations = [Citation(1, "a", 0, 5, 1.0)]
    receipt = meter.receipt([], "text", [], citations)

    def record() -> None:
        for number in range(count):
            turn = Turn("u", "c", f"msg_{number:024}", "?", "!", "cited", receipt, citations=citations)
            recorder.record(turn, meter)
        store.flush()

    def insert() -> None:
        row = "INSERT INTO bare VALUES (now(), 'm', 'mistral', 'cited', 0.1, 0.2, 3)"
        store.write(lambda connection: [connection.execute(row) for _ in range(count)]).result()

    create = "CREATE TABLE bare (a TIMESTAMPTZ, b TEXT, c TEXT, d TEXT, e DOUBLE, f DOUBLE, g INTEGER)"
    store.write(lambda connection: connection.execute(create) and None).result()
    return {name: cpu(work) / count * 1000 for name, work in {"a bare insert": insert, "an answer": record}.items()}


def measure(rows: list[int], days: float, rounds: int, answers: int) -> Iterator[Table]:
    "Two tables for each size."
    for count in rows:
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "docstral.duckdb") as store:
            store.write(lambda connection, count=count: connection.execute(FILL.format(rows=count, days=days))).result()
            adding = wall(
                lambda store=store: store.write(lambda base: roll_up(base, datetime.now(UTC), days=90)).result()
            )
            recorder = Recorder(store)
            found, size = reading(store, recorder, rounds), disk(store)["bytes"] / 1e6
            note = f"Adding up all days anew takes {adding:.2f} s; the file has {size:.1f} MB."
            yield ratios(f"Reading, {count:,} requests", "ms", found, "a bare scan", note)
            written = recording(store, recorder, answers)
            yield ratios(f"Recording, {count:,} requests before", "ms of CPU", written, "a bare insert")


if __name__ == "__main__":
    sizes = [10_000, 1_000_000, 10_000_000], [10_000, 1_000_000], [1_000]
    main(__doc__, measure, rows=sizes, days=(1.0, 1.0, 1.0), rounds=(15, 15, 1), answers=(5_000, 2_000, 50))
