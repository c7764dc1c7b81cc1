"""Read what `pip-audit --format json` found: fail for a weakness that a newer version mends, name the others.

A weakness without a mended version cannot be acted on by a change here, so it warns rather than stops every change.
"""

import json
import sys
from typing import Any


def weaknesses(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    "A line for each weakness: those that a newer version mends, and the others. Raises `ValueError` for no package."
    mended, unmended = [], []
    audited = [package for package in report["dependencies"] if "vulns" in package]
    if not audited:
        raise ValueError("pip-audit looked at no package.")
    for package in audited:
        for found in package["vulns"]:
            line = f"{package['name']} {package['version']}: {found['id']}"
            if found["fix_versions"]:
                mended.append(f"{line}, mended in {', '.join(found['fix_versions'])}")
            else:
                unmended.append(f"{line}, not mended yet")
    return mended, unmended


def main() -> int:
    "Report from standard input; returns 1 where a version has to be changed."
    mended, unmended = weaknesses(json.load(sys.stdin))
    print(*(f"::warning::{line}" for line in unmended), *(f"::error::{line}" for line in mended), sep="\n")
    return int(bool(mended))


if __name__ == "__main__":
    sys.exit(main())
