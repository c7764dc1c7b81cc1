"""Runs code cells as a notebook does, in a process of its own: `python cells.py FOLDER < CELLS`, both ends JSON."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "nbs"


def run_cells(sources: Sequence[str], data: Path) -> list[dict[str, str]]:
    "What each cell shows, by media type (`text/plain`, `text/markdown`); `data` is DocStral's data folder."
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCSTRAL_", "MISTRAL_"))}
    data.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(sources),
        env=kept | {"DOCSTRAL_DATA_DIR": str(data), "IPYTHONDIR": str(data / "ipython")},
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        raise SystemExit(f"A cell of the video fails:\n{ran.stdout}{ran.stderr[-2000:]}")
    shown: list[dict[str, str]] = json.loads(ran.stdout)
    return shown


def shown_by(outputs: Sequence[dict[str, Any]]) -> dict[str, str]:
    "The result among the outputs of a cell. Raises RuntimeError for a cell that fails."
    result: dict[str, str] = {}
    for output in outputs:
        if output["output_type"] == "error":
            raise RuntimeError(f"{output['ename']}: {output['evalue']}")
        if output["output_type"] == "execute_result":
            result = {kind: "".join(text) for kind, text in output["data"].items() if kind.startswith("text/")}
    return result


def first_result(notebook: str, data: Path) -> list[tuple[str, dict[str, str] | None]]:
    "The cells of a notebook down to the first result, without imports: sources, and for code what it shows."
    cells = json.loads((NOTEBOOKS / notebook).read_text(encoding="utf8"))["cells"][:20]
    sources = ["".join(cell["source"]) for cell in cells]
    code = [source for source, cell in zip(sources, cells, strict=True) if cell["cell_type"] == "code"]
    shown = iter(run_cells(code, data))
    kept: list[tuple[str, dict[str, str] | None]] = []
    for source, cell in zip(sources, cells, strict=True):
        result = next(shown) if cell["cell_type"] == "code" else None
        if not re.search(r"default_exp|^(from|import) ", source, re.MULTILINE):
            kept.append((source, result))
        if result:
            return kept
    raise SystemExit(f"{notebook} shows no result within its first cells.")


if __name__ == "__main__":
    from execnb.shell import CaptureShell

    shell = CaptureShell(NOTEBOOKS, mpl_format="")
    print(json.dumps([shown_by(shell.run(source)) for source in json.load(sys.stdin)]))
    sys.stdout.flush()
    os._exit(0)  # without the complaints of libraries that are torn down with objects of a shell still there
