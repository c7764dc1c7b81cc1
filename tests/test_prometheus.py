"Prometheus and Grafana: what their files name is exported, and a real Prometheus scrapes the app."

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from helpers import DEADLINE, ROOT, ready
from mistral_server import Reply, ScriptedMistral
from prometheus_client.parser import text_string_to_metric_families

from docstral.chat import ChatService
from docstral.gpu import Device
from docstral.settings import Settings
from docstral.store import Store

FOLDER = ROOT / "docker" / "prometheus"
DASHBOARD = ROOT / "docker" / "grafana" / "provisioning" / "dashboards" / "docstral.json"
CARD = Device(0, "Scripted GPU", 0.5, 1 << 30, 8 << 30, 60, 150.0)


def tool(name: str) -> str:
    "The path of a program; skips the test without it, or fails where it is required."
    found = shutil.which(name)
    if not found and os.environ.get("DOCSTRAL_REQUIRE_TOOLS"):
        pytest.fail(f"{name} is not installed, and DOCSTRAL_REQUIRE_TOOLS is set")
    if not found:
        pytest.skip(f"{name} is not installed (Debian: prometheus)")
    return found


def expressions() -> list[str]:
    "Every query of the rules and of the dashboard."
    rules = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [rule["expr"] for group in rules for rule in group["rules"]] + [
        target["expr"] for panel in panels for target in panel["targets"]
    ]


def named(expression: str) -> set[str]:
    "The metrics that a query names."
    expression = re.sub(r"by \([^)]*\)", "", expression)  # labels
    return set(re.findall(r"\b((?:docstral|gen_ai|process|vllm)[a-z_:]*_[a-z_]+)\b(?=[\[{ )/]|$)", expression))


@pytest.fixture
def address(
    settings: Settings, store: Store, mistral: ScriptedMistral, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    "An app with a GPU that answered three questions: one with a citation, one that failed, one after a retry."
    monkeypatch.setattr("docstral.api.metrics.gpus", lambda: [CARD])
    mistral.script(
        Reply(), Reply(status=401, body=b'{"message": "Unauthorized"}'), Reply(status=503, body=b"{}"), Reply()
    )
    service = ChatService(settings, store)
    with ready(service) as server:
        with httpx2.Client(base_url=server.url, timeout=DEADLINE, trust_env=False) as client:
            for _ in range(3):
                body = {"message": "How do I stream a chat completion?"}
                client.post("/chat", json=body, headers={"x-mistral-api-key": "k"}).raise_for_status()
        yield server.url


def test_every_metric_that_is_named_is_exported(address: str) -> None:
    text = httpx2.get(f"{address}/metrics", headers={"accept": "text/plain"}, trust_env=False).text
    exported = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    wanted = set().union(*map(named, expressions()))
    assert len(wanted) > 20
    may_be_absent = {"docstral_fallbacks_total"}  # a labelled counter begins with its first fallback
    assert wanted - exported - may_be_absent == set()


def test_every_metric_that_is_exported_is_documented(address: str) -> None:
    text = httpx2.get(f"{address}/metrics", headers={"accept": "text/plain"}, trust_env=False).text
    page = (ROOT / "docs" / "API.md").read_text()
    for line in text.splitlines():
        if line.startswith("# TYPE") and not line.split()[2].endswith("_created") and "process_" not in line:
            assert f"`{line.split()[2]}`" in page, line


def test_both_formats_say_the_same(address: str) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    found = httpx2.get(f"{address}/metrics", headers={"accept": accept}, trust_env=False)
    assert found.headers["content-type"].startswith("application/openmetrics-text") and found.text.endswith("# EOF\n")
    assert 'docstral_answer_duration_seconds_count{outcome="cited"} 2.0' in found.text
    assert "docstral_build_info{" in found.text


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("text/plain;q=0.5, */*", "application/json"),
        ("text/*", "text/plain"),
        ("text/plain, application/openmetrics-text;q=0.1", "text/plain"),
        ("application/json;q=0.2, Application/OpenMetrics-Text;q=0.9", "application/openmetrics-text"),
        ("text/plain;version=nonsense", "text/plain"),
        ("text/plain;q=\xb2", "application/json"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(address: str, accept: str, kind: str) -> None:
    found = httpx2.get(f"{address}/metrics", headers={"accept": accept.encode("latin-1")}, trust_env=False)
    assert (found.status_code, found.headers["content-type"].partition(";")[0]) == (200, kind)


def test_promtool_accepts_configuration_and_rules() -> None:
    ran = subprocess.run(
        [tool("promtool"), "check", "config", FOLDER / "prometheus.yml"], capture_output=True, text=True
    )
    assert ran.returncode == 0 and "6 rules found" in ran.stdout, ran.stdout + ran.stderr


ALERTS = """
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - { series: 'docstral_answer_duration_seconds_count{outcome="cited"}', values: 0+90x30 }
      - { series: 'docstral_answer_duration_seconds_count{outcome="error"}', values: 0+10x30 }
      - { series: 'docstral_gpu_memory_used_bytes{gpu="0"}', values: 50x30 }
      - { series: 'docstral_gpu_memory_total_bytes{gpu="0"}', values: 100x30 }
      - { series: 'docstral_retry_budget_ratio{provider="mistral"}', values: 1x10 0.4x20 }
    alert_rule_test:
      - { eval_time: 3m, alertname: ManyErrors, exp_alerts: [] }
      - { eval_time: 20m, alertname: GpuMemoryNearlyFull, exp_alerts: [] }
      - { eval_time: 9m, alertname: RetryBudgetExhausted, exp_alerts: [] }
"""
FIRING = """
    promql_expr_test:
      - expr: count(ALERTS{alertname="ManyErrors", alertstate="firing"})
        eval_time: 20m
        exp_samples: [{ value: 1 }]
      - expr: count(ALERTS{alertname="RetryBudgetExhausted", alertstate="firing"})
        eval_time: 20m
        exp_samples: [{ value: 1 }]
"""


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    promtool = tool("promtool")
    test = tmp_path / "alerts.yml"
    test.write_text((ALERTS + FIRING).replace("RULES", str(FOLDER / "rules.yml")))
    ran = subprocess.run([promtool, "test", "rules", test], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_real_prometheus_scrapes_the_app(address: str, tmp_path: Path, free_port: int) -> None:
    prometheus = tool("prometheus")
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    jobs = [job for job in config["scrape_configs"] if job["job_name"] == "docstral"]
    jobs[0]["static_configs"] = [{"targets": [address.removeprefix("http://")]}]
    config |= {"scrape_configs": jobs, "rule_files": [str(FOLDER / "rules.yml")]}
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    flags = [f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    command = [prometheus, *flags, f"--web.listen-address=127.0.0.1:{free_port}", "--log.level=error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            base = f"http://127.0.0.1:{free_port}/api/v1"
            wait_for(f"{base}/query?query=docstral_ready")
            with httpx2.Client(timeout=DEADLINE, trust_env=False) as client:
                for expression in expressions():
                    found = client.get(f"{base}/query", params={"query": expression}).json()
                    assert found["status"] == "success", (expression, found)
                rules = client.get(f"{base}/rules").json()["data"]["groups"][0]["rules"]
                assert len(rules) == 6 and {rule["health"] for rule in rules} <= {"ok", "unknown"}
        finally:
            process.terminate()


def wait_for(address: str) -> None:
    "Wait until a query has a result."
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends:
        try:
            if httpx2.get(address, trust_env=False).json()["data"]["result"]:
                return
        except (httpx2.TransportError, ValueError, KeyError):
            pass
        time.sleep(0.2)
    pytest.fail(f"nothing came from {address}")
