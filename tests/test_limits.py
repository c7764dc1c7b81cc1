"Limits on answers: nobody gets more than their share, whichever way they ask, and each is told so clearly."

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from helpers import DEADLINE, Live, eventually, read_events
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mistral_server import Gate, Reply, ScriptedMistral

from docstral.api.guard import SHARE, Guard
from docstral.chat import ChatService
from docstral.errors import BusyError, SettingsError, StoppingError, TooManyAnswersError
from docstral.limits import RETRY_AFTER, Limits, network_of
from docstral.serve import create_app
from docstral.settings import Settings
from docstral.store import Store
from docstral.web.desk import Desk, Reader, ask, follow
from docstral.web.words import FRENCH

GUARDED = {"type": "http", "method": "GET", "path": "/health", "headers": [(b"host", b"127.0.0.1")]}
STREAM = "How do I stream a chat completion?"
ASKED = {"messages": [{"role": "user", "content": STREAM}]}


def take(limits: Limits, places: ExitStack, reader: str = "", address: str = "") -> int:
    "Take places until one is refused; returns how many there were."
    taken = 0
    while True:
        try:
            places.enter_context(limits.answer(reader, address))
        except BusyError:
            return taken
        taken += 1


async def test_of_those_who_ask_at_once_a_few_begin_at_a_time_and_one_who_gives_up_holds_up_nobody() -> None:
    began: list[int] = [0]  # in each turn of the event loop

    async def app(scope: Any, receive: Any, send: Any) -> None:
        began[-1] += 1

    async def receive() -> Any:
        raise AssertionError("there is no body to read")

    guard = Guard(app, Settings())
    asking = [asyncio.ensure_future(guard(GUARDED, receive, receive)) for _ in range(50)]
    await asyncio.sleep(0)
    assert asking[30].cancel()
    while not all(each.done() for each in asking):
        began.append(0)
        await asyncio.sleep(0)
    assert sum(began) == 49 and max(began) == 45 // SHARE  # 46 wait, one of them no more


def test_a_reader_gets_a_few_and_each_place_comes_back() -> None:
    limits = Limits(answers=100, per_reader=3)
    with ExitStack() as places:
        assert take(limits, places, "ada", "192.0.2.1") == 3
        with pytest.raises(TooManyAnswersError) as refused, limits.answer("ada", "192.0.2.9"):
            pass  # from wherever
        assert (refused.value.status, refused.value.retry_after) == (429, RETRY_AFTER)
        assert take(limits, places, "bob", "192.0.2.1") == 3
    assert limits.open == 0
    with pytest.raises(ValueError, match="no"), limits.answer("ada", "192.0.2.1"):
        raise ValueError("no")
    with ExitStack() as places:
        assert take(limits, places, "ada", "192.0.2.1") == 3


@pytest.mark.parametrize("addresses", [1, 2, 3, 8])
def test_an_address_without_cookies_leaves_places_for_others(addresses: int) -> None:
    limits = Limits(answers=512, per_reader=8)
    with ExitStack() as places:
        got = [take(limits, places, address=f"192.0.2.{number}") for number in range(addresses)]
        assert got[0] == 256 and limits.open < 512
        assert limits.answer("ada", "198.51.100.1").__enter__() is None  # there is one for whoever comes next


def test_one_customer_of_ipv6_is_one_however_many_addresses_they_have() -> None:
    limits = Limits(answers=10, per_reader=8)
    with ExitStack() as places:
        got = [take(limits, places, address=f"2001:db8::{number:x}") for number in range(1, 200)]
        assert sum(got) == 5
    assert network_of("fe80::1%eth0") == network_of("fe80::2")


def test_words_that_are_no_address_are_one_however_many_there_are() -> None:
    limits = Limits(answers=10, per_reader=8)
    with ExitStack() as places:
        got = [take(limits, places, address=f"{'x' * number}.") for number in range(200)]
        assert sum(got) == 5


def test_a_program_of_ones_own_is_limited_by_the_places_alone() -> None:
    limits = Limits(answers=20, per_reader=2)
    with ExitStack() as places:
        assert take(limits, places, "local") == 20
        with pytest.raises(BusyError, match="All 20 places") as refused, limits.answer("local"):
            pass
        assert refused.value.status == 503


