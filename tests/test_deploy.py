"What deploys the app, checked without a Docker engine: the image's steps, compose, the proxy, the workflows."

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml
from helpers import DEADLINE, ROOT, caddy, free_port, ready, tool
from mistral_server import Gate, Reply, ScriptedMistral

from docstral.chat import ChatService, Question
from docstral.errors import StoreError
from docstral.settings import Settings
from docstral.store import Store, open_store
from docstral.types import Done, Notice

PRODUCTION = {"app", "proxy", "postgres", "vllm", "dcgm-exporter", "prometheus", "grafana"}
CHECK_IMAGE = ROOT / "scripts" / "check_image.py"


def run(*command: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    "Run a program at the root of the project."
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEADLINE)


def compose(environment: dict[str, str], *options: str | Path) -> dict[str, Any]:
    "What Docker Compose makes of compose.yaml with these options."
    clean = {name: value for name, value in environment.items() if not name.startswith(("COMPOSE_", "FORWARDED_"))}
    ran = run(tool("docker-compose"), *options, "config", environment=clean)
    assert ran.returncode == 0, ran.stderr
    return dict(yaml.safe_load(ran.stdout))


@pytest.fixture
def no_env(tmp_path: Path) -> Path:
    "An .env without a line, so that one in the checkout does not matter."
    path = tmp_path / "empty.env"
    path.touch()
    return path


def test_the_default_is_the_app_alone_for_this_machine_alone(plain_environment: dict[str, str], no_env: Path) -> None:
    services = compose(plain_environment, "--env-file", no_env)["services"]
    assert set(services) == {"app"}
    app = services["app"]
    assert [port["host_ip"] for port in app["ports"]] == ["127.0.0.1"]
    assert app["read_only"] and app["cap_drop"] == ["ALL"] and app["volumes"][0]["target"] == "/data"
    assert not app["environment"].get("DOCSTRAL_PROVIDER") and not app["environment"].get("MISTRAL_API_KEY")


def test_production_answers_from_vllm_and_falls_back(plain_environment: dict[str, str], no_env: Path) -> None:
    options = "--env-file", ROOT / "docker" / "production.env", "--env-file", no_env
    project = compose(plain_environment, *options)
    services = project["services"]
    assert set(services) == PRODUCTION
    environment = services["app"]["environment"]
    assert environment["DOCSTRAL_PROVIDER"] == "openai"
    assert environment["DOCSTRAL_OPENAI_URL"].startswith("http://vllm:8000")
    assert environment["DOCSTRAL_FALLBACK"].split(",") == ["mistral", "extractive"]
    for name, service in services.items():
        for port in service.get("ports", []):
            assert name == "proxy" or port["host_ip"] == "127.0.0.1", f"{name} can be reached from everywhere"
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or Path(volume["source"]).exists(), f"{volume['source']} is not there"
        assert name == "app" or re.search(r":v?\d+\.\d+\.\d+", service["image"]), f"{service['image']} is not pinned"


