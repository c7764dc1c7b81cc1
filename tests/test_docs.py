"What the documentation says is there, and what is there is in the documentation."

import argparse
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from fastapi.routing import APIRoute
from helpers import DEADLINE, ROOT, docstral

from docstral.api.app import create_api
from docstral.chat import ChatService
from docstral.cli import parser
from docstral.settings import Settings, variable

API, SETUP = ROOT / "docs" / "API.md", ROOT / "docs" / "SETUP.md"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
# Commands that cannot run here: one serves until it is stopped, one fetches from the network
NOT_RUN = "docstral serve", "docstral mcp", "docstral corpus sync"


def text_of(path: Path) -> str:
    "The text of a page of documentation."
    if not path.is_file():
        pytest.skip(f"{path.name} is not written yet")
    return path.read_text(encoding="utf8")


def examples(path: Path) -> list[str]:
    "The fenced bash examples of a page, in their order."
    text = path.read_text(encoding="utf8") if path.is_file() else ""
    return list(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def test_the_examples_of_the_api_run_in_their_order(live: str, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl on this machine")
    text_of(API)
    found = examples(API)
    assert sum("curl" in code for code in found) >= 5
    for code in found:
        script = code.replace("http://127.0.0.1:7860", live).replace("curl ", "curl --fail-with-body --noproxy '*' ")
        assert "7860" not in script
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE
        )
        assert ran.returncode == 0, code + ran.stdout + ran.stderr
        assert '{"error"' not in ran.stdout and "event: error" not in ran.stdout, code + ran.stdout


def test_the_readmes_example_over_http_runs(live: str) -> None:
    [code] = [code for code in examples(ROOT / "README.md") if "curl" in code]
    ran = subprocess.run(
        ["bash", "-c", code.replace("http://127.0.0.1:7860", live).replace("curl ", "curl --noproxy '*' ")],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert "event: done" in ran.stdout, ran.stderr


def test_every_setting_is_in_the_setup_guide_with_its_default() -> None:
    text = text_of(SETUP)
    for setting in fields(Settings):
        name = variable(setting.name)
        assert name in text, f"docs/SETUP.md does not name {name}"
        for choice in setting.metadata["choices"]:
            assert f"`{choice}`" in text, f"docs/SETUP.md does not name {choice} of {name}"


def test_the_setup_guide_names_no_setting_that_is_not_there() -> None:
    known = {f"DOCSTRAL_{setting.name.upper()}" for setting in fields(Settings)} | {"DOCSTRAL_SETTINGS"}
    assert (
        not set(re.findall(r"DOCSTRAL_[A-Z_]+[A-Z]", text_of(SETUP)))
        - known
        - {"DOCSTRAL_REQUIRE_BROWSER", "DOCSTRAL_REQUIRE_NODE", "DOCSTRAL_REQUIRE_TOOLS"}
    )


def test_every_address_of_the_api_is_documented(service: ChatService) -> None:
    text = text_of(API)
    routes = [route for route in routes_of(create_api(service).routes) if route.include_in_schema]
    assert len(routes) >= 5
    for route in routes:
        for method in route.methods or ():
            assert f"`{method} {route.path}`" in text, f"docs/API.md does not name {method} {route.path}"


def routes_of(found: list[object]) -> list[APIRoute]:
    "The routes, also those within routers that were included."
    own = [route for route in found if isinstance(route, APIRoute)]
    inner = [getattr(route, "original_router", None) or getattr(route, "app", None) for route in found]
    return own + [each for router in inner if hasattr(router, "routes") for each in routes_of(router.routes)]


def test_every_field_of_a_question_and_a_receipt_is_documented() -> None:
    from docstral.api.chats import ChatRequest
    from docstral.types import Passage, Receipt

    text = text_of(API)
    for name in [*ChatRequest.model_fields, *Receipt.__slots__, *Passage.__slots__]:
        assert f"`{name}`" in text, f"docs/API.md does not name {name}"


def test_every_command_and_option_is_documented() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf8") for path in pages)
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)).choices
    assert "docstral --version" in text
    for name in commands:
        assert f"docstral {name}" in text, f"no page names docstral {name}"


def commands(path: Path) -> list[str]:
    "The lines of a page's bash examples that call `docstral`, without their comments."
    lines = "\n".join(examples(path)).splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("docstral ")]


@pytest.mark.parametrize("page", ["README.md", "docs/SETUP.md"])
def test_the_commands_of_the_pages_run(
    page: str, pages: Path, tmp_path: Path, plain_environment: dict[str, str]
) -> None:
    shutil.copytree(ROOT / "corpus", tmp_path / "corpus")
    shutil.copy(ROOT / "corpus" / "questions.jsonl", tmp_path)
    stand_ins = {"path/to/markdown": str(pages), "path/to/pages": str(pages), "PATH": str(pages), '"..."': '"stream"'}
    found = [line for line in commands(ROOT / page) if not line.startswith(NOT_RUN)]
    assert len(found) >= 4
    for line in found:
        words = line
        for placeholder, value in stand_ins.items():
            words = words.replace(placeholder, value)
        ran = docstral(*shlex.split(words)[1:], environment=plain_environment, folder=tmp_path)
        assert ran.returncode == 0 and ran.stdout, f"{line}\n{ran.stdout}{ran.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_are_in_their_language(page: Path) -> None:
    for code in examples(page):
        ran = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, timeout=DEADLINE)
        assert not ran.returncode, f"{page.name}: {ran.stderr}\n{code}"
    text = page.read_text(encoding="utf8")
    for code in re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        json.loads(code)
    for code in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yaml.safe_load(code)


def test_the_pages_make_what_the_makefile_makes() -> None:
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|^|&& )make ([a-z][a-z-]*)", page.read_text(encoding="utf8"), re.MULTILINE):
            assert target in made, f"{page.name} says make {target}"
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    assert {"test", "run", "export", "lint", "test-deploy"} <= set(re.findall(r"make ([a-z-]+)", contributing))


def test_every_promise_about_security_has_its_test() -> None:
    table = (ROOT / "SECURITY.md").read_text(encoding="utf8").partition("## What is not promised")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test stands for: {row}"
        for file, name in named:
            assert f"def {name}(" in text_of(ROOT / file), f"SECURITY.md names {file}::{name}, which is not there"


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)\s#]+)", page.read_text(encoding="utf8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
