"A browser that comes before the app is ready, in a real browser."

import re

from helpers import held_server
from playwright.sync_api import Browser, expect


def test_a_page_that_came_too_early_turns_into_the_app_by_itself(
    browser: Browser, plain_environment: dict[str, str]
) -> None:
    with held_server(plain_environment) as (process, address):
        context = browser.new_context(locale="fr-FR", color_scheme="dark")
        page = context.new_page()
        page.goto(f"{address}/?theme=kept")
        expect(page.get_by_role("status")).to_contain_text("DocStral démarre")
        expect(page.locator("html")).to_have_class(re.compile(r"\bdark\b"))
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 18, 15)"
        assert process.stdin
        process.stdin.write("go on\n")
        process.stdin.flush()
        expect(page.locator("#landing")).to_be_visible()
        assert page.url == f"{address}/?theme=kept"
        context.close()