def test_production_keeps_its_data_in_postgresql(plain_environment: dict[str, str], no_env: Path) -> None:
    options = "--env-file", ROOT / "docker" / "production.env", "--env-file", no_env
    services = compose(plain_environment | {"DOCSTRAL_DATABASE_PASSWORD": "a@b:c/d"}, *options)["services"]
    app, database = services["app"], services["postgres"]
    parts = urlsplit(app["environment"]["DOCSTRAL_DATABASE_URL"])
    assert (parts.hostname, parts.port, parts.username) == ("postgres", 5432, database["environment"]["POSTGRES_USER"])
    assert parts.path == f"/{database['environment']['POSTGRES_DB']}" and parts.password is None
    assert app["environment"]["PGPASSWORD"] == database["environment"]["POSTGRES_PASSWORD"] == "a@b:c/d"
    assert app["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert "ports" not in database and database["read_only"], "only the app reaches the database"
    assert [volume["type"] for volume in database["volumes"]] == ["volume"]
    bare = compose(plain_environment, *options)["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert not bare, "a password that stands in a public file is none"


def test_the_password_of_the_database_may_come_from_its_own_variable(
    database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = urlsplit(database_url)
    assert parts.username and parts.password
    without = database_url.replace(f":{parts.password}@", "@")
    monkeypatch.setenv("PGPASSWORD", parts.password)
    with open_store(settings.but(database_url=without)) as store:
        assert store.read("SELECT count(*) FROM chats") == [(0,)]
    monkeypatch.setenv("PGPASSWORD", "not the one")
    with pytest.raises(StoreError) as told:
        open_store(settings.but(database_url=without))
    assert "not the one" not in str(told.value) and parts.username in str(told.value)


def test_prometheus_reads_services_that_are_there() -> None:
    read = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text(encoding="utf8"))
    fixed = [each for job in read["scrape_configs"] for each in job.get("static_configs", [])]
    found = [each for job in read["scrape_configs"] for each in job.get("dns_sd_configs", [])]
    targets = [target for each in fixed for target in each["targets"]]
    targets += [f"{name}:{each['port']}" for each in found for name in each["names"]]
    assert {"app:7860", "vllm:8000", "dcgm-exporter:9400"} <= set(targets)
    assert {target.partition(":")[0] for target in targets} <= PRODUCTION | {"localhost"}


def test_the_guides_override_gives_a_container_its_own_documents(
    plain_environment: dict[str, str], no_env: Path, tmp_path: Path
) -> None:
    guide = (ROOT / "docs" / "DEPLOY.md").read_text(encoding="utf8")
    [example] = re.findall(r"^```yaml\n(services:.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "compose.override.yaml").write_text(example, encoding="utf8")
    files = "-f", ROOT / "compose.yaml", "-f", tmp_path / "compose.override.yaml"
    app = compose(plain_environment, *files, "--env-file", no_env)["services"]["app"]
    assert app["environment"]["DOCSTRAL_DOCS"] == "/pages" and app["environment"]["DOCSTRAL_DATA_DIR"] == "/data"
    assert [volume["target"] for volume in app["volumes"]] == ["/data", "/pages"]


async def test_production_without_its_vllm_and_without_a_key_still_answers(settings: Settings, store: Store) -> None:
    text = (ROOT / "docker" / "production.env").read_text(encoding="utf8")
    production = Settings.load(dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE)))
    assert (production.provider, production.openai_url) == ("openai", "http://vllm:8000/v1")
    gone = f"http://127.0.0.1:{free_port()}/v1"
    service = ChatService(settings.but(provider="openai", openai_url=gone, fallback=production.fallback), store)
    service.load()
    events = [event async for event in service.ask("reader", Question("How do I stream a chat completion?"))]
    await service.close()
    done = events[-1]
    assert isinstance(done, Done) and done.outcome == "cited"
    assert (done.receipt.provider, done.receipt.fallbacks[0]) == ("extractive", "openai")
    assert "fallback" in [event.code for event in events if isinstance(event, Notice)]


def test_a_key_from_the_shell_reaches_the_app(plain_environment: dict[str, str], no_env: Path) -> None:
    services = compose(plain_environment | {"MISTRAL_API_KEY": "from-the-shell"}, "--env-file", no_env)["services"]
    assert services["app"]["environment"]["MISTRAL_API_KEY"] == "from-the-shell"


def test_every_setting_has_its_variable_in_the_example_and_none_has_a_secret() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf8")
    variables = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert not re.findall(r"^[^#\n]", text, re.MULTILINE), "a line is not commented out"
    for setting in fields(Settings):
        name = "MISTRAL_API_KEY" if setting.name == "mistral_api_key" else f"DOCSTRAL_{setting.name.upper()}"
        assert name in variables, f".env.example does not name {name}; run make export"
        assert not setting.metadata["secret"] or not variables[name]
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text(encoding="utf8")))
    assert not used - set(variables), "compose.yaml reads variables that .env.example does not name"
    assert Settings.load({name: value for name, value in variables.items() if value}) == Settings()


def test_the_dockerfile_is_clean() -> None:
    ran = run(tool("hadolint"), "docker/Dockerfile")
    assert ran.returncode == 0, ran.stdout


def test_the_image_is_pinned_and_does_not_run_as_root() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf8")
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2 and all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) for base in bases)
    final = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*", final, re.MULTILINE) and "HEALTHCHECK" in final
    assert not re.search(r"^RUN ", final, re.MULTILINE), "the last stage installs something"


def test_the_builder_gets_what_the_dockerfile_copies_and_nothing_else() -> None:
    sent = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf8"), re.MULTILINE))
    steps = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "docker" / "Dockerfile").read_text("utf8"), re.MULTILINE)
    assert sent == {name for step in steps for name in step.split()}


STEPS = """
FROM python AS build
WORKDIR /src
COPY LICENSE ./
RUN mkdir /data && cp LICENSE /data/kept
FROM python
ENV PATH=/opt/bin:$PATH DOCSTRAL_PORT=1
COPY --from=build /data /data
USER 10001
VOLUME ["/data"]
HEALTHCHECK CMD ["sh", "-c", "test -f ../data/kept && {health}"]
ENTRYPOINT ["sh", "-c"]
CMD ["{serve}"]
WORKDIR /data
"""


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("COPY LICENSE", "COPY nowhere.txt", "nowhere.txt"),  # a file that is not there
        ("cp LICENSE", "cp README.md", "A step failed"),  # a file that was not copied
        ("USER 10001", "USER root", "runs as root"),
        ("{serve}", "exit 3", "did not become healthy"),
        ("{serve}", "echo x > ../opt/written; exec sleep 60", "did not become healthy"),  # the tree is read-only
        ("ENTRYPOINT", "ONBUILD", "does not know ONBUILD"),
    ],
)
def test_the_check_of_the_image_finds_what_is_missing(before: str, after: str, says: str, tmp_path: Path) -> None:
    text = STEPS.replace(before, after).replace("{serve}", "exec sleep 60")
    health = "test -f written" if "written" in after else "false" if "exit 3" in after else "true"
    (tmp_path / "Dockerfile").write_text(text.replace("{health}", health), encoding="utf8")
    environment = os.environ | {"DOCSTRAL_IMAGE_DEADLINE": "3"}
    ran = run(sys.executable, CHECK_IMAGE, tmp_path / "Dockerfile", environment=environment)
    assert ran.returncode != 0 and says in ran.stdout + ran.stderr, ran.stdout + ran.stderr


