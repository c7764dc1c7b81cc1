"A provider from outside the package comes in through the same door as those that ship."

import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from types import ModuleType

import httpx2
import pytest
from helpers import DEADLINE, read_events, ready

from docstral.chat import ChatService, Question
from docstral.cli import parser
from docstral.errors import OverloadedError, QuestionError, SettingsError
from docstral.providers.base import (
    Finished,
    Provider,
    ProviderEvent,
    Request,
    Text,
    Usage,
    make_provider,
    register_provider,
)
from docstral.settings import PROVIDERS, Settings
from docstral.store import Store
from docstral.types import Done, Notice
from docstral.web.choices import Choice, provider_options
from docstral.web.words import ENGLISH


class Parrot(Provider):
    "Says the question again, with a citation; or fails."

    name = "parrot"

    def __init__(self, settings: Settings):
        self.fails = False

    def model(self, request: Request) -> str:
        return request.model or "parrot-1"

    async def stream(self, request: Request) -> AsyncGenerator[ProviderEvent, None]:
        if self.fails:
            raise OverloadedError("The parrot sleeps.")
        yield Text(request.question)
        yield Text(" [1].")
        yield Usage(7, 3)
        yield Finished("stop")


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    "A module of somebody else's, registered for one test."
    module = ModuleType("somebodys_module")
    module.Parrot = Parrot  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys_module", module)
    register_provider("parrot", "somebodys_module:Parrot")
    yield
    del PROVIDERS["parrot"]


async def test_it_is_asked_like_any_other(outside: None, settings: Settings, store: Store) -> None:
    service = ChatService(settings.but(provider="parrot"), store)
    service.load()
    done = [event async for event in service.ask("ada", Question("How do I stream a chat completion?"))][-1]
    assert isinstance(done, Done) and done.text == "How do I stream a chat completion? [1]."
    assert (done.receipt.provider, done.receipt.model, done.receipt.tokens_in) == ("parrot", "parrot-1", 7)
    assert service.status()["provider"] == "parrot"
    await service.close()


async def test_it_falls_back_like_any_other(outside: None, settings: Settings, store: Store) -> None:
    service = ChatService(settings.but(provider="parrot", fallback=("extractive",)), store)
    service.load()
    service.provider("parrot").fails = True  # type: ignore[attr-defined]
    service.attempts.health("parrot").budget.tokens = 0  # no waiting
    events = [event async for event in service.ask("ada", Question("How do I stream a chat completion?"))]
    assert [event.code for event in events if isinstance(event, Notice)] == ["fallback"]
    done = events[-1]
    assert isinstance(done, Done) and done.receipt.provider == "extractive" and done.receipt.fallbacks == ["parrot"]
    await service.close()


def test_it_answers_over_http_and_is_listed(outside: None, settings: Settings, store: Store) -> None:
    with (
        ready(ChatService(settings, store)) as live,
        httpx2.Client(base_url=live.url, timeout=DEADLINE, trust_env=False) as client,
    ):
        asked = {"message": "How do I stream a chat completion?", "provider": "parrot"}
        kind, done = read_events(client.post("/chat", json=asked).text)[-1]
        assert kind == "done" and done["receipt"]["provider"] == "parrot"
        assert client.get("/models?provider=parrot").json()["models"][0]["id"] == "parrot-1"


def test_it_is_a_choice_wherever_there_is_one(
    outside: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ini = tmp_path / "settings.ini"
    ini.write_text("[docstral]\nprovider = parrot\n", "utf8")
    settings = Settings.load({"DOCSTRAL_SETTINGS": str(ini)})
    assert settings.provider == "parrot"
    with pytest.raises(SettingsError, match="parrot"):
        settings.but(provider="owl")
    with pytest.raises(QuestionError) as refused:
        make_provider("owl", settings)
    assert "auto" in refused.value.action and "parrot" in refused.value.action
    assert provider_options(settings, Choice(), ENGLISH)["parrot"] == "parrot"
    with pytest.raises(SystemExit):
        parser().parse_args(["ask", "--help"])
    assert "vllm, parrot" in " ".join(capsys.readouterr().out.split())


def test_a_name_or_a_place_that_cannot_be_is_refused() -> None:
    for name, place in (("auto", "m:C"), ("mistral", "m:C"), ("a b", "m:C"), ("parrot", "m"), ("parrot", ":C")):
        with pytest.raises(ValueError):
            register_provider(name, place)
    assert "parrot" not in PROVIDERS
