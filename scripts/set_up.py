"""Create `.venv` and install DocStral into it: `set_up.py` for running it, `set_up.py dev` for testing it too.

Needs nothing but Python's standard library. Does nothing when it was done for the same pyproject.toml, constraints.txt
and place already, which a stamp inside `.venv` tells.
"""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts" if sys.platform == "win32" else "bin") / "python"
LOG = VENV / "install.log"
USABLE = "import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))"


def fingerprint() -> str:
    "Changes whenever an installation has to be made again."
    parts = [str(ROOT).encode(), (ROOT / "pyproject.toml").read_bytes(), (ROOT / "constraints.txt").read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def venv_works() -> bool:
    "Whether `.venv` holds a Python that DocStral can use, with pip."
    return PYTHON.exists() and subprocess.run([PYTHON, "-c", USABLE], capture_output=True).returncode == 0


def create_venv() -> None:
    "Make `.venv` with the Python that runs this script, or say what that Python lacks."
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        import ensurepip  # noqa: F401
        import venv
    except ImportError:
        lacking = f"{sys.executable} cannot create virtual environments: its venv module is not installed."
        sys.exit(f"{lacking}\nOn Debian and Ubuntu: sudo apt-get install python{version}-venv; then run make again.")
    print(f"Creating .venv with Python {version} (a few seconds) ...", flush=True)
    venv.create(VENV, clear=True, with_pip=True)


def pip_install(what: str) -> None:
    "Install with the exact versions of constraints.txt. Shows a count; pip's own words go to `.venv/install.log`."
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off"]
    command = [*pip, "-c", "constraints.txt", "-e", what]
    started, count = time.monotonic(), 0
    with (
        LOG.open("w", encoding="utf8") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        for line in process.stdout or ():
            log.write(line)
            if line.startswith(("Collecting ", "Processing ")):
                count += 1
                show(f"  {count} packages: {Path(line.split()[1]).name[:40]}")
            elif count and line.startswith("Installing collected packages"):
                show(f"  {count} packages downloaded, installing them ...", last=True)
    if process.returncode:
        tail = LOG.read_text(encoding="utf8", errors="replace").splitlines()[-15:]
        sys.exit("\n".join([*tail, "", f"pip could not install DocStral; all it said is in {LOG.relative_to(ROOT)}."]))
    print(f"  Installed in {time.monotonic() - started:.0f} s.", flush=True)


def show(line: str, last: bool = False) -> None:
    "Progress: rewrites one line on a terminal; in a log only the last of its lines."
    if sys.stdout.isatty():
        print(f"\r{line:<70}", end="\n" if last else "", flush=True)
    elif last:
        print(line, flush=True)


def main() -> None:
    "Set up for running, or with the argument `dev` for running and testing."
    dev = sys.argv[1:] == ["dev"]
    stamps = [VENV / "installed-dev", VENV / "installed"]
    wanted = fingerprint()
    if not venv_works():
        create_venv()
    if any(stamp.exists() and stamp.read_text() == wanted for stamp in (stamps[:1] if dev else stamps)):
        return
    tools = " and the tools that test it" if dev else ""
    print(f"Installing DocStral{tools} into .venv (1 to 3 minutes the first time) ...", flush=True)
    pip_install(".[dev]" if dev else ".")
    stamps[0 if dev else 1].write_text(wanted)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. Run make again to go on.")
