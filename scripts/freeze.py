"Write constraints.txt: one version of each package of DocStral, `dev` and `fuzz`, for every supported Python."

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = "3.11", "3.12", "3.13"
HEADER = "# A tested set for Python 3.11 to 3.13: resolved by `make constraints`, then tried with `make test`.\n"


def interpreters() -> dict[str, str]:
    "A Python of each supported version that runs here, oldest first."
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    named = {version: shutil.which(f"python{version}") for version in VERSIONS} | {own: sys.executable}
    return {version: python for version, python in sorted(named.items()) if python and runs(python)}


def runs(python: str) -> bool:
    "Whether this is a working Python: a name on the PATH may be a shim with nothing behind it."
    return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


def as_lines(versions: dict[str, str]) -> str:
    "The packages as constraints, by name."
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def resolve(python: str, chosen: dict[str, str]) -> dict[str, str]:
    "What pip would install for this Python, given the versions already chosen for an older one. Installs nothing."
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder) / "constraints.txt", Path(folder) / "report.json"
        constraints.write_text(as_lines(chosen))
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "-qq"]
        wanted = ["--dry-run", "--ignore-installed", "--report", str(report), "-c", str(constraints), ".[dev,fuzz]"]
        subprocess.run([*pip, *wanted], cwd=ROOT, check=True)
        packages = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {item["name"].lower().replace("_", "-"): item["version"] for item in packages if item["name"] != "docstral"}


def main() -> None:
    "Resolve for the oldest Python first, so that the newer ones take the same versions wherever they can."
    found = interpreters()
    chosen: dict[str, str] = {}
    for version, python in found.items():
        print(f"Resolving for Python {version} (about a minute) ...", flush=True)
        chosen |= resolve(python, chosen)
    (ROOT / "constraints.txt").write_text(HEADER + as_lines(chosen))
    print(f"constraints.txt: {len(chosen)} packages. Now try it: make clean test, with each Python.")
    if missing := [version for version in VERSIONS if version not in found]:
        print(f"Not resolved for Python {', '.join(missing)}: not found here.")


if __name__ == "__main__":
    main()
