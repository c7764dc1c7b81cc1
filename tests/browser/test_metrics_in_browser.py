"The metrics in a real browser."

import re

from playwright.sync_api import Page, expect

from .pages import answered, ask, field


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
    expect(page.locator(".lines path").first).to_have_css("stroke-width", "7px")  # one point alone is seen, too
    page.get_by_role("button", name="By model").click()
    expect(page.locator(".plot").first).to_contain_text("mistral-small-latest")
    page.get_by_role("button", name="5 minutes").click()
    expect(page.get_by_role("button", name="5 minutes")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".figures")).to_contain_text("GPU")


def test_the_metrics_refresh_only_while_they_are_looked_at(page: Page) -> None:
    looks: list[str] = []
    page.on("request", lambda request: "run/predict" in request.url and looks.append(request.url))
    page.clock.install()
    page.get_by_role("tab", name="Metrics").click()
    expect(page.locator(".figures dd").first).to_be_visible()
    with page.expect_request("**/run/predict*"):
        page.clock.run_for(6_000)  # longer than the time between two looks
    page.get_by_role("tab", name="Chat").click()
    expect(field(page)).to_be_visible()
    looks.clear()
    page.clock.run_for(20_000)
    page.get_by_role("tab", name="Sources").click()
    expect(page.locator("#sources .empty")).to_be_visible()
    assert looks == []
