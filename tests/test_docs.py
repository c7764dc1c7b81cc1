"What the documentation says is there, and what is there is in the documentation."

import argparse
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import httpx2
import pytest
import yaml
from fastapi.routing import APIRoute
from helpers import DEADLINE, ROOT

from docstral.api.app import create_api
from docstral.chat import ChatService
from docstral.cli import parser
from docstral.errors import DocStralError
from docstral.question import Question
from docstral.settings import Settings, variable

API, SETUP = ROOT / "docs" / "API.md", ROOT / "docs" / "SETUP.md"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
LANGUAGES = set("bash python json yaml text mermaid sql ini toml html javascript typescript".split())
INTERNAL = {"settings", "corpus", "server"}  # errors of programs that have not started to answer
# A line of a flow chart: nodes and arrows, as far as the pages use them
NODE = r"\w[\w-]*(?:\[\"[^\"]*\"\]|\[\([^)]*\)\]|\[[^\]\"()]*\]|\([^()]*\)|\{[^{}]*\})?"
NODES = rf"{NODE}(?: & {NODE})*"
ARROW = r"(?:<?-->|---|-\.->|==>|-- [^-]+ -->|-\. [^.]+ \.->)(?:\|[^|]+\|)?"
FLOW = re.compile(rf"{NODES}(?: {ARROW} {NODES})*|subgraph .+|end|direction \w+|(?:classDef|class|style) .+")
# Where variables are read that are no settings: of the tests, and of the containers
NOT_SETTINGS = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("docker/**/*.*"), ROOT / "compose.yaml"]


def text_of(path: Path) -> str:
    "The text of a page of documentation."
    if not path.is_file():
        pytest.skip(f"{path.name} is not written yet")
    return path.read_text(encoding="utf8")


def test_every_setting_is_in_the_setup_guide_with_its_default() -> None:
    text = text_of(SETUP)
    for setting in fields(Settings):
        name = variable(setting.name)
        assert name in text, f"docs/SETUP.md does not name {name}"
        for choice in setting.metadata["choices"]:
            assert f"`{choice}`" in text, f"docs/SETUP.md does not name {choice} of {name}"


def test_no_page_names_a_setting_that_is_not_there() -> None:
    known = {variable(setting.name) for setting in fields(Settings)} | {"DOCSTRAL_SETTINGS"}
    known |= set(re.findall(r"DOCSTRAL_[A-Z_]+[A-Z]", "\n".join(text_of(path) for path in NOT_SETTINGS)))
    for page in PAGES:
        for name in re.findall(r"DOCSTRAL_[A-Z_]+[A-Z]", text_of(page)):
            assert name in known, f"{page.name} names {name}, which is no setting, and which nothing else reads"


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


def commands(of: argparse.ArgumentParser, name: str = "docstral") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    "All commands with their parsers, also those within others."
    inner = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    for word, parsed in [pair for action in inner for pair in action.choices.items()]:
        yield from commands(parsed, f"{name} {word}")
    if not inner:
        yield name, of


def rows_of_commands() -> dict[str, str]:
    "The rows of the table of commands in docs/SETUP.md, by the command's name."
    table = text_of(SETUP).partition("## Commands\n")[2].partition("\n## ")[0]
    return {words.strip(): row for row, words in re.findall(r"^(\| `(docstral(?: [a-z]+)+).*)$", table, re.MULTILINE)}


def test_every_command_and_option_is_documented() -> None:
    rows = rows_of_commands()
    known = dict(commands(parser()))
    assert "--version" in text_of(SETUP)
    assert set(known) == set(rows), "the table of commands in docs/SETUP.md has a row too few or too many"
    for name, command in known.items():
        options = {option for action in command._actions for option in action.option_strings} - {"-h", "--help"}
        said = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rows[name]))
        assert not options - said, f"docs/SETUP.md does not name {options - said} of {name}"
        assert not said - options, f"docs/SETUP.md names {said - options} of {name}, which it does not have"


def test_no_page_names_a_command_that_is_not_there() -> None:
    known = {name.split()[1] for name, _ in commands(parser())}
    for page in PAGES:
        for word in re.findall(r"(?:^|`)docstral ([a-z]+)", text_of(page), re.MULTILINE):
            assert word in known, f"{page.name} says docstral {word}, which is no command"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_are_in_their_language(page: Path) -> None:
    text = page.read_text(encoding="utf8")
    for code in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        ran = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, timeout=DEADLINE)
        assert not ran.returncode, f"{page.name}: {ran.stderr}\n{code}"
    for code in re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        json.loads(code)
    for code in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yaml.safe_load(code)
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        compile(code, page.name, "exec")
    for language in re.findall(r"^```(\w*)\n(?:.*?)^```", text, re.MULTILINE | re.DOTALL):
        assert language in LANGUAGES, f"{page.name} has an example in {language or 'no language'}"


