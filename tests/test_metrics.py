"Figures of answers: added up by hour and by bucket, they stay what the rows say."

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest
from helpers import DEADLINE, at_once
from mistral_server import Reply, ScriptedMistral, refusal

import docstral.schema as module
from docstral.chat import ChatService, Question
from docstral.exposition import MOST_NAMES, Exposition
from docstral.metrics import MOST_MODELS, SUMS, WINDOWS, disk, figures, merged, roll_up, series, totals
from docstral.providers.attempts import Attempts
from docstral.receipt import Meter
from docstral.recorder import Recorder
from docstral.retry import ATTEMPTS
from docstral.schema import MIGRATIONS
from docstral.settings import Settings
from docstral.store import Store, Turn, open_store
from docstral.types import Citation, Message, Receipt

COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_name = 'requests' ORDER BY ordinal_position"


@pytest.fixture
def empty(place: Settings) -> Iterator[Store]:
    "A database with nothing in it, on each engine."
    with open_store(place) as store:
        yield store


def fill(store: Store, rows: int, hours: int, now: datetime | None = None) -> None:
    "Rows spread evenly over the last hours; every tenth failed before a word."
    now = now or datetime.now(UTC)
    names = [name for (name,) in store.read(COLUMNS)]
    made = []
    for number in reversed(range(rows)):
        failed = number % 10 == 0
        values = {
            "created": now - timedelta(hours=number * hours / rows), "message_id": f"msg_{number}",
            "provider": ("mistral", "vllm")[number % 2], "model": f"model-{number % 3}",
            "outcome": "error" if failed else "cited", "error_code": "timeout" if failed else None,
            "seconds": 0.05 * 1.005 ** (number % 1000), "first_token_seconds": None if failed else 0.2,
            "writing_seconds": 2.0, "tokens_out": 50, "tokens_in": 1000, "cost": 0.001, "citations": 2,
            "supported": 0.5, "search_seconds": 0.01,
        }  # fmt: skip
        made.append(tuple(values.get(name) for name in names))
    store.write(lambda connection: connection.insert("requests", made)).result()


def answer(number: int = 0, **changes: object) -> Turn:
    "An answer by a model."
    values = {"seconds": 2.0, "first_token_seconds": 0.5, "tokens_in": 900, "tokens_out": 80, "cost": 0.0002} | changes
    receipt = Receipt("mistral", **{"model": "mistral-small-latest", **values})
    citations = [Citation(1, "a", 0, 5, 1.0), Citation(2, "b", 0, 5, 0.1, weak=True)]
    return Turn("ada", "chat_1", f"msg_{number}", "?", "!", "cited", receipt, citations=citations)


def test_the_order_of_the_columns_does_not_matter(empty: Store) -> None:
    for table in ("requests", "hours"):
        columns = [name for (name,) in empty.read(COLUMNS.replace("requests", table))]
        turned = f"CREATE TABLE turned AS SELECT {', '.join(reversed(columns))} FROM {table}"
        for change in (turned, f"DROP TABLE {table}", f"ALTER TABLE turned RENAME TO {table}"):
            empty.write(lambda connection, change=change: connection.execute(change) and None).result()
    Recorder(empty).record(answer(), Meter("mistral", "mistral-small-latest"))
    before = totals(empty)
    assert before["tokens"] == {"in": 900, "out": 80} and before["cost"] == pytest.approx(0.0002)
    empty.write(lambda connection: roll_up(connection, datetime.now(UTC) + timedelta(days=3), days=2)).result()
    assert disk(empty)["requests"] == 0 and totals(empty) == before


def test_figures_are_the_same_before_and_after_hours_are_added_up(empty: Store) -> None:
    now = datetime.now(UTC)
    fill(empty, rows=20_000, hours=60, now=now)
    starts = {name: now - (span or timedelta(days=400)) for name, span in WINDOWS.items()}
    before = {name: figures(merged(empty, start)) for name, start in starts.items()}
    empty.write(lambda connection: roll_up(connection, now, days=2)).result()
    assert disk(empty)["requests"] < 20_000 and disk(empty)["hours"] >= 59 * 6
    for name, start in starts.items():
        after = figures(merged(empty, start))
        assert after.keys() == before[name].keys()
        for figure, value in after.items():
            assert value == pytest.approx(before[name][figure]), (name, figure)
    assert totals(empty)["total"] == 20_000 and totals(empty)["tokens"]["out"] == 1_000_000


