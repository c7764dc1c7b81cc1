"""Several copies of the app on one database, behind one address: what the test and the benchmark of copies share.

with RoundRobin() as proxy:
    proxy.copies = [copy.url for copy in copies]
    ...  # each request to proxy.url goes to the next copy
"""

import asyncio
import os
import queue
import subprocess
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson
from aiohttp import web
from helpers import DOCSTRAL, ROOT

PATIENCE = 90.0  # seconds for a copy to be ready: it may have to wait for another one to index
OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "content-length"}


class RoundRobin:
    """A reverse proxy on 127.0.0.1, in a thread: no request knows where the one before it went.

    A request that no copy has seen goes to the next one where a copy does not listen. Once it was sent, it is not sent
    again, and a copy that dies cuts its streams: what the usual proxies do too.
    """

    def __init__(self, copies: Sequence[str] = ()) -> None:
        self.copies = list(copies)  # addresses; may be changed at any time
        self.url, self.turned_away = "", 0  # connections that a copy did not accept
        self._next = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="round-robin")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._pass_on)
        runner = web.AppRunner(application, shutdown_timeout=0.2, handler_cancellation=True)
        connector = aiohttp.TCPConnector(
            limit=0, force_close=True
        )  # an idle one may be closed just as it is used again
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as self._client:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        "Send a request to the next copy that accepts it."
        body = await request.read()
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in OF_ONE_CONNECTION]
        for _ in range(len(self.copies)):
            self._next += 1
            url = self.copies[self._next % len(self.copies)] + request.raw_path
            try:
                async with self._client.request(
                    request.method, url, headers=headers, data=body or None, allow_redirects=False
                ) as reply:
                    return await self._pass_back(request, reply)
            except aiohttp.ClientConnectorError:
                self.turned_away += 1
            except aiohttp.ClientConnectionError:
                break  # the copy may have begun
        return web.Response(status=502, text="no copy answers")

    async def _pass_back(self, request: web.Request, reply: aiohttp.ClientResponse) -> web.StreamResponse:
        "Pass a reply on as it comes. Where it breaks off, so does this one."
        passed = web.StreamResponse(status=reply.status, reason=reply.reason)
        for name, value in reply.headers.items():
            if name.lower() not in OF_ONE_CONNECTION:
                passed.headers.add(name, value)
        await passed.prepare(request)
        try:
            async for data in reply.content.iter_any():
                await passed.write(data)
        except (aiohttp.ClientError, ConnectionError):
            if request.transport:
                request.transport.abort()
        return passed


class Copy:
    "One `docstral serve` in a process of its own, on a free port, ready to answer."

    def __init__(self, environment: Mapping[str, str], folder: Path, cores: Sequence[int] = ()) -> None:
        self.environment, self.folder = environment, folder
        folder.mkdir(parents=True, exist_ok=True)
        own = {"DOCSTRAL_DATA_DIR": str(folder), "DOCSTRAL_PORT": "0", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [*DOCSTRAL, "serve"],
            cwd=folder,
            env=dict(environment) | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf8",
        )
        if cores:
            os.sched_setaffinity(self.process.pid, cores)
        self.url, self.said = "", list[str]()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reading = threading.Thread(target=self._read, name="copy-output", daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as output:
            for line in output:
                self.said.append(line)
                self._lines.put(line)
        self._lines.put("")

    def ready(self) -> Self:
        "Wait until it answers."
        while line := self._lines.get(timeout=PATIENCE):
            if line.startswith("DocStral is ready at "):
                self.url = line.split()[4]
                return self
        raise AssertionError("the copy ended: " + "".join(self.said))

    def again(self) -> "Copy":
        "Start another one with its data folder."
        return Copy(self.environment, self.folder)

    def kill(self) -> None:
        "End it as a power cut would."
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reading.join(PATIENCE)


@dataclass
class Seen:
    "What a reader saw of one answer."

    chat_id: str = ""
    message_id: str = ""
    text: str = ""  # the deltas so far
    done: dict[str, Any] | None = None
    error: str = ""  # the code of an `error` event, an HTTP status, or how the connection ended


@dataclass
class Visitor:
    "Somebody with cookies of their own, who asks over HTTP."

    url: str
    seen: list[Seen] = field(default_factory=list)
    cookies: aiohttp.CookieJar = field(default_factory=lambda: aiohttp.CookieJar(unsafe=True))

    def session(self) -> aiohttp.ClientSession:
        "Connections with this visitor's cookies."
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        return aiohttp.ClientSession(base_url=self.url, cookie_jar=self.cookies, timeout=timeout)

    async def ask(self, client: aiohttp.ClientSession, message: str, **wishes: Any) -> Seen:
        "Ask, and read the answer to its end. What goes wrong is kept, not raised."
        seen = Seen()
        self.seen.append(seen)
        try:
            async with client.post("/chat", json={"message": message, **wishes}) as reply:
                if reply.status != 200:
                    seen.error = str(reply.status)
                    return seen
                async for name, data in read_stream(reply.content):
                    if name == "chat":
                        seen.chat_id, seen.message_id = data["chat_id"], data["message_id"]
                    elif name == "delta":
                        seen.text += data["text"]
                    elif name == "done":
                        seen.done = data
                    elif name == "error":
                        seen.error = data["code"]
                if not seen.done and not seen.error:
                    seen.error = "cut"
        except aiohttp.ClientError as error:
            seen.error = seen.error or type(error).__name__
        return seen


async def read_stream(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    "The whole events of a stream."
    name = ""
    async for line in content:
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif line.startswith(b"data: ") and line.endswith(b"\n"):
            yield name, orjson.loads(line[6:])