def test_a_server_that_stops_takes_no_more() -> None:
    limits = Limits(answers=5, per_reader=5)
    with limits.answer("ada", "192.0.2.1"):
        limits.stopping = True
        with pytest.raises(StoppingError), limits.answer("ada", "192.0.2.1"):
            pass
        assert limits.open == 1


@pytest.mark.parametrize("name", ["answers", "answers_per_reader"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is 0"):
        Settings(**{name: 0})


class House:
    "An application with four places, two for each reader, and a model that waits before the end of each answer."

    def __init__(self, service: ChatService, url: str, gate: Gate):
        self.service, self.url, self.gate = service, url, gate

    @asynccontextmanager
    async def asking(self, address: str = "192.0.2.1", cookie: str = "", **also: str) -> AsyncIterator[httpx2.Response]:
        "A question by POST that is being answered, or its refusal. `also`: more headers."
        headers = {"x-forwarded-for": address} | ({"cookie": f"docstral_session={cookie}"} if cookie else {})
        headers |= {name.replace("_", "-"): value for name, value in also.items()}
        async with (
            httpx2.AsyncClient(base_url=self.url, timeout=DEADLINE, trust_env=False) as client,
            client.stream("POST", "/chat", json={"message": STREAM}, headers=headers) as reply,
        ):
            if reply.status_code != 200:
                await reply.aread()
            yield reply


@pytest.fixture
def house(settings: Settings, store: Store, mistral: ScriptedMistral) -> Iterator[House]:
    "It, ready. At its end the answers may end."
    gate = Gate()
    mistral.answer = lambda body: Reply(["So it is. ", gate, "The end."])
    service = ChatService(settings.but(mistral_api_key="k", answers=4, answers_per_reader=2), store)
    with Live(create_app(service, web=False)) as live:
        eventually(lambda: service.search)
        yield House(service, live.url, gate)
        gate.open()


ADA, BOB = "a" * 43, "b" * 43  # cookies


async def test_a_reader_is_told_how_long_to_wait_and_others_are_answered(house: House) -> None:
    async with (
        house.asking("192.0.2.1", ADA) as first,
        house.asking("192.0.2.2", ADA) as second,
        house.asking("192.0.2.3", ADA) as third,
        house.asking("192.0.2.3", BOB) as other,
    ):
        assert [each.status_code for each in (first, second, third, other)] == [200, 200, 429, 200]
        error = third.json()["error"]
        assert (error["code"], third.headers["retry-after"]) == ("too_many_answers", "5")
        assert error["retry_after"] == 5 and error["message"] and error["action"]
        house.gate.open()
        for reply in (first, second, other):
            assert read_events((await reply.aread()).decode())[-1][0] == "done"
    await asyncio.to_thread(eventually, lambda: house.service.limits.open == 0)
    async with house.asking("192.0.2.1", ADA) as again:
        assert read_events((await again.aread()).decode())[-1][0] == "done"


async def test_places_come_back_from_those_who_hang_up(house: House) -> None:
    for _ in range(3):
        async with house.asking("192.0.2.1", ADA) as first, house.asking("192.0.2.1", ADA) as second:
            assert first.status_code == second.status_code == 200
        await asyncio.to_thread(eventually, lambda: house.service.limits.open == 0)


async def test_a_full_house_says_so_to_everyone(house: House) -> None:
    async with (
        house.asking("192.0.2.1") as first,
        house.asking("192.0.2.1") as second,
        house.asking("192.0.2.1") as third,  # one address gets half of what there is
        house.asking("192.0.2.2") as other,
        house.asking("192.0.2.3") as last,
        house.asking("192.0.2.4") as late,
    ):
        assert [each.status_code for each in (first, second, third)] == [200, 200, 429]
        assert [each.status_code for each in (other, last, late)] == [200, 200, 503]
        assert "your address" in third.json()["error"]["message"]
        assert (late.json()["error"]["code"], late.headers["retry-after"]) == ("busy", "5")


CLAIMS = {  # of whom nobody asked; `{n}` is another one each time
    "an address": {"address": "203.0.113.{n}"},
    "this machine": {"address": "127.0.0.1"},
    "several": {"address": "203.0.113.{n}, 198.51.100.{n}, 127.0.0.1"},
    "of IPv6": {"address": "[2001:db8:{n}::1]:4711"},
    "no address": {"address": "unknown-{n}"},
    "nothing": {"address": ""},
    "without end": {"address": "{n}, " * 2_000 + "203.0.113.{n}"},
    "by the standard": {"forwarded": 'for="203.0.113.{n}";proto=https;host=127.0.0.1'},
    "by the word of proxies": {"x_real_ip": "203.0.113.{n}", "cf_connecting_ip": "203.0.113.{n}"},
}


@pytest.fixture
def trusting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    "The proxies whose word is taken, which a server reads when it starts."
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", request.param)


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("trusting", ["192.0.2.1", "", "localhost"], indirect=True)
async def test_who_is_no_trusted_proxy_gains_nothing_by_what_they_say_of_their_address(house: House) -> None:
    async with house.asking("203.0.113.1") as first, house.asking("203.0.113.2") as second:
        assert first.status_code == second.status_code == 200
        for number, (name, claim) in enumerate(CLAIMS.items()):
            said = {header: value.replace("{n}", str(number + 3)) for header, value in claim.items()}
            async with house.asking(**said) as third:
                assert third.status_code == 429, name
                assert "your address" in third.json()["error"]["message"]


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("trusting", ["127.0.0.1", "192.0.2.0/24, 127.0.0.0/8"], indirect=True)
@pytest.mark.parametrize(
    "as_told",
    [
        "203.0.113.{n}, 198.51.100.7",  # the proxy adds whom it saw to what that one said
        "198.51.100.7:{n}, 127.0.0.1",  # another proxy of ours stands before it
        "203.0.113.{n}, 2001:db8::{n}",
        "203.0.113.{n}, [2001:db8::{n}]:4711",
        "203.0.113.{n}, ::ffff:198.51.100.7",
        "no-address-{n}",
    ],
)
async def test_a_trusted_proxy_is_believed_in_what_it_saw_itself(house: House, as_told: str) -> None:
    async def tell(number: int, places: AsyncExitStack) -> int:
        reply = await places.enter_async_context(house.asking(as_told.replace("{n}", str(number))))
        return reply.status_code

    async with AsyncExitStack() as places:
        assert [await tell(number, places) for number in (1, 2, 3)] == [200, 200, 429]
        other = await places.enter_async_context(house.asking("203.0.113.1, 198.51.100.99"))
        assert other.status_code == 200


async def test_programs_are_told_in_the_words_of_their_protocol(house: House) -> None:
    async with (
        house.asking("127.0.0.1"),
        house.asking("127.0.0.1"),
        httpx2.AsyncClient(base_url=house.url, timeout=DEADLINE, trust_env=False) as program,
    ):
        for stream in (True, False):
            refused = await program.post("/v1/chat/completions", json=ASKED | {"stream": stream})
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            error = refused.json()["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "too_many_answers")
        async with Client(streamable_http_client(f"{house.url}/mcp", http_client=program)) as assistant:
            result: Any = await assistant.call_tool("ask_docs", {"question": STREAM})
            assert result.is_error and "answers for your address" in result.content[0].text
            found: Any = await assistant.call_tool("search_docs", {"question": STREAM})
            assert not found.is_error  # a search is no answer


async def test_pages_say_it_in_the_readers_language_and_keep_the_question(with_key: ChatService) -> None:
    with_key.limits = Limits(answers=4, per_reader=1)
    desk, reader = Desk(with_key), Reader("ada", "tab 2", FRENCH, address="192.0.2.1")
    with with_key.limits.answer("ada", "192.0.2.1"):
        asked = await ask(desk, reader, STREAM, "")
        *_, shown = [parts async for parts in follow(desk, reader, asked["following"])]
    assert "Attendez la fin de l&#x27;une d&#x27;elles" in shown["growing"] and 'data-act="retry"' in shown["growing"]
    assert 'lang="en"' not in shown["growing"]
    assert shown["question"] == STREAM and shown["busy"] is False
