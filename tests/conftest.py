"What several test files share."

import os
import socket
from pathlib import Path

import pytest


@pytest.fixture
def root() -> Path:
    "The folder of the project."
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def plain_environment(tmp_path: Path) -> dict[str, str]:
    "Environment variables for a subprocess that shall not see this machine's settings, keys or data."
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCSTRAL_", "MISTRAL_"))}
    return kept | {"DOCSTRAL_DATA_DIR": str(tmp_path / "data"), "IPYTHONDIR": str(tmp_path / "ipython")}


@pytest.fixture
def free_port() -> int:
    "A port on 127.0.0.1 that nothing listens on."
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
