"Traces: the spans of a question, read from OpenTelemetry's exporter in memory."

import subprocess
import sys

import httpx2
import pytest
from helpers import DEADLINE
from mistral_server import Reply, ScriptedMistral
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from docstral.api.app import create_api
from docstral.chat import ChatService, Question
from docstral.settings import Settings
from docstral.traces import Tracing

SECRET = "How do I stream a chat completion with my purple elephant?"


async def spans_of(service: ChatService, question: Question) -> list[ReadableSpan]:
    "Ask, and give the spans that this left."
    exporter = InMemorySpanExporter()
    service.tracing = Tracing(service.settings, exporter)
    async for _ in service.ask("ada", question):
        pass
    service.tracing.close()
    return list(exporter.get_finished_spans())


async def test_a_question_leaves_one_span_with_its_steps_below(service: ChatService, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["Set stream [1]."]))
    spans = await spans_of(service, Question(SECRET, api_key="k-secret", seed=7))
    *steps, root = spans
    assert [span.name for span in steps] == ["search", "chat mistral-small-latest", "store"] and root.name == "answer"
    assert all(span.parent and span.parent.span_id == root.context.span_id for span in steps)
    called = dict(steps[1].attributes or {})
    assert called["gen_ai.provider.name"] == "mistral_ai" and called["gen_ai.request.seed"] == 7
    assert called["gen_ai.usage.input_tokens"] and (root.attributes or {})["docstral.outcome"] == "cited"
    assert "elephant" not in str([span.to_json() for span in spans])


async def test_text_is_in_a_trace_only_where_it_is_asked_for(service: ChatService, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(["Set stream [1]."]))
    service.settings = service.settings.but(traces_text="yes")
    spans = await spans_of(service, Question(SECRET, api_key="k-secret"))
    everything = str([span.to_json() for span in spans])
    assert "elephant" in everything and "Set stream" in everything and "k-secret" not in everything


async def test_what_failed_is_marked(service: ChatService, mistral: ScriptedMistral) -> None:
    mistral.script(Reply(status=401, body=b'{"message": "Unauthorized"}'))
    spans = await spans_of(service, Question(SECRET, api_key="k-secret"))
    failed = {span.name for span in spans if not span.status.is_ok and span.status.status_code.name == "ERROR"}
    assert failed == {"chat mistral-small-latest", "answer"}


async def test_a_trace_has_the_id_of_its_request(service: ChatService) -> None:
    exporter = InMemorySpanExporter()
    service.tracing = Tracing(service.settings, exporter)
    transport = httpx2.ASGITransport(create_api(service))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=DEADLINE) as client:
        reply = await client.post("/chat", json={"message": SECRET})
    service.tracing.close()
    root = exporter.get_finished_spans()[-1]
    assert (root.attributes or {})["docstral.request_id"] == reply.headers["x-request-id"]


def test_nothing_of_opentelemetry_is_loaded_where_traces_are_off() -> None:
    code = (
        "import sys, docstral.chat; from docstral.settings import Settings; from docstral.traces import Tracing;"
        "Tracing(Settings()).start().end()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}; print([n for n in sys.modules if n.startswith('opentelemetry')])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "[]\n"


def test_a_collector_that_is_named_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(Exception, match="not installed"):
        Tracing(Settings(traces_url="http://127.0.0.1:4318"))
