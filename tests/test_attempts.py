"One answer from several requests and several providers: what is sent again, who stands in, and whose key is used."

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest

from docstral.errors import (
    KeyRejectedError,
    NoQuotaError,
    OverloadedError,
    PausedError,
    ProviderError,
    RateLimitedError,
    RequestRefusedError,
    UnreachableError,
)
from docstral.providers.attempts import Attempts
from docstral.providers.base import Finished, Provider, ProviderEvent, Request, Text, Thought, Writing, make_provider
from docstral.settings import Settings
from docstral.types import Notice, Passage

PASSAGE = Passage("a::0", "A", "", "a", "text", 1.0)
REQUEST = Request("?", [], [PASSAGE], model="large")


class Scripted(Provider):
    "Does in turn what it is told: raises an error, or says pieces and then raises one of them."

    def __init__(self, name: str, *script: object, local: bool = False):
        self.name, self.local, self.script, self.asked = name, local, list(script), list[Request]()

    def model(self, request: Request) -> str:
        return request.model or f"{self.name}-default"

    async def stream(self, request: Request) -> AsyncGenerator[ProviderEvent, None]:
        self.asked.append(request)
        await asyncio.sleep(0)
        step = self.script.pop(0) if self.script else ["fine"]
        for piece in step if isinstance(step, list) else [step]:
            if isinstance(piece, BaseException):
                raise piece
            yield Text(piece) if isinstance(piece, str) else piece
        yield Finished("stop")


@dataclass
class World:
    "Providers, a clock, and the waits that were asked for."

    providers: dict[str, Scripted]
    fallback: tuple[str, ...] = ()
    now: float = 0.0
    waits: list[float] = field(default_factory=list)
    attempts: Attempts = field(init=False)

    def __post_init__(self) -> None:
        settings = Settings(fallback=self.fallback, request_timeout=60)
        self.attempts = Attempts(
            settings, lambda name: self.providers[name], self._sleep, lambda low, high: high, lambda: self.now
        )

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    async def ask(self, first: str, request: Request = REQUEST) -> tuple[list[object], ProviderError | None]:
        "The events, and the error at their end."
        events: list[object] = []
        try:
            async with aclosing(self.attempts.stream(first, request)) as stream:
                async for event in stream:
                    events.append(event)
        except ProviderError as error:
            return events, error
        return events, None


def world(*providers: Scripted, fallback: tuple[str, ...] = ()) -> World:
    return World({provider.name: provider for provider in providers}, fallback)


