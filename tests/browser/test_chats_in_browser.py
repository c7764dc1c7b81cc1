"Chats and whose they are, in a real browser."

from playwright.sync_api import Page, expect

from .pages import NewReader, answered, ask, bring, chat_file, open_app


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


def test_a_question_that_is_being_written_outlives_a_reload_and_one_that_was_asked_does_not(page: Page) -> None:
    field = page.locator("#question textarea")
    field.fill("How do I stream what I have begun to write?")
    page.reload()
    expect(field).to_have_value("How do I stream what I have begun to write?")
    field.press("Enter")
    answered(page)
    page.reload()
    expect(page.locator("#settled .answer")).to_have_count(1)
    expect(field).to_have_value("")


def test_two_readers_do_not_see_each_others_chats(page: Page, new_reader: NewReader) -> None:
    ask(page, "How do I stream what is mine?")
    answered(page)
    mine = page.url
    stranger = open_app(new_reader(), mine)
    expect(stranger.locator(".welcome")).to_be_visible()
    expect(stranger.get_by_text("Your chats will be listed here.")).to_be_visible()
    expect(stranger.get_by_text("what is mine")).to_have_count(0)


def test_a_chat_is_renamed_exported_deleted_and_restored(page: Page) -> None:
    ask(page, "How do I stream a chat completion?")
    answered(page)
    address = page.url
    chats = page.get_by_role("navigation", name="Your chats")
    expect(chats).to_contain_text("Today")
    chats.get_by_role("button", name="Rename or export").click()
    dialog = page.get_by_role("dialog", name="Rename or export")
    with page.expect_download() as download:
        dialog.get_by_role("link", name="Markdown").click()
    assert "unofficial demo, sources cited" in download.value.path().read_text(encoding="utf8")
    dialog.get_by_role("textbox", name="Title").fill("My <streams>")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(chats.locator(".chat")).to_have_text("My <streams>")

    chats.get_by_role("button", name="Delete the chat").click()
    expect(page.locator(".welcome")).to_be_visible()
    expect(page.locator("#chats")).to_contain_text("Your chats will be listed here.")
    page.get_by_role("button", name="Undo").click()
    expect(chats.locator(".chat")).to_have_text("My <streams>")
    expect(page.locator("#settled .answer")).to_have_count(1)
    expect(page).to_have_url(address)


def test_chats_are_found_by_what_was_said_in_them(page: Page) -> None:
    for question in ("How do I stream a chat completion?", "Which models can call functions?"):
        ask(page, question)
        answered(page)
        page.get_by_role("button", name="New chat").click()
        expect(page.locator(".welcome")).to_be_visible()
    search = page.get_by_role("searchbox", name="Search chats")
    search.fill("FUNCTIONS")
    expect(page.locator("#chats .chat")).to_have_count(1)
    expect(page.locator("#chats .chat")).to_contain_text("Which models can call functions?")
    search.fill("nothing of the kind")
    expect(page.locator("#chats")).to_contain_text("No chat matches.")
    search.fill("")
    expect(page.locator("#chats .chat")).to_have_count(2)
    search.fill("functions")
    expect(page.locator("#chats .chat")).to_have_count(1)
    page.locator("#chats .chat").click()
    expect(page.locator("#chats .chat")).to_have_count(2)
    expect(search).to_have_value("")  # the list and the field say the same


def test_a_chat_open_in_two_tabs_is_the_same_chat(page: Page) -> None:
    ask(page, "How do I stream a chat completion?")
    answered(page)
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#settled .answer")).to_have_count(1)
    ask(other, "And with Python?")
    answered(other)
    page.reload()
    expect(page.locator("#settled .answer")).to_have_count(2)


def test_a_long_list_of_chats_scrolls_in_its_own_place(page: Page) -> None:
    for number in range(14):
        bring(page.context, chat_file(f"Chat number {number}", ["Set `stream`."]))
    page.reload()
    chats = page.locator("#chats").get_by_role("button", name="Chat number")
    expect(chats).to_have_count(14)
    oldest = chats.last
    expect(oldest).not_to_be_in_viewport()  # where it lay over what can be chosen
    oldest.scroll_into_view_if_needed()
    expect(oldest).to_be_in_viewport()
    chat, choices = oldest.bounding_box(), page.locator("#choices").bounding_box()
    assert chat and choices and chat["y"] + chat["height"] <= choices["y"]
