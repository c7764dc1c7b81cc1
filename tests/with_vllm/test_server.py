"A vLLM server that this test starts on this machine, asked through the chat service as any other server would be."

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from docstral.chat import ChatService, Question
from docstral.errors import ModelUnknownError, ProviderError, RequestRefusedError, TooLongError
from docstral.providers.base import Request
from docstral.settings import Settings
from docstral.types import Delta, Done, Event

ASKED = "How do I stream a chat completion?"
# `vllm serve` by its module: the command asks for a package named vllm, and the CPU build has another name
SERVE = ["-m", "vllm.entrypoints.openai.api_server", "--tokenizer-mode", "mistral", "--max-model-len", "4096"]
SERVE += ["--enforce-eager", "--served-model-name", "tiny", "--host", "127.0.0.1"]


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    "The address of a running server."
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "server.log"
    command = [sys.executable, *SERVE, "--port", str(port), "--model", str(model)]
    environ = os.environ | {"VLLM_NO_USAGE_STATS": "1"}
    environ.pop("VLLM_LOGGING_CONFIG_PATH", None)
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environ) as process:
        try:
            wait_for(f"{url}/health", process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    "Wait until the server answers, or fail with what it said."
    for _ in range(480):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.5)
    pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")


@pytest_asyncio.fixture(scope="module")
async def remote(server: str, service: ChatService) -> AsyncIterator[ChatService]:
    "A chat service that asks the server, with the index of the other one."
    settings = service.settings.but(provider="openai", openai_url=f"{server}/v1")
    remote = ChatService(settings, service.store)
    remote.search = service.search
    yield remote
    await remote.close()


def running(url: str) -> float:
    "Requests that the server's engine works on, as its own metrics say."
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:num_requests_running"))


async def comes_to(url: str, count: int) -> bool:
    "Whether the server comes to work on so many requests."
    for _ in range(200):
        if await asyncio.to_thread(running, url) == count:
            return True
        await asyncio.sleep(0.05)
    return False


async def failure_of(server: str, request: Request, **settings: object) -> ProviderError:
    "The error that a request gets."
    from docstral.providers.openai_compatible import OpenAIProvider

    provider = OpenAIProvider(Settings(openai_url=server).but(**settings))
    with pytest.raises(ProviderError) as failure:
        async for _ in provider.stream(request):
            pass
    await provider.close()
    return failure.value


async def test_a_server_streams_through_the_chat_service_and_reports_usage(remote: ChatService) -> None:
    events: list[Event] = [event async for event in remote.ask("visitor", Question(ASKED, max_tokens=24, seed=1))]
    done = events[-1]
    assert isinstance(done, Done), done
    assert sum(isinstance(event, Delta) for event in events) > 3
    receipt = done.receipt
    assert (receipt.provider, receipt.model) == ("openai", "tiny")  # the first model that it lists
    assert receipt.tokens_out == 24 and receipt.tokens_in > 300 and not receipt.tokens_estimated
    assert receipt.finish_reason == "length" and receipt.attempts == 1


async def test_leaving_aborts_the_request_in_the_server(remote: ChatService, server: str) -> None:
    events = remote.ask("visitor", Question(ASKED, max_tokens=3000))
    async for event in events:
        if isinstance(event, Delta):
            break
    assert await comes_to(server, 1)
    await events.aclose()
    assert await comes_to(server, 0)


async def test_its_errors_are_understood(server: str) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert isinstance(await failure_of(server, Request("Hi", messages, model="other")), ModelUnknownError)
    long = Request("Hi", [{"role": "user", "content": "word " * 6000}], model="tiny")
    assert isinstance(await failure_of(server, long), TooLongError)
    hot = await failure_of(server, Request("Hi", messages, model="tiny", temperature=-1))
    assert isinstance(hot, RequestRefusedError) and "temperature" in str(hot)
