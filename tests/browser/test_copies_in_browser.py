"A page whose copy of the app dies while it answers: another copy takes over, behind the real proxy."

from pathlib import Path

import psutil
from helpers import caddy
from playwright.sync_api import Browser, expect
from side_by_side import Copy

from .pages import Model, answered, ask, open_app


def writer_of(copies: list[Copy], model: Model) -> Copy:
    "The copy that is connected with the model."
    port = int(model.url.rpartition(":")[2])
    for copy in copies:
        for connection in psutil.Process(copy.process.pid).net_connections("tcp"):
            if connection.status == psutil.CONN_ESTABLISHED and connection.raddr and connection.raddr.port == port:
                return copy
    raise AssertionError("no copy asks the model")


def test_a_page_whose_copy_dies_goes_on_with_another(
    browser: Browser, plain_environment: dict[str, str], database_url: str, pages: Path, tmp_path: Path
) -> None:
    with Model() as model:
        shared = {"DOCSTRAL_DATABASE_URL": database_url, "DOCSTRAL_DOCS": str(pages)}
        settings = shared | {"DOCSTRAL_MISTRAL_URL": model.url, "MISTRAL_API_KEY": "key"}
        copies = [Copy(plain_environment | settings, tmp_path / str(number)) for number in range(2)]
        try:
            upstreams = " ".join(copy.ready().url.removeprefix("http://") for copy in copies)
            with caddy(plain_environment | {"DOCSTRAL_APP": f"to {upstreams}"}, tmp_path) as address:
                context = browser.new_context(base_url=address)
                page = open_app(context)
                ask(page, "How do I stream a chat completion?")
                answered(page)
                ask(page, "HALT How do I know that the stream is finished?")
                expect(page.locator("#growing .answer")).to_contain_text("The first half")
                writer_of(copies, model).kill()
                expect(page.locator("#settled .answer")).to_contain_text("To stream")
                expect(page.locator("#growing .answer")).to_have_count(0)
                ask(page, "How do I stream a chat completion?")
                answered(page)
                context.close()
        finally:
            for copy in copies:
                copy.kill()
