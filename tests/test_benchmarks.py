"The benchmarks run and print their tables, and the page of results is up to date. No figure is judged."

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import DEADLINE, ROOT

from benchmarks.__main__ import NAMES
from benchmarks.report import PAGE, bars, draw, page, results


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_prints_its_tables_and_writes_them(name: str, tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--least", "--json", str(kept)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=5 * DEADLINE)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(kept.read_text())
    assert result["tables"] and result["about"].strip() and "cores" in result["machine"]
    for table in result["tables"]:
        assert table["title"] in ran.stdout
        assert table["rows"] and all(len(row) == len(table["columns"]) for row in table["rows"])
        for row in table["rows"]:
            assert any(line.startswith(str(row[0])) for line in ran.stdout.splitlines())
    ratios = [table for table in result["tables"] if "ratio" in table["columns"]]
    assert ratios, "no figure is beside a baseline"
    for table in ratios:
        if "bare" in table["columns"]:  # beside each figure
            continue
        assert 1 in [row[table["columns"].index("ratio")] for row in table["rows"]], "the baseline is not in its table"
    assert f"## {name}" in page({name: result})


def test_the_runner_knows_every_benchmark_and_no_other() -> None:
    command = [sys.executable, "-m", "benchmarks", "nonsense"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert ran.returncode == 2 and ", ".join(NAMES) in ran.stderr


def test_the_page_of_results_is_what_the_results_say(tmp_path: Path) -> None:
    assert PAGE.read_text(encoding="utf8") == page(results()), "run python -m benchmarks --write, or only its `write`"
    assert set(results()) <= set(NAMES)
    draw(bars(results()), tmp_path / "plot.svg")
    assert all(name in (tmp_path / "plot.svg").read_text() for name in bars(results()))
