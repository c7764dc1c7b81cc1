"OpenAI's own client against the endpoint that speaks its protocol: answers, streams, errors, keys, hanging up."

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import orjson
import pytest
from helpers import DEADLINE
from mistral_server import MODELS, Gate, Reply, ScriptedMistral, refusal

from docstral.api.openai import NO_KEY, SentMessage, conversation
from docstral.errors import QuestionError
from docstral.store import Store

STREAM = "How do I stream a chat completion?"
ASKED: list[Any] = [{"role": "user", "content": STREAM}]


@pytest.fixture
def connect(live: str) -> Iterator[Any]:
    "Makes clients with a key."
    made: list[openai.OpenAI] = []

    def client(key: str = "none") -> openai.OpenAI:
        http = openai.DefaultHttpxClient(trust_env=False)
        made.append(openai.OpenAI(base_url=f"{live}/v1", api_key=key, max_retries=0, http_client=http))
        return made[-1]

    yield client
    for each in made:
        each.close()


def test_a_whole_answer_with_its_sources(connect: Any, store: Store) -> None:
    answer = connect().chat.completions.create(model="docstral", messages=ASKED)
    text, more = answer.choices[0].message.content, answer.model_extra["docstral"]
    assert answer.object == "chat.completion" and answer.choices[0].finish_reason == "stop"
    assert "[1]" in text and more["outcome"] == "cited"
    source = next(each for each in more["sources"] if each["id"] == more["citations"][0]["source_id"])
    assert source["title"] == "Stream a chat completion" and source["url"].startswith(
        "https://docs.example.org/streaming"
    )
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert store.read("SELECT count(*) FROM chats") == store.read("SELECT count(*) FROM messages") == [(0,)]
    store.flush()
    assert store.read("SELECT count(*) FROM requests") == [(1,)]  # counted all the same


def test_a_stream_is_the_same_answer_in_pieces(connect: Any, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["Set `stream` [", "1]", ". Done."]), Reply(["Set `stream` [1]. Done."]))
    client = connect("visitor-key")
    usage = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="docstral", messages=ASKED, stream=True, stream_options=usage))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[1].model_extra["docstral"]["sources"]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == client.chat.completions.create(model="docstral", messages=ASKED).choices[0].message.content
    *_, last, total = chunks
    assert last.choices[0].finish_reason == "stop" and last.model_extra["docstral"]["citations"][0]["n"] == 1
    assert total.choices == [] and total.usage.prompt_tokens == 120 and total.usage.completion_tokens == 9
    assert len({chunk.id for chunk in chunks}) == 1


def test_without_the_wish_no_usage_is_streamed(connect: Any) -> None:
    chunks = list(connect().chat.completions.create(model="docstral", messages=ASKED, stream=True))
    assert all(chunk.choices for chunk in chunks) and all(chunk.usage is None for chunk in chunks)


def test_words_arrive_while_the_model_still_writes(connect: Any, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply(["First words. ", gate, "Last words."]))
    text = ""
    for chunk in connect("k").chat.completions.create(model="docstral", messages=ASKED, stream=True):
        text += chunk.choices[0].delta.content or ""
        if text == "First words.":  # the blank waits for what it may stand before
            gate.open()
    assert text == "First words. Last words."


def test_the_key_reaches_the_provider_for_this_request_alone(connect: Any, mistral: ScriptedMistral) -> None:
    keyed, plain = connect("visitor-key-1"), connect("none")
    keyed.chat.completions.create(model="mistral-large-latest", messages=ASKED, temperature=0.3, max_tokens=50, seed=7)
    answer = plain.chat.completions.create(model="docstral", messages=ASKED)
    assert answer.model_extra["docstral"]["receipt"]["provider"] == "extractive"
    [seen] = mistral.chats
    assert seen.headers["authorization"] == "Bearer visitor-key-1"
    body = seen.body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("mistral-large-latest", 0.3, 50)
    assert body["random_seed"] == 7


@pytest.mark.parametrize("word", sorted(NO_KEY - {""}))
def test_a_word_for_no_key_is_no_key(connect: Any, mistral: ScriptedMistral, word: str) -> None:
    connect(word.upper()).chat.completions.create(model="docstral", messages=ASKED)
    assert mistral.requests == []


def test_the_messages_are_the_history(connect: Any, mistral: ScriptedMistral) -> None:
    said = [
        {"role": "system", "content": "Be a pirate."},
        *ASKED,
        {"role": "assistant", "content": "Set `stream`."},
        {"role": "user", "content": [{"type": "text", "text": "and in TypeScript?"}]},
    ]
    connect("k").chat.completions.create(model="docstral", messages=said)
    [seen] = mistral.chats
    texts = [message["content"] for message in seen.body["messages"]]
    assert STREAM in texts and "Set `stream`." in texts and "and in TypeScript?" in texts[-1]
    assert not any("pirate" in text for text in texts)


