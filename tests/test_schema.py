"The OpenAPI schema is true: whatever is sent to an address, right or wrong, the reply is one that the schema tells of."

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from helpers import DEADLINE, read_events, ready
from hypothesis import HealthCheck, Phase, configuration, given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from mistral_server import ScriptedMistral
from schemathesis import APIOperation, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from docstral.chat import ChatService
from docstral.settings import Settings
from docstral.store import open_store

configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "docstral-hypothesis")  # nothing in the tree
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
# As by default, and 413, since what is wrong may be too large as well; but no failure of the server's
STATUSES = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429"]
REFUSALS = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": STATUSES}}})
EXAMPLES = {"duckdb": 12, "postgresql": 4}  # for each operation, of right and of wrong data
# What a schema cannot say: a message may be left out where an answer is replaced, the last message of several has to be
# the user's, and the dates of an imported chat follow one another.
CHOOSY = {"POST /chat", "POST /v1/chat/completions", "POST /chats/import"}
REFERENCES = {"chat_id", "replaces", "history"}
ASKED = [{"role": "user", "content": "How do I stream?"}]  # the last has to be the user's
REFUSED = {"POST /snapshot"}  # no token that is made up is right


@pytest.fixture(scope="module", params=EXAMPLES)
def engine(request: pytest.FixtureRequest) -> str:
    "Where the data is."
    return str(request.param)


@pytest.fixture(scope="module")
def client(
    engine: str, indexed: Path, pages: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[httpx2.Client]:
    "A visitor of an app with data of its own, which quotes unless a model is asked for."
    data_dir, url = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("schema") / "data")), ""
    if engine == "postgresql":
        template = request.getfixturevalue("indexed_template")
        url = request.getfixturevalue("postgres").database(template)
    with ScriptedMistral() as mistral:
        models = {"mistral_url": mistral.url, "openai_url": f"{mistral.url}/v1", "vllm_model": "mistralai/Ministral-3"}
        settings = Settings(data_dir=data_dir, docs=(pages,), provider="extractive", database_url=url, **models)
        yield from visit(settings)


def visit(settings: Settings) -> Iterator[httpx2.Client]:
    "A visitor of an app with these settings."
    with (
        open_store(settings) as store,
        ready(ChatService(settings, store)) as live,
        httpx2.Client(base_url=live.url, trust_env=False, timeout=DEADLINE) as visitor,
    ):
        yield visitor


def begin_chat(client: httpx2.Client) -> dict[str, str]:
    "The ids of a chat of the visitor's, and of an answer in it."
    reply = client.post("/chat", json={"message": "How do I stream a chat completion?"})
    return dict(read_events(reply.text)[0][1])


def statuses_of(operation: APIOperation, mode: GenerationMode, client: httpx2.Client, examples: int) -> set[int]:
    "Send an operation what is right, or wrong, for it, and check each reply. Returns the statuses that came."
    seen, known = set(), begin_chat(client)
    cases = operation.as_strategy(generation_mode=mode)
    checks = CHECKS if operation.label in CHOOSY else [*CHECKS, positive_data_acceptance]

    @bounds(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=examples,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def send(data: Any) -> None:
        case = data.draw(cases)
        if data.draw(st.booleans()):  # an id that there is, instead of one that was made up
            case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
            if operation.path.endswith("/reproduce"):
                case.query = dict(case.query or {}) | {"through": "docstral"}  # no provider was asked
            if isinstance(case.body, dict):  # and no other ids that were made up, nor a history
                case.body = {name: value for name, value in case.body.items() if name not in REFERENCES}
                case.body |= {"messages": ASKED} if "messages" in case.body else {}
        seen.add(case.call_and_validate(cookies=dict(client.cookies), checks=checks).status_code)

    with suppress(Unsatisfiable):  # where nothing can be wrong
        send()
    return seen


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_reply_is_as_the_schema_says(client: httpx2.Client, engine: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json", config=REFUSALS)
    seen: dict[str, set[int]] = defaultdict(set)
    for found in schema.get_all_operations():
        operation = found.ok()
        seen[operation.label] = statuses_of(operation, mode, client, EXAMPLES[engine])
    if mode is GenerationMode.POSITIVE:
        never = {label for label, statuses in seen.items() if not any(status < 300 for status in statuses)}
        assert never == REFUSED, "not once a success: the schema asks for something else than the app"


METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "HEAD", "OPTIONS"}


def test_methods_that_the_schema_does_not_tell_of_are_refused_with_those_that_there_are(client: httpx2.Client) -> None:
    known, paths = begin_chat(client), client.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        there = {method.upper() for method in operations}
        for method in METHODS - there:
            refused = client.request(method, path.format_map(known))
            assert refused.status_code == 405, (method, path)
            assert set(refused.headers["allow"].split(", ")) == there, (method, path)
            assert method == "HEAD" or refused.json()["error"]["code"] == "method_not_allowed"
