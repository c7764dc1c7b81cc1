"""docs/BENCHMARKS.md and its plot, from the results in benchmarks/results."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import ROOT, shown

RESULTS = ROOT / "benchmarks" / "results"
PAGE, PLOT = ROOT / "docs" / "BENCHMARKS.md", ROOT / "docs" / "benchmarks.svg"
OPENING = """# Benchmarks

What DocStral costs, each figure beside a bare loop, a bare server or a peer that was measured in the same run: a
machine's load moves seconds, and ratios far less. Figures are CPU time where nothing else is said.

```bash
make bench                                # all of them, in full, and this page anew
.venv/bin/python -m benchmarks --quick    # all of them with small sizes, in about five minutes
.venv/bin/python -m benchmarks start      # one of them; --write puts its results here
.venv/bin/python -m benchmarks.start -h   # its sizes
```

This page and the plot are written from `benchmarks/results/` by `python -m benchmarks`: edit neither.

![How many times its baseline each figure is](benchmarks.svg)
"""


def results() -> dict[str, dict[str, Any]]:
    "What was measured last, by the names of the benchmarks."
    return {path.stem: json.loads(path.read_text(encoding="utf8")) for path in sorted(RESULTS.glob("*.json"))}


def markdown(table: dict[str, Any]) -> str:
    "A table in Markdown."
    columns = table["columns"]
    lines = [
        columns,
        ["---", *("---:" for _ in columns[1:])],
        *([shown(cell) for cell in row] for row in table["rows"]),
    ]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join(part for part in (f"**{table['title']}**", body, table["note"]) if part)


def section(name: str, result: dict[str, Any]) -> str:
    "A benchmark's part of the page."
    headline, _, about = result["about"].strip().partition("\n")
    prose = [part for part in about.strip("\n").split("\n\n") if not part.startswith("    ")]
    sizes = " ".join(
        f"--{size} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for size, value in result["sizes"].items()
        if value != []
    )
    ran = f"`python -m benchmarks.{name} {sizes}`".replace(" `", "`")
    measured = f"{ran}, {result['date']}, {result['machine']}."
    return "\n\n".join([f"## {name}", headline, *prose, measured, *map(markdown, result["tables"])])


def bars(found: dict[str, dict[str, Any]]) -> dict[str, list[tuple[str, float]]]:
    "The ratios of each benchmark that has some, with what each is of: of several sizes the last. No baselines."
    drawn: dict[str, dict[str, float]] = {}
    for name, result in found.items():
        for table in result["tables"]:
            if "ratio" in table["columns"]:
                column = table["columns"].index("ratio")
                kept = [(str(row[0]), row[column]) for row in table["rows"] if isinstance(row[column], int | float)]
                drawn.setdefault(name, {}).update((label, ratio) for label, ratio in kept if ratio > 0 and ratio != 1)
    return {name: list(ratios.items()) for name, ratios in drawn.items() if ratios}


def draw(drawn: dict[str, list[tuple[str, float]]], path: Path) -> None:
    "Ratios as bars, on a logarithmic axis; the line is the baseline."
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "docstral", "font.size": 8, "svg.fonttype": "none"})
    import matplotlib.pyplot as plt

    heights = [len(pairs) + 1 for pairs in drawn.values()]
    figure, places = plt.subplots(
        len(drawn), figsize=(7.5, 0.17 * sum(heights) + 0.4), height_ratios=heights, sharex=True, squeeze=False
    )
    for place, (name, pairs) in zip(places[:, 0], drawn.items(), strict=True):
        _bars(place, name, pairs)
    places[-1, 0].set_xlabel("times its baseline in the same run")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _bars(place: Any, name: str, pairs: Sequence[tuple[str, float]]) -> None:
    "One benchmark's bars."
    labels, figures = [label for label, _ in pairs], [figure for _, figure in pairs]
    place.barh(range(len(pairs)), [figure - 1 for figure in figures], left=1, color="#fa520f")
    for row, figure in enumerate(figures):
        place.text(figure, row, f" {shown(float(figure))}", va="center", ha="left" if figure > 1 else "right")
    place.axvline(1, color="#555555", linewidth=0.8)
    place.set_yticks(range(len(pairs)), labels)
    place.set_xscale("log")
    place.invert_yaxis()
    place.set_title(name, loc="left", fontweight="bold", fontsize=8)
    place.spines[["top", "right"]].set_visible(False)


def page(found: dict[str, dict[str, Any]]) -> str:
    "The page with these results."
    return "\n\n".join([OPENING.strip(), *(section(name, result) for name, result in found.items())]) + "\n"


def write() -> None:
    "Write the page and the plot anew."
    found = results()
    PAGE.write_text(page(found), encoding="utf8")
    if drawn := bars(found):
        draw(drawn, PLOT)
