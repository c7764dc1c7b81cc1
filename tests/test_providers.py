"Providers against a scripted API over real HTTP: each failure has its code, in time, and nothing leaks."

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import orjson
import pytest
from mistral_server import Gate, Reply, ScriptedMistral, event, refusal

from docstral.embed import MistralEmbedder
from docstral.errors import KeyMissingError, ProviderError, ProviderTimeoutError, QuestionError
from docstral.providers import stream
from docstral.providers.base import PROVIDERS, Finished, Request, Sent, Text, Usage, choose_provider, make_provider
from docstral.providers.mistral import MistralProvider
from docstral.settings import Settings
from docstral.types import Message

KEY = "sk-secret-0123456789"
DEADLINE = 15.0  # seconds: generous, since the limits set below are well under one
REQUEST = Request("How?", [Message(role="user", content="How?")])


@pytest.fixture
def settings(mistral: ScriptedMistral) -> Settings:
    "Settings with a key and short limits."
    return Settings(
        mistral_url=mistral.url,
        mistral_api_key=KEY,
        request_timeout=10,
        first_token_timeout=0.4,
        stall_timeout=0.4,
    )


@pytest.fixture
async def provider(settings: Settings, mistral: ScriptedMistral) -> AsyncIterator[MistralProvider]:
    "The Mistral provider. When it is closed, no request of its may go on."
    made = MistralProvider(settings)
    yield made
    await made.close()
    await asyncio.to_thread(mistral.wait_until, lambda: mistral.active == 0)


async def answer(provider: MistralProvider, request: Request = REQUEST) -> tuple[str, ProviderError | None]:
    "The text of an answer, and the error that ended it, if any."
    text = ""
    try:
        async with asyncio.timeout(DEADLINE), aclosing(provider.stream(request)) as events:
            async for each in events:
                text += each.text if isinstance(each, Text) else ""
    except ProviderError as error:
        return text, error
    return text, None


