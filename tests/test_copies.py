"Three copies of the app behind one proxy, under load: one is killed, and nothing that was acknowledged is lost."

import asyncio
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from helpers import ROOT, caddy, tool
from mistral_server import Gate, Reply, ScriptedMistral
from side_by_side import Copy, RoundRobin, Visitor

from docstral.chat import ChatService, Question
from docstral.chats import delete_chat, restore_chat
from docstral.errors import NotFoundError
from docstral.settings import Settings
from docstral.store import list_chats, list_messages, open_store
from docstral.types import Delta, Done

READERS = 30
SECONDS = 12.0  # of load; the copy dies in the middle
WORDS = [f"word{number} " for number in range(40)]


class Moment(Gate):
    "A pause of a few hundredths of a second, as between the tokens of a model."

    async def wait(self) -> None:
        await asyncio.sleep(0.04)


def written(body: Any) -> Reply:
    "An answer of one to two seconds that tells which question it answers."
    pieces: list[str | bytes | Gate] = [f"[1] To {question_of(body)}: "]
    for word in WORDS:
        pieces += [Moment(), word]
    return Reply([*pieces, "end."])


def question_of(body: Any) -> str:
    "The number of the question, which stands at its end."
    return str(body["messages"][-1]["content"].rsplit(maxsplit=1)[-1])


@pytest.fixture
def environment(
    plain_environment: dict[str, str], database_url: str, mistral: ScriptedMistral, pages: Path
) -> dict[str, str]:
    "The environment that all copies share."
    mistral.answer = written
    return plain_environment | {
        "DOCSTRAL_DATABASE_URL": database_url,
        "DOCSTRAL_DOCS": str(pages),
        "DOCSTRAL_MISTRAL_URL": mistral.url,
        "MISTRAL_API_KEY": "k",
    }


@pytest.fixture
def copies(environment: dict[str, str], tmp_path: Path) -> Iterator[list[Copy]]:
    "Three copies that started together. Those that a test adds end with it too."
    started = [Copy(environment, tmp_path / f"copy-{number}") for number in range(3)]
    try:
        yield [copy.ready() for copy in started] and started
    finally:
        for copy in started:
            copy.kill()


@pytest.fixture
def proxy(copies: list[Copy]) -> Iterator[RoundRobin]:
    "The address of all copies."
    with RoundRobin([copy.url for copy in copies]) as running:
        yield running


async def read_on(visitor: Visitor, number: int, until: float) -> None:
    "Ask one question after the other in one chat, or a new one where that did not come to be."
    turn = 0
    async with visitor.session() as client:
        while asyncio.get_running_loop().time() < until:
            turn += 1
            kept = [seen.chat_id for seen in visitor.seen if seen.done]
            wishes = {"chat_id": kept[-1]} if kept and turn % 3 else {}
            seen = await visitor.ask(client, f"How do I stream a chat completion? {number}.{turn}", **wishes)
            if seen.error in ("500", "404", "422"):
                return  # the test sees it


async def replace_in_the_middle(copies: list[Copy], proxy: RoundRobin, visitors: list[Visitor]) -> int:
    "Kill the first copy while it answers, and start another in its place. Returns how many answers were on their way."
    await asyncio.sleep(SECONDS / 3)
    on_their_way = sum(not seen.done and not seen.error for visitor in visitors for seen in visitor.seen)
    await asyncio.to_thread(copies[0].kill)
    copies.append(copies[0].again())
    proxy.copies[0] = (await asyncio.to_thread(copies[-1].ready)).url
    return on_their_way


async def test_a_copy_that_is_killed_under_load_loses_nothing_that_was_acknowledged(
    copies: list[Copy], proxy: RoundRobin
) -> None:
    visitors = [Visitor(proxy.url) for _ in range(READERS)]
    until = asyncio.get_running_loop().time() + SECONDS
    on_their_way, *_ = await asyncio.gather(
        replace_in_the_middle(copies, proxy, visitors),
        *(read_on(visitor, number, until) for number, visitor in enumerate(visitors)),
    )
    everything = [seen for visitor in visitors for seen in visitor.seen]
    cut = [seen for seen in everything if not seen.done]
    assert {seen.error for seen in cut} <= {"cut", "ClientPayloadError", "502", "ServerDisconnectedError"}, cut
    assert 0 < len(cut) < on_their_way, "those of the copy that died, and no others"
    assert len(everything) - len(cut) > READERS, "all others went on"
    for visitor in visitors:
        await compare(visitor)


