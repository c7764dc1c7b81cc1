"""What a streamed token costs in the provider, beside a bare loop over the same bytes in the same run.

    python benchmarks/providers.py [--tokens 2000] [--rounds 5] [--interval 0.5]

A server in a process of its own streams tokens one by one, each in a write of its own; this process reads them. The
bare loop is aiohttp and orjson and nothing else. Figures are CPU milliseconds of this process for each token, the least
of the rounds: a machine's load moves them less than it moves the clock, and the ratio less still.
"""

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import aiohttp
import orjson
from aiohttp import web

from docstral.providers.attempts import Attempts
from docstral.providers.base import Request, Text
from docstral.providers.mistral import MistralProvider
from docstral.settings import Settings


def event(text: str, reason: str | None = None) -> bytes:
    "One server-sent event as Mistral's API sends it."
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    chunk = {"id": "c" * 32, "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def serve(told: Connection, tokens: int, seconds: float) -> None:
    "The server: runs until it is ended, tells its port."

    async def complete(request: web.Request) -> web.StreamResponse:
        await request.read()
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        for number in range(tokens):
            await reply.write(event(f" word{number}"))
            await asyncio.sleep(seconds)
        await reply.write(event("", "stop") + b"data: [DONE]\n\n")
        return reply

    async def run() -> None:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", complete)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


async def bare(url: str) -> int:
    "aiohttp and orjson: what reading the stream costs at the least."
    count, body = 0, {"model": "m", "messages": [], "stream": True}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=body) as reply:
        async for line in reply.content:
            if line.startswith(b"data: ") and line[6:8] != b"[D":
                content = orjson.loads(line[6:])["choices"][0]["delta"].get("content")
                count += bool(content)
    return count


async def provider(url: str) -> int:
    "The Mistral provider."
    made = MistralProvider(Settings(mistral_url=url, mistral_api_key="key"))
    count = 0
    async for piece in made.stream(Request("?", [])):
        count += isinstance(piece, Text)
    await made.close()
    return count


async def attempts(url: str) -> int:
    "The same through retries and fallbacks, as the chat service asks."
    settings = Settings(mistral_url=url, mistral_api_key="key")
    made = MistralProvider(settings)
    count = 0
    async for piece in Attempts(settings, lambda name: made).stream("mistral", Request("?", [])):
        count += isinstance(piece, Text)
    await made.close()
    return count


def measure(work: Callable[[str], Awaitable[int]], url: str, tokens: int) -> float:
    "CPU milliseconds for each token."

    async def timed() -> float:
        began = time.process_time()
        count = await work(url)
        assert count == tokens, f"{count} tokens of {tokens} arrived"
        return (time.process_time() - began) / tokens * 1000

    return asyncio.run(timed())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--interval", type=float, default=0.5, help="milliseconds between tokens; 0: all at once")
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, options.tokens, options.interval / 1000), daemon=True
    )
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    works = {"bare aiohttp + orjson": bare, "provider": provider, "provider + attempts": attempts}
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds):  # in turn, so that all see the same machine
        for name, work in works.items():
            found[name].append(measure(work, url, options.tokens))
    server.terminate()
    server.join()
    least = min(found["bare aiohttp + orjson"])
    print(f"{'':24}ms of CPU a token   ratio")
    for name, figures in found.items():
        print(f"{name:24}{min(figures):17.3f}{min(figures) / least:8.2f}")


if __name__ == "__main__":
    main()
