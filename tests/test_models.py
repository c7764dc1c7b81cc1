"The list of models: read as it comes, remembered, and the way in which a key is tried."

import orjson
import pytest
from mistral_server import Reply, ScriptedMistral, refusal

from docstral.chat import ChatService, Question
from docstral.errors import NotAnApiError, ProviderError
from docstral.providers import mistral as mistral_module
from docstral.providers.base import Model, Request, Text, Writing
from docstral.providers.mistral import MistralProvider, read_models
from docstral.providers.openai_compatible import OpenAIProvider
from docstral.settings import Settings
from docstral.types import Done

KEYED = "r-sk-secret-planted"


@pytest.mark.parametrize("reply", [None, [], {}, {"data": None}, {"data": [1]}, {"data": [{"name": "x"}]}, "text"])
def test_what_is_no_list_of_models_is_said_to_be_none(reply: object) -> None:
    with pytest.raises(NotAnApiError):
        read_models(reply)


def test_entries_of_every_kind_are_read() -> None:
    entries = [
        {"id": "a", "max_context_length": 32768, "deprecation": None, "capabilities": {"completion_chat": True}},
        {"id": "b", "max_model_len": 4096, "owned_by": "vllm"},
        {"id": "c", "deprecation": "2026-12-24T12:00:00Z", "deprecation_replacement_model": "a"},
        {"id": "moderation", "capabilities": {"completion_chat": False}},
        {"id": "a"},
    ]
    assert [model.id for model in read_models({"data": entries})] == ["a", "b", "c"]
    assert read_models({"data": entries})[1:] == [Model("b", 4096), Model("c", None, "2026-12-24", "a")]


async def test_a_key_that_the_list_repeats_is_not_told_on(mistral: ScriptedMistral) -> None:
    provider = MistralProvider(Settings(mistral_url=mistral.url, mistral_api_key="sk-secret-planted"))
    entry = {"id": "m-sk-secret-planted", "deprecation": "sk-secret-planted", "deprecation_replacement_model": KEYED}
    mistral.script_models(Reply(body=orjson.dumps({"data": [entry]})))
    assert await provider.models() == [Model("m-***", None, "***", "r-***")]
    await provider.close()


@pytest.mark.parametrize("length", ["32768", -5, 0, 1.5, True, 2**40, [], {}])
async def test_a_length_that_is_none_keeps_no_question_from_its_answer(
    length: object, mistral: ScriptedMistral, with_key: ChatService
) -> None:
    listed = {"data": [{"id": with_key.settings.model, "max_context_length": length}]}
    mistral.script_models(Reply(body=orjson.dumps(listed)))
    assert [model.context for model in await with_key.models("mistral")] == [None]
    events = [event async for event in with_key.ask("", Question("How do I stream?", provider="mistral"))]
    assert isinstance(events[-1], Done)


async def test_lists_are_remembered_for_each_key_and_no_key_is_kept(
    mistral: ScriptedMistral, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = MistralProvider(Settings(mistral_url=mistral.url, mistral_api_key="owners-key"))
    for key in ("", "", "visitors-key", "visitors-key"):
        await provider.models(key)
    lists = [seen for seen in mistral.requests if seen.path == "/v1/models"]
    assert [seen.headers["authorization"] for seen in lists] == ["Bearer owners-key", "Bearer visitors-key"]
    assert "visitors-key" not in repr(vars(provider))
    await provider.models("visitors-key", fresh=True)
    monkeypatch.setattr(mistral_module, "LIST_AGE", -1.0)
    await provider.models()
    assert len(mistral.requests) == 4
    monkeypatch.setattr(mistral_module, "MOST_LISTS", 3)
    for number in range(10):
        await provider.models(f"key-{number}")
    assert len(provider._lists) == 3
    await provider.close()


async def test_a_key_that_is_refused_is_told_and_not_remembered(mistral: ScriptedMistral) -> None:
    provider = MistralProvider(Settings(mistral_url=mistral.url))
    mistral.script_models(refusal(401, "Unauthorized visitors-key"))
    with pytest.raises(ProviderError) as error:
        await provider.models("visitors-key")
    assert error.value.code == "bad_key" and "visitors-key" not in str(error.value)
    assert await provider.models("visitors-key")
    for reply, code in (
        (Reply(body=b"<html>", content_type="text/html"), "not_an_api"),
        (Reply(body=b"{"), "not_an_api"),
        (Reply(body=b'{"data": 1}'), "not_an_api"),
        (refusal(503), "overloaded"),
    ):
        mistral.script_models(reply)
        with pytest.raises(ProviderError) as error:
            await provider.models("another-key")
        assert error.value.code == code
    await provider.close()


async def test_an_openai_server_without_a_named_model_gets_the_first_that_it_lists(mistral: ScriptedMistral) -> None:
    provider = OpenAIProvider(Settings(openai_url=mistral.url, openai_api_key="servers-key"))
    assert provider.model(Request("", [])) == ""
    events = [event async for event in provider.stream(Request("How?", []))]
    assert events[0] == Writing("openai", "mistral-small-latest")
    assert "".join(event.text for event in events if isinstance(event, Text)) == "Set `stream` to true [1]."
    assert mistral.chats[0].body["model"] == provider.model(Request("", [])) == "mistral-small-latest"
    assert {seen.headers["authorization"] for seen in mistral.requests} == {"Bearer servers-key"}
    await provider.close()


async def test_an_openai_server_without_models_says_so(mistral: ScriptedMistral) -> None:
    provider = OpenAIProvider(Settings(openai_url=mistral.url))
    mistral.script_models(Reply(body=orjson.dumps({"data": []})))
    with pytest.raises(ProviderError) as error:
        [event async for event in provider.stream(Request("How?", []))]
    assert error.value.code == "unknown_model" and mistral.chats == []
    await provider.close()


async def test_the_model_found_is_on_the_receipt(
    settings: Settings, service: ChatService, mistral: ScriptedMistral
) -> None:
    service.settings = settings.but(openai_url=mistral.url)
    question = Question("How do I stream a chat completion?", provider="openai")
    done = [event async for event in service.ask("ada", question)][-1]
    assert isinstance(done, Done) and done.receipt.model == "mistral-small-latest" and done.receipt.provider == "openai"
    assert done.receipt.cost == 0  # the server is on this machine


def test_a_server_elsewhere_may_send_a_bill() -> None:
    for address, free in (("http://localhost:8000/v1", True), ("http://[::1]:8000", True), ("https://a.org/v1", False)):
        assert OpenAIProvider(Settings(openai_url=address)).free is free
