"A real browser in front of the real server and a scripted Mistral API, all on this machine."

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from .pages import Model, NewReader, open_app, running_app

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
         " --disable-component-update --disable-sync").split()  # fmt: skip
LEAVING = ("AbortError", "Connection errored out")  # what Gradio says as a page is left in the middle of an answer

expect.set_options(timeout=20_000)  # most waits are short; machines that test are busy


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    "A headless Chromium; without one the tests are skipped, or fail where DOCSTRAL_REQUIRE_BROWSER=1."
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        reason = f"no browser: none of {', '.join(BROWSERS)} is installed (Debian: apt-get install chromium)"
        if os.environ.get("DOCSTRAL_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def model() -> Iterator[Model]:
    "A scripted Mistral API."
    with Model() as server:
        yield server


@pytest.fixture(scope="package")
def app(model: Model, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    "The address of the app."
    settings = {"DOCSTRAL_MISTRAL_URL": model.url, "MISTRAL_API_KEY": "a-key-for-loopback"}
    with running_app(tmp_path_factory.mktemp("data"), **settings) as address:
        yield address


@pytest.fixture
def new_reader(browser: Browser, app: str) -> Iterator[NewReader]:
    "Makes a browser for a reader. Nothing in any of them may reach another machine, or complain."
    contexts: list[BrowserContext] = []
    elsewhere: list[str] = []
    complaints: list[str] = []

    def make(address: str = app, locale: str = "en-US", **options: Any) -> BrowserContext:
        options = {"viewport": {"width": 1280, "height": 800}} | options
        context = browser.new_context(base_url=address, locale=locale, **options)
        here = (address, "data:", "blob:")
        context.on("request", lambda request: request.url.startswith(here) or elsewhere.append(request.url))
        context.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("response", lambda reply: reply.status >= 400 and complaints.append(f"{reply.status} {reply.url}"))
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()
    assert not elsewhere, "requests that left this machine"
    complaints = [said for said in complaints if not any(known in said for known in LEAVING)]
    assert not complaints, "what the browser's console says"


@pytest.fixture
def page(new_reader: NewReader) -> Page:
    "The app, opened and ready for a question."
    return open_app(new_reader())
