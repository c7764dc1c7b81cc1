"The official client of the Model Context Protocol against the app and against `docstral mcp`."

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from helpers import DEADLINE, DOCSTRAL, ROOT, Live, docstral
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mistral_server import Gate, Reply, ScriptedMistral, refusal

from docstral import mcp as module
from docstral.chat import ChatService
from docstral.errors import SettingsError
from docstral.mcp import make_server
from docstral.serve import create_app
from docstral.settings import Settings
from docstral.store import Store

STREAM = "How do I stream a chat completion?"


@asynccontextmanager
async def connect(url: str, **headers: str) -> AsyncIterator[Client]:
    "A client of a running app."
    async with (
        httpx2.AsyncClient(trust_env=False, headers=headers, timeout=30) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        yield client


def text_of(result: Any) -> str:
    "What a tool says to the model."
    return str(result.content[0].text)


async def test_an_assistant_searches_and_asks_over_http(live: str, store: Store) -> None:
    async with connect(live) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        found = await client.call_tool("search_docs", {"question": "rate limits", "k": 2})
        answer = await client.call_tool("ask_docs", {"question": STREAM})
    assert set(tools) == {"search_docs", "ask_docs"} and all(tool.description for tool in tools.values())
    assert tools["search_docs"].output_schema["properties"]["passages"]["type"] == "array"
    passages = found.structured_content["passages"]
    assert passages[0]["title"] == "Errors and rate limits" and passages[0]["text"] in text_of(found)
    cited = answer.structured_content
    assert cited["outcome"] == "cited" and cited["answer"] in text_of(answer)
    first = next(source for source in cited["sources"] if source["id"] == cited["citations"][0]["source_id"])
    assert f"[1] {first['title']}" in text_of(answer) and first["url"] in text_of(answer)
    assert store.read("SELECT count(*) FROM chats") == [(0,)]


async def test_the_key_in_the_header_writes_the_answer(live: str, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["From the model [", "1]."]))
    async with connect(live, **{"x-mistral-api-key": "visitor-key"}) as client:
        answer = await client.call_tool("ask_docs", {"question": STREAM})
    assert answer.structured_content["answer"] == "From the model [1]."
    assert mistral.chats[0].headers["authorization"] == "Bearer visitor-key"


async def test_what_goes_wrong_is_told_to_the_assistant(live: str, mistral: ScriptedMistral) -> None:
    mistral.script(refusal(401, "Unauthorized"))
    async with connect(live, **{"x-mistral-api-key": "wrong-key"}) as client:
        refused = await client.call_tool("ask_docs", {"question": STREAM})
        empty = await client.call_tool("search_docs", {"question": " "})
        wrong = await client.call_tool("search_docs", {"question": "x", "k": 500})
    assert refused.is_error and "key" in text_of(refused) and "wrong-key" not in text_of(refused)
    assert empty.is_error and "empty" in text_of(empty)
    assert wrong.is_error and "k" in text_of(wrong)


async def test_a_page_of_another_site_does_not_reach_the_tools(live: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
    async with httpx2.AsyncClient(base_url=live, trust_env=False) as client:
        own = await client.post("/mcp", json=body, headers=accept)
        other = await client.post("/mcp", json=body, headers=accept | {"host": "evil.example"})
        page = await client.post("/mcp", json=body, headers=accept | {"origin": "https://evil.example"})
    assert own.status_code == 200 and "search_docs" in own.text and "set-cookie" not in own.headers
    assert other.status_code in (403, 421) and page.status_code == 403


async def test_an_assistant_starts_it_as_a_program(
    pages: Path, indexed: Path, tmp_path: Path, plain_environment: dict[str, str]
) -> None:
    environment = plain_environment | {"PYTHONPATH": str(ROOT)}
    program = StdioServerParameters(
        command=sys.executable, args=[*DOCSTRAL[1:], "mcp", "--docs", str(pages)], env=environment, cwd=str(tmp_path)
    )
    async with Client(stdio_client(program)) as client:
        found = await client.call_tool("search_docs", {"question": "vector of a text", "k": 1})
        answer = await client.call_tool("ask_docs", {"question": STREAM})
    assert found.structured_content["passages"][0]["title"] == "Embed texts"
    assert answer.structured_content["receipt"]["provider"] == "extractive" and "[1]" in text_of(answer)


def test_a_data_folder_in_use_is_said_before_the_protocol_begins(
    store: Store, settings: Settings, tmp_path: Path, plain_environment: dict[str, str]
) -> None:
    environment = plain_environment | {"DOCSTRAL_DATA_DIR": str(settings.data_dir)}
    ran = docstral("mcp", environment=environment, folder=tmp_path)
    assert ran.returncode and "in use" in ran.stderr and ran.stdout == ""


async def test_the_app_does_without_the_package(service: ChatService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="not installed") as error:
        make_server(service)
    assert "docstral[mcp]" in error.value.action
    loaded = threading.Event()
    with Live(create_app(service, lambda error: loaded.set(), web=False)) as server:
        assert await asyncio.to_thread(loaded.wait, DEADLINE)
        async with httpx2.AsyncClient(base_url=server.url, trust_env=False) as client:
            assert (await client.post("/mcp", json={})).status_code == 404
            assert (await client.get("/chats")).status_code == 200


async def test_an_assistant_that_gives_up_stops_the_answer(live: str, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply([gate, "Words."]))
    async with connect(live, **{"x-mistral-api-key": "k"}) as client:
        asking = asyncio.create_task(client.call_tool("ask_docs", {"question": STREAM}))
        await asyncio.to_thread(gate.reached)
        asking.cancel()
        await asyncio.to_thread(mistral.wait_until, lambda: mistral.disconnects == 1 and mistral.active == 0)
