"The web app in a real browser, in front of the real server and a scripted Mistral API on loopback."

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mistral_server import Gate, Reply, ScriptedMistral, refusal
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
         " --disable-component-update --disable-sync").split()  # fmt: skip
BANNER = "Unofficial demo. Sources cited. Licenses respected."
CITED = (
    "To **stream**, set `stream` to true [1]. The stream ends with a last event [2].\n\n```python\nprint(x[1])\n```\n"
)
HOSTILE = "<script>window.hurt = 1</script> <img src=x onerror='window.hurt = 2'> ![x](https://example.org/x.png) [1]"
LEAVING = ("AbortError", "Connection errored out")  # what Gradio says as a page is left in the middle of an answer


class Model(ScriptedMistral):
    "Answers with what a word in capitals asks for: HALT in the middle, HURT the page, REFUSE, else a cited answer."

    gate: Gate  # where the last answer that was to halt does so

    def __init__(self) -> None:
        super().__init__()
        self.answer = self.reply

    def reply(self, body: Any) -> Reply:
        "The reply to a request."
        asked = body["messages"][-1]["content"]
        if "REFUSE" in asked:
            return refusal(429, "Requests <b>rate limit</b> exceeded")
        if "HALT" in asked:
            self.gate = Gate()
            return Reply(["The first half ", "is written. ", self.gate, "The second half ", "is too."])
        return Reply(re.findall(r"\s*\S+|\s+", HOSTILE if "HURT" in asked else CITED))


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    "A scripted Mistral API."
    with Model() as server:
        yield server


