"Figures of answers: added up by hour and by bucket, they stay what the rows say."

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles

import pytest

import docstral.schema as module
from docstral.exposition import MOST_NAMES, Exposition
from docstral.metrics import MOST_MODELS, WINDOWS, disk, roll_up, series, totals
from docstral.receipt import Meter
from docstral.recorder import Recorder
from docstral.schema import MIGRATIONS
from docstral.store import Store, Turn
from docstral.types import Citation, Receipt

FILL = """
INSERT INTO requests BY NAME SELECT
    now() - to_microseconds((range * {hours} * 3600000000 / {rows})::BIGINT) AS created, 'msg_' || range AS message_id,
    ['mistral', 'vllm'][1 + range % 2] AS provider, 'model-' || range % 3 AS model,
    CASE WHEN range % 10 = 0 THEN 'error' ELSE 'cited' END AS outcome,
    CASE WHEN range % 10 = 0 THEN 'timeout' END AS error_code,
    0.05 * 1.005 ** (range % 1000) AS seconds, 0.2 AS first_token_seconds, 2.0 AS writing_seconds, 50 AS tokens_out,
    1000 AS tokens_in, 0.001 AS cost, 2 AS citations, 0.5 AS supported, 0.01 AS search_seconds
FROM range({rows}) ORDER BY created
"""


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    "A database with nothing in it."
    with Store(tmp_path / "docstral.duckdb") as store:
        yield store


def fill(store: Store, rows: int, hours: int) -> None:
    "Rows spread evenly over the last hours."
    store.write(lambda connection: connection.execute(FILL.format(rows=rows, hours=hours)) and None).result()


def answer(number: int = 0, **changes: object) -> Turn:
    "An answer by a model."
    values = {"seconds": 2.0, "first_token_seconds": 0.5, "tokens_in": 900, "tokens_out": 80, "cost": 0.0002} | changes
    receipt = Receipt("mistral", **{"model": "mistral-small-latest", **values})
    citations = [Citation(1, "a", 0, 5, 1.0), Citation(2, "b", 0, 5, 0.1, weak=True)]
    return Turn("ada", "chat_1", f"msg_{number}", "?", "!", "cited", receipt, citations=citations)


def test_figures_are_the_same_before_and_after_hours_are_added_up(empty: Store) -> None:
    fill(empty, rows=20_000, hours=60)
    before = {name: totals(empty, window) for name, window in WINDOWS.items()}
    empty.write(lambda connection: roll_up(connection, datetime.now(UTC), days=2)).result()
    after = {name: totals(empty, window) for name, window in WINDOWS.items()}
    assert disk(empty)["requests"] < 20_000 and disk(empty)["hours"] >= 60 * 6
    for name in ("1h", "24h", "all"):
        for figure in ("error_rate", "latency", "tokens_per_second", "citations", "outcomes", "error_codes"):
            assert after[name][figure] == pytest.approx(before[name][figure], rel=2e-3), (name, figure)
        assert after[name]["total"] == pytest.approx(before[name]["total"], abs=2)  # time goes on
    assert after["all"]["total"] == 20_000 and after["all"]["tokens"]["out"] == 1_000_000


def test_adding_up_again_counts_nothing_twice(empty: Store) -> None:
    fill(empty, rows=2_000, hours=10)
    for _ in range(3):
        empty.write(lambda connection: roll_up(connection, datetime.now(UTC), days=90)).result()
    assert totals(empty)["total"] == 2_000 and disk(empty)["requests"] == 2_000


def test_percentiles_are_within_two_percent_of_exact_ones(empty: Store) -> None:
    fill(empty, rows=10_000, hours=1)
    exact = quantiles(
        [seconds for (seconds,) in empty.read("SELECT seconds FROM requests WHERE error_code IS NULL")], n=100
    )
    found = totals(empty)["latency"]
    for share in (50, 95, 99):
        assert found[f"p{share}"] == pytest.approx(exact[share - 1], rel=0.03)


def test_models_and_providers_have_figures_of_their_own(empty: Store) -> None:
    fill(empty, rows=600, hours=1)
    found = totals(empty)
    assert sum(each["total"] for each in found["by_model"].values()) == 600 == found["total"]
    assert found["by_provider"]["vllm"]["total"] == 300 and found["by_provider"]["vllm"]["errors"] == 0
    assert found["by_provider"]["mistral"]["error_codes"] == {"timeout": 60}
    assert found["tokens_per_second"] == 25.0 and found["cost"] == pytest.approx(0.6, rel=1e-4)


def test_made_up_models_do_not_make_the_answer_long(empty: Store) -> None:
    recorder = Recorder(empty)
    for number in range(100):
        recorder.record(answer(number, model=f"made-up-{number}"), Meter("mistral", ""))
    assert len(totals(empty)["by_model"]) == MOST_MODELS + 1
    assert totals(empty)["by_model"]["other"]["total"] == 100 - MOST_MODELS


def test_series_add_up_to_the_totals(empty: Store) -> None:
    fill(empty, rows=5_000, hours=100)
    empty.write(lambda connection: roll_up(connection, datetime.now(UTC), days=2)).result()
    assert sum(point["total"] for point in series(empty, "all")) == 5_000
    hour = series(empty, "1h")
    assert 40 <= len(hour) <= 61 and hour == sorted(hour, key=lambda point: point["time"])
    assert {point["model"] for point in series(empty, "24h", by_model=True)} == {
        f"model-{number}" for number in range(3)
    }
    assert series(empty, "5m")


def test_rows_wait_for_each_other_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "docstral.duckdb"
    with Store(path) as store:
        recorder = Recorder(store)
        for number in range(500):
            recorder.record(answer(number), Meter("mistral", "mistral-small-latest"))
    with Store(path) as store:  # closing wrote what still waited
        assert totals(store)["total"] == 500
        assert totals(store)["citations"] == {"valid": 1000, "invalid": 0, "weak": 500, "supported": None}


def test_a_clock_that_is_set_back_moves_no_answer_into_an_hour_that_is_over(empty: Store) -> None:
    fill(empty, rows=100, hours=3)
    later = datetime.now(UTC) + timedelta(hours=5)
    empty.write(lambda connection: roll_up(connection, later, days=90)).result()  # as if it was later once
    Recorder(empty).record(answer(), Meter("mistral", ""))
    assert totals(empty)["total"] == 101


def test_rows_of_an_older_version_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = "SELECT now() AS created, 'msg_1' AS message_id, 'ada' AS user_id, 2.5 AS seconds"
    path = tmp_path / "docstral.duckdb"
    monkeypatch.setattr(module, "MIGRATIONS", MIGRATIONS[:2])
    with Store(path) as store:
        store.write(lambda connection: connection.execute(f"INSERT INTO requests BY NAME {row}") and None).result()
    monkeypatch.undo()
    with Store(path) as store:
        assert store.read("SELECT message_id, seconds, retries FROM requests") == [("msg_1", 2.5, None)]


def test_labels_name_no_visitor_and_stay_few() -> None:
    exposition = Exposition()
    for number in range(200):
        exposition.count(answer(number, model=f"made-up-{number}"), Meter("mistral", ""))
    text = exposition.text("")[0].decode()
    assert "ada" not in text and "chat_1" not in text and "msg_" not in text
    assert text.count("docstral_cost_dollars_total{") == MOST_NAMES + 1
