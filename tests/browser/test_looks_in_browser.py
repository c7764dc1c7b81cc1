"The welcome, theme, language, keyboard, narrow screens and accessibility, in a real browser."

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from .pages import Model, NewReader, answered, ask, field, open_app, running_app

BANNER = "Unofficial demo. Sources cited. Licenses respected."


def test_the_welcome_comes_once_keeps_the_focus_and_takes_a_key(new_reader: NewReader, model: Model) -> None:
    page = new_reader().new_page()
    page.goto("/")
    welcome = page.get_by_role("dialog", name="Welcome to DocStral")
    expect(welcome).to_be_visible()
    for _ in range(6):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('#landing')")
    key = welcome.get_by_label("Mistral API key")
    key.fill("not a key")
    page.keyboard.press("Enter")
    expect(welcome.get_by_role("alert")).to_contain_text("characters that no key has")
    key.fill("a-key-of-my-own")
    page.keyboard.press("Enter")
    expect(welcome).to_contain_text("Your key works: 2 models.")
    assert model.requests[-1].headers["authorization"] == "Bearer a-key-of-my-own"
    page.keyboard.press("Escape")
    expect(welcome).to_be_hidden()
    ask(page, "How do I stream a chat completion?")
    answered(page)
    assert model.chats[-1].headers["authorization"] == "Bearer a-key-of-my-own"
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert "a-key-of-my-own" not in kept

    page.reload()
    expect(page.locator("#settled .answer")).to_be_visible()
    expect(welcome).to_be_hidden()
    page.get_by_role("button", name="About and your key").click()
    welcome.get_by_role("button", name="Forget the key").click()
    expect(welcome.get_by_label("Mistral API key")).to_be_visible()


def test_a_key_of_ones_own_is_used_whoever_answers_here(new_reader: NewReader, model: Model, tmp_path: Path) -> None:
    settings = {"DOCSTRAL_MISTRAL_URL": model.url, "DOCSTRAL_PROVIDER": "extractive"}
    with running_app(tmp_path, **settings) as address:
        page = open_app(new_reader(address))
        expect(page.locator("#status")).to_contain_text(re.compile(r"extractive · \d+ pages"))
        page.get_by_role("button", name="About and your key").click()
        page.get_by_label("Mistral API key").fill("a-key-of-my-own")
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_contain_text("mistral · mistral-small-latest · your key · ")
        page.keyboard.press("Escape")
        ask(page, "How do I stream a chat completion?")
        expect(answered(page).locator(".receipt")).to_contain_text("mistral-small-latest")
        page.get_by_role("button", name="About and your key").click()
        page.get_by_role("button", name="Forget the key").click()
        expect(page.locator("#status")).to_contain_text("extractive")
        page.context.close()