@pytest.fixture(scope="module")
def app(model: Model, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    "The address of the app, as a user starts it."
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCSTRAL_", "MISTRAL_"))}
    environment = kept | {
        "DOCSTRAL_DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "DOCSTRAL_PORT": "0",
        "DOCSTRAL_MISTRAL_URL": model.url,
        "MISTRAL_API_KEY": "a-key-for-loopback",
    }
    command = [sys.executable, "app.py"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            said = []
            for line in process.stdout:
                said.append(line)
                if ready := re.search(r"ready at (http://\S+)", line):
                    yield ready[1]
                    break
            else:
                pytest.fail(f"app.py ended before it was ready: {''.join(said)}")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
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


expect.set_options(timeout=20_000)  # most waits are short; machines that test are busy


@pytest.fixture
def context(browser: Browser, app: str) -> Iterator[BrowserContext]:
    "A reader's browser. Nothing in it may reach another machine, or complain."
    context = browser.new_context(base_url=app, viewport={"width": 1280, "height": 800}, locale="en-US")
    elsewhere: list[str] = []
    complaints: list[str] = []
    context.on(
        "request", lambda request: request.url.startswith((app, "data:", "blob:")) or elsewhere.append(request.url)
    )
    context.on("console", lambda said: said.type == "error" and complaints.append(said.text))
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("response", lambda reply: reply.status >= 400 and complaints.append(f"{reply.status} {reply.url}"))
    yield context
    context.close()
    assert not elsewhere, "requests that left this machine"
    complaints = [said for said in complaints if not any(known in said for known in LEAVING)]
    assert not complaints, "what the browser's console says"


@pytest.fixture
def page(context: BrowserContext) -> Page:
    "The app, opened and ready for a question."
    return open_app(context)


def open_app(context: BrowserContext, address: str = "/") -> Page:
    "Open the app in a new tab of this browser."
    page = context.new_page()
    page.goto(address)
    welcome = page.get_by_role("dialog", name="Welcome to DocStral")
    welcome.get_by_role("button", name="Start asking").click()
    expect(welcome).to_be_hidden()
    expect(page.get_by_role("button", name="New chat")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("mistral-small-latest")
    return page


def ask(page: Page, question: str) -> None:
    "Type a question and press Enter."
    page.get_by_role("textbox", name="Ask about").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator("#growing .question")).to_contain_text(question)


def answered(page: Page) -> None:
    "Wait until the answer is whole."
    expect(page.locator("#growing .answer:not([aria-busy]) .receipt")).to_be_visible()


def test_a_question_is_answered_and_its_chips_lead_to_the_passages(page: Page) -> None:
    expect(page.locator("#banner").get_by_text(BANNER)).to_be_visible()
    page.get_by_role("button", name="How do I stream a chat completion?").click()
    answered(page)
    answer = page.locator("#growing .answer")
    expect(answer.locator("a.chip")).to_have_text(["[1]", "[2]"])
    expect(answer.locator(".receipt")).to_contain_text("mistral-small-latest · ")
    expect(answer.locator("pre .nb")).to_have_text("print")
    expect(page).to_have_url(re.compile(r"\?chat=chat_"))

    chip = answer.get_by_role("link", name="Source 2: ")
    title = (chip.get_attribute("data-title") or "").strip()
    chip.press("Enter")
    source = page.locator("#source-2")
    expect(source).to_be_focused()
    expect(source).to_be_in_viewport()
    assert title and title in source.inner_text()
    expect(source.locator("mark").first).to_be_visible()

    page.get_by_role("button", name="Back to the answer").click()
    expect(answer).to_be_in_viewport()


def test_stop_keeps_what_was_written(page: Page, model: Model) -> None:
    ask(page, "How do I stream a chat completion? HALT")
    expect(page.locator("#growing .doc")).to_contain_text("is written.")
    page.get_by_role("button", name="Stop").click()
    answer = page.locator("#growing .answer")
    expect(answer).to_contain_text("Stopped.")
    expect(answer.locator(".receipt")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    model.wait_until(lambda: model.disconnects > 0)  # the model is told, too
    kept = answer.inner_text()
    page.reload()
    stored = page.locator("#settled .answer")
    expect(stored).to_contain_text("Stopped.")
    assert stored.inner_text() == kept


def test_a_reload_keeps_the_chats_and_they_open_as_they_were(page: Page) -> None:
    ask(page, "How do I stream?")
    answered(page)
    ask(page, "And then?")
    answered(page)
    shown = page.locator("#conversation").inner_text()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".welcome")).to_be_visible()
    ask(page, "What else is there?")
    answered(page)

    page.goto("/")
    chats = page.get_by_role("navigation", name="Your chats").locator(".chat")
    expect(chats).to_have_text(["What else is there?", "How do I stream?"])
    expect(page.locator(".welcome")).to_be_visible()
    chats.nth(1).click()
    expect(page.locator("#settled .answer")).to_have_count(2)
    assert page.locator("#conversation").inner_text() == shown
    expect(chats.nth(1)).to_have_attribute("aria-current", "page")
    page.locator("#settled .answer").first.locator("a.chip").first.click()
    expect(page.locator("#source-1")).to_be_focused()


def test_an_answer_survives_a_reload_in_the_middle_of_it(page: Page, model: Model) -> None:
    ask(page, "How do I stream a chat completion? HALT")
    expect(page.locator("#growing .doc")).to_contain_text("is written.")
    page.reload()
    expect(page.locator("#growing .doc")).to_contain_text("is written.")
    model.gate.open()
    answered(page)
    expect(page.locator("#growing .doc")).to_contain_text("The second half is too.")


def test_two_readers_do_not_see_each_others_chats(page: Page, browser: Browser, app: str) -> None:
    ask(page, "How do I stream what is mine?")
    answered(page)
    mine = page.url
    other = browser.new_context(base_url=app, locale="en-US")
    stranger = open_app(other, mine)
    expect(stranger.locator(".welcome")).to_be_visible()
    expect(stranger.get_by_text("Your chats will be listed here.")).to_be_visible()
    expect(stranger.get_by_text("what is mine")).to_have_count(0)
    other.close()


def test_html_in_an_answer_is_only_text(page: Page) -> None:
    ask(page, "How do I stream a chat completion? HURT <img src=x onerror='window.hurt = 3'>")
    answered(page)
    expect(page.locator("#growing .doc")).to_contain_text("<script>window.hurt = 1</script>")
    assert page.locator("#growing :is(script, img)").count() == 0
    assert page.evaluate("window.hurt") is None


def test_an_error_is_a_card_that_says_what_to_do(page: Page) -> None:
    ask(page, "How do I stream a chat completion? REFUSE")
    card = page.locator("#growing .failed")
    expect(card).to_contain_text("rate limit")
    expect(card).to_contain_text("<b>")
    expect(card).to_contain_text("Wait, then ask again.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_the_metrics_count_as_one_looks(page: Page) -> None:
    page.get_by_role("tab", name="Metrics").click()
    answers = page.locator(".figures div", has=page.get_by_text("Answers", exact=True)).locator("dd")
    expect(answers).to_have_text(re.compile(r"\d+"))
    before = int(answers.inner_text())
    page.get_by_role("tab", name="Chat").click()
    ask(page, "How do I stream?")
    answered(page)
    page.get_by_role("tab", name="Metrics").click()
    expect(answers).to_have_text(str(before + 1))
    expect(page.get_by_role("img", name="Seconds per answer")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_phone_scrolls_only_up_and_down(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 640})
    page.reload()
    expect(page.locator("#sidebar")).not_to_be_in_viewport()
    ask(page, "How do I stream?")
    answered(page)
    for tab in ("Chat", "Sources", "Metrics"):
        page.get_by_role("tab", name=tab).click()
        expect(page.locator(f"#tab-{tab.lower()}")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 360, tab
        expect(page.locator("#banner").get_by_text(BANNER)).to_be_attached()
    page.get_by_role("button", name="Toggle Sidebar").click()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".welcome")).to_be_visible()
    expect(page.locator("#sidebar")).not_to_be_in_viewport()


def test_french_readers_read_french(browser: Browser, app: str) -> None:
    context = browser.new_context(base_url=app, locale="fr-FR")
    page = context.new_page()
    page.goto("/")
    page.get_by_role("dialog", name="Bienvenue").get_by_role("button", name="Poser une question").click()
    expect(page.get_by_role("button", name="Nouvelle discussion")).to_be_visible()
    expect(page.get_by_role("tab", name="Mesures")).to_be_visible()
    expect(page.get_by_text("Démo non officielle.")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    context.close()


def test_the_browser_refuses_what_would_come_from_elsewhere(browser: Browser, app: str) -> None:
    context = browser.new_context(base_url=app, locale="en-US")
    page = open_app(context)
    refused = page.evaluate(
        """() => new Promise((resolve) => {
            addEventListener('securitypolicyviolation', (event) => resolve(event.blockedURI));
            document.querySelector('#growing').innerHTML = '<img src="https://example.org/seen.png">';
        })"""
    )
    assert refused == "https://example.org/seen.png"
    context.close()
