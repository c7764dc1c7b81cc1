"A key is sent where it belongs and nowhere else, and stays in no file, log, event, figure or export."

import logging
from pathlib import Path

import httpx2
import pytest
from helpers import DEADLINE, Live, at_once
from mistral_server import Reply, ScriptedMistral, refusal

from docstral.chat import ChatService
from docstral.embed import MistralEmbedder
from docstral.errors import KeyMissingError, ProviderError
from docstral.providers.base import Request, choose_provider
from docstral.providers.mistral import MistralProvider
from docstral.providers.openai_compatible import OpenAIProvider
from docstral.serve import create_app
from docstral.settings import Settings
from docstral.store import Store

CANARY = "sk-canary-5f1d2c9b7e"
OWNERS = "sk-owners-0a1b2c3d4e"
STREAM = "How do I stream a chat completion?"


def leaks(folder: Path) -> list[str]:
    "The files below a folder that hold the visitor's key, as text."
    return [path.name for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize("after", ["an answer", "failures"])
def test_a_visitors_key_is_found_nowhere_afterwards(
    after: str,
    settings: Settings,
    mistral: ScriptedMistral,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    with Store(settings.data_dir / "docstral.duckdb") as store:
        service = ChatService(settings, store)
        service.load()
        service.attempts._sleep = at_once
        with (
            Live(create_app(service, lambda error: None, web=False)) as live,
            httpx2.Client(base_url=live.url, timeout=DEADLINE, trust_env=False) as client,
        ):
            if after == "failures":
                mistral.script(
                    refusal(401, f"Unauthorized: {CANARY}"),
                    refusal(422, f"Bearer {CANARY} is odd"),
                    Reply(["So ", b'data: {"error": {"message": "died with ' + CANARY.encode() + b'"}}\n\n']),
                    *[refusal(500, f"crash {CANARY}")] * 3,
                )
                mistral.script_models(refusal(401, f"who is {CANARY}?"))
            for _ in range(4):
                said.append(client.post("/chat", json={"message": STREAM}, headers={"x-mistral-api-key": CANARY}).text)
            said.append(client.get("/models", headers={"x-mistral-api-key": CANARY}).text)
            assert any(CANARY in seen.headers["authorization"] for seen in mistral.requests)
            chats = client.get("/chats").json()["chats"]
            for chat in chats:
                said.append(client.get(f"/chat/{chat['id']}").text)
                said += [client.get(f"/chat/{chat['id']}/export?format={form}").text for form in ("md", "json")]
            said += [client.get(path).text for path in ("/metrics", "/health", "/openapi.json")]
        assert len(chats) == 4
        rows = [repr(store.read(f"SELECT * FROM {table}")) for (table,) in store.read("SHOW TABLES")]
    output = capfd.readouterr()
    everywhere = [*said, *rows, caplog.text, output.out, output.err, repr(vars(service)), repr(settings)]
    assert not [text[:200] for text in everywhere if CANARY in text]
    assert leaks(settings.data_dir) == []


async def test_the_environments_key_goes_to_no_other_server(
    mistral: ScriptedMistral, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", OWNERS)
    monkeypatch.setenv("OPENAI_API_KEY", OWNERS)
    settings = Settings(
        mistral_url=mistral.url, openai_url=mistral.url
    )  # made without a key, beside an environment with one
    provider = OpenAIProvider(settings)
    for key in ("", CANARY):
        assert [event async for event in provider.stream(Request("How?", [], api_key=key))]
        await provider.models(key, fresh=True)
    await provider.close()
    assert len(mistral.requests) == 5 and not [seen for seen in mistral.requests if "authorization" in seen.headers]
    assert OWNERS not in repr(mistral.requests) and CANARY not in repr(mistral.requests)
    asked = len(mistral.requests)
    with pytest.raises(KeyMissingError):
        MistralEmbedder(settings)
    with pytest.raises(KeyMissingError):
        await MistralProvider(settings).models()
    assert len(mistral.requests) == asked


def test_the_embedder_sends_the_settings_key_whatever_the_environment_holds(
    mistral: ScriptedMistral, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", OWNERS)
    MistralEmbedder(Settings(mistral_url=mistral.url, mistral_api_key=CANARY)).embed(["text"])
    assert [seen.headers["authorization"] for seen in mistral.requests] == [f"Bearer {CANARY}"]


def test_each_key_has_a_variable_of_its_own() -> None:
    settings = Settings.load({"MISTRAL_API_KEY": "a", "DOCSTRAL_OPENAI_API_KEY": "b"})
    assert (settings.mistral_api_key, settings.openai_api_key) == ("a", "b")
    assert Settings.load({"MISTRAL_API_KEY": "a"}).openai_api_key == ""
    assert "'a'" not in repr(settings) and "'b'" not in repr(settings)


async def test_a_key_from_a_file_with_a_line_end_is_refused_before_it_is_sent(mistral: ScriptedMistral) -> None:
    provider = OpenAIProvider(Settings(openai_url=mistral.url, openai_api_key="sk-\nx", openai_model="m"))
    with pytest.raises(ProviderError) as error:
        [event async for event in provider.stream(Request("How?", []))]
    assert error.value.code == "bad_key" and mistral.requests == []
    await provider.close()


@pytest.mark.parametrize(
    ("settings", "key", "chosen"),
    [
        (Settings(openai_url="http://127.0.0.1:1"), "", "openai"),
        (Settings(openai_url="http://127.0.0.1:1"), CANARY, "mistral"),
        (Settings(openai_url="http://127.0.0.1:1", mistral_api_key=OWNERS), "", "mistral"),
        (Settings(openai_url="http://127.0.0.1:1", provider="openai"), CANARY, "openai"),
    ],
)
def test_auto_looks_for_a_key_then_for_a_server(settings: Settings, key: str, chosen: str) -> None:
    assert choose_provider(settings, None, key) == chosen