def test_wishes_of_docstral(connect: Any, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["Hello."]))
    answer = connect("k").chat.completions.create(
        model="docstral", messages=ASKED, extra_body={"docstral": {"rag": False, "provider": "mistral"}}
    )
    assert answer.choices[0].message.content == "Hello." and answer.model_extra["docstral"]["sources"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_key_is_an_authentication_error(connect: Any, mistral: ScriptedMistral, stream: bool) -> None:
    mistral.script(refusal(401, "Unauthorized"))
    with pytest.raises(openai.AuthenticationError) as error:
        connect("wrong-key").chat.completions.create(model="docstral", messages=ASKED, stream=stream)
    assert error.value.code == "bad_key" and error.value.type == "authentication_error"
    assert "wrong-key" not in str(error.value)


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limit_says_when_to_come_again(connect: Any, mistral: ScriptedMistral, stream: bool) -> None:
    mistral.answer = lambda body: refusal(429, "Slow down", retry_after="0")
    with pytest.raises(openai.RateLimitError) as error:
        connect("k").chat.completions.create(model="docstral", messages=ASKED, stream=stream)
    assert error.value.code == "rate_limited"


def test_a_failure_in_the_middle_is_raised(connect: Any, mistral: ScriptedMistral) -> None:
    mistral.answer = lambda body: Reply(["Some words. "], ending="drop")
    read = ""
    with pytest.raises(openai.APIError) as error:
        for chunk in connect("k").chat.completions.create(model="docstral", messages=ASKED, stream=True):
            read += chunk.choices[0].delta.content or ""
    assert read.strip() == "Some words." and error.value.code


BAD: dict[str, dict[str, Any]] = {
    "messages": {"messages": []},
    "messages.0.role": {"messages": [{"role": "king", "content": "x"}]},
    "the last one is not a question": {"messages": [{"role": "assistant", "content": "x"}]},
    "messages.0.content": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    },
    "n: ": {"messages": ASKED, "n": 2},
    "temperature": {"messages": ASKED, "temperature": 9},
    "docstral.speed": {"messages": ASKED, "extra_body": {"docstral": {"speed": 1}}},
    "characters": {"messages": [{"role": "user", "content": "x" * 5000}]},
}


@pytest.mark.parametrize("words", BAD)
def test_a_bad_request_names_the_field(connect: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        connect().chat.completions.create(model="docstral", **BAD[words])
    assert words in error.value.body["message"] and error.value.type == "invalid_request_error"


def test_too_much_is_refused(live: str) -> None:
    with httpx2.Client(base_url=live, timeout=DEADLINE, trust_env=False) as client:
        refused = client.post("/v1/chat/completions", content=b" " * 2_000_001)
        assert refused.status_code == 413 and refused.json()["error"]["code"] == "too_large"
        assert "set-cookie" not in refused.headers


@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_stops_the_answer_at_the_provider(live: str, mistral: ScriptedMistral, stream: bool) -> None:
    gate = Gate()
    mistral.script(Reply([gate, "Words."]))
    body = orjson.dumps({"messages": ASKED, "stream": stream})
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer k\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(live).port or 0), timeout=DEADLINE) as raw:
        raw.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        gate.reached()
    mistral.wait_until(lambda: mistral.disconnects == 1 and mistral.active == 0)


def test_the_models_that_can_be_named(connect: Any, mistral: ScriptedMistral) -> None:
    assert [model.id for model in connect().models.list()] == ["docstral", "extractive"]
    client = connect("visitor-key")
    names = [model.id for model in client.models.list()]
    assert names == ["docstral", *MODELS]
    for name in names:
        client.chat.completions.create(model=name, messages=ASKED)
    assert [seen.body["model"] for seen in mistral.chats] == [MODELS[0], *MODELS]


def test_a_list_of_models_needs_a_good_key_and_no_provider_that_is_up(connect: Any, mistral: ScriptedMistral) -> None:
    mistral.script_models(refusal(401, "Unauthorized"), refusal(503, "Overloaded"))
    with pytest.raises(openai.AuthenticationError):
        connect("wrong-key").models.list()
    assert next(model.id for model in connect("k").models.list()) == "docstral"


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_is_unknown_is_refused_with_the_place_of_the_list(
    connect: Any, mistral: ScriptedMistral, stream: bool
) -> None:
    mistral.script(refusal(400, "Invalid model: gpt-0"))
    with pytest.raises(openai.BadRequestError) as error:
        connect("k").chat.completions.create(model="gpt-0", messages=ASKED, stream=stream)
    assert (error.value.code, error.value.type) == ("unknown_model", "invalid_request_error")
    assert "gpt-0" in error.value.message and "GET /models" in error.value.body["action"]


def test_messages_become_pairs() -> None:
    def said(*pairs: tuple[str, str]) -> tuple[str, list[Any]]:
        return conversation([SentMessage(role=role, content=text) for role, text in pairs])  # type: ignore[arg-type]

    assert said(("user", "a")) == ("a", [])
    assert said(("assistant", "hi"), ("user", "a"), ("user", "b")) == ("a\n\nb", [])
    question, history = said(("user", "a"), ("assistant", "b"), ("tool", "t"), ("assistant", "c"), ("user", "d"))
    assert question == "d" and [each["content"] for each in history] == ["a", "b\n\nc"]
    for ends_wrongly in ((("user", "a"), ("assistant", "b")), (("system", "a"),), (("user", "  "),)):
        with pytest.raises(QuestionError):
            said(*ends_wrongly)


@pytest.mark.parametrize(
    ("reason", "shown"), [("length", "length"), ("model_length", "length"), ("content_filter", "content_filter")]
)
def test_why_an_answer_ended_early_is_told(connect: Any, mistral: ScriptedMistral, reason: str, shown: str) -> None:
    mistral.script(Reply(["Set `stream` [1]."], finish_reason=reason))
    answer = connect("visitor-key").chat.completions.create(model="docstral", messages=ASKED)
    assert answer.choices[0].finish_reason == shown
    assert answer.model_extra["docstral"]["receipt"]["finish_reason"] == reason
