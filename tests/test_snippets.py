"""What the pages tell a reader to type is typed, in the order of the page.

Each line of a bash example is run here, or by the test that `ELSEWHERE` names, or stands there with the reason why it
cannot be run on a machine like this one. A line that is none of these fails: run it, or say why not.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import DEADLINE, ROOT, docstral

from docstral.settings import Settings

API = ROOT / "docs" / "API.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
GUIDES = [page for page in PAGES if page != API and "```bash" in page.read_text(encoding="utf8")]
STAND_INS = {"path/to/markdown": "PAGES", "path/to/pages": "PAGES", "PATH": "PAGES", '"..."': '"stream"'}
NO_ENGINE = (
    "no Docker engine; tests/test_deploy.py checks the files with Compose itself, make test-deploy the image's steps"
)
NO_HOST = "a host that has to be rented"
ELSEWHERE = {  # how a command begins: the test that does this, or why it is not done
    "docstral serve": "tests/test_serve.py::test_an_answer_is_ended_and_kept_when_the_server_stops",
    "docstral mcp": "tests/test_mcp.py::test_an_assistant_starts_it_as_a_program",
    "docstral corpus sync": "tests/test_sync.py::test_runs_from_plain_code",
    "docstral migrate": "tests/test_transfer.py::test_the_command_moves_and_reports",
    "curl -N http://127.0.0.1:7860/chat": "tests/test_snippets.py::test_the_readmes_example_over_http_runs",
    "pip install": "tests/test_packaging.py::test_declares_what_it_imports",
    "cp .env.example .env": "tests/test_deploy.py checks that file",
    "echo ": "adds a line to .env",
    "docker ": NO_ENGINE,
    "MISTRAL_API_KEY=... docker compose": "tests/test_deploy.py::test_a_key_from_the_shell_reaches_the_app",
    ".venv/bin/python tests/fuzz/run.py": "needs Atheris, and an input that broke something",
    ".venv/bin/python -m benchmarks": "tests/test_benchmarks.py::test_a_benchmark_prints_its_tables_and_writes_them",
    ".venv/bin/hf ": "needs an account on the Hugging Face Hub; make test-deploy runs the folder that is uploaded",
    "sudo ": NO_HOST,
    "nvidia-smi": NO_HOST,
    "curl -fsSL https://": NO_HOST,
    "runpodctl ": NO_HOST,
    "VLLM_KEY=": NO_HOST,
    "source openrc.sh": NO_HOST,
    "openstack ": NO_HOST,
    "for port in 22 80 443": NO_HOST,
    "ssh ": NO_HOST,
}


def blocks(page: Path, language: str = "bash") -> list[str]:
    "The fenced examples of a page in a language, in their order."
    return list(re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf8"), re.MULTILINE | re.DOTALL))


def lines(code: str) -> Iterator[str]:
    "The commands of an example, each in one line and without its comment."
    for line in re.sub(r"\\\n\s*", "", code).splitlines():
        if command := re.sub(r"(^|\s+)# .*", "", line).strip():
            yield command


def run_here(line: str) -> bool:
    "Whether a test of this file runs this line."
    word, *_ = line.split()
    return word in ("make", "export") or (word == "docstral" and not line.startswith(tuple(ELSEWHERE)))


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_every_line_is_run_somewhere_or_says_why_not(page: Path) -> None:
    for line in (line for code in blocks(page) for line in lines(code)):
        known = [reason for start, reason in ELSEWHERE.items() if line.startswith(start)]
        assert run_here(line) or known, f"{page.name} says {line!r}: run it in tests/test_snippets.py, or say why not"


def test_what_is_run_elsewhere_is_there() -> None:
    for place in ELSEWHERE.values():
        if file := re.match(r"(tests/\w+\.py)::(\w+)", place):
            assert f"def {file[2]}(" in (ROOT / file[1]).read_text(encoding="utf8"), place


@pytest.mark.parametrize(
    "page", [page for page in GUIDES if "\ndocstral " in page.read_text(encoding="utf8")], ids=lambda page: page.name
)
def test_the_commands_run(page: Path, pages: Path, tmp_path: Path, plain_environment: dict[str, str]) -> None:
    shutil.copytree(ROOT / "corpus", tmp_path / "corpus")
    shutil.copy(ROOT / "corpus" / "questions.jsonl", tmp_path)
    found = [line for code in blocks(page) for line in lines(code) if line.startswith("docstral ") and run_here(line)]
    assert found
    for line in found:
        words = line
        for placeholder, value in STAND_INS.items():
            words = words.replace(placeholder, str(pages) if value == "PAGES" else value)
        ran = docstral(*shlex.split(words)[1:], environment=plain_environment, folder=tmp_path)
        assert ran.returncode == 0 and ran.stdout, f"{line}\n{ran.stdout}{ran.stderr}"


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_make_knows_what_is_to_be_made(page: Path) -> None:
    for line in (line for code in blocks(page) for line in lines(code) if line.startswith("make ")):
        ran = subprocess.run(["make", "--dry-run", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True)
        assert not ran.returncode, f"{page.name} says {line}: {ran.stderr}"


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_the_settings_of_an_example_are_accepted(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code in blocks(page):
        exports = [line for line in lines(code) if line.startswith("export ")]
        ran = subprocess.run(
            ["bash", "-c", "\n".join([*exports, "env -0"])],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
        named = dict(
            pair.split("=", 1) for pair in ran.stdout.split("\0") if pair.startswith(("DOCSTRAL_", "MISTRAL_"))
        )
        with monkeypatch.context() as environment:
            for name, value in named.items():
                environment.setenv(name, value)
            Settings.load()


def test_the_examples_of_the_api_run_in_their_order(live: str, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl on this machine")
    found = blocks(API)
    assert sum("curl" in code for code in found) >= 5
    for code in found:
        script = code.replace("http://127.0.0.1:7860", live).replace("curl ", "curl --fail-with-body --noproxy '*' ")
        assert "7860" not in script
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE
        )
        assert ran.returncode == 0, code + ran.stdout + ran.stderr
        assert '{"error":{"code"' not in ran.stdout and "event: error" not in ran.stdout, code + ran.stdout


def test_the_readmes_example_over_http_runs(live: str) -> None:
    [code] = [code for code in blocks(ROOT / "README.md") if "curl" in code]
    ran = subprocess.run(
        ["bash", "-c", code.replace("http://127.0.0.1:7860", live).replace("curl ", "curl --noproxy '*' ")],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert "event: done" in ran.stdout, ran.stderr


def run_python(code: str, environment: dict[str, str], folder: Path) -> str:
    "What a program says, with warnings as errors."
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf8",
        timeout=DEADLINE,
    )
    assert ran.returncode == 0, f"{code}\n{ran.stderr}"
    return ran.stdout


def test_the_readmes_python_says_what_the_readme_shows(
    pages: Path, tmp_path: Path, plain_environment: dict[str, str]
) -> None:
    asked, streamed = blocks(ROOT / "README.md", "python")
    shown = blocks(ROOT / "README.md", "text")[0]
    times = re.compile(r"\d+\.\d+ s")
    assert times.sub("", run_python(asked, plain_environment, tmp_path)) == times.sub("", shown)
    said = run_python(streamed.replace("path/to/markdown", str(pages)), plain_environment, tmp_path)
    assert "Done(" in said


def test_the_example_with_openais_package_runs(live: str, tmp_path: Path, plain_environment: dict[str, str]) -> None:
    pytest.importorskip("openai")
    [code] = blocks(ROOT / "docs" / "SETUP.md", "python")
    said = run_python(code.replace("http://127.0.0.1:7860", live), plain_environment, tmp_path)
    assert "[1]" in said and "https://docs.example.org/streaming" in said
