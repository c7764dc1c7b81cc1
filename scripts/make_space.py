"""Write build/space/, a Hugging Face Space that is ready to push: the app, its packages' versions, the built index.

`python scripts/make_space.py [FOLDER]`. A Space installs requirements.txt before it sees the other files, so the
package is a folder beside app.py rather than a wheel. docs/DEPLOY.md says how to push it.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.12"  # of the Space

README = """---
title: DocStral
emoji: 🧭
colorFrom: red
colorTo: yellow
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
pinned: false
license: apache-2.0
short_description: Ask Mistral's documentation, with citations
---

# DocStral

Ask Mistral's documentation: answers stream, every claim cites the passage that it came from, and every answer has a
receipt.

> Unofficial demo. Sources cited. Licenses respected.

Without a key the documentation is quoted. The secret `MISTRAL_API_KEY` in this Space's settings lets a Mistral model
answer everybody; without it, visitors can use a key of their own. Chats are kept until the Space restarts; with
persistent storage, set the variable `DOCSTRAL_DATA_DIR` to `/data` and they stay.
"""
# Git on the Hub takes files that are no text through its large file storage alone.
ATTRIBUTES = "data/** filter=lfs diff=lfs merge=lfs -text\n"


def pinned(package: str) -> dict[str, str]:
    "The versions that are installed here of all that a package needs, however far down, by name."
    found: dict[str, str] = {}
    waiting = [(package, "")]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        for line in distribution(name).requires or []:
            wanted = Requirement(line)
            if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
                continue
            known = re.sub(r"[-_.]+", "-", wanted.name).lower()
            found[known] = distribution(known).version
            further = [(known, each) for each in ["", *sorted(wanted.extras)] if (known, each) not in seen]
            seen.update(further)
            waiting += further
    return found


def copy_app(space: Path) -> None:
    "The package with its corpus inside, as a wheel has them, and the file that starts it."
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "docstral", space / "docstral", ignore=hidden)
    shutil.copytree(ROOT / "corpus", space / "docstral" / "shipped_corpus", ignore=hidden)
    for name in ("app.py", "LICENSE"):
        shutil.copy(ROOT / name, space / name)


def build_index(space: Path) -> None:
    "Index the shipped corpus into the Space's data folder, with the Space's own copy of the package."
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCSTRAL_", "MISTRAL_"))}
    environment = kept | {"DOCSTRAL_DATA_DIR": str(space / "data"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-m", "docstral", "index"], cwd=space, env=environment, check=True)


def main() -> None:
    "Make the folder anew."
    space = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "space").resolve()
    shutil.rmtree(space, ignore_errors=True)
    space.mkdir(parents=True)
    versions = pinned("docstral")
    lines = [f"{name}=={version}" for name, version in sorted(versions.items())]
    (space / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf8")
    (space / "README.md").write_text(README.format(gradio=versions["gradio"], python=PYTHON), encoding="utf8")
    (space / ".gitattributes").write_text(ATTRIBUTES, encoding="utf8")
    copy_app(space)
    build_index(space)
    size = sum(path.stat().st_size for path in space.rglob("*") if path.is_file())
    print(f"{space}: {len(lines)} packages pinned, {size / 1e6:.1f} MB. docs/DEPLOY.md says how to push it.")


if __name__ == "__main__":
    main()
