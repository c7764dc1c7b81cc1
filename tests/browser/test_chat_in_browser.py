"Asking and answering in a real browser."

import re

from playwright.sync_api import Page, expect

from .pages import Model, answered, ask, field

BANNER = "Unofficial demo. Sources cited. Licenses respected."


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


def test_an_answer_survives_a_reload_in_the_middle_of_it(page: Page, model: Model) -> None:
    ask(page, "How do I stream a chat completion? HALT")
    expect(page.locator("#growing .doc")).to_contain_text("is written.")
    page.reload()
    expect(page.locator("#growing .doc")).to_contain_text("is written.")
    model.gate.open()
    answered(page)
    expect(page.locator("#growing .doc")).to_contain_text("The second half is too.")


def test_html_in_an_answer_is_only_text(page: Page) -> None:
    ask(page, "How do I stream a chat completion? HURT <img src=x onerror='window.hurt = 3'>")
    answered(page)
    expect(page.locator("#growing .doc")).to_contain_text("<script>window.hurt = 1</script>")
    assert page.locator("#growing :is(script, img)").count() == 0
    assert page.evaluate("window.hurt") is None


def test_an_error_is_a_card_with_the_one_thing_to_do(page: Page) -> None:
    ask(page, "How do I stream a chat completion? REFUSE")
    card = page.locator("#growing .failed")
    expect(card).to_contain_text("refused the API key")
    expect(card).to_contain_text("<b>")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    card.get_by_role("button", name="Enter a key").click()
    expect(page.get_by_role("dialog", name="Welcome to DocStral")).to_be_visible()


def test_hovering_and_focusing_a_citation_shows_the_sentence(page: Page) -> None:
    ask(page, "How do I stream a chat completion?")
    chip = answered(page).locator("a.chip").first
    preview = page.get_by_role("tooltip")
    chip.hover()
    expect(preview.locator("q")).to_contain_text("stream")
    field(page).hover()
    expect(preview).to_be_hidden()
    page.locator("#growing .icon.copy").focus()
    for _ in range(9):  # back, past the code block, to a chip
        page.keyboard.press("Shift+Tab")
        if preview.is_visible():
            break
    expect(preview).to_be_visible()
    page.keyboard.press("Escape")
    expect(preview).to_be_hidden()


def test_an_answer_is_written_anew_and_its_question_edited(page: Page) -> None:
    ask(page, "How do I stream a chat completion?")
    answered(page)
    ask(page, "And with Python?")
    first = answered(page).get_attribute("id")
    page.locator("#growing").get_by_role("button", name="Write another answer").click()
    expect(page.locator("#growing .answer")).not_to_have_attribute("id", first or "")
    second = answered(page).get_attribute("id")
    field(page).press("ArrowUp")
    expect(field(page)).to_have_value("And with Python?")
    expect(page.locator(".editbar")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".editbar")).to_have_count(0)
    page.locator("#growing .question").hover()
    page.locator("#growing").get_by_role("button", name="Edit the question").click()
    expect(field(page)).to_have_value("And with Python?")
    ask(page, "And with TypeScript?")
    expect(page.locator("#growing .answer")).not_to_have_attribute("id", second or "")
    answered(page)
    expect(page.locator(".question")).to_have_count(2)
    expect(page.get_by_text("And with Python?")).to_have_count(0)


def test_an_answer_is_rated_with_a_word(page: Page) -> None:
    ask(page, "How do I stream a chat completion?")
    answered(page)
    poor = page.locator("#growing").get_by_role("button", name="Poor answer")
    poor.click()
    expect(poor).to_have_attribute("aria-pressed", "true")
    page.get_by_role("textbox", name="What was it?").fill("too short")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Thank you.")).to_be_visible()
    page.reload()
    expect(page.locator("#settled .icon.poor")).to_have_attribute("aria-pressed", "true")


def test_an_answer_is_explained_and_reproduced(page: Page) -> None:
    ask(page, "How do I stream a chat completion?")
    answered(page)
    page.get_by_role("button", name="How this answer came about").click()
    account = page.get_by_role("region", name="How this answer came about")
    expect(account).to_contain_text("Writing")
    expect(account.locator(".stage i").first).to_be_visible()
    page.get_by_role("button", name="How this answer came about").click()
    expect(account).to_have_count(0)

    page.get_by_role("button", name="Reproduce this").click()
    dialog = page.get_by_role("dialog", name="Reproduce this")
    expect(dialog).to_contain_text("curl")
    dialog.get_by_role("button", name="Python").click()
    expect(dialog.locator("pre")).to_contain_text("from mistralai")
    dialog.get_by_role("button", name="DocStral").click()
    dialog.get_by_role("button", name="Jupyter").click()  # before the other choice is answered
    download_link = dialog.get_by_role("link", name="Download")
    expect(download_link).to_have_attribute("href", re.compile("form=notebook&through=docstral"))
    expect(dialog.locator("pre")).to_contain_text("/chat")
    with page.expect_download() as download:
        download_link.click()
    assert download.value.suggested_filename.endswith("-docstral.ipynb")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_a_slow_provider_is_waited_for_in_words_and_can_be_stopped(page: Page, model: Model) -> None:
    ask(page, "How do I stream a chat completion? SLOW")
    expect(page.locator("#growing .waiting")).to_contain_text("Reading")
    field(page).focus()
    page.keyboard.press("Escape")
    expect(page.locator("#growing .answer")).to_contain_text("Stopped.")


def test_a_long_answer_is_followed_until_the_reader_scrolls_up(page: Page) -> None:
    ask(page, "How do I stream a chat completion? LONG")
    answered(page)
    at_end = "Math.abs(innerHeight + scrollY - document.documentElement.scrollHeight) < 2"
    page.wait_for_function(at_end)
    page.mouse.move(700, 400)
    page.mouse.wheel(0, -600)
    page.wait_for_function(f"!({at_end})")
    before = page.evaluate("scrollY")
    page.locator("#growing").get_by_role("button", name="Good answer").evaluate("button => button.click()")
    expect(page.locator("#growing .icon.good")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("scrollY") == before, "what changes below does not pull the reader down"