def text(events: list[object]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def notices(events: list[object]) -> list[str]:
    return [event.code for event in events if isinstance(event, Notice)]


async def test_what_can_succeed_later_is_sent_again_and_the_reader_is_told() -> None:
    mistral = Scripted("mistral", OverloadedError("Busy."), UnreachableError("Gone."))
    here = world(mistral)
    events, error = await here.ask("mistral")
    assert error is None and text(events) == "fine" and here.waits == [1, 2]
    told = [event for event in events if isinstance(event, Notice)]
    assert [(notice.code, notice.seconds) for notice in told] == [("retrying", 1), ("retrying", 2)]
    assert "Busy." in told[0].message


async def test_three_requests_are_the_most() -> None:
    mistral = Scripted("mistral", *[OverloadedError(f"Busy {n}.") for n in range(9)])
    events, error = await world(mistral).ask("mistral")
    assert len(mistral.asked) == 3 and str(error) == "Busy 2." and notices(events) == ["retrying"] * 2


@pytest.mark.parametrize(
    "failure", [KeyRejectedError("No."), NoQuotaError("None."), RequestRefusedError("temperature")]
)
async def test_what_cannot_succeed_is_sent_once(failure: ProviderError) -> None:
    mistral = Scripted("mistral", failure)
    events, error = await world(mistral).ask("mistral")
    assert error is failure and len(mistral.asked) == 1 and notices(events) == []


@pytest.mark.parametrize("first", ["Half", Thought("Hm.")])
async def test_nothing_is_sent_again_after_the_first_word(first: object) -> None:
    mistral, quoting = Scripted("mistral", [first, UnreachableError("Cut.")]), Scripted("extractive", local=True)
    events, error = await world(mistral, quoting, fallback=("extractive",)).ask("mistral")
    assert str(error) == "Cut." and len(mistral.asked) == 1 and quoting.asked == [] and notices(events) == []


async def test_retry_after_is_waited_for_and_one_past_the_deadline_fails_at_once() -> None:
    here = world(Scripted("mistral", RateLimitedError("Slow.", retry_after=7)))
    assert (await here.ask("mistral"))[1] is None and here.waits == [8]
    here = world(Scripted("mistral", RateLimitedError("Slow.", retry_after=90)))
    _, error = await here.ask("mistral")
    assert error and error.retry_after == 90 and here.waits == []


async def test_each_attempt_gets_what_is_left_of_the_time() -> None:
    mistral = Scripted("mistral", OverloadedError("Busy.", retry_after=20), OverloadedError("Busy.", retry_after=20))
    await world(mistral).ask("mistral")
    assert [request.seconds for request in mistral.asked] == [60, 39, 17]


async def test_a_server_that_is_down_gets_at_most_a_few_requests_more_than_there_are_questions() -> None:
    mistral = Scripted("mistral", *[UnreachableError("Down.") for _ in range(400)])
    here = world(mistral)
    answers = await asyncio.gather(*(here.ask("mistral") for _ in range(100)))
    assert all(error and error.code == "unreachable" for _, error in answers)
    assert 100 <= len(mistral.asked) <= 130
    asked = len(mistral.asked)
    _, error = await here.ask("mistral")  # from now on it is left alone
    assert isinstance(error, PausedError) and error.retry_after and len(mistral.asked) == asked
    here.now += 11
    mistral.script.clear()
    assert text((await here.ask("mistral"))[0]) == "fine"
    assert text((await here.ask("mistral"))[0]) == "fine"


@pytest.mark.parametrize("failure", [lambda: RateLimitedError("Slow."), lambda: KeyRejectedError("No.")])
async def test_a_key_that_is_limited_or_refused_closes_nothing_for_others(
    failure: Callable[[], ProviderError],
) -> None:
    mistral = Scripted("mistral", *[failure() for _ in range(50)])
    here = world(mistral)
    while mistral.script:
        await here.ask("mistral")
    assert text((await here.ask("mistral"))[0]) == "fine"


async def test_a_reader_who_leaves_during_the_trial_does_not_keep_others_out() -> None:
    mistral = Scripted("mistral", *[UnreachableError("Down.") for _ in range(5)], ["a", "b"])
    here = world(mistral)
    while len(mistral.script) > 1:
        await here.ask("mistral")
    here.now += 20
    stream = here.attempts.stream("mistral", REQUEST)
    while not isinstance(await anext(stream), Text):
        pass
    await stream.aclose()
    assert text((await here.ask("mistral"))[0]) == "fine"


async def test_another_provider_stands_in_with_a_notice_and_its_own_model() -> None:
    mistral, openai = Scripted("mistral", KeyRejectedError("No.")), Scripted("openai")
    events, error = await world(mistral, openai, fallback=("openai", "extractive")).ask("mistral")
    assert error is None and text(events) == "fine" and notices(events) == ["fallback"]
    assert [event for event in events if isinstance(event, Writing)] == [
        Writing("mistral", "large"),
        Writing("openai", "openai-default", ("mistral",)),
    ]
    assert openai.asked[0].model == ""


async def test_the_list_goes_on_from_the_one_that_was_asked() -> None:
    openai, mistral = Scripted("openai", NoQuotaError("None.")), Scripted("mistral")
    quoting = Scripted("extractive", local=True)
    here = world(openai, mistral, quoting, fallback=("mistral", "openai", "extractive"))
    await here.ask("openai")
    assert mistral.asked == [] and len(quoting.asked) == 1


async def test_a_visitors_key_is_never_replaced_by_the_owners_and_goes_nowhere_else() -> None:
    mistral, openai = Scripted("mistral", KeyRejectedError("No.")), Scripted("openai")
    quoting = Scripted("extractive", local=True)
    here = world(mistral, openai, quoting, fallback=("openai", "extractive"))
    events, error = await here.ask("mistral", Request("?", [], [PASSAGE], api_key="visitors-key"))
    assert error is None and text(events) == "fine" and openai.asked == []
    assert [request.api_key for request in mistral.asked] == ["visitors-key"]
    assert [request.api_key for request in quoting.asked] == [""]


async def test_with_nobody_left_the_last_error_is_told() -> None:
    mistral, openai = Scripted("mistral", KeyRejectedError("First.")), Scripted("openai", NoQuotaError("Last."))
    events, error = await world(mistral, openai, fallback=("openai",)).ask("mistral")
    assert str(error) == "Last." and notices(events) == ["fallback"]


async def test_a_question_that_is_at_fault_goes_nowhere_else() -> None:
    mistral, openai = Scripted("mistral", RequestRefusedError("temperature: too high.")), Scripted("openai")
    _, error = await world(mistral, openai, fallback=("openai",)).ask("mistral")
    assert error and "temperature" in str(error) and openai.asked == []


async def test_without_passages_nothing_is_quoted() -> None:
    mistral, quoting = Scripted("mistral", KeyRejectedError("No.")), Scripted("extractive", local=True)
    _, error = await world(mistral, quoting, fallback=("extractive",)).ask("mistral", Request("?", []))
    assert error and quoting.asked == []


async def test_the_prompt_has_to_fit_whoever_may_come_to_answer() -> None:
    mistral, small = Scripted("mistral"), Scripted("vllm", local=True)
    small.context = lambda request: 4_096  # type: ignore[method-assign]
    attempts = world(mistral, small, fallback=("vllm",)).attempts
    large = replace(REQUEST, model="mistral-large-latest")
    assert attempts.context("mistral", large) == attempts.context("mistral", replace(large, api_key="k")) == 4_096
    assert world(mistral).attempts.context("mistral", large) == 256_000


async def test_a_fallback_that_cannot_be_made_does_not_keep_the_first_from_answering() -> None:
    settings = Settings(fallback=("openai",), mistral_api_key="k")  # and no address for it
    mistral = Scripted("mistral")
    attempts = Attempts(settings, lambda name: mistral if name == "mistral" else make_provider(name, settings))
    for request in (REQUEST, replace(REQUEST, api_key="visitors-key")):
        assert attempts.context("mistral", request) == 32_000
        assert Text("fine") in [event async for event in attempts.stream("mistral", request)]
