"The vLLM provider where vLLM is not installed. With it: tests/with_vllm, run by `make test-vllm`."

import asyncio
import importlib.util
from pathlib import Path

import pytest

from docstral.chat import ChatService
from docstral.errors import DocStralError, EngineError, ModelUnknownError, SettingsError
from docstral.providers.base import PROVIDERS, Request, choose_provider, make_provider
from docstral.providers.vllm import VllmProvider, first_cause, read_options, start_failure
from docstral.settings import Settings
from docstral.store import Store

MODEL = "mistralai/Ministral-8B-Instruct-2410"
REQUEST = Request("Hi", [{"role": "user", "content": "Hi"}])
without_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")


async def failure_of(provider: VllmProvider) -> DocStralError:
    "The error that a question gets."
    with pytest.raises(DocStralError) as failure:
        async for _ in provider.stream(REQUEST):
            pass
    assert failure.value.action
    return failure.value


def provider_with(folder: Path, model: str = MODEL, options: str = "") -> VllmProvider:
    "A provider that keeps its log in a folder."
    return VllmProvider(Settings(data_dir=folder, vllm_model=model, vllm_options=options))


def test_it_is_registered_and_chosen_by_name_alone(tmp_path: Path) -> None:
    settings = Settings.load(
        {"DOCSTRAL_PROVIDER": "vllm", "DOCSTRAL_VLLM_MODEL": MODEL, "DOCSTRAL_DATA_DIR": str(tmp_path)}
    )
    assert "vllm" in PROVIDERS and choose_provider(settings) == "vllm"
    provider = make_provider("vllm", settings)
    assert provider.model(REQUEST) == MODEL and provider.state == "idle"
    assert provider.model(Request("Hi", [], model="another")) == MODEL  # one engine has one model
    assert choose_provider(Settings(vllm_model=MODEL)) == "extractive"


@without_vllm
async def test_without_vllm_each_question_says_how_to_install_it(tmp_path: Path) -> None:
    provider = provider_with(tmp_path)
    error = await failure_of(provider)
    assert isinstance(error, EngineError) and "not installed" in str(error) and "docstral[vllm]" in error.action
    assert not error.retryable and provider.state == "failed"
    assert await failure_of(provider) is error  # not tried again
    await provider.close()


@without_vllm
async def test_many_first_questions_start_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr("docstral.providers.vllm.import_vllm", lambda: started.append(1) or fail())
    provider = provider_with(tmp_path)
    errors = await asyncio.gather(*(failure_of(provider) for _ in range(10)))
    assert len(started) == 1 and len(set(map(str, errors))) == 1


def fail() -> None:
    "An engine that cannot start."
    raise EngineError("It is broken.")


async def test_a_missing_model_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    error = await failure_of(provider_with(tmp_path, model=""))
    assert isinstance(error, SettingsError) and "DOCSTRAL_VLLM_MODEL" in error.action
    error = await failure_of(provider_with(tmp_path, model=str(tmp_path / "nowhere")))
    assert isinstance(error, ModelUnknownError) and "nowhere" in str(error)


def test_options_are_read_by_type_or_refused_by_name() -> None:
    wanted = {"max_model_len": 8192, "gpu_memory_utilization": 0.9, "enforce_eager": True, "dtype": "bfloat16"}
    assert (
        read_options("max_model_len=8192, gpu_memory_utilization = 0.9, enforce_eager=true, dtype=bfloat16,") == wanted
    )
    for text in ("max_model_len", "=3", "a b=1", "dtype="):
        with pytest.raises(SettingsError, match="DOCSTRAL_VLLM_OPTIONS"):
            read_options(text)


@pytest.mark.parametrize(
    "said",
    [
        "ValueError: Free memory on device cuda:0 (3.1/23.5 GiB) on startup is less than desired GPU utilization.",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB.",
        "ValueError: To serve at least one request with its max seq len (131072), 16.0 GiB KV cache is needed.",
    ],
)
def test_too_little_memory_is_told_from_other_causes(said: str) -> None:
    log = f"ERROR worker: failed\nTraceback (most recent call last):\n  ...\n{said}\n\nRuntimeError: Engine failed."
    error = start_failure(MODEL, first_cause(log))
    assert "not enough memory" in str(error) and said.partition(": ")[2][:20] in str(error)
    assert "max_model_len" in error.action


def test_another_cause_is_passed_on(tmp_path: Path) -> None:
    error = start_failure(MODEL, first_cause("KeyError: 'layers.0'"))
    assert "'layers.0'" in str(error) and "engine.log" in error.action
    assert first_cause("nothing of use") == ""


@without_vllm
def test_health_tells_of_the_engine_and_a_failure_leaves_the_search_working(tmp_path: Path) -> None:
    with Store(tmp_path / "docstral.duckdb") as store:
        service = ChatService(Settings(data_dir=tmp_path, provider="vllm", vllm_model=MODEL), store)
        assert service.status()["engine"] == "idle"
        with pytest.raises(EngineError):
            service.warm()
        assert service.status()["engine"] == "failed" and service.status()["model"] == MODEL
        assert service.failure is None
        assert ChatService(Settings(data_dir=tmp_path), store).status()["engine"] == ""
