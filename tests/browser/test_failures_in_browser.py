"A provider that is gone, and a server that starts again, in a real browser."

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from .pages import Model, NewReader, answered, ask, field, open_app, paste, running_app


def test_a_provider_that_is_gone_and_a_server_that_starts_again(
    new_reader: NewReader, tmp_path: Path, free_port: int
) -> None:
    with Model() as model:
        settings = {"DOCSTRAL_MISTRAL_URL": model.url, "MISTRAL_API_KEY": "key", "DOCSTRAL_PORT": str(free_port)}
        with running_app(tmp_path, **settings) as address:
            page = open_app(new_reader(address))
            ask(page, "How do I stream a chat completion?")
            answered(page)
            chat = page.url
    # the model is gone; the server starts again on what was stored
    with running_app(tmp_path, **settings):
        page.goto(chat)
        expect(page.locator("#settled .answer")).to_contain_text("To stream")
        page.get_by_role("button", name="New chat").click()
        expect(page.locator(".welcome")).to_be_visible()
        ask(page, "How do I stream a chat completion?")
        expect(page.locator("#growing .notice .countdown").or_(page.locator("#growing .failed"))).to_be_visible()
        card = page.locator("#growing .failed")
        expect(card).to_be_visible()
        page.select_option("select[data-name=provider]", "extractive")
        card.get_by_role("button", name="Ask again").click()
        expect(page.locator("#growing .answer .chip").first).to_be_visible()
        answered(page)


def test_a_question_of_a_megabyte_is_refused_in_view_and_stays_in_the_field(page: Page) -> None:
    text = ("How? " * 200_000).strip()
    field(page).fill(text)
    page.keyboard.press("Enter")
    card = page.locator("#growing .failed")
    expect(card).to_contain_text("the limit is 4000")
    expect(card).to_be_in_viewport()
    expect(field(page)).to_have_value(text)
    ask(page, "How do I stream a chat completion?")
    answered(page)


def test_a_question_of_many_lines_costs_the_page_no_more_than_one_of_few(page: Page) -> None:
    counter = page.context.new_cdp_session(page)
    counter.send("Performance.enable")

    def counted() -> dict[str, float]:
        return {each["name"]: each["value"] for each in counter.send("Performance.getMetrics")["metrics"]}

    layouts, nodes = [], []
    for lines in (200, 1500):
        text = "\n".join(f"How do I stream a chat completion, part {line}?" for line in range(lines))
        field(page).clear()
        before = counted()["LayoutCount"]
        paste(page, text)
        page.keyboard.press("Enter")
        card = page.locator("#growing .failed")
        expect(card).to_contain_text(f"{len(text)} characters")
        expect(card).to_be_in_viewport()
        layouts.append(counted()["LayoutCount"] - before)
        nodes.append(page.evaluate("document.querySelectorAll('*').length"))
        expect(field(page)).to_have_value(text)
    assert layouts[1] < 3 * layouts[0], "how often the page is laid out does not grow with the lines"
    assert nodes[0] == nodes[1]


def test_what_the_server_does_not_take_is_told_and_stays_in_the_field(browser: Browser, app: str) -> None:
    with browser.new_context(base_url=app, locale="en-US") as reader:
        page = open_app(reader)
        text = "How? " * 500_000
        field(page).fill(text)
        page.keyboard.press("Enter")
        expect(page.locator("#toast.shown")).to_contain_text("the limit is 2000000. Send less at once.")
        expect(field(page)).to_have_value(text)
        ask(page, "How do I stream a chat completion?")
        answered(page)
