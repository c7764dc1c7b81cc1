"""What the metrics cost as the history grows: reading by window, Prometheus' text, recording.

    python benchmarks/metrics.py [--rows 10000 1000000 10000000] [--days 1]

All rows lie within the last `days`, spread evenly over four providers and six models: one day is the hardest case for
the 24-hour window. Reading is the fastest of fifteen in wall-clock milliseconds, since other work
only adds to it; recording is CPU. Databases are made in a temporary folder (45 bytes a row) and deleted.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

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


def fastest(work: Callable[[], object], rounds: int = 15) -> float:
    "Milliseconds of the fastest of some rounds."
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds) * 1000


def recording(recorder: Recorder, count: int = 5_000) -> float:
    "CPU milliseconds to record one answer with 200 pieces, the writing of its row included."
    meter = Meter("mistral", "mistral-small-latest")
    meter.ask()
    for _ in range(200):
        meter.text()
    citations = [Citation(1, "a", 0, 5, 1.0)]
    receipt = meter.receipt([], "text", [], citations)
    began = time.process_time()
    for number in range(count):
        recorder.record(Turn("u", "c", f"msg_{number:024}", "?", "!", "cited", receipt, citations=citations), meter)
    recorder.store.flush()
    return (time.process_time() - began) / count * 1000


def measure(rows: int, days: float) -> dict[str, float]:
    "All figures for one size."
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "docstral.duckdb") as store:
        store.write(lambda connection: connection.execute(FILL.format(rows=rows, days=days)) and None).result()
        found: dict[str, float] = {}
        began = time.perf_counter()
        store.write(lambda connection: roll_up(connection, datetime.now(UTC), days=90)).result()
        found["add up all, s"] = time.perf_counter() - began
        for name, window in WINDOWS.items():
            found[f"{name}, ms"] = fastest(lambda window=window: totals(store, window))  # type: ignore[misc]
        found["series 24h, ms"] = fastest(lambda: series(store, "24h", by_model=True))
        recorder = Recorder(store)
        found["record, ms CPU"] = recording(recorder)
        found["text, ms"] = fastest(lambda: recorder.exposition.text(""))
        store.write(lambda connection: None).result()
        found["file, MB"] = disk(store)["bytes"] / 1e6
        return found


def main() -> None:
    "Measure and print."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--days", type=float, default=1)
    arguments = parser.parse_args()
    columns = {rows: measure(rows, arguments.days) for rows in arguments.rows}
    print(f"{'requests':18}" + "".join(f"{rows:>14,}" for rows in columns))
    for name in next(iter(columns.values())):
        print(f"{name:18}" + "".join(f"{found[name]:>14.2f}" for found in columns.values()))


if __name__ == "__main__":
    main()