def test_the_pages_make_what_the_makefile_makes() -> None:
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|^|&& )make ([a-z][a-z-]*)", page.read_text(encoding="utf8"), re.MULTILINE):
            assert target in made, f"{page.name} says make {target}"
    contributing = text_of(ROOT / "CONTRIBUTING.md")
    for target in made - {"venv", "venv-dev"}:  # those two only prepare the others
        assert re.search(rf"make {target}(?![\w-])", contributing), f"CONTRIBUTING.md does not name make {target}"


def test_every_promise_about_security_has_its_test() -> None:
    table = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf8").partition("## What is not promised")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test stands for: {row}"
        for file, name in named:
            assert f"def {name}(" in text_of(ROOT / file), f"SECURITY.md names {file}::{name}, which is not there"


def anchors(page: Path) -> set[str]:
    "The anchors that GitHub gives to the headings of a page."
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{sum(each.startswith(slug) for each in found)}")
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?://|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)", text_of(page)):
        place = page.parent / target if target else page
        assert place.exists(), f"{page.name} links to {target}, which is not there"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{page.name} links to {target}#{anchor}, and there is no such heading"


def test_the_readme_leads_to_every_page() -> None:
    text = text_of(ROOT / "README.md")
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        assert name == "README.md" or f"]({name})" in text, f"README.md does not lead to {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_diagrams_of_a_page_are_drawn(page: Path) -> None:
    for code in re.findall(r"^```mermaid\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL):
        first, *lines = [
            line.strip() for line in code.splitlines() if line.strip() and not line.strip().startswith("%%")
        ]
        if re.fullmatch(r"(flowchart|graph) (LR|RL|TD|TB|BT)", first):
            for line in lines:
                assert FLOW.fullmatch(line), f"{page.name}: this is no line of a flow chart: {line}"
        else:
            assert first in ("sequenceDiagram", "stateDiagram-v2", "classDiagram", "erDiagram"), f"{page.name}: {first}"


async def test_every_figure_of_the_metrics_is_documented(with_key: ChatService) -> None:
    async for _ in with_key.ask("ada", Question("How do I stream a chat completion?")):
        pass
    app = create_api(with_key)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as client:
        figures = (await client.get("/metrics")).json()
    section = text_of(API).partition("## Metrics\n")[2].partition("\n### ")[0]
    for name, value in figures.items():
        assert f"`{name}`" in section, f"docs/API.md does not name {name} of GET /metrics"
        if isinstance(value, dict) and name not in ("outcomes", "error_codes", "by_provider", "by_model"):
            for inner in value:
                assert f"`{inner}`" in section, f"docs/API.md does not name {name}.{inner} of GET /metrics"


def test_every_parameter_and_field_of_a_request_is_documented(service: ChatService) -> None:
    text, schema = text_of(API), create_api(service).openapi()
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            names = [parameter["name"] for parameter in operation.get("parameters", ())]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if reference := body.get("$ref"):
                names += schema["components"]["schemas"][reference.rpartition("/")[2]].get("properties", {})
            for name in names:
                said = re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text, re.IGNORECASE)
                assert said, f"docs/API.md does not name {name} of {method.upper()} {path}"


def test_every_address_that_is_documented_is_there(service: ChatService) -> None:
    known = {(method, path) for path, methods in create_api(service).openapi()["paths"].items() for method in methods}
    known |= {("get", "/openapi.json"), ("post", "/mcp")}
    for page in PAGES:
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[\w/{}.]*)", text_of(page)):
            assert (method.lower(), path) in known, f"{page.name} names {method} {path}, which is no address"


def test_every_error_code_is_documented_and_none_that_is_not_there() -> None:
    section = text_of(API).partition("\n## Errors\n")[2]
    codes = {kind.code for kind in kinds_of(DocStralError)} - INTERNAL
    for code in codes:
        assert f"`{code}`" in section, f"docs/API.md does not name the error {code}"
    rows = re.findall(r"^\| (?:\d+ \| )?((?:`[a-z_]+`(?:, )?)+) \|", section, re.MULTILINE)
    named = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    assert len(named) > 25 and not named - codes - {"method_not_allowed", "code"}, named - codes


def kinds_of(error: type[DocStralError]) -> Iterator[type[DocStralError]]:
    "A class of errors and all below it."
    yield error
    for kind in error.__subclasses__():
        yield from kinds_of(kind)
