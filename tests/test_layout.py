"What keeps the project small and readable: the order of its modules, their length, and clean files."

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docstral.settings import settings_file

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "docstral"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_"))
LINES = 400  # of one generated module: past that it is two modules


def module_name(path: Path) -> str:
    "`docstral/providers/base.py` as `providers.base`."
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def reading_order() -> list[str]:
    "The modules in the order of the notebooks that write them."
    order = []
    for notebook in sorted((ROOT / "nbs").rglob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells)
        order += re.findall(r"^#\|\s*default_exp\s+(\S+)", source, re.MULTILINE)
    return order


def test_the_architecture_tells_of_every_module() -> None:
    text, package = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf8"), ""
    told = set()
    for row in re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row):
            package = package if name.startswith(".") else name.partition(".")[0]
            told.add(f"{package}{name}" if name.startswith(".") else name)
    missing = [name for name in reading_order() if name not in told and not name.startswith("api.")]
    assert not missing, f"docs/ARCHITECTURE.md does not name {', '.join(missing)}"


def imported(path: Path, known: set[str]) -> Iterator[str]:
    "The modules of docstral that a file imports, anywhere in it: at its top or inside a function."
    package = ["docstral", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [start, *(f"{start}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name.removeprefix("docstral.") for name in names if name.removeprefix("docstral.") in known)


def test_every_module_has_a_notebook() -> None:
    written, there = set(reading_order()), {module_name(path) for path in MODULES}
    assert not there - written, f"no notebook writes {', '.join(sorted(there - written))}"
    assert not written - there, f"not exported: {', '.join(sorted(written - there))}; run make export"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    order = reading_order()
    earlier = set(order[: order.index(module_name(path))])
    later = sorted(set(imported(path, set(order))) - earlier)
    assert not later, f"{module_name(path)} imports what comes later in reading order: {', '.join(later)}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_are_short(path: Path) -> None:
    count = len(path.read_text(encoding="utf8").splitlines())
    assert count <= LINES, f"{module_name(path)} has {count} lines; split it"


def test_importing_docstral_is_light() -> None:
    "`import docstral` answers at once: what takes seconds to import waits until it is needed."
    heavy = ["bm25s", "faiss", "gradio", "llama_index", "mistralai", "pandas", "torch", "vllm", "wordllama"]
    code = f"import docstral, sys; print(*sorted(set({heavy}) & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_settings_ini_documents_every_setting() -> None:
    assert (ROOT / "settings.ini").read_text(encoding="utf8") == settings_file(), "run make export"


def project_files() -> list[Path]:
    "Every text file that is, or could be, committed."
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


def test_files_name_no_machine_and_no_package_host() -> None:
    "A path of the machine that something was written on, or the host that its packages came from, helps nobody else."
    machine = r"/(home/(?!user\b)|Users|work|opt/pypi|opt/wheels)/|/root/\.pyenv|/tmp/(tmp|pytest-)\w"
    host = r"files\.pythonhosted\.org|pypi\.org/simple|registry\.npmjs\.org|--(extra-)?index-url|--find-links"
    wanted = re.compile(rf"(?<![\w.~}}-])({machine}|{host})")
    found = []
    for path in set(project_files()) - {Path(__file__)}:
        for number, line in enumerate(path.read_text(encoding="utf8", errors="replace").splitlines(), 1):
            if match := wanted.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found, "\n".join(sorted(found))
