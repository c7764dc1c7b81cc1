"The wheel that `pip install` gets holds everything, and needs nothing of what the project is developed with."

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_NBDEV = "import sys; sys.modules.update(dict.fromkeys(['nbdev', 'fastcore', 'execnb', 'IPython']))\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "DocStral's wheel, built offline."
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("docstral-*-py3-none-any.whl"))


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    "A folder to put on PYTHONPATH that holds what the wheel installs, and nothing of this checkout."
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    return tmp_path / "installed"


def run(code: str, installed: Path, environment: dict[str, str], *arguments: str) -> str:
    "What a program prints that has the wheel and its dependencies, but not nbdev."
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_NBDEV + code, *arguments],
        cwd=installed.parent,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_holds_modules_corpus_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        information = next(name for name in names if name.endswith(".dist-info/METADATA")).removesuffix("METADATA")
        commands = archive.read(f"{information}entry_points.txt").decode()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docstral").rglob("*.py")}
    pages = {f"docstral/shipped_corpus/{path.name}" for path in (ROOT / "corpus").glob("*.md")}
    assert pages
    assert not (modules | pages | {f"{information}licenses/LICENSE"}) - names
    assert "docstral = docstral.cli:main" in commands
    assert not [name for name in names if name.endswith(".ipynb") or name.startswith("tests/")]


def test_declares_what_it_imports() -> None:
    "What the library imports is named in pyproject.toml, not only brought along by some other package."
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    declared = {re.split(r"[\[<>=!~; ]", line)[0].lower() for line in wanted}
    distributions = packages_distributions()
    undeclared = set()
    for path in (ROOT / "docstral").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            absolute = isinstance(node, ast.ImportFrom) and not node.level
            names = [node.module] if absolute else [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in {name.split(".")[0] for name in names if name} - sys.stdlib_module_names - {"docstral"}:
                if not {known.lower().replace("_", "-") for known in distributions.get(name, [name])} & declared:
                    undeclared.add(f"{path.name} imports {name}")
    assert not undeclared, "\n".join(sorted(undeclared))


def test_imports_without_nbdev(installed: Path, plain_environment: dict[str, str]) -> None:
    printed = run("import docstral; print(docstral.__file__)", installed, plain_environment)
    assert Path(printed.strip()) == installed / "docstral" / "__init__.py"


# What a user has not: tools of development, the web app's Gradio, and a network.
FORBIDDEN = """
import socket
sys.modules.update(dict.fromkeys(['gradio', 'pytest', 'jupytext', 'ruff', 'mypy', 'playwright', 'llama_index.llms']))
def refuse(*arguments, **more):
    raise AssertionError(f"the network was used: {arguments}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""
ANSWER = FORBIDDEN + "from docstral.cli import main; sys.exit(main(sys.argv[1:]))"


def test_answers_from_the_shipped_corpus_offline(installed: Path, plain_environment: dict[str, str]) -> None:
    printed = run(ANSWER, installed, plain_environment, "ask", "How do I stream a chat completion?", "--json")
    answer = json.loads(printed)
    assert answer["outcome"] == "cited" and answer["receipt"]["provider"] == "extractive"
    assert "stream" in answer["text"] and answer["citations"]
    pages = {path.relative_to(installed / "docstral" / "shipped_corpus").as_posix() for path in installed.rglob("*.md")}
    assert answer["sources"][0]["page"] in pages


def test_answers_in_a_few_lines_of_python(installed: Path, plain_environment: dict[str, str]) -> None:
    code = FORBIDDEN + "from docstral import ask; print(ask('How do I know that a stream is finished?'))"
    printed = run(code, installed, plain_environment)
    assert "[DONE]" in printed and "[1]" in printed and "https://" in printed