FAILURES = {
    "key refused": (refusal(401, "Unauthorized"), "", "bad_key"),
    "rate limit": (refusal(429, "Slow down", retry_after="7"), "", "rate_limited"),
    "no quota": (refusal(429, "No quota", x_ratelimit_limit_req_minute="0"), "", "no_quota"),
    "unknown model": (refusal(400, "Invalid model: nope"), "", "unknown_model"),
    "refused": (refusal(422, "temperature too high"), "", "refused_request"),
    "server error": (refusal(500), "", "upstream_error"),
    "overloaded": (refusal(503, "Overloaded"), "", "overloaded"),
    "error page": (Reply(status=502, body=b"<html>Bad gateway</html>", content_type="text/html"), "", "upstream_error"),
    "page": (Reply(body=b"<html>Welcome</html>", content_type="text/html"), "", "not_an_api"),
    "whole JSON": (Reply(body=b'{"choices": []}'), "", "not_an_api"),
    "redirect": (Reply(status=307, body=b"", headers={"location": "http://127.0.0.1:9/"}), "", "not_an_api"),
    "error in the stream": (
        Reply(["So ", b'data: {"object": "error", "message": "overloaded"}\n\n']),
        "So ",
        "broken_off",
    ),
    "other error in the stream": (Reply(["So ", b'data: {"error": {"message": "no"}}\n\n']), "So ", "broken_off"),
    "malformed event": (Reply(["So ", b"data: {not json}\n\n"]), "So ", "malformed"),
    "event of a wrong shape": (Reply(["So ", b'data: {"choices": [1]}\n\n']), "So ", "malformed"),
    "endless event": (Reply(["So ", b"data: " + b"x" * 1_200_000]), "So ", "malformed"),
    "empty answer": (Reply([]), "", "empty_answer"),
    "no finish reason": (Reply(["So "], finish_reason=None, ending="end"), "So ", "incomplete"),
    "done without a finish reason": (Reply(["So "], finish_reason=None), "So ", "incomplete"),
    "dropped": (Reply(["So "], ending="drop"), "So ", "connection_lost"),
    "dropped at once": (Reply([], ending="drop"), "", "connection_lost"),
    "silent from the start": (Reply([], ending="stall"), "", "slow_start"),
    "silent in the middle": (Reply(["So "], ending="stall"), "So ", "stalled"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_has_its_code_and_keeps_the_text_before_it(
    name: str, provider: MistralProvider, mistral: ScriptedMistral
) -> None:
    reply, text, code = FAILURES[name]
    mistral.script(reply)
    shown, error = await answer(provider)
    assert error and (shown, error.code) == (text, code)
    assert str(error).endswith(".") and error.action and KEY not in f"{error} {error.action}"
    assert len(mistral.requests) == 1  # sent once: trying again is the caller's decision
    assert (await answer(provider)) == ("Set `stream` to true [1].", None)  # and the next one works


async def test_the_seconds_to_wait_are_told(provider: MistralProvider, mistral: ScriptedMistral) -> None:
    mistral.script(refusal(429, "Slow down", retry_after="7"))
    _, error = await answer(provider)
    assert error and error.retryable and error.retry_after == 7


@pytest.mark.parametrize(
    "reply",
    [
        refusal(401, f"Invalid key {KEY}"),
        refusal(500, f"Failed for {KEY}"),
        Reply([b'data: {"object": "error", "message": "bad key ' + KEY.encode() + b'"}\n\n']),
    ],
    ids=["refusal", "failure", "in the stream"],
)
async def test_a_key_that_the_server_repeats_is_not_shown(
    reply: Reply, provider: MistralProvider, mistral: ScriptedMistral
) -> None:
    mistral.script(reply)
    _, error = await answer(provider)
    assert error and KEY not in str(error)


@pytest.mark.parametrize(
    "reply",
    [f"HTTP/1.1 {KEY}", f"{KEY}", "HTTP/1.1 200 OK", f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n"],
    ids=["status", "no status", "half a reply", "header"],
)
async def test_a_key_in_what_is_no_http_is_not_shown(reply: str, settings: Settings) -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"{reply}\r\n".encode())
        writer.close()

    async with await asyncio.start_server(repeat, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        provider = MistralProvider(settings.but(mistral_url=f"http://127.0.0.1:{port}"))
        _, error = await answer(provider)
        await provider.close()
    assert error and error.code == "unreachable" and KEY not in str(error) and "Raw" not in str(error)


async def test_silence_ends_in_time(provider: MistralProvider, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["So "], ending="stall"))
    began = time.monotonic()
    _, error = await answer(provider)
    assert error and "0.4 s" in str(error) and time.monotonic() - began < DEADLINE / 2
    await asyncio.to_thread(mistral.wait_until, lambda: mistral.disconnects == 1)


async def test_a_whole_answer_has_its_own_limit(mistral: ScriptedMistral, settings: Settings) -> None:
    provider = MistralProvider(settings.but(request_timeout=0.5, stall_timeout=30, first_token_timeout=30))
    mistral.script(Reply(["So "], ending="stall"))
    text, error = await answer(provider)
    await provider.close()
    assert text == "So " and error and error.code == "timeout" and "0.5 s" in str(error)


async def test_nobody_listening_is_unreachable(settings: Settings) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but not listening
        provider = MistralProvider(settings.but(mistral_url=f"http://127.0.0.1:{closed.getsockname()[1]}"))
        _, error = await answer(provider)
        await provider.close()
    assert error and error.code == "unreachable" and "DOCSTRAL_MISTRAL_URL" in error.action


async def test_no_secure_connection_is_told_from_no_connection(settings: Settings, mistral: ScriptedMistral) -> None:
    provider = MistralProvider(settings.but(mistral_url=mistral.url.replace("http:", "https:")))  # it speaks no TLS
    _, error = await answer(provider)
    await provider.close()
    assert error and error.code == "tls" and not error.retryable and mistral.requests == []


@pytest.mark.parametrize("address", ["", "http://.", "http://" + "x" * 300, "http://a..b", "http://%zz"])
async def test_an_address_that_no_server_can_have_is_unreachable(settings: Settings, address: str) -> None:
    provider = MistralProvider(settings.but(mistral_url=address))
    _, error = await answer(provider)
    await provider.close()
    assert error and error.code == "unreachable"


async def test_a_refusal_that_arrives_in_pieces_keeps_its_words(settings: Settings) -> None:
    body = orjson.dumps({"message": "Context is too long"})
    done = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        with suppress(ConnectionError):
            writer.write(head.encode() + body[:10])
            await writer.drain()
            await asyncio.sleep(0.2)  # a slow server
            writer.write(body[10:])
            writer.close()
            await writer.wait_closed()
        done.set()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        provider = MistralProvider(settings.but(mistral_url=address, stall_timeout=5, first_token_timeout=5))
        _, error = await answer(provider)
        await done.wait()
        await provider.close()
    assert error and "Context is too long" in str(error)


async def test_a_whole_answer_does_not_wait_for_a_server_that_only_keeps_the_connection_alive(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LINGER", 0.3)
    left = asyncio.Event()

    async def write(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        writer.write(event({"content": "Whole."}) + event({}, "stop"))
        with suppress(ConnectionError):
            while True:
                writer.write(b": ping\n\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        left.set()

    async with await asyncio.start_server(write, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        provider = MistralProvider(settings.but(mistral_url=address, request_timeout=DEADLINE))
        assert await answer(provider) == ("Whole.", None)
        await provider.close()
        await left.wait()


@pytest.mark.parametrize("write_size", [0, 1, 2, 7, 64])
async def test_events_and_characters_may_be_cut_anywhere(
    write_size: int, provider: MistralProvider, mistral: ScriptedMistral
) -> None:
    pieces = ["Clé ", "d’API ", "🔑", " 日本語 [", "1", "].\n"]
    mistral.script(Reply(pieces, write_size=write_size))
    assert await answer(provider) == ("".join(pieces), None)


async def test_usage_and_the_reason_of_the_end_are_passed_on(
    provider: MistralProvider, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["So."], usage=(321, 45), finish_reason="length"))
    events = [each async for each in provider.stream(REQUEST)]
    assert events[1:] == [Text("So."), Finished("length"), Usage(321, 45)]


@pytest.mark.parametrize("usage", [1, "x", [1], {"prompt_tokens": "12"}, {"completion_tokens": {}}])
async def test_a_usage_that_is_none_costs_no_answer(
    usage: object, provider: MistralProvider, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["So.", event({}, usage=usage)], usage=None))
    assert await answer(provider) == ("So.", None)


async def test_what_is_sent_is_told_before_it_goes_and_without_the_key(
    provider: MistralProvider, mistral: ScriptedMistral
) -> None:
    events = [each async for each in provider.stream(REQUEST)]
    assert isinstance(events[0], Sent) and sum(isinstance(each, Sent) for each in events) == 1
    assert (
        events[0].url == f"{mistral.url}/v1/chat/completions" and orjson.loads(events[0].body) == mistral.chats[0].body
    )
    assert KEY.encode() not in events[0].body


async def test_content_in_chunks_comments_and_unknown_fields_are_read(
    provider: MistralProvider, mistral: ScriptedMistral
) -> None:
    chunks = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "So"}]
    odd = b": a comment\n\nevent: message\nid: 1\nretry: 10\n"
    mistral.script(Reply([odd + event({"content": chunks, "new": 1}), event({"content": None}), b"\r\n", " it is."]))
    assert await answer(provider) == ("So it is.", None)


async def test_a_request_says_what_was_wished_and_no_more(provider: MistralProvider, mistral: ScriptedMistral) -> None:
    wishes = {"model": "mistral-large-latest", "temperature": 0.0, "max_tokens": 50, "seed": 7}
    await answer(provider, Request("How?", REQUEST.messages, **wishes))
    await answer(provider)
    first, second = (seen.body for seen in mistral.chats)
    messages = [{"role": "user", "content": "How?"}]
    assert first == {
        "model": "mistral-large-latest",
        "messages": messages,
        "stream": True,
        "temperature": 0.0,
        "max_tokens": 50,
        "random_seed": 7,
    }
    assert second == {"model": "mistral-small-latest", "messages": messages, "stream": True}


async def test_the_key_of_a_request_wins_over_the_settings(provider: MistralProvider, mistral: ScriptedMistral) -> None:
    await answer(provider, Request("How?", REQUEST.messages, api_key="visitors-key"))
    await answer(provider)
    assert [seen.headers["authorization"] for seen in mistral.chats] == ["Bearer visitors-key", f"Bearer {KEY}"]


async def test_without_a_key_nothing_is_sent(
    settings: Settings, mistral: ScriptedMistral, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "the-environments-key")
    provider = MistralProvider(settings.but(mistral_api_key=""))
    with pytest.raises(KeyMissingError):
        provider.stream(REQUEST)
    with pytest.raises(KeyMissingError):
        MistralEmbedder(settings.but(mistral_api_key=""))
    assert mistral.requests == []


async def test_a_password_file_of_the_user_does_not_replace_the_key(
    provider: MistralProvider, mistral: ScriptedMistral, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password lovelace\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETRC", os.fspath(netrc))
        assert (await answer(provider))[1] is None
    assert mistral.chats[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["clé", "two words", "line\nbreak", "tab\tin", "nul\0"])
async def test_a_key_that_no_key_looks_like_is_refused_here(
    key: str, provider: MistralProvider, mistral: ScriptedMistral
) -> None:
    with pytest.raises(ProviderError) as error:
        await anext(provider.stream(Request("How?", REQUEST.messages, api_key=key)))
    assert error.value.code == "bad_key" and key not in str(error.value)
    assert mistral.requests == []


def test_a_request_does_not_show_its_key() -> None:
    assert "visitors-key" not in repr(Request("How?", [], api_key="visitors-key"))


async def test_closing_the_stream_stops_the_server(provider: MistralProvider, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply(["So ", gate, "never"]))
    events = provider.stream(REQUEST)
    assert isinstance(await anext(events), Sent) and await anext(events) == Text("So ")
    await events.aclose()
    await asyncio.to_thread(mistral.wait_until, lambda: mistral.disconnects == 1 and mistral.active == 0)
    gate.open()


async def test_cancelling_stops_the_server(provider: MistralProvider, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply([gate]))
    asking = asyncio.create_task(answer(provider))
    await asyncio.to_thread(gate.reached)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.to_thread(mistral.wait_until, lambda: mistral.disconnects == 1 and mistral.active == 0)
    gate.open()


async def test_many_answers_at_once_do_not_mix(provider: MistralProvider, mistral: ScriptedMistral) -> None:
    mistral.answer = lambda body: Reply([f"{body['messages'][0]['content']}:", *"abc"])
    requests = [Request("", [Message(role="user", content=str(number))]) for number in range(30)]
    answers = await asyncio.gather(*(answer(provider, request) for request in requests))
    assert answers == [(f"{number}:abc", None) for number in range(30)]


@pytest.mark.parametrize(
    ("setting", "wanted", "key", "chosen"),
    [
        ("auto", None, "", "extractive"),
        ("auto", None, "visitors-key", "mistral"),
        ("extractive", None, "", "extractive"),
        ("extractive", "auto", "visitors-key", "mistral"),
        ("auto", "extractive", "visitors-key", "extractive"),
    ],
)
def test_who_answers(setting: str, wanted: str | None, key: str, chosen: str) -> None:
    assert choose_provider(Settings(provider=setting), wanted, key) == chosen


def test_mistral_without_a_key_says_what_to_do() -> None:
    with pytest.raises(KeyMissingError) as error:
        choose_provider(Settings(provider="mistral"))
    assert "MISTRAL_API_KEY" in error.value.action


def test_an_unknown_provider_is_told_the_known_ones() -> None:
    with pytest.raises(QuestionError) as error:
        make_provider("nonsense", Settings())
    assert all(name in error.value.action for name in PROVIDERS)


EMBEDDING_FAILURES = {
    "key refused": (refusal(401, "Unauthorized"), "bad_key"),
    "rate limit": (refusal(429, "Slow down", retry_after="7"), "rate_limited"),
    "server error": (refusal(500), "upstream_error"),
    "page": (Reply(body=b"<html></html>", content_type="text/html"), "upstream_error"),
    "too few": (Reply(body=b'{"id": "x", "object": "list", "model": "m", "data": []}'), "upstream_error"),
}


@pytest.mark.parametrize("name", EMBEDDING_FAILURES)
def test_embeddings_that_fail_have_a_code(name: str, settings: Settings, mistral: ScriptedMistral) -> None:
    reply, code = EMBEDDING_FAILURES[name]
    mistral.script_embeddings(reply)
    with pytest.raises(ProviderError) as error:
        MistralEmbedder(settings).embed(["text"])
    assert error.value.code == code and KEY not in str(error.value)
    assert len(mistral.embeddings) == 1


def test_embeddings_come_in_the_order_of_the_texts(settings: Settings, mistral: ScriptedMistral) -> None:
    first, second, third = MistralEmbedder(settings).embed(["stream a chat", "prices", "stream a chat"])
    assert first.shape == (1024,) and (first == third).all() and (first != second).any()
    assert abs(float(first @ first) - 1) < 1e-5
    assert mistral.embeddings[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_server_that_never_stops_sending_is_cut_at_the_limit(
    settings: Settings, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply([b"".join(event({"content": "flood "}) for _ in range(300))] * 10_000))
    hasty = MistralProvider(settings.but(request_timeout=0.5))
    text, error = await answer(hasty)
    await hasty.close()
    assert text.startswith("flood flood") and isinstance(error, ProviderTimeoutError), error


async def test_texts_that_arrive_together_go_on_as_one_in_their_order(
    provider: MistralProvider, mistral: ScriptedMistral
) -> None:
    words = [f"word{number} " for number in range(200)]
    mistral.script(Reply([b"".join(event({"content": word}) for word in words), "end."], usage=(7, 201)))
    events = [each async for each in provider.stream(REQUEST)]
    texts = [each.text for each in events if isinstance(each, Text)]
    assert "".join(texts) == "".join(words) + "end." and len(texts) < 100
    assert events[-2:] == [Finished("stop"), Usage(7, 201)]


async def test_text_that_arrives_with_an_error_comes_before_it(
    provider: MistralProvider, mistral: ScriptedMistral
) -> None:
    broken = b'data: {"object": "error", "message": "overloaded"}\n\n'
    mistral.script(Reply([event({"content": "So "}) + event({"content": "far"}) + broken + event({"content": "no"})]))
    text, error = await answer(provider)
    assert text == "So far" and error and error.code == "broken_off"
