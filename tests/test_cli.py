"The command line in a process of its own: what it prints, how it ends, and never a traceback."

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx2
import pytest
from helpers import DEADLINE, DOCSTRAL, ROOT, docstral
from mistral_server import Reply, ScriptedMistral, refusal

import docstral as package
from docstral.cli import parser
from docstral.store import Store

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = list(next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)).choices)


@pytest.fixture
def environment(plain_environment: dict[str, str], data_dir: Path, pages: Path) -> dict[str, str]:
    "An environment that answers from the pages, already indexed."
    return plain_environment | {"DOCSTRAL_DATA_DIR": str(data_dir), "DOCSTRAL_DOCS": str(pages)}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    "Run `docstral` with arguments, and with changes to the environment."

    def go(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return docstral(*arguments, environment=environment | changes, folder=tmp_path)

    return go


def refused(ran: subprocess.CompletedProcess[str]) -> str:
    "What a command says that could not do its work: what happened, and what to do."
    assert ran.returncode == 1, ran.stdout + ran.stderr
    lines = ran.stderr.splitlines()
    assert lines[-2].startswith("docstral: ") and lines[-1].startswith("          ") and lines[-1].strip(), ran.stderr
    return ran.stderr


def test_the_version_is_printed(run: Run) -> None:
    ran = run("--version")
    assert (ran.returncode, ran.stdout) == (0, f"docstral {package.__version__}\n")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse_args([*command.split(), "--help"])
    assert end.value.code == 0 and f"usage: docstral {command}".strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["ask"], ["ask", "x", "--nonsense"], ["search", "x", "-k", "a"]]
)
def test_a_wrong_command_shows_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse_args(arguments)
    assert end.value.code == 2 and "usage: docstral" in capsys.readouterr().err


def test_ask_prints_the_answer_its_sources_and_its_receipt(run: Run) -> None:
    ran = run("ask", "How do I stream a chat completion?")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "set `stream` to `true` in the request [1]." in ran.stdout
    assert "[1] Stream a chat completion - https://docs.example.org/streaming" in ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("extractive · ")


def test_ask_as_json_is_one_object(run: Run) -> None:
    ran = run("ask", "How do I stream a chat completion?", "--json")
    answer = json.loads(ran.stdout)
    assert set(answer) >= {"question", "text", "outcome", "citations", "sources", "receipt"}
    assert answer["outcome"] == "cited" and answer["sources"][0]["page"] == "streaming.md"


def test_search_prints_passages_and_as_json_too(run: Run) -> None:
    ran = run("search", "rate limit 429", "-k", "1")
    assert ran.returncode == 0 and ran.stdout.startswith("1. Errors and rate limits > Rate limits")
    found = json.loads(run("search", "rate limit 429", "-k", "2", "--json").stdout)
    assert len(found["passages"]) == 2 and found["passages"][0]["page"] == "guides/errors.mdx"


def test_index_counts_and_answers_from_the_folder_from_then_on(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "quokka.md").write_text("# Quokka\n\nA quokka smiles at every visitor.\n")
    (folder / "broken.md").write_bytes(b"\xff")
    ran = run("index", str(folder))
    assert ran.returncode == 0 and ran.stdout.startswith("1 pages, 1 chunks (1 of them embedded now)")
    assert "left out broken.md: it is not UTF-8" in ran.stderr
    assert "no file has changed" in run("index", str(folder)).stdout
    assert "quokka smiles" in run("ask", "Does a quokka smile?", DOCSTRAL_DOCS="").stdout


