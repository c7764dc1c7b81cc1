"Every notebook runs from top to bottom, offline, and leaves nothing behind."

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))
RUN = """
import sys
from nbdev.test import test_nb
notebook, root, *skipped = sys.argv[1:]
passed, seconds = test_nb(notebook, skip_flags=skipped, basepath=root)
sys.exit(not passed)
"""


def files(folder: Path) -> set[Path]:
    "Every file below a folder, but for what Python and its tools cache."
    return {path for path in folder.rglob("*") if not {"__pycache__", ".venv", ".git"} & set(path.parts)}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_runs_from_top_to_bottom(notebook: Path, plain_environment: dict[str, str]) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    flags = settings["tool"]["nbdev"]["tst_flags"].split()
    before = files(ROOT / "nbs")
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(notebook), str(ROOT), *flags],
        cwd=notebook.parent,
        env=plain_environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if ran.returncode:
        pytest.fail(f"{notebook.name}\n{ran.stdout[-2000:]}{ran.stderr[-8000:]}", pytrace=False)
    left = files(ROOT / "nbs") - before
    assert not left, f"{notebook.name} leaves files behind: {', '.join(sorted(path.name for path in left))}"
