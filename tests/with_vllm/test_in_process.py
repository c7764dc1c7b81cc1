"vLLM in this process, through the chat service that everything else uses. The model is tiny and writes nonsense."

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from docstral.chat import ChatService, Question
from docstral.errors import EngineError, ModelUnknownError, ProviderTimeoutError, SettingsError, TooLongError
from docstral.providers.base import Finished, Request, Text, Usage
from docstral.providers.vllm import VllmProvider, start_engine
from docstral.settings import Settings
from docstral.store import list_messages
from docstral.types import Delta, Done, Event, Failed, Sources

ASKED = "How do I stream a chat completion?"
OPTIONS = {"max_model_len": 4096, "enforce_eager": True, "tokenizer_mode": "mistral"}


async def ask(service: ChatService, text: str = ASKED, **how: object) -> list[Event]:
    "All events of an answer."
    async with aclosing(service.ask("visitor", Question(text, **how))) as events:  # type: ignore[arg-type]
        return [event async for event in events]


def engine_of(service: ChatService) -> object:
    "The running engine."
    return service.provider("vllm")._engine  # type: ignore[attr-defined]


async def works_on(service: ChatService, count: int) -> bool:
    "Whether the engine comes to have so many requests, which it may do a moment after it was told."
    for _ in range(500):
        if engine_of(service).get_num_unfinished_requests() == count:  # type: ignore[attr-defined]
            return True
        await asyncio.sleep(0.01)
    return False


async def test_the_first_question_loads_the_engine_and_is_answered(service: ChatService) -> None:
    assert service.status()["engine"] == "idle"
    events = await ask(service, max_tokens=24, temperature=0.5, seed=1)
    assert service.status()["engine"] == "ready"
    done = events[-1]
    assert isinstance(done, Done), events[-1]
    sources = next(event for event in events if isinstance(event, Sources))
    deltas = [event.text for event in events if isinstance(event, Delta)]
    assert len(deltas) > 3 and "".join(deltas) == done.text  # it streamed
    receipt = done.receipt
    assert len(sources.sources) == 2 and receipt.passages_read == 2
    assert receipt.provider == "vllm" and receipt.tokens_out == 24 and receipt.finish_reason == "length"
    assert not receipt.tokens_estimated and receipt.tokens_in > 300  # the passages are in it
    assert receipt.cost == 0 and receipt.tokens_per_second > 0
    assert receipt.first_token_seconds is not None and 0 <= (receipt.queue_seconds or 0) < receipt.seconds
    stored = await asyncio.to_thread(list_messages, service.store, "visitor", events[0].chat_id)  # type: ignore[attr-defined]
    assert stored[-1].content == done.text


async def test_a_seed_repeats_an_answer_and_a_chat_goes_on(service: ChatService) -> None:
    first, second = [await ask(service, max_tokens=12, temperature=0.9, seed=seed) for seed in (5, 5)]
    other = await ask(service, max_tokens=12, temperature=0.9, seed=6)
    assert first[-1].text == second[-1].text != other[-1].text  # type: ignore[attr-defined]
    more = await ask(service, "And how do I stop it?", chat_id=first[0].chat_id, max_tokens=4)  # type: ignore[attr-defined]
    assert isinstance(more[-1], Done)


async def test_many_questions_share_one_engine(service: ChatService) -> None:
    "With seeds, and more tokens together than the engine reads in one step."
    answers = await asyncio.gather(*(ask(service, max_tokens=16, seed=seed) for seed in range(16)))
    assert all(isinstance(events[-1], Done) for events in answers)
    assert [events[-1].receipt.tokens_out for events in answers] == [16] * 16  # type: ignore[attr-defined]
    assert await works_on(service, 0)


async def test_leaving_an_answer_aborts_it_in_the_engine(service: ChatService) -> None:
    "A reader who closes the stream, and one whose task is cancelled, both free the engine."
    events = service.ask("visitor", Question(ASKED, max_tokens=3000))
    async for event in events:
        if isinstance(event, Delta):
            break
    assert await works_on(service, 1)
    await events.aclose()
    assert await works_on(service, 0)

    task = asyncio.create_task(ask(service, max_tokens=3000))
    assert await works_on(service, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await works_on(service, 0)


async def test_a_timeout_aborts_it_in_the_engine_too(service: ChatService, model: Path) -> None:
    provider = VllmProvider(Settings(vllm_model=str(model), request_timeout=0.5))
    provider._engine = engine_of(service)
    request = Request("Hi", [{"role": "user", "content": "Hi"}], max_tokens=3000)
    with pytest.raises(ProviderTimeoutError, match=r"did not finish within 0\.5 s"):
        async for _ in provider.stream(request):
            pass
    assert await works_on(service, 0)


async def test_too_long_a_prompt_is_told_so(service: ChatService) -> None:
    request = Request("Hi", [{"role": "user", "content": "word " * 6000}])
    with pytest.raises(TooLongError, match=r"too long.*4096"):
        async for _ in service.provider("vllm").stream(request):
            pass


async def test_usage_counts_tokens_and_a_whole_context_ends_with_length(service: ChatService) -> None:
    request = Request("Hi", [{"role": "user", "content": "Hi"}], max_tokens=10, temperature=0.0)
    events = [event async for event in service.provider("vllm").stream(request)]
    [usage] = [event for event in events if isinstance(event, Usage)]
    assert usage.tokens_in == 4 and usage.tokens_out == 10  # <s> [INST] Hi [/INST]
    assert sum(isinstance(event, Text) for event in events) > 1 and events[-1] == Finished("length")


async def test_an_engine_that_dies_is_told_and_the_next_question_starts_another(service: ChatService) -> None:
    dead = engine_of(service)
    events = service.ask("visitor", Question(ASKED, max_tokens=3000))
    async for event in events:
        if isinstance(event, Delta):
            break
    for process in dead.engine_core.resources.engine_manager.processes:  # type: ignore[attr-defined]
        process.kill()
    failed = [event async for event in events][-1]
    assert isinstance(failed, Failed) and failed.code == "engine" and failed.partial
    assert isinstance((await ask(service, max_tokens=4))[-1], Done)
    assert engine_of(service) is not dead


@pytest.mark.parametrize("options, words", [({"no_such_option": 1}, "no_such_option"), ({"dtype": "float7"}, "float7")])
def test_wrong_options_are_named(model: Path, tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        start_engine(str(model), options, tmp_path)


def test_a_model_that_nobody_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnknownError, match="no-such-owner/no-such-model"):
        start_engine("no-such-owner/no-such-model", {}, tmp_path)


def test_too_little_memory_is_told_with_what_to_do(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    "The cause comes from the engine's own process."
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")  # GiB
    monkeypatch.delenv("VLLM_LOGGING_CONFIG_PATH", raising=False)  # that of the engine before
    with pytest.raises(EngineError, match="not enough memory") as failure:
        start_engine(str(model), OPTIONS, tmp_path)
    assert "DOCSTRAL_VLLM_OPTIONS" in failure.value.action and "GiB" in str(failure.value)


def test_no_device_is_told(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "As where vLLM's GPU build finds no GPU."
    from vllm import platforms

    monkeypatch.setattr(platforms, "_current_platform", platforms.interface.UnspecifiedPlatform())
    with pytest.raises(EngineError, match="no GPU"):
        start_engine(str(model), OPTIONS, tmp_path)
