"When to try again: waits, the budget that all share, the breaker; with clocks and dice that the tests hold."

import random

import pytest

from docstral.retry import FIRST_WAIT, LONGEST_WAIT, CircuitBreaker, RetryBudget, pause


class Clock:
    "A clock that goes when it is told to."

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_waits_are_spread_between_nothing_and_a_limit_that_doubles() -> None:
    dice = random.Random(7).uniform
    for attempt in range(1, 8):
        most = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))
        waits = [pause(attempt, dice=dice) for _ in range(300)]
        assert 0 <= min(waits) < most * 0.1 and most * 0.9 < max(waits) <= most


def test_what_the_server_asks_for_is_a_floor_and_those_who_wait_do_not_come_back_together() -> None:
    waits = {pause(1, retry_after=5) for _ in range(50)}
    assert len(waits) > 40 and min(waits) >= 5


def test_a_hundred_failures_at_once_allow_a_handful_of_retries() -> None:
    budget, retries = RetryBudget(), 0
    for _ in range(100):
        budget.failed()
        retries += budget.allows
    assert 1 <= retries <= 30
    for _ in range(100):
        budget.failed()
    assert not budget.allows and budget.tokens == 0


def test_answers_fill_the_budget_again_but_not_past_its_top() -> None:
    budget = RetryBudget()
    for _ in range(60):
        budget.failed()
    needed = 0
    while not budget.allows:
        budget.succeeded()
        needed += 1
    assert needed == 151
    for _ in range(1000):
        budget.succeeded()
    assert budget.tokens == budget.most


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    "A breaker that has just opened."
    made = CircuitBreaker(failures=3, cooldown=10, clock=clock)
    for _ in range(3):
        assert made.wait() == 0
        made.failed()
    return made


def test_it_opens_after_failures_in_a_row_and_says_how_long(breaker: CircuitBreaker, clock: Clock) -> None:
    assert breaker.wait() == 10
    clock.now += 4
    assert breaker.wait() == 6


def test_a_success_between_failures_keeps_it_closed(clock: Clock) -> None:
    breaker = CircuitBreaker(failures=3, clock=clock)
    for _ in range(10):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.wait() == 0


def test_after_the_pause_one_tries_for_all(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.now += 10
    assert breaker.wait() == 0
    assert [breaker.wait() > 0 for _ in range(5)] == [True] * 5
    breaker.succeeded()
    assert [breaker.wait() for _ in range(5)] == [0] * 5


def test_a_try_that_fails_begins_the_pause_again(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.now += 10
    assert breaker.wait() == 0
    breaker.failed()
    assert breaker.wait() == 10


def test_a_try_that_is_given_up_lets_the_next_one_try(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.now += 10
    assert breaker.wait() == 0
    breaker.left()
    assert breaker.wait() == 0


def test_failures_that_were_on_their_way_do_not_make_the_pause_longer(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.now += 9
    breaker.failed()
    assert breaker.wait() == 1
