"The health of a provider as several copies of the app know it: one budget, one breaker, one try."

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import at_once
from mistral_server import ScriptedMistral, refusal

from docstral.errors import OverloadedError, PausedError, ProviderError, RateLimitedError, StoreError
from docstral.health import FRESH, Health, SharedHealth
from docstral.providers.attempts import Attempts
from docstral.providers.base import Request, make_provider
from docstral.settings import Settings
from docstral.store import Store, open_store

DOWN = OverloadedError("The provider is overloaded.")
COPIES = 3


@pytest.fixture
def stores(database_url: str, tmp_path: Path) -> Iterator[list[Store]]:
    "The stores of three copies of the app, on one database."
    opened = [open_store(Settings(data_dir=tmp_path / str(n), database_url=database_url)) for n in range(COPIES)]
    yield opened
    for store in opened:
        store.close()


@pytest.fixture
def copies(stores: list[Store]) -> list[SharedHealth]:
    "What each of them knows of one provider."
    return [SharedHealth("mistral", store) for store in stores]


def outdate(*copies: SharedHealth) -> None:
    "Have these copies look again, as they do after a second."
    for health in copies:
        health._read -= FRESH


async def test_failures_of_all_copies_take_from_one_budget(copies: list[SharedHealth]) -> None:
    for number in range(14):
        await copies[number % COPIES].failed(RateLimitedError("Slow down."))
        assert copies[number % COPIES].budget.allows
    await copies[2].failed(RateLimitedError("Slow down."))
    assert not copies[2].budget.allows
    outdate(*copies)
    for health in copies:
        await health.check()  # a limit does not open the breaker
        assert not health.budget.allows and health.budget.tokens == 15


async def test_the_breaker_opens_for_all_and_one_copy_tries_for_all(copies: list[SharedHealth]) -> None:
    for number in range(15):
        await copies[number % COPIES].failed(DOWN)
    outdate(*copies)
    for health in copies:
        with pytest.raises(PausedError) as paused:
            await health.check()
        assert paused.value.retry_after and 8 < paused.value.retry_after <= 10
    copies[0]._store.write(lambda connection: connection.execute("UPDATE health SET opened = opened - 10")).result()
    outdate(*copies)
    waits = await asyncio.gather(*(health.wait() for health in copies))
    assert sorted(waits) == [0, 1, 1]
    trying = copies[waits.index(0)]
    await trying.succeeded()
    outdate(*copies)
    assert [await health.wait() for health in copies] == [0, 0, 0]


async def test_a_success_elsewhere_counts_among_the_failures_in_a_row(copies: list[SharedHealth]) -> None:
    for _ in range(3):
        for _ in range(7):
            await copies[0].failed(DOWN)
        outdate(copies[1])
        await copies[1].succeeded()
    outdate(*copies)
    assert [await health.wait() for health in copies] == [0, 0, 0]


async def test_a_try_whose_copy_died_does_not_block_the_others(copies: list[SharedHealth]) -> None:
    for _ in range(15):
        await copies[0].failed(DOWN)
    back = "UPDATE health SET opened = opened - 200, tried = extract(epoch FROM clock_timestamp()) - {}"
    for age, wait in ((60, 1), (130, 0)):
        query = back.format(age)
        copies[0]._store.write(lambda connection, query=query: connection.execute(query)).result()
        outdate(*copies)
        assert await copies[1].wait() == wait


async def test_a_healthy_provider_costs_no_more_than_a_look_a_second(
    copies: list[SharedHealth], monkeypatch: pytest.MonkeyPatch
) -> None:
    health, store = copies[0], copies[0]._store
    written, write = [], store.write
    monkeypatch.setattr(store, "write", lambda change: written.append(change) or write(change))
    begin = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: begin)
    for _ in range(100):
        await health.check()
        await health.succeeded()
    assert len(written) == 1


async def test_without_the_database_a_copy_goes_by_what_it_knows(copies: list[SharedHealth]) -> None:
    await copies[0].failed(DOWN)
    copies[0]._store.close()
    with pytest.raises(StoreError):
        copies[0]._store.read("SELECT 1")
    for _ in range(14):
        await copies[0].failed(DOWN)
    with pytest.raises(PausedError):
        await copies[0].check()
    copies[0].left()


async def ask(attempts: Attempts) -> None:
    "Ask once, in vain."
    with pytest.raises(ProviderError):
        async for _ in attempts.stream("mistral", Request("?", [{"role": "user", "content": "?"}])):
            pass


@pytest.mark.parametrize("at_a_time", [1, 100])
async def test_three_copies_send_a_failing_server_what_one_would(
    stores: list[Store], mistral: ScriptedMistral, tmp_path: Path, at_a_time: int
) -> None:
    mistral.answer = lambda body: refusal(503, "overloaded")
    settings = Settings(data_dir=tmp_path, mistral_url=mistral.url, mistral_api_key="k")
    provider = make_provider("mistral", settings)
    one = [Health("mistral")]
    together = [SharedHealth("mistral", store) for store in stores]
    apart = [Health("mistral") for _ in stores]
    sent = []
    for healths in (one, together, apart):
        copies = [
            Attempts(settings, lambda name: provider, at_once, make_health=lambda name, health=health: health)
            for health in healths
        ]
        before = len(mistral.chats)
        for first in range(0, 100, at_a_time):
            await asyncio.gather(*(ask(copies[number % len(copies)]) for number in range(first, first + at_a_time)))
        sent.append(len(mistral.chats) - before)
    await provider.close()
    assert sent[0] <= (15 if at_a_time == 1 else 115)
    assert sent[1] <= sent[0] + 14, sent  # a retry may be on its way when the breaker opens elsewhere
    assert at_a_time > 1 or (sent[1] <= 15 + COPIES and sent[2] == 15 * COPIES), sent


def test_a_note_that_is_not_written_leaves_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    failed: Future[None] = Future()
    failed.set_exception(StoreError("The server is away."))
    health = SharedHealth("mistral", SimpleNamespace(write=lambda change: failed))  # type: ignore[arg-type]
    health.breaker.tried = 1.0
    health.left()
    health.left()  # nothing is left a second time
    assert [record.getMessage().count("The server is away.") for record in caplog.records] == [1]
