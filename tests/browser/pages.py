"What a new user does in the web app, and the app as a user starts it."

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mistral_server import Gate, Reply, ScriptedMistral, refusal
from playwright.sync_api import BrowserContext, Locator, Page, expect

ROOT = Path(__file__).resolve().parent.parent.parent
CITED = (
    "To **stream**, set `stream` to true [1]. The stream ends with a last event [2].\n\n```python\nprint(x[1])\n```\n"
)
NewReader = Callable[..., BrowserContext]
HOSTILE = "<script>window.hurt = 1</script> <img src=x onerror='window.hurt = 2'> ![x](https://example.org/x.png) [1]"


class Model(ScriptedMistral):
    "Answers with what a word in capitals asks for: HALT midway, HURT the page, REFUSE, be SLOW or LONG; else cited."

    gate: Gate  # where the last answer that was to halt does so

    def __init__(self) -> None:
        super().__init__()
        self.answer = self.reply

    def reply(self, body: Any) -> Reply:
        "The reply to a request."
        asked = body["messages"][-1]["content"]
        if "REFUSE" in asked:
            return refusal(401, "Unauthorized <b>key</b>")
        if "HALT" in asked:
            self.gate = Gate()
            return Reply(["The first half ", "is written. ", self.gate, "The second half ", "is too."])
        if "SLOW" in asked:
            self.gate = Gate()
            return Reply([self.gate, "At last [1]."])
        text = HOSTILE if "HURT" in asked else CITED * (20 if "LONG" in asked else 1)
        return Reply(re.findall(r"\s*\S+|\s+", text))


@contextmanager
def running_app(data: Path, **settings: str) -> Iterator[str]:
    "The app in a process of its own; gives its address."
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCSTRAL_", "MISTRAL_"))}
    environment = kept | {"DOCSTRAL_DATA_DIR": str(data), "DOCSTRAL_PORT": "0"} | settings
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
                raise AssertionError(f"app.py ended before it was ready: {''.join(said)}")
        finally:
            process.terminate()


def open_app(context: BrowserContext, address: str = "/") -> Page:
    "Open the app in a new tab of this browser, and leave the welcome of a first visit behind."
    page = context.new_page()
    page.goto(address)
    welcome = page.locator("#landing")
    welcome.locator("footer button").click()
    expect(welcome).to_be_hidden()
    expect(page.locator("#status .light.ok")).to_be_visible()
    return page


def field(page: Page) -> Locator:
    "The field for the question."
    return page.locator("#question textarea")


def ask(page: Page, question: str) -> None:
    "Type a question and press Enter."
    field(page).fill(question)
    page.keyboard.press("Enter")
    expect(page.locator("#growing .question")).to_contain_text(question)


def paste(page: Page, text: str) -> None:
    "Paste a text into the field, as a reader does: at once. `fill` types each line by itself, as an edit of its own."
    page.evaluate(
        """(text) => {
            const place = document.body.appendChild(Object.assign(document.createElement('textarea'), {value: text}));
            place.select();
            document.execCommand('copy');
            place.remove();
        }""",
        text,
    )
    field(page).focus()
    key = {"type": "keyDown", "key": "v", "code": "KeyV", "modifiers": 2, "commands": ["paste"]}
    page.context.new_cdp_session(page).send("Input.dispatchKeyEvent", key)
    expect(field(page)).to_have_value(text)


def answered(page: Page) -> Locator:
    "The last answer, once it is whole."
    expect(page.locator("#growing .answer:not([aria-busy]) .receipt")).to_be_visible()
    return page.locator("#growing .answer")


def turn(text: str, number: int) -> dict[str, Any]:
    "A question and an answer in the file of a chat, hostile wherever the file may be."
    source = {"id": f"{number}::0", "title": text, "section": text, "url": "https://docs.example.org/x", "text": text}
    source |= {"score": 0.5, "language": "en", "licence": text, "page": text}
    cited = {
        "n": 1,
        "source_id": source["id"],
        "start": 0,
        "end": min(5, len(text)),
        "support": 1.0,
        "at": 0,
        "weak": False,
    }
    time = f"2026-11-24T10:{number // 60:02}:{number % 60:02}Z"
    return {
        "question": text, "asked": time, "answer": f"{text}\n\nSo it is [1].", "answered": time, "outcome": "cited",
        "sources": [source], "citations": [cited], "receipt": {"provider": text, "model": text}, "rating": 1,
        "comment": text,
    }  # fmt: skip


def chat_file(title: str, texts: list[str]) -> str:
    "The file of a chat."
    turns = [turn(text, number) for number, text in enumerate(texts)]
    time = "2026-11-24T10:00:00Z"
    return json.dumps({"docstral": 1, "title": title, "created": time, "updated": time, "turns": turns})


def bring(context: BrowserContext, content: str) -> str:
    "Import a chat as this reader; gives its id."
    reply = context.request.post("/chats/import", data=content, headers={"content-type": "application/json"})
    assert reply.status == 201, reply.text()
    return str(reply.json()["id"])
