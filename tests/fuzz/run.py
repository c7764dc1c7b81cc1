"""Coverage-guided fuzzing of what reads other people's text, with the checks of tests/invariants.py.

`run.py` runs each target for FUZZ_SECONDS seconds; `run.py TARGET ...` runs one, with libFuzzer's own options: a file
that it wrote when something failed, say. Needs atheris: `make fuzz` installs it.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "30"))  # for each target
LONGEST = 4_000  # bytes of an input


def targets() -> dict[str, tuple[list[str], Callable[[bytes], object]]]:
    "By name: the words that inputs are made of, and what has to hold for an input."
    import atheris

    with atheris.instrument_imports(include=["docstral"]):
        import invariants

    def answer(data: bytes) -> None:
        text = data.decode("utf8", "replace")
        invariants.holds_for_citations(list(text), len(data) % 13)
        invariants.holds_for_citations(invariants.pieces_of(text, data[:6]), len(data) % 13)

    def stream(data: bytes) -> None:
        invariants.holds_for_stream([data[at : at + 1] for at in range(len(data))])
        invariants.holds_for_event(data)
        invariants.holds_for_refusal(data)

    return {
        "mdx": (invariants.PAGE, lambda data: invariants.holds_for_markdown(data.decode("utf8", "replace"))),
        "citations": (invariants.ANSWER, answer),
        "stream": (invariants.STREAM, stream),
    }


def fuzz(name: str, options: list[str]) -> None:
    "Fuzz one target in this process, until libFuzzer ends it."
    import atheris

    words, check = targets()[name]
    with tempfile.TemporaryDirectory() as folder:
        dictionary = Path(folder) / "words.dict"
        escaped = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in words)
        dictionary.write_text("".join(f'"{word}"\n' for word in escaped))
        atheris.Setup([sys.argv[0], "-verbosity=0", f"-dict={dictionary}", f"-max_len={LONGEST}", *options], check)
        atheris.Fuzz()


def main() -> int:
    "Run every target; returns 0 where none failed."
    if not importlib.util.find_spec("atheris"):
        print("Not fuzzed: atheris has no package for this machine, only for Linux on x86-64.")
        return 0
    failures = Path(tempfile.mkdtemp(prefix="docstral-fuzz-"))
    for name in ("mdx", "citations", "stream"):
        print(f"Fuzzing {name} for {SECONDS} seconds ...", flush=True)
        with tempfile.TemporaryDirectory() as found:  # libFuzzer writes new inputs into the first folder
            options = [
                f"-max_total_time={SECONDS}",
                f"-artifact_prefix={failures}/{name}-",
                "-timeout=20",
                "-print_final_stats=1",
            ]
            command = [sys.executable, __file__, name, *options, found, str(HERE / "seeds" / name)]
            ran = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if ran.returncode:
            print(ran.stdout[-4_000:], ran.stderr[-8_000:], sep="\n")
            print(f"Failed. The input is in {failures}. Make a test of it: CONTRIBUTING.md says how.")
            return 1
        stats = dict(line.removeprefix("stat::").split(":") for line in ran.stderr.splitlines() if "stat::" in line)
        print(f"  {int(stats['number_of_executed_units']):,} inputs, nothing found.")
    failures.rmdir()
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fuzz(sys.argv[1], sys.argv[2:])
    else:
        sys.exit(main())
