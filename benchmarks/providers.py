"""What a streamed token costs in the provider, beside a bare loop over the same bytes in the same run.

    python -m benchmarks.providers [--tokens 2000] [--rounds 5] [--interval 0.5]

A server in a process of its own streams tokens one by one, so many milliseconds apart, each in a write of its own; this
process reads them. The bare loop is aiohttp and orjson and nothing else. Figures are the CPU of this process for each
token, the least of the rounds.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import orjson

from benchmarks.bench import Table, alternate, main, ratios, upstream
from docstral.providers.attempts import Attempts
from docstral.providers.base import Request, Text
from docstral.providers.mistral import MistralProvider
from docstral.settings import Settings


async def bare(url: str) -> str:
    "aiohttp and orjson: what reading the stream costs at the least."
    text, body = [], {"model": "m", "messages": [], "stream": True}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=body) as reply:
        async for line in reply.content:
            if line.startswith(b"data: ") and line[6:8] != b"[D":
                text.append(orjson.loads(line[6:])["choices"][0]["delta"].get("content"))
    return "".join(text)


async def joined(events: AsyncGenerator[Any, None]) -> str:
    "The text of a provider's events; what arrives together may come as one."
    return "".join([event.text async for event in events if isinstance(event, Text)])


async def provider(url: str) -> str:
    "The Mistral provider."
    made = MistralProvider(Settings(mistral_url=url, mistral_api_key="key"))
    text = await joined(made.stream(Request("?", [])))
    await made.close()
    return text


async def attempts(url: str) -> str:
    "The same through retries and fallbacks, as the chat service asks."
    settings = Settings(mistral_url=url, mistral_api_key="key")
    made = MistralProvider(settings)
    text = await joined(Attempts(settings, lambda name: made).stream("mistral", Request("?", [])))
    await made.close()
    return text


def measure(tokens: int, rounds: int, interval: float) -> Iterator[Table]:
    "One table: the bare loop, the provider, the provider with what stands around it."
    sent = [f" word{number}" for number in range(tokens)]

    def reading(work: Callable[[str], Awaitable[str]], url: str) -> Callable[[], None]:
        async def read() -> None:
            assert await work(url) == "".join(sent), "not all of the text arrived"

        return lambda: asyncio.run(read())

    with upstream(sent, interval / 1000) as url:
        works = {"bare aiohttp + orjson": bare, "provider": provider, "provider + attempts": attempts}
        found = alternate({name: reading(work, url) for name, work in works.items()}, rounds)
    title = f"{tokens:,} tokens, {interval:g} ms apart"
    costs = {name: seconds / tokens * 1e6 for name, seconds in found.items()}
    yield ratios(title, "µs of CPU a token", costs, "bare aiohttp + orjson")


if __name__ == "__main__":
    main(__doc__, measure, tokens=(2000, 1000, 50), rounds=(5, 3, 1), interval=(0.5, 0.5, 0.1))
