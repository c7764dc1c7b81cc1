"The server as a process: how it starts, how it ends, and what stands beside the pages."

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx2
import pytest
from helpers import DEADLINE, ROOT
from mistral_server import Gate, Reply, ScriptedMistral

from docstral.settings import Settings
from docstral.store import Store


@pytest.fixture
def server(
    settings: Settings, mistral: ScriptedMistral, free_port: int, plain_environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    "The real app in a process of its own, ready, with a scripted Mistral behind it."
    own = {"DOCSTRAL_DATA_DIR": settings.data_dir, "DOCSTRAL_DOCS": settings.docs[0], "DOCSTRAL_PORT": free_port,
           "DOCSTRAL_MISTRAL_URL": mistral.url, "MISTRAL_API_KEY": "k"}  # fmt: skip
    environment = plain_environment | {name: str(value) for name, value in own.items()}
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    while "is ready at" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_is_ended_and_kept_when_the_server_stops(
    server: subprocess.Popen[str], free_port: int, mistral: ScriptedMistral, settings: Settings, number: signal.Signals
) -> None:
    gate = Gate()
    mistral.script(Reply(["Kept. ", gate, "Never."]))
    streamed: list[str] = []

    def ask() -> None:
        body = {"message": "How do I stream a chat completion?"}
        reply = httpx2.post(f"http://127.0.0.1:{free_port}/chat", json=body, timeout=DEADLINE)
        streamed.append(reply.text)

    asking = threading.Thread(target=ask)
    asking.start()
    gate.reached()
    server.send_signal(number)
    said, _ = server.communicate(timeout=DEADLINE)
    asking.join(DEADLINE)
    assert "Traceback" not in said
    assert "event: error" in streamed[0] and '"stopping"' in streamed[0]
    with Store(settings.data_dir / "docstral.duckdb") as store:
        [(outcome, content)] = store.read("SELECT outcome, content FROM messages WHERE role = 'assistant'")
    assert (outcome, content.strip()) == ("stopped", "Kept.")


def test_wrong_methods_are_refused_beside_the_pages_too(server: subprocess.Popen[str], free_port: int) -> None:
    refused = httpx2.delete(f"http://127.0.0.1:{free_port}/chats")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
    assert refused.json()["error"]["code"] == "method_not_allowed"
    assert "text/html" in httpx2.get(f"http://127.0.0.1:{free_port}/").headers["content-type"]
