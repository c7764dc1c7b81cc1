"""Answers under load: `POST /chat` with search, storage and metrics, beside a bare relay, at 1 to 256 streams at once.

    python -m benchmarks.load [--streams 1 16 64 256] [--rounds 3] [--answers 48] [--speeds 10 200 2000]

A scripted model runs in a process of its own, and so does each server: the bare relay (FastAPI, aiohttp and orjson,
which pass the text on) and DocStral. Both get their questions from the same client in turn, and so does the model. No
question is asked twice, since DocStral remembers what it found for the last ones.

At full speed, an answer's 200 tokens come as fast as they can: what counts is the CPU of the server's process for each
token, and so the tokens that a core would stream. Paced, a token comes every 10 ms (every 40 ms to 256 streams, which
is as much as two cores can send): what counts is what a reader sees beside asking the model directly. Times added to
the first token are medians; those added to the gaps between two tokens are of the gap that one in twenty exceeds.
`slowest` is the slowest answer's time by the fastest's; memory is what the server's process grew by for each stream; a
wrong, cut or refused answer is an error.

While others ask: the longest pause between two tokens of eight paced answers, with up to 64 readers who ask for an
answer of one token in the same moment; and how long these wait for it. Medians.

The web chat is what a page gets before Gradio wraps it: how often it is updated, and the CPU of all that this takes.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.bench import (
    TICK,
    Cell,
    Table,
    cpu_of,
    docstral,
    environment,
    main,
    memory_of,
    new_question,
    serving,
    upstream,
)
from docstral.chat import ChatService
from docstral.settings import Settings
from docstral.store import open_store
from docstral.web.desk import Desk, Reader, follow
from docstral.web.desk import ask as ask_in_page

FULL, PACED, SLOW, ONE = (  # models
    "200-tokens-every-0-ms",
    "100-tokens-every-10-ms",
    "100-tokens-every-40-ms",
    "1-tokens-every-0-ms",
)
RELAY = """
import socket, sys
import aiohttp, orjson, uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

app, sessions = FastAPI(), []

async def events(url, question):
    if not sessions:
        sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    messages, rest = [{"role": "user", "content": question["message"]}], b""
    body = {"model": question["model"], "messages": messages, "stream": True}
    async with sessions[0].post(f"{url}/v1/chat/completions", json=body) as reply:
        async for arrived in reply.content.iter_any():
            *blocks, rest = (rest + arrived).split(b"\\n\\n")
            told = [orjson.loads(block[6:]) for block in blocks if block.startswith(b"data: {")]
            texts = [text for event in told if (text := event["choices"][0]["delta"].get("content"))]
            if texts:
                yield b"".join(b"event: delta\\ndata: %b\\n\\n" % orjson.dumps({"text": text}) for text in texts)

@app.post("/chat")
async def chat(request: Request):
    return StreamingResponse(events(sys.argv[1], await request.json()), media_type="text/event-stream")

bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so that asyncio sends at once
bound.bind(("127.0.0.1", 0))
bound.listen(1024)
print("listens at http://127.0.0.1:%d" % bound.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[bound])
"""


@dataclass
class Chat:
    "What one answer looked like from outside, in seconds."

    began: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    ended: float = 0.0
    tokens: int = 0
    gaps: list[float] = field(default_factory=list)
    failed: bool = False

    @property
    def waited(self) -> float:
        "For the first token, or in vain."
        return (self.first or self.ended) - self.began


async def ask(session: aiohttp.ClientSession, url: str, model: str) -> Chat:
    "Ask once and read to the end. Sources and the text that `done` repeats are not counted."
    chat, rest, last = Chat(), b"", 0.0
    try:
        async with session.post(url, json={"message": new_question(), "model": model}) as reply:
            async for arrived in reply.content.iter_any():
                now = time.perf_counter()
                *blocks, rest = (rest + arrived).split(b"\n\n")
                texts = [block for block in blocks if not block.startswith(b"event:") or block[7:12] == b"delta"]
                if count := sum(text.count(b" word") for text in texts):
                    chat.tokens += count
                    chat.first = chat.first or now
                    chat.gaps += [now - last] * bool(last) + [0.0] * (count - 1)
                    last = now
            chat.failed = reply.status != 200 or chat.tokens != int(model.partition("-")[0])
    except (aiohttp.ClientError, OSError):
        chat.failed = True
    chat.ended = time.perf_counter()
    return chat


async def load(url: str, streams: int, each: int, model: str, watch: Callable[[], float]) -> tuple[list[Chat], float]:
    "So many streams at once, each of so many answers one after the other; and the most that `watch` told meanwhile."

    async def reader(session: aiohttp.ClientSession) -> list[Chat]:
        return [await ask(session, url, model) for _ in range(each)]

    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        reading = asyncio.gather(*(reader(session) for _ in range(streams)))
        most = 0.0
        while not reading.done():
            most = max(most, watch())
            await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.25)), reading], return_when="FIRST_COMPLETED")
        return [chat for chats in reading.result() for chat in chats], most


@dataclass
class Target:
    "A server under load, with what was seen of it."

    name: str
    url: str
    process: int = 0  # 0: the model itself, whose CPU does not count
    chats: list[Chat] = field(default_factory=list)
    seconds: float = 0.0  # CPU
    grown: float = 0.0  # megabytes, at the most

    def run(self, streams: int, each: int, model: str) -> None:
        "Put it under load once more."
        before = memory_of(self.process) if self.process else 0.0
        spent = cpu_of(self.process) if self.process else 0.0
        watch = (lambda: memory_of(self.process)) if self.process else (lambda: 0.0)
        chats, most = asyncio.run(load(self.url, streams, each, model, watch))
        self.chats += chats
        self.grown = max(self.grown, most - before)
        self.seconds += (cpu_of(self.process) - spent) if self.process else 0.0

    @property
    def errors(self) -> int:
        "Answers that were not whole."
        return sum(chat.failed for chat in self.chats)

    @property
    def cost(self) -> float:
        "CPU seconds a token. The kernel counts in ticks: a run too short for one took at most that."
        return max(self.seconds, TICK) / max(sum(chat.tokens for chat in self.chats), 1)

    @property
    def first(self) -> float:
        "Seconds to the first token, in the middle."
        return statistics.median(chat.waited for chat in self.chats)

    @property
    def gap(self) -> float:
        "Seconds between two tokens that are exceeded once in twenty."
        gaps = sorted(gap for chat in self.chats for gap in chat.gaps)
        return gaps[int(0.95 * len(gaps))] if gaps else 0.0

    @property
    def whole(self) -> list[float]:
        "Seconds that each answer took."
        return [chat.ended - chat.began for chat in self.chats]

    @property
    def mean(self) -> float:
        "Seconds that an answer took."
        return statistics.mean(self.whole)


COSTS = ["", "µs of CPU a token", "tokens/s a core", "ms to the first token", "errors", "ratio"]
SEEN = ["", "of the direct rate", "ms added, first token", "ms added, gaps", "slowest", "MB a stream", "errors"]
DISTURBED = ["", "ms, longest pause", "ms to the others' token", "errors", "ratio"]
SHOWN = ["", "updates a second", "ms of CPU a second", "ms of CPU an update"]


def servers(stack: ExitStack, data: Path, model: str) -> list[Target]:
    "The model itself, the bare relay, and DocStral; warmed up."
    relay, at = stack.enter_context(serving([sys.executable, "-c", RELAY, model], environment(data), "listens at"))
    process, address = stack.enter_context(
        docstral(data, provider="openai", openai_url=model, openai_model="m", embedder="static")
    )
    direct = Target("the model itself", f"{model}/v1/chat/completions")
    targets = [direct, Target("bare relay", f"{at}/chat", relay), Target("DocStral", f"{address}/chat", process)]
    for target in targets[1:]:
        target.run(4, 2, FULL)
    return targets


def in_turn(targets: list[Target], streams: int, each: int, model: str, rounds: int) -> list[Target]:
    "All targets under the same load in turn, so that all see the same machine."
    found = [Target(target.name, target.url, target.process) for target in targets]
    for _ in range(rounds):
        for target in found:
            target.run(streams, each, model)
    return found


def at_full_speed(targets: list[Target], streams: list[int], rounds: int, answers: int) -> Iterator[list[Cell]]:
    "What a token costs: a row for each number of streams and each server."
    for count in streams:
        found = in_turn(targets[1:], count, max(2, answers // count), FULL, rounds)
        for each in found:
            figures = [each.cost * 1e6, 1 / each.cost, each.first * 1e3, each.errors, each.cost / found[0].cost]
            yield [f"{each.name}, {streamed(count)}", *figures]


def paced(targets: list[Target], streams: list[int], rounds: int) -> Iterator[list[Cell]]:
    "What a reader sees of tokens that take their time: a row for each number of streams and each server."
    for count in streams:
        direct, *found = in_turn(targets, count, 1, PACED if count <= 64 else SLOW, rounds)
        for each in found:
            rate, fair = direct.mean / each.mean, max(each.whole) / min(each.whole)
            added = [(each.first - direct.first) * 1e3, (each.gap - direct.gap) * 1e3]
            yield [f"{each.name}, {streamed(count)}", rate, *added, fair, each.grown / count, each.errors]


async def disturb(url: str, others: int) -> tuple[list[Chat], list[Chat]]:
    "Eight answers, and those of others who ask meanwhile, all at once."
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        running = [asyncio.ensure_future(ask(session, url, PACED)) for _ in range(8)]
        await asyncio.sleep(0.4)
        asked = await asyncio.gather(*(ask(session, url, ONE) for _ in range(others)))
        return await asyncio.gather(*running), list(asked)


def while_others_ask(targets: list[Target], others: int, rounds: int) -> Iterator[list[Cell]]:
    "What running answers feel of so many who ask at once: medians over the rounds, a row for each server."
    found: dict[str, list[tuple[float, float, int]]] = {target.name: [] for target in targets}
    for _ in range(rounds):
        for target in targets:
            running, asked = asyncio.run(disturb(target.url, others))
            pause = max((gap for chat in running for gap in chat.gaps), default=0.0)
            first = statistics.median(chat.waited for chat in asked)
            found[target.name].append((pause * 1e3, first * 1e3, sum(chat.failed for chat in running + asked)))
    baseline = statistics.median(pause for pause, _, _ in found[targets[0].name])
    for name, seen in found.items():
        pauses, firsts, errors = zip(*seen, strict=True)
        pause = statistics.median(pauses)
        yield [f"{name}, {others} others", pause, statistics.median(firsts), sum(errors), pause / baseline]


def streamed(count: int) -> str:
    "So many streams."
    return f"{count} stream{'s' * (count != 1)}"


async def browse(service: ChatService) -> tuple[int, float, float]:
    "The updates that a page gets of an answer, the seconds that it took, and the CPU seconds of this process."
    desk, reader = Desk(service), Reader("user_bench", "tab")
    began, spent, updates = time.perf_counter(), time.process_time(), 0
    asked = await ask_in_page(desk, reader, new_question(), "")
    async for _ in follow(desk, reader, asked["following"]):
        updates += 1
    return updates, time.perf_counter() - began, time.process_time() - spent


def in_the_page(data: Path, speed: int) -> list[Cell]:
    "The web chat while a model writes so many tokens a second, for about three seconds."
    words = [f" word{number}" + "\n\n" * (number % 40 == 39) for number in range(3 * speed)]
    with upstream(words, 1 / speed) as model:
        settings = Settings(data_dir=data, provider="openai", openai_url=model, openai_model="m", embedder="static")
        with open_store(settings) as store:
            service = ChatService(settings, store)
            service.load()

            async def watch() -> tuple[int, float, float]:
                try:
                    return await browse(service)
                finally:
                    await service.close()

            updates, seconds, spent = asyncio.run(watch())
    return [f"web chat, {speed:,} tokens/s", updates / seconds, spent / seconds * 1e3, spent / updates * 1e3]


def measure(streams: list[int], rounds: int, answers: int, speeds: list[int]) -> Iterator[Table]:
    "Three tables for the API, one for the web chat."
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with ExitStack() as stack:
            targets = servers(stack, data, stack.enter_context(upstream()))
            rows = list(at_full_speed(targets, streams, rounds, answers))
            yield Table("At full speed, 200 tokens an answer", COSTS, rows)
            yield Table("Paced, 100 tokens an answer", SEEN, list(paced(targets, streams, rounds)))
            others = min(max(streams), 64)
            rows = list(while_others_ask(targets[1:], others, 2 * rounds))
            yield Table("While others ask", DISTURBED, rows)
        yield Table("The web chat", SHOWN, [in_the_page(data, speed) for speed in speeds])


if __name__ == "__main__":
    main(__doc__, measure, streams=([1, 16, 64, 256], [1, 16], [2]), rounds=(3, 2, 1), answers=(48, 48, 4),
         speeds=([10, 200, 2000], [200], [200]))  # fmt: skip