async def compare(visitor: Visitor) -> None:
    "See that a visitor's chats hold what they were told, and nothing that is half."
    told = {seen.message_id: seen for seen in visitor.seen if seen.done}
    stored: dict[str, dict[str, Any]] = {}
    async with visitor.session() as client:
        async with client.get("/chats") as reply:
            chats = (await reply.json())["chats"]
        for chat in chats:
            async with client.get(f"/chat/{chat['id']}") as reply:
                messages = (await reply.json())["messages"]
            assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
            stored |= {message["id"]: message for message in messages if message["role"] == "assistant"}
    for message_id, seen in told.items():
        assert seen.done and stored[message_id]["content"] == seen.done["text"] == seen.text
    for message in stored.values():
        assert message["content"].endswith("end.") and message["outcome"] == "cited", "a half answer"


@pytest.fixture
async def two(
    database_url: str, pages: Path, mistral: ScriptedMistral, tmp_path: Path
) -> AsyncIterator[list[ChatService]]:
    "The chat services of two copies on one database."
    settings = Settings(docs=(pages,), database_url=database_url, mistral_url=mistral.url, mistral_api_key="k")
    services = []
    for name in ("one", "another"):
        own = settings.but(data_dir=tmp_path / name)
        services.append(ChatService(own, open_store(own)))
        services[-1].load()
    yield services
    for service in services:
        await service.close()
        service.store.close()


async def ask(service: ChatService, text: str, **wishes: Any) -> Done:
    "Ask one copy, and read to the end."
    events = [event async for event in service.ask("ada", Question(text, **wishes))]
    assert isinstance(events[-1], Done), events[-1]
    return events[-1]


def contents(service: ChatService, chat_id: str, replaced: bool = False) -> list[str]:
    "What stands in a chat, as a copy sees it."
    return [message.content for message in list_messages(service.store, "ada", chat_id, replaced)]


async def test_a_chat_goes_on_in_whichever_copy(two: list[ChatService], mistral: ScriptedMistral) -> None:
    one, another = two
    mistral.script(Reply(["First [1]."]), Reply(["Second [1]."]), Reply(["Anew [1]."]))
    first = await ask(one, "How do I stream a chat completion?")
    [chat] = list_chats(another.store, "ada")
    await ask(another, "And how do I know that the stream is finished?", chat_id=chat.id)
    sent = mistral.chats[-1].body["messages"]
    assert any(message["content"].startswith("First") for message in sent), "the other copy knows what was said"
    await ask(one, "How do I stream a chat?", chat_id=chat.id, replaces=first.message_id)
    assert contents(another, chat.id) == ["How do I stream a chat?", "Anew [1]."]
    assert len(contents(another, chat.id, replaced=True)) == 6
    delete_chat(another.store, "ada", chat.id)
    with pytest.raises(NotFoundError):
        await ask(one, "Are you there?", chat_id=chat.id)
    restore_chat(one.store, "ada", chat.id)
    assert contents(another, chat.id)[-1] == "Anew [1]."


async def test_an_answer_that_one_copy_stops_is_seen_as_stopped_in_the_other(
    two: list[ChatService], mistral: ScriptedMistral
) -> None:
    gate = Gate()
    mistral.script(Reply(["Half an answer", gate, "."]))
    async with aclosing(two[0].ask("ada", Question("How do I stream a chat completion?"))) as events:
        async for event in events:
            if isinstance(event, Delta):
                assert list_chats(two[1].store, "ada") == [], "nothing of it is there before its end"
                break
    gate.open()
    [chat] = list_chats(two[1].store, "ada")
    [_, answer] = list_messages(two[1].store, "ada", chat.id)
    assert (answer.outcome, answer.content) == ("stopped", "Half an answer")