@pytest.mark.parametrize("locale", ["en-US", "fr-FR"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_an_empty_page_does_not_scroll_and_a_preview_is_whole(
    new_reader: NewReader, width: int, height: int, locale: str
) -> None:
    page = new_reader(locale=locale, viewport={"width": width, "height": height}).new_page()
    page.goto("/")
    page.locator("#landing footer button").click()
    assert page.evaluate("document.documentElement.scrollHeight") == height
    ask(page, "How do I stream a chat completion?")
    answered(page).locator("a.chip").first.hover()
    preview = page.get_by_role("tooltip")
    expect(preview).to_be_visible()
    box = preview.bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= width


def test_theme_and_language_change_at_once_and_are_remembered(page: Page) -> None:
    ask(page, "How do I stream?")
    answered(page)
    body = page.locator("body")
    light = body.evaluate("body => getComputedStyle(body).backgroundColor")
    page.locator("#foot").get_by_text("Dark").click()
    expect(body).to_have_class(re.compile(r"\bdark\b"))
    assert body.evaluate("body => getComputedStyle(body).backgroundColor") != light
    page.locator("#foot").get_by_text("Français").click()
    expect(page.get_by_role("button", name="Nouvelle discussion")).to_be_visible()
    expect(page.get_by_role("tab", name="Mesures")).to_be_visible()
    expect(page.locator("#settled .receipt")).to_contain_text("jetons")
    expect(page.get_by_role("textbox", name="Votre question")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    expect(page.get_by_role("button", name="Nouvelle discussion")).to_be_visible()
    expect(body).to_have_class(re.compile(r"\bdark\b"))
    page.emulate_media(color_scheme="dark")
    page.locator("#foot").get_by_text("Clair").click()
    expect(body).not_to_have_class(re.compile(r"\bdark\b"))
    page.locator("#foot").get_by_text("Système").click()
    expect(body).to_have_class(re.compile(r"\bdark\b"))


def test_french_readers_read_french_from_the_first_byte(new_reader: NewReader) -> None:
    page = new_reader(locale="fr-FR").new_page()
    reply = page.goto("/")
    assert reply and '<html\n\tlang="fr"' in reply.text()
    page.get_by_role("dialog", name="Bienvenue").get_by_role("button", name="Poser une question").click()
    expect(page.get_by_role("button", name="Nouvelle discussion")).to_be_visible()
    expect(page.get_by_text("Démo non officielle.")).to_be_visible()


def test_the_keyboard_does_it_all(page: Page) -> None:
    page.locator("#banner").click()
    page.keyboard.press("?")
    shortcuts = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(shortcuts).to_be_visible()
    page.keyboard.press("Escape")
    expect(shortcuts).to_be_hidden()
    page.get_by_role("tab", name="Metrics").click()
    page.keyboard.press("/")
    expect(field(page)).to_be_focused()
    page.keyboard.type("How do I / stream?")
    expect(field(page)).to_have_value("How do I / stream?")


def test_the_focus_is_never_lost_to_a_button_that_goes_away(page: Page) -> None:
    ask(page, "How do I stream a chat completion? HALT")
    expect(page.locator("#growing .doc")).to_contain_text("is written.")
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#growing .answer")).to_contain_text("Stopped.")
    expect(field(page)).to_be_focused()
    page.locator("#chats").get_by_role("button", name="Delete the chat").focus()
    page.keyboard.press("Enter")
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_focused()
    expect(page.locator("#chats")).to_contain_text("Your chats will be listed here.")
    page.keyboard.press("Enter")
    expect(page.locator("#chats").get_by_role("button", name="How do I stream a chat completion? HALT")).to_be_visible()
    expect(page.get_by_role("button", name="New chat")).to_be_focused()


def test_an_answer_is_told_to_screen_readers_once(page: Page) -> None:
    page.evaluate(
        """() => {
            window.told = [];
            const teller = document.querySelector('body > [role=status].sr-only');
            new MutationObserver(() => told.push(teller.textContent)).observe(teller, {childList: true});
        }"""
    )
    ask(page, "How do I stream a chat completion? LONG")
    answered(page)
    page.wait_for_function("told.length > 1")
    searching, answer = page.evaluate("told")
    assert searching == "Searching the documentation…" and answer.count("The stream ends with a last event") == 20
    page.reload()
    expect(page.locator("#settled .answer")).to_be_visible()
    assert page.locator("body > [role=status].sr-only").inner_text() == "", "what is opened again is there to be read"


def test_a_narrow_phone_scrolls_only_up_and_down(page: Page) -> None:
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


@pytest.mark.parametrize("locale", ["en-US", "fr-FR"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(new_reader: NewReader, scheme: str, locale: str) -> None:
    page = new_reader(locale=locale, color_scheme=scheme).new_page()
    page.goto("/")
    expect(page.locator("#landing")).to_be_visible()
    expect(page.locator("#status .light.ok")).to_be_visible()
    assert_accessible(page, "the welcome")
    page.keyboard.press("Escape")
    ask(page, "How do I stream a chat completion?")
    answered(page)
    page.locator("#growing .icon.explain").click()
    expect(page.locator(".explained")).to_be_visible()
    assert_accessible(page, "the chat")
    page.locator("#growing .icon.snippet").click()
    expect(page.locator("#reproduce")).to_be_visible()
    assert_accessible(page, "the dialog that reproduces")
    page.keyboard.press("Escape")
    for tab, place in (("sources", ".source"), ("metrics", ".plot")):
        page.locator(f"#tab-{tab}-button").click()
        expect(page.locator(place).first).to_be_visible()
        assert_accessible(page, tab)


def assert_accessible(page: Page, where: str) -> None:
    "No serious or critical violation."
    found = Axe().run(page).response["violations"]
    serious = [
        f"{fault['id']}: {node['html'][:200]} {node['failureSummary'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
    assert not serious, f"{where}:\n" + "\n".join(serious)


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
