"""Write what comes from the notebooks: the modules, README.md, settings.ini and .env.example; and clean the notebooks.

`python scripts/export.py [FOLDER]`: FOLDER is the project, this checkout unless another copy of it is named.
"""

import importlib
import json
import os
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

NOTICE = "<!-- Rendered from nbs/index.ipynb by `make export`: edit the notebook, not this file. -->"
CONTAINERS = """\
# Variables of the containers: copy this file to .env, which is never committed, and uncomment what you change.
# Each setting of settings.ini is here as the variable that wins over it. docs/DEPLOY.md says more.

"""
PRODUCTION = """
# Production only: the name that readers type; the proxy gets a certificate for it
# DOCSTRAL_SITE=localhost

# Production only, and needed there: the password of the database, such as `openssl rand -hex 24` gives
# DOCSTRAL_DATABASE_PASSWORD=

# Production only: the model that vLLM serves; docs/DEPLOY.md has sizes and the memory that they need
# VLLM_MODEL=mistralai/Ministral-3-8B-Instruct-2512

# Production only: the context (tokens) that vLLM keeps room for, and the share of the GPU's memory that it takes
# VLLM_CONTEXT=16384
# VLLM_MEMORY=0.90

# Production only: a Hugging Face token, for weights whose page asks for consent
# HF_TOKEN=
"""
DIRECTIVE = re.compile(r"^#\|\s*(.+?)\s*$", re.MULTILINE)


def fenced(text: str, language: str) -> str:
    "A fenced code block, with a fence longer than any inside it."
    longest = max((len(run) for run in re.findall(r"^`{3,}", text, re.MULTILINE)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.strip(chr(10))}\n{fence}"


def output_text(output: dict[str, Any]) -> str:
    "What a cell printed or returned, as plain text; nothing for warnings, pictures and widgets."
    if output["output_type"] == "stream" and output["name"] == "stdout":
        return "".join(output["text"])
    return "".join(output.get("data", {}).get("text/plain", ""))


def render_cell(cell: dict[str, Any]) -> str:
    "One cell of a notebook as Markdown, without its directives. Links that leave nbs/ start at the top instead."
    source = "".join(cell["source"])
    directives = {match.replace(" ", "") for match in DIRECTIVE.findall(source)}
    text = DIRECTIVE.sub("", source).strip("\n")
    if cell["cell_type"] == "raw" or "hide" in directives or not text.strip():
        return ""
    if cell["cell_type"] == "markdown":
        return text.replace("](../", "](")
    shown = "" if "echo:false" in directives else fenced(text, "python")
    printed = "\n".join(output_text(output).strip("\n") for output in cell["outputs"]).strip("\n")
    return "\n\n".join(part for part in (shown, printed and fenced(printed, "text")) if part)


def render_readme(notebook: Path) -> str:
    "README.md from the notebook: its prose, its code, and what the code printed."
    cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
    return "\n\n".join([NOTICE, *filter(None, map(render_cell, cells))]) + "\n"


def environment_file(settings: Any) -> str:
    "The text of .env.example: each field of the class `Settings` as a variable, commented out, with its default."
    blocks = []
    for field in fields(settings):
        name = "MISTRAL_API_KEY" if field.name == "mistral_api_key" else f"DOCSTRAL_{field.name.upper()}"
        default = field.default if isinstance(field.default, str | int | float) else ""
        choices = f" ({' | '.join(field.metadata['choices'])})" if field.metadata["choices"] else ""
        blocks.append(f"# {field.metadata['explanation']}{choices}\n# {name}={default}\n")
    return CONTAINERS + "\n".join(blocks) + PRODUCTION


def export(project: Path) -> None:
    "Clean the notebooks of this project, then write what comes from them."
    os.chdir(project)
    os.environ.pop("IN_TEST", None)  # nbdev exports nothing where this is set
    nbdev_clean = importlib.import_module("nbdev.clean").nbdev_clean
    nbdev_export = importlib.import_module("nbdev.doclinks").nbdev_export
    nbdev_clean()
    nbdev_export()
    Path("README.md").write_text(render_readme(Path("nbs/index.ipynb")), encoding="utf8")
    sys.path.insert(0, str(project))
    settings = importlib.import_module("docstral.settings")
    Path("settings.ini").write_text(settings.settings_file(), encoding="utf8")
    Path(".env.example").write_text(environment_file(settings.Settings), encoding="utf8")


if __name__ == "__main__":
    export(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve())