def figures_of(store: Store, now: datetime) -> list[list[dict[str, Any]]]:
    "What readers see: all of it, hours of a day, seconds of five minutes."
    steps = (None, timedelta(days=400)), (timedelta(hours=1), timedelta(days=1)), (timedelta(seconds=10), WINDOWS["5m"])
    return [merged(store, now - span, step) for step, span in steps]


def test_both_engines_give_the_same_figures(empty: Store, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    with Store(tmp_path / "file.duckdb") as file:
        for store in (empty, file):
            fill(store, rows=5_000, hours=60, now=now)
        for _ in range(2):
            ours, theirs = figures_of(empty, now), figures_of(file, now)
            assert [len(rows) for rows in ours] == [len(rows) for rows in theirs] and min(map(len, ours)) > 1
            for ours_row, theirs_row in zip(chain(*ours), chain(*theirs), strict=True):
                for name, value in ours_row.items():
                    same = pytest.approx(theirs_row[name]) if name in SUMS else theirs_row[name]
                    assert value == same, name
            for store in (empty, file):
                store.write(lambda connection: roll_up(connection, now, days=2)).result()


def test_an_hour_is_over_a_minute_after_its_end(empty: Store) -> None:
    now = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
    fill(empty, rows=300, hours=3, now=now)
    empty.write(lambda connection: roll_up(connection, now, days=90)).result()
    assert empty.read("SELECT max(hour) FROM hours") == [(now.replace(hour=10, second=0),)]
    late = now.replace(hour=11, minute=59, second=59)
    fill(empty, rows=1, hours=1, now=late)  # of another copy of the app, which writes them a second later
    empty.write(lambda connection: roll_up(connection, now + timedelta(minutes=1), days=90)).result()
    assert empty.read("SELECT max(hour), sum(total) FROM hours") == [(now.replace(hour=11, second=0), 300)]
    assert totals(empty)["total"] == 301


def test_copies_that_add_up_at_once_count_nothing_twice(place: Settings, empty: Store) -> None:
    if empty.dialect == "duckdb":
        return  # one process has the file
    fill(empty, rows=2_000, hours=10)
    with open_store(place) as other:
        adding = [
            store.write(lambda connection: roll_up(connection, datetime.now(UTC), days=90))
            for store in (empty, other, empty, other)
        ]
        assert [each.result(DEADLINE) for each in adding] == [None] * 4
        assert totals(other)["total"] == 2_000


def test_an_answer_without_a_first_token_has_none_in_the_percentiles(empty: Store) -> None:
    recorder = Recorder(empty)
    for number in range(10):
        recorder.record(answer(number, first_token_seconds=None if number else 0.5), Meter("mistral", ""))
    assert totals(empty)["first_token"]["p50"] == 0.5


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


def test_rows_wait_for_each_other_and_none_is_lost(place: Settings) -> None:
    with open_store(place) as store:
        recorder = Recorder(store)
        for number in range(500):
            recorder.record(answer(number), Meter("mistral", "mistral-small-latest"))
    with open_store(place) as store:  # closing wrote what still waited
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


async def retries_of(service: ChatService, question: Question) -> tuple[int, dict[str, float]]:
    "Ask; the retries that were counted: in the database, and for Prometheus by provider."
    service.attempts = Attempts(service.settings, service.provider, sleep=at_once)
    service.load()
    try:
        events = [event async for event in service.ask("ada", question)]
    finally:
        await service.close()
    assert events[-1].type == "done"
    [family] = service.recorder.exposition.retries.collect()
    counted = {
        sample.labels["provider"]: sample.value for sample in family.samples if sample.name == "docstral_retries_total"
    }
    return totals(service.store)["retries"], counted


async def test_retries_are_those_of_the_provider_that_was_asked_again(
    settings: Settings, store: Store, mistral: ScriptedMistral
) -> None:
    mistral.script(*[refusal(503)] * ATTEMPTS)
    service = ChatService(settings.but(mistral_api_key="k", fallback=("extractive",)), store)
    found, counted = await retries_of(service, Question("How do I stream?", provider="mistral"))
    assert len(mistral.chats) == ATTEMPTS and found == ATTEMPTS - 1
    assert counted == {"mistral": ATTEMPTS - 1, "extractive": 0}


async def test_a_follow_up_that_a_model_rewrote_is_no_retry(
    settings: Settings, store: Store, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["How many dimensions does a vector have?"]), Reply(["1,024 [1]."]))
    history = [Message(role="user", content="What is an embedding?"), Message(role="assistant", content="A vector.")]
    service = ChatService(settings.but(mistral_api_key="k", follow_ups="model"), store)
    found, counted = await retries_of(service, Question("And its size?", history=history))
    assert len(mistral.chats) == 2 and found == 0 and counted == {"mistral": 0}
