"One tiny model, one engine and one chat service for all tests: starting an engine takes half a minute."

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tiny_model import make

from docstral.chat import ChatService
from docstral.settings import Settings
from docstral.store import Store

os.environ |= {
    "HF_HUB_OFFLINE": "1",  # the model lies on disk: ask nobody for it
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_HOST_IP": "127.0.0.1",
}
OPTIONS = "max_model_len=4096, enforce_eager=true, tokenizer_mode=mistral"  # eager: compiling takes a minute more


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The folder of the tiny model."
    return make(tmp_path_factory.mktemp("tiny"))


@pytest_asyncio.fixture(scope="session")
async def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChatService]:
    "The chat service over the shipped corpus, with vLLM in process; its engine loads at the first question."
    folder = tmp_path_factory.mktemp("data")
    settings = Settings(data_dir=folder, provider="vllm", vllm_model=str(model), vllm_options=OPTIONS, passages=2)
    with Store(folder / "docstral.duckdb") as store:
        service = ChatService(settings, store)
        service.load()
        yield service
        await service.close()