@pytest.fixture
def proxied(settings: Settings, store: Store, plain_environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    "The address of the real proxy with the real configuration, in front of an application that is ready."
    service = ChatService(settings.but(mistral_api_key="k"), store)
    with ready(service) as live:
        environment = plain_environment | {"DOCSTRAL_APP": f"to 127.0.0.1:{live.port}"}
        with caddy(environment, tmp_path) as address:
            yield address


def test_an_answer_streams_through_the_proxy(proxied: str, mistral: ScriptedMistral) -> None:
    gate = Gate()
    mistral.script(Reply(["Early. ", gate, "Late."]))
    body = {"message": "How do I stream a chat completion?"}
    with httpx2.stream("POST", f"{proxied}/chat", json=body, timeout=DEADLINE, trust_env=False) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in reply.headers
        seen = ""
        for piece in reply.iter_text():
            seen += piece
            if "Early." in seen:
                gate.open()  # only now: behind a proxy that waits for the whole answer this point is never reached
    assert "Late." in seen and "event: done" in seen


async def test_nobody_gets_past_the_proxy_with_another_address_or_without_tls(
    settings: Settings,
    store: Store,
    mistral: ScriptedMistral,
    plain_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    production = (ROOT / "docker/production.env").read_text(encoding="utf8")
    trusted = re.search(r"^FORWARDED_ALLOW_IPS=(.*)$", production, re.MULTILINE)
    assert trusted
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted[1])
    gate, body = Gate(), {"message": "How do I stream a chat completion?"}
    mistral.answer = lambda request: Reply(["So it is. ", gate, "The end."])
    service = ChatService(settings.but(mistral_api_key="k", answers=4), store)
    with ready(service) as live:
        behind = plain_environment | {"DOCSTRAL_APP": f"to 127.0.0.1:{live.port}"}
        with caddy(behind, tmp_path) as address:
            async with (
                httpx2.AsyncClient(base_url=address, timeout=DEADLINE, trust_env=False) as reader,
                AsyncExitStack() as places,
            ):
                codes = []
                for number in range(1, 4):
                    told = f"203.0.113.{number}"
                    said = {"x-forwarded-for": told, "x-forwarded-proto": "https", "forwarded": f"for={told}"}
                    reply = await places.enter_async_context(reader.stream("POST", "/chat", json=body, headers=said))
                    codes.append(reply.status_code)
                    assert not reply.headers.get("set-cookie", "").startswith("__Host-")
                    reader.cookies.clear()
                assert codes == [200, 200, 429]
                gate.open()


def test_the_proxy_compresses_what_does_not_stream(proxied: str) -> None:
    reply = httpx2.get(f"{proxied}/openapi.json", headers={"accept-encoding": "gzip"}, trust_env=False)
    assert reply.headers["content-encoding"] == "gzip" and reply.json()["info"]["title"] == "DocStral"


def test_the_proxy_keeps_figures_inside(proxied: str) -> None:
    assert httpx2.get(f"{proxied}/metrics", trust_env=False).status_code == 404
    reply = httpx2.get(f"{proxied}/health", trust_env=False)
    assert reply.status_code == 200 and "max-age" in reply.headers["strict-transport-security"]


def test_the_workflows_are_clean() -> None:
    ran = run(tool("actionlint", "DOCSTRAL_REQUIRE_ACTIONLINT"), "-no-color")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_workflows_call_what_is_there() -> None:
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE))
    for path in (ROOT / ".github" / "workflows").glob("*.y*ml"):
        text = path.read_text(encoding="utf8")
        assert not set(re.findall(r"\bmake ([a-z-]+)", text)) - made, f"{path.name} makes what the Makefile does not"
        for script in re.findall(r"\b(?:scripts|tests)/[\w/]+\.py|\.ci/\w+", text):
            assert (ROOT / script).exists(), f"{path.name} calls {script}, which is not there"
        for action in re.findall(r"uses: (\S+)", text):
            assert re.search(r"@v\d|@[0-9a-f]{40}|@release/v1$", action), f"{path.name}: {action} has no version"


@pytest.mark.parametrize(("fixes", "status", "says"), [(["2.0"], 1, "::error::a 1.0"), ([], 0, "::warning::a 1.0")])
def test_the_audit_fails_for_what_a_newer_version_mends(fixes: list[str], status: int, says: str) -> None:
    found = [{"id": "X-1", "fix_versions": fixes, "aliases": [], "description": ""}]
    report = {"dependencies": [{"name": "a", "version": "1.0", "vulns": found}, {"name": "b", "skip_reason": "gone"}]}
    command = [sys.executable, str(ROOT / "scripts" / "audit.py")]
    ran = subprocess.run(command, input=json.dumps(report), capture_output=True, text=True)
    assert ran.returncode == status and says in ran.stdout
    nothing = subprocess.run(command, input='{"dependencies": []}', capture_output=True, text=True)
    assert nothing.returncode != 0
