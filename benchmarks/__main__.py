"""Run the benchmarks, each in a process of its own: all of them, or those named.

    python -m benchmarks [NAME ...] [--quick | --least] [--write]

`--write` keeps the results in benchmarks/results and writes docs/BENCHMARKS.md and its plot from all that is there.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.bench import ROOT
from benchmarks.report import RESULTS, write

NAMES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "__main__", "bench", "report")
)


def main() -> int:
    "Run them; returns how many failed."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes: about five minutes for all")
    parser.add_argument("--least", action="store_true", help="the smallest sizes: to see that they run")
    parser.add_argument("--write", action="store_true", help="write the results into docs/BENCHMARKS.md")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    options = [f"--{size}" for size in ("quick", "least") if getattr(given, size)]
    failed = []
    for name in given.names or NAMES:
        print(f"== {name}", flush=True)
        kept = ["--json", str(RESULTS / f"{name}.json")] if given.write else []
        began = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options, *kept], cwd=ROOT).returncode:
            failed.append(name)
        print(f"-- {name}: {time.monotonic() - began:.0f} s\n", flush=True)
    if given.write:
        write()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