@pytest.mark.parametrize("name", ["empty", "nowhere", "file.md"])
def test_index_of_what_holds_no_pages_says_so_and_changes_nothing(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.md").write_text("# A\n\nText.")
    message = refused(run("index", name))
    assert name in message and "Markdown" in message
    assert run("ask", "How do I stream a chat completion?").returncode == 0


def test_index_survives_front_matter_that_is_nested_without_end(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / "good.md").write_text("# Good\n\nText.\n")
    (folder / "deep.md").write_text(f"---\na: {'[' * 200_000}\n---\nText.\n")
    ran = run("index", str(folder))
    assert ran.returncode == 0 and ran.stdout.startswith("1 pages") and "deep.md" in ran.stderr


REFUSED: dict[str, tuple[list[str], Mapping[str, str], str]] = {
    "empty question": (["ask", ""], {}, "empty"),
    "long question": (["ask", "x" * 5000], {}, "4000"),
    "unknown provider": (["ask", "x", "--provider", "nonsense"], {}, "nonsense"),
    "no key": (["ask", "x", "--provider", "mistral"], {}, "MISTRAL_API_KEY"),
    "no folder": (["ask", "x", "--docs", "nowhere"], {}, "nowhere"),
    "wrong setting": (["ask", "x"], {"DOCSTRAL_PORT": "http"}, "DOCSTRAL_PORT"),
    "no settings file": (["ask", "x"], {"DOCSTRAL_SETTINGS": "nowhere.ini"}, "nowhere.ini"),
    "data folder is a file": (["ask", "x"], {"DOCSTRAL_DATA_DIR": str(Path(__file__))}, "test_cli.py"),
    "host": (["serve", "--host", "256.0.0.1"], {}, "256.0.0.1"),
    "nobody listens": (
        ["ask", "stream a chat"],
        {"MISTRAL_API_KEY": "sk-1234", "DOCSTRAL_MISTRAL_URL": "http://127.0.0.1:9"},
        "127.0.0.1:9",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_said_with_what_to_do(run: Run, name: str) -> None:
    arguments, changes, words = REFUSED[name]
    message = refused(run(*arguments, **changes))
    assert words in message and "sk-1234" not in message


def test_ask_with_a_key_asks_mistral(run: Run, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["Set `stream` [2", "]."]), refusal(401, "Unauthorized sk-1234"))
    with_key = {"MISTRAL_API_KEY": "sk-1234", "DOCSTRAL_MISTRAL_URL": mistral.url}
    ran = run("ask", "How do I stream a chat completion?", "--model", "mistral-large-latest", **with_key)
    assert ran.returncode == 0 and ran.stdout.startswith("Set `stream` [1].\n")
    assert mistral.chats[0].body["model"] == "mistral-large-latest"
    message = refused(run("ask", "How do I stream a chat completion?", **with_key))
    assert "refused the API key" in message and "sk-1234" not in message


def test_a_database_in_use_names_the_process(run: Run, store: Store) -> None:
    assert f"process {os.getpid()}" in refused(run("ask", "How do I stream?"))


def test_a_port_in_use_is_one_clear_line(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        message = refused(run("serve", "--port", port))
    assert port in message and "--port" in message


@pytest.mark.parametrize("port", ["65536", "99999"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    from docstral.errors import ServerError
    from docstral.serve import listen

    with pytest.raises(ServerError):
        listen("127.0.0.1", int(port)).close()


def test_a_question_in_another_encoding_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [os.fsencode(part) for part in DOCSTRAL] + [b"ask", b"str\xffeam a chat"],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf8",
        timeout=DEADLINE,
    )
    assert ran.returncode == 1 and "Traceback" not in ran.stderr and "should not" not in ran.stderr


@pytest.mark.parametrize("case", ["ascii", "full"])
def test_output_that_cannot_be_written_is_no_traceback(environment: dict[str, str], tmp_path: Path, case: str) -> None:
    full = Path("/dev/full")
    if case == "full" and not full.exists():
        pytest.skip("this system has no /dev/full")
    with (full if case == "full" else tmp_path / "out").open("w") as output:
        ran = subprocess.run(
            [*DOCSTRAL, "ask", "How do I stream a chat completion?"],
            env=environment | {"PYTHONPATH": str(ROOT)} | ({"PYTHONIOENCODING": "ascii"} if case == "ascii" else {}),
            cwd=tmp_path,
            stdout=output,
            stderr=subprocess.PIPE,
            encoding="utf8",
            timeout=DEADLINE,
        )
    assert "Traceback" not in ran.stderr
    assert ran.returncode == (0 if case == "ascii" else 1)


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str], tmp_path: Path) -> None:
    asking = subprocess.Popen(
        [*DOCSTRAL, "search", "stream a chat completion", "-k", "6"],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert asking.stdout and asking.stderr
    asking.stdout.close()
    errors = asking.stderr.read()
    asking.stderr.close()
    assert (asking.wait(DEADLINE), errors) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (
            ["--version"],
            ["aiohttp", "duckdb", "faiss", "fastapi", "gradio", "llama_index", "numpy", "pandas", "pydantic"],
        ),
        (["ask", "How do I stream?"], ["gradio", "llama_index", "matplotlib", "pandas", "uvicorn"]),
    ],
    ids=["version", "ask"],
)
def test_a_command_imports_no_more_than_it_needs(
    arguments: list[str], unwanted: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    if arguments[0] == "ask":
        docstral("index", environment=environment, folder=tmp_path)  # to cut the pages takes llama-index
    code = f"""
import sys
from docstral.cli import main
try:
    main({arguments})
except SystemExit:
    pass
print("imported:", *sorted(set({unwanted}) & set(sys.modules)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True,
        text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert ran.stdout.splitlines()[-1].split() == ["imported:"], ran.stderr


# Gradio takes seconds to import, and its pages have tests of their own.
WITHOUT_PAGES = """
import functools, sys
from docstral import cli, serve
serve.create_app = functools.partial(serve.create_app, web=False)
sys.exit(cli.main())
"""


def test_serve_says_when_it_is_ready_answers_and_ends_with_an_interrupt(
    environment: dict[str, str], tmp_path: Path
) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_PAGES, "serve", "--port", "0"],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout and server.stderr
        assert server.stdout.readline().startswith("DocStral is starting at http://127.0.0.1:")
        ready = server.stdout.readline()
        assert ready.startswith("DocStral is ready at http://127.0.0.1:") and "4 pages" in ready
        address = ready.split()[4]
        assert httpx2.get(f"{address}/health", timeout=DEADLINE, trust_env=False).status_code == 200
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=DEADLINE)
    finally:
        server.kill()
        server.communicate()
    assert "Traceback" not in errors and server.returncode in (0, 130)
