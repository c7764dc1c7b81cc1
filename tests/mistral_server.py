"""A scripted Mistral API for the tests: real HTTP on 127.0.0.1, real server-sent events, nothing patched.

with ScriptedMistral() as mistral:
    mistral.script(Reply(["Set `stream` [", "1]."]), refusal(429, **{"retry-after": "7"}))
    ...  # the first request gets the first reply, the second one the second, all others `mistral.answer(body)`
    mistral.chats[0].body["messages"]
"""

import asyncio
import hashlib
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import orjson
from aiohttp import web

DEADLINE = 20.0  # seconds that a test waits for what should happen at once
MODELS = ("mistral-small-latest", "mistral-large-latest")


class Gate:
    "A point where an answer waits until the test opens it. Tests wait for it to be reached instead of sleeping."

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened: Future[None] = Future()

    async def wait(self) -> None:
        "The server's side."
        self._reached.set()
        await asyncio.shield(asyncio.wrap_future(self._opened))

    def reached(self) -> None:
        "Wait until the server stands before the gate."
        assert self._reached.wait(DEADLINE), "the answer never came to this gate"

    def open(self) -> None:
        "Let the answer go on. Opening twice does nothing."
        if not self._opened.done():
            self._opened.set_result(None)


@dataclass
class Reply:
    "What one request gets: a stream of pieces, or, with a `body`, that instead."

    pieces: Sequence[str | bytes | Gate] = ("Set `stream` to ", "true [1].")  # bytes are sent as they stand
    usage: tuple[int, int] | None = (120, 9)  # tokens in and out, in the last event
    finish_reason: str | None = "stop"
    ending: Literal["done", "end", "drop", "stall"] = "done"  # "end": no [DONE]; "drop": the connection is cut
    write_size: int = 0  # bytes a write, so that events and characters are cut in the middle; 0: whole events
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"


def refusal(status: int, message: str = "", **headers: str) -> Reply:
    "An error reply in the shape of the Mistral API."
    body = orjson.dumps({"object": "error", "message": message}) if message else b""
    return Reply(status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def event(delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    "One server-sent event of a chat completion."
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = {"id": "cmpl-1", "object": "chat.completion.chunk", "model": MODELS[0], "choices": [choice], **more}
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


@dataclass(frozen=True)
class Seen:
    "A request as it arrived."

    path: str
    headers: Mapping[str, str]
    body: Any
    data: bytes = b""  # the same, as it came


def vector_of(text: str) -> list[float]:
    "1,024 numbers that are near for texts with the same words."
    vector = np.zeros(1024)
    for word in re.findall(r"\w+", text.lower()):
        vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % 1024] += 1
    return [float(number) for number in vector / (np.linalg.norm(vector) or 1)]


class ScriptedMistral:
    "The server. Its attributes may be read and its replies added from any thread."

    def __init__(self, path: str = "/v1/chat/completions") -> None:
        self.path = path  # of the chat completions
        self.url = ""
        self.answer: Callable[[Any], Reply] = lambda body: Reply()
        self.requests: list[Seen] = []
        self.disconnects = 0  # clients that went away before their answer had ended
        self.active = 0  # requests that are being answered
        self._replies: deque[Reply] = deque()
        self._embedding_replies: deque[Reply] = deque()
        self._model_replies: deque[Reply] = deque()
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._never = Gate()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="scripted-mistral")

    def script(self, *replies: Reply) -> None:
        "Add replies for the next chat completions."
        self._replies.extend(replies)

    def script_embeddings(self, *replies: Reply) -> None:
        "Add replies for the next requests for embeddings; without one they get real vectors."
        self._embedding_replies.extend(replies)

    def script_models(self, *replies: Reply) -> None:
        "Add replies for the next requests for the list of models."
        self._model_replies.extend(replies)

    @property
    def chats(self) -> list[Seen]:
        "The chat completions asked for."
        return [seen for seen in self.requests if seen.path == self.path]

    @property
    def embeddings(self) -> list[Seen]:
        "The embeddings asked for."
        return [seen for seen in self.requests if seen.path == "/v1/embeddings"]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        "Wait until something about the requests is so."
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE), f"{self.disconnects=} {self.active=} {self.requests=}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(DEADLINE)
        return self

    def __exit__(self, *exception: object) -> None:
        self._never.open()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application()
        application.router.add_post(self.path, self._chat)
        application.router.add_post("/v1/embeddings", self._embed)
        application.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(application, shutdown_timeout=0.2, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def _change(self, **by: int) -> None:
        "Count, and wake those who wait for it."
        with self._changed:
            for name, number in by.items():
                setattr(self, name, getattr(self, name) + number)
            self._changed.notify_all()

    async def _note(self, request: web.Request) -> Any:
        "Record a request; returns its body."
        data = await request.read()
        body = orjson.loads(data) if data else None
        self.requests.append(
            Seen(request.path, {name.lower(): value for name, value in request.headers.items()}, body, data)
        )
        self._change()
        return body

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._note(request)
        reply = self._replies.popleft() if self._replies else self.answer(body)
        self._change(active=1)
        try:
            if reply.body is not None:
                return web.Response(
                    body=reply.body, status=reply.status, headers=reply.headers, content_type=reply.content_type
                )
            return await self._stream(request, reply)
        except (asyncio.CancelledError, ConnectionError):
            self._change(disconnects=1)
            raise
        finally:
            self._change(active=-1)

    async def _stream(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **reply.headers})
        await response.prepare(request)

        async def send(data: bytes) -> None:
            size = reply.write_size or len(data)
            for at in range(0, len(data), size):
                await response.write(data[at : at + size])

        await send(event({"role": "assistant", "content": ""}))
        for piece in reply.pieces:
            if isinstance(piece, Gate):
                await piece.wait()
            else:
                await send(piece if isinstance(piece, bytes) else event({"content": piece}))
        if reply.ending == "drop" and request.transport:
            request.transport.abort()
        elif reply.ending == "stall":
            await self._never.wait()
        else:
            names = ("prompt_tokens", "completion_tokens")
            usage = {"usage": dict(zip(names, reply.usage, strict=True))} if reply.usage else {}
            if reply.finish_reason:
                await send(event({"content": ""}, reply.finish_reason, **usage))
            if reply.ending == "done":
                await send(b"data: [DONE]\n\n")
        return response

    async def _embed(self, request: web.Request) -> web.Response:
        body = await self._note(request)
        if self._embedding_replies:
            reply = self._embedding_replies.popleft()
            return web.Response(
                body=reply.body, status=reply.status, headers=reply.headers, content_type=reply.content_type
            )
        if extra := set(body) - {"model", "input", "inputs", "encoding_format", "output_dimension", "output_dtype"}:
            return web.json_response({"detail": [{"loc": sorted(extra), "msg": "Extra inputs"}]}, status=422)
        texts = body.get("input", body.get("inputs"))
        rows = [{"object": "embedding", "index": n, "embedding": vector_of(text)} for n, text in enumerate(texts)]
        usage = {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}
        return web.json_response(
            {"id": "embd-1", "object": "list", "model": body["model"], "usage": usage, "data": rows[::-1]}
        )

    async def _models(self, request: web.Request) -> web.Response:
        await self._note(request)
        if self._model_replies:
            reply = self._model_replies.popleft()
            return web.Response(
                body=reply.body, status=reply.status, headers=reply.headers, content_type=reply.content_type
            )
        return web.json_response({"object": "list", "data": [{"id": model, "object": "model"} for model in MODELS]})