async def test_turns_that_two_copies_write_at_once_are_all_kept_and_whole(
    two: list[ChatService], mistral: ScriptedMistral
) -> None:
    first = await ask(two[0], "How do I stream a chat completion?")
    [chat] = list_chats(two[0].store, "ada")
    questions = [f"How do I stream a chat completion, time {number}?" for number in range(12)]
    answers = await asyncio.gather(
        *(ask(two[number % 2], text, chat_id=chat.id) for number, text in enumerate(questions))
    )
    messages = list_messages(two[1].store, "ada", chat.id)
    assert sorted(message.content for message in messages[2::2]) == sorted(questions)
    assert {message.id for message in messages[1::2]} == {first.message_id, *(done.message_id for done in answers)}
    assert all(question.turn == answer.turn for question, answer in zip(messages[::2], messages[1::2], strict=True))
    await asyncio.gather(
        *(
            ask(service, f"Edited {n}: stream?", chat_id=chat.id, replaces=first.message_id)
            for n, service in enumerate(two)
        )
    )
    standing = list_messages(two[0].store, "ada", chat.id)
    assert standing[0].content in ("Edited 0: stream?", "Edited 1: stream?") and len(standing) == 2, (
        "one of them stands"
    )
    assert len(list_messages(two[0].store, "ada", chat.id, replaced=True)) == 2 * 15, "and nothing is lost"


class Named(BaseHTTPRequestHandler):
    "Answers with the name of its server."

    def do_POST(self) -> None:
        "Whatever is asked."
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "1")
        self.end_headers()
        self.wfile.write(self.server.server_name.encode())  # type: ignore[attr-defined]

    def log_message(self, *_: Any) -> None:
        "Say nothing."


@contextmanager
def named(name: str) -> Iterator[int]:
    "A server that answers with its name; yields its port."
    with ThreadingHTTPServer(("127.0.0.1", 0), Named) as server:
        server.server_name = name
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def test_the_real_proxy_keeps_a_page_with_one_copy_and_all_else_with_none(
    plain_environment: dict[str, str], tmp_path: Path
) -> None:
    with ExitStack() as running:
        servers = {name: ExitStack() for name in "ABC"}
        ports = {name: stack.enter_context(named(name)) for name, stack in servers.items()}
        for stack in servers.values():
            running.enter_context(stack)
        upstreams = " ".join(f"127.0.0.1:{port}" for port in ports.values())
        address = running.enter_context(caddy(plain_environment | {"DOCSTRAL_APP": f"to {upstreams}"}, tmp_path))

        def who(page: httpx2.Client, path: str) -> str:
            return page.post(path, content=b"{}").raise_for_status().text

        pages = [running.enter_context(httpx2.Client(base_url=address, trust_env=False)) for _ in range(12)]
        assert {who(pages[0], "/chat") for _ in range(6)} == set("ABC"), "the API needs no copy of its own"
        homes = [who(page, "/gradio_api/queue/join") for page in pages]
        assert len(set(homes)) > 1, "pages are spread over the copies"
        for page, home in zip(pages, homes, strict=True):
            assert {who(page, f"/gradio_api/{path}") for path in ("run/predict", "queue/data", "upload")} == {home}
        servers[homes[0]].close()
        after = [who(page, "/gradio_api/queue/join") for page in pages]
        assert homes[0] not in after, "another copy takes over"
        assert [new for new, old in zip(after, homes, strict=True) if old != homes[0]] == [
            old for old in homes if old != homes[0]
        ], "and the other pages stay where they are"
        assert homes[0] not in {who(pages[0], "/chat") for _ in range(6)}


def test_compose_runs_several_copies_behind_the_proxy_and_none_without_a_shared_database(
    plain_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "empty.env").touch()
    files = ["-f", "compose.yaml", "-f", "docker/copies.yaml"]

    def config(environment_file: Path, **own: str) -> subprocess.CompletedProcess[str]:
        command = [tool("docker-compose"), *files, "--env-file", str(environment_file), "config"]
        return subprocess.run(command, cwd=ROOT, env=plain_environment | own, capture_output=True, text=True)

    ran = config(ROOT / "docker" / "production.env", DOCSTRAL_COPIES="5")
    assert ran.returncode == 0, ran.stderr
    app = yaml.safe_load(ran.stdout)["services"]["app"]
    assert app["deploy"]["replicas"] == 5 and not app.get("ports"), "one port cannot be that of several"
    assert app["environment"]["DOCSTRAL_DATABASE_URL"].startswith("postgresql://")
    refused = config(tmp_path / "empty.env")
    assert refused.returncode and "the copies share a PostgreSQL server" in refused.stderr
