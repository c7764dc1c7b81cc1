"""The story of the video: what is done in each scene, and what the captions say, in English and in French."""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize

from .camera import BAND, HEIGHT, WIDTH, Camera
from .sets import Cell, ending, notebook, terminal, title

KEY = "a-key-for-the-video"
LONGEST = 300.0  # seconds that a command may take
WINDOW = ViewportSize(width=WIDTH, height=HEIGHT - BAND)
PHONE = ViewportSize(width=390, height=HEIGHT - BAND)


@dataclass
class Studio:
    "What the scenes need: the camera, browsers, and the app once the first scene has started it."

    camera: Camera
    browser: Browser
    app: Sequence[str]  # the command that starts the app
    environment: dict[str, str]  # for the app
    folder: Path  # of the project
    ask_cells: list[Cell]  # of a notebook that asks
    story_cells: list[Cell]  # of one of the project's notebooks
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    address: str = ""

    def __post_init__(self) -> None:
        self.reader: BrowserContext = self.browser.new_context(viewport=WINDOW, locale="en-US", color_scheme="light")
        self.page: Page = self.reader.new_page()

    def set(self, html: str, pointer: bool = False) -> Page:
        "Show a page of the video's own."
        page = self.browser.new_context(viewport=WINDOW).new_page()
        page.set_content(html)
        page.evaluate("document.fonts.ready")
        self.camera.show(page, pointer)
        return page

    def answer(self) -> Locator:
        "The last answer, which is whole."
        answer = self.page.locator(".answer").last
        self.camera.see(answer.locator(".receipt"), shown=60)
        return answer

    def ask(self, question: str) -> None:
        "Type a question and send it."
        self.camera.click(self.page.locator("#question textarea"), (0.8, 0.5))
        self.camera.write(question)
        self.camera.hold(0.4)
        self.page.keyboard.press("Enter")
        self.camera.see(self.page.locator(".question").last, question)


def run(studio: Studio, screen: Page, typed: str, command: Sequence[str], until: str = "") -> str:
    "Type a command in the terminal and show what it says, as it comes. Returns the line that `until` describes."
    camera = studio.camera
    screen.evaluate("line('typed')")
    for piece in re.findall(r"(?s).{1,3}", typed):
        screen.evaluate("text => put(text)", piece)
        camera.hold(0.05)
    camera.hold(0.4)
    process = subprocess.Popen(
        command, cwd=studio.folder, env=studio.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    studio.processes.append(process)
    lines: Queue[str | None] = Queue()
    threading.Thread(target=forward, args=(process, lines), daemon=True).start()
    since, ends = time.time(), time.time() + LONGEST
    while time.time() < ends:
        try:
            said = lines.get_nowait()
        except Empty:
            screen.wait_for_timeout(20)
            continue
        camera.cut(since + 0.6, time.time() - 0.05)  # what it took longer than a reader wants to wait
        since = time.time()
        if said is None:
            break
        screen.evaluate("text => say(text)", said.rstrip("\n"))
        if until and re.search(until, said):
            return said
    if until or process.poll():
        raise SystemExit(f"The video's command did not do what it should: {typed}")
    return ""


def forward(process: subprocess.Popen[str], lines: "Queue[str | None]") -> None:
    "Put the lines of a program into a queue, and None at its end."
    for line in process.stdout or ():
        lines.put(line)
    lines.put(None)


# --- The scenes, in their order


def open_with_the_title(studio: Studio) -> None:
    studio.set(title())
    studio.camera.say(
        "DocStral answers questions about Mistral's documentation.",
        "DocStral répond aux questions sur la documentation de Mistral.",
    )


def start_it(studio: Studio) -> None:
    camera = studio.camera
    camera.read()
    screen = studio.set(terminal())
    camera.say(
        "One command sets it up and starts it. No key, no GPU: it works with nothing.",
        "Une commande l'installe et le lance. Ni clé, ni GPU : il marche avec rien.",
    )
    said = run(studio, screen, "make run", studio.app, until="ready at http")
    found = re.search(r"ready at (http://[\w.:]+)", said)
    assert found
    studio.address = found[1]
    camera.hold(1.5)


def arrive(studio: Studio) -> None:
    page, camera = studio.page, studio.camera
    page.goto(studio.address)
    welcome = page.locator("#landing")
    welcome.wait_for()
    page.locator("#status .light.ok").wait_for()
    camera.read()
    camera.show(page)
    camera.say(
        "A first visit says what it is for, and what it does with a key.",
        "La première visite dit à quoi il sert, et ce qu'il fait d'une clé.",
    )
    camera.hold(2.2)
    camera.click(welcome.locator("footer .primary"))


def ask_with_nothing(studio: Studio) -> None:
    page, camera = studio.page, studio.camera
    camera.say("Ask in your own words, or take an example.", "Posez votre question, ou prenez un exemple.")
    camera.click(page.get_by_role("button", name="How do I run Mistral models with vLLM?"))
    camera.see(page.locator(".question").last)
    answer = studio.answer()
    camera.say(
        "Without a model, it quotes the closest passages, and says so.",
        "Sans modèle, il cite les passages les plus proches, et le dit.",
    )
    camera.hold(1.0)
    chip = answer.locator("a.chip").first
    camera.point(chip)
    camera.see(page.locator("#preview.shown"))
    camera.say(
        "Each claim carries a number. Hover over it: the sentence behind the claim.",
        "Chaque affirmation porte un numéro. Survolez-le : voici la phrase qui la fonde.",
    )
    camera.read()
    camera.picture("screenshot.png")
    camera.click(chip)
    camera.see(page.locator("#source-1"))
    camera.say(
        "Click it: the passage, with that sentence marked, its page and its licence.",
        "Cliquez : le passage, la phrase surlignée, sa page et sa licence.",
    )
    camera.point(page.locator("#source-1 mark").first, (0.3, 0.5))
    camera.read()
    camera.click(page.get_by_role("button", name="Back to the answer"))
    camera.see(answer)


def read_the_receipt(studio: Studio) -> None:
    page, camera = studio.page, studio.camera
    answer = studio.answer()
    camera.say(
        "Each answer has a receipt: time, tokens, cost, the share of it that is supported.",
        "Chaque réponse a son reçu : durée, jetons, coût, part étayée par les sources.",
    )
    camera.point(answer.locator(".receipt"), (0.1, 0.9))
    camera.point(answer.locator(".receipt"), (0.9, 0.9))
    camera.read()
    camera.click(answer.locator(".icon.explain"))
    account = page.get_by_role("region", name="How this answer came about")
    camera.see(account)
    camera.bring(account, 150)
    camera.say(
        "How did it come about? What was searched, found and kept, and how long each step took.",
        "D'où vient-elle ? Ce qui a été cherché, trouvé, gardé, et la durée de chaque étape.",
    )
    camera.hold(2.5)
    camera.scroll(330, 1.5)
    camera.read()


def ask_in_french(studio: Studio) -> None:
    camera = studio.camera
    camera.say(
        "It reads French: a French question finds the French pages.",
        "Il lit le français : à question française, pages françaises.",
    )
    studio.ask("Comment recevoir la réponse en continu ?")
    studio.answer()
    camera.hold(1.5)
    camera.read()


def ask_what_is_not_there(studio: Studio) -> None:
    camera = studio.camera
    camera.say(
        "What the documentation does not say, it does not make up.",
        "Ce que la documentation ne dit pas, il ne l'invente pas.",
    )
    studio.ask("How do I bake a good onion soup?")
    studio.answer()
    camera.hold(1.0)
    camera.read()


def bring_a_key(studio: Studio) -> None:
    page, camera = studio.page, studio.camera
    camera.say(
        "With a Mistral key of your own, a model answers. It stays in memory, for you alone.",
        "Avec votre clé Mistral, un modèle répond. Elle reste en mémoire, pour vous seul.",
    )
    camera.click(page.get_by_role("button", name="About and your key"))
    key = page.locator("#landing #key")
    camera.click(key)
    camera.write(KEY)
    camera.simulated = True
    camera.say(
        "There is no key in this film: from here on, a scripted server plays the model.",
        "Ce film n'a pas de clé : à partir d'ici, un serveur scénarisé joue le modèle.",
    )
    camera.click(page.locator("#landing").get_by_role("button", name="Check and use"))
    camera.see(page.locator("#landing .key .good"))
    camera.read()
    camera.click(page.locator("#landing footer .primary"))


def ask_a_model(studio: Studio) -> None:
    camera = studio.camera
    camera.say(
        "The same chat goes on. The answer streams, in Markdown.",
        "La même discussion continue. La réponse arrive en continu, en Markdown.",
    )
    studio.ask("How do I let a model call my functions?")
    studio.answer()
    camera.say(
        "Each citation is checked: words, numbers, names. A claim without support looks weak.",
        "Chaque citation est vérifiée : mots, nombres, noms. Une affirmation peu étayée se voit.",
    )
    chips = studio.answer().locator("a.chip")
    camera.point(chips.nth(1))
    camera.hold(1.8)
    camera.point(studio.answer().locator("a.chip.weak").last)
    camera.see(studio.page.locator("#preview em"))
    camera.read()


def reproduce_it(studio: Studio) -> None:
    page, camera = studio.page, studio.camera
    camera.say(
        "Reproduce any answer: the very request, as curl, Python, JavaScript or a notebook.",
        "Reproduisez une réponse : la requête même, en curl, Python, JavaScript ou notebook.",
    )
    camera.click(studio.answer().locator(".icon.snippet"))
    dialog = page.get_by_role("dialog", name="Reproduce this")
    camera.see(dialog)
    camera.hold(1.2)
    camera.click(dialog.get_by_role("button", name="Python"))
    camera.see(dialog.locator("pre"), "from mistralai")
    camera.read()
    camera.picture("screenshots/reproduce.png")
    camera.click(dialog.locator(".close"))


def look_at_the_metrics(studio: Studio) -> None:
    page, camera = studio.page, studio.camera
    camera.click(page.get_by_role("tab", name="Metrics"))
    camera.see(page.locator(".figures dd").first)
    camera.say(
        "Metrics for the one who runs it: latency, tokens, cost, refusals; Prometheus reads them too.",
        "Les mesures pour qui l'exploite : latence, jetons, coût, refus. Prometheus les lit aussi.",
    )
    camera.point(page.locator(".figures div").nth(1))
    camera.point(page.locator(".figures div").nth(7))
    camera.read()
    camera.picture("screenshots/metrics.png")


def change_the_looks(studio: Studio) -> None:
    page, camera = studio.page, studio.camera
    camera.click(page.get_by_role("tab", name="Chat"))
    camera.say("Light or dark, English or French: at a click.", "Clair ou sombre, anglais ou français : en un clic.")
    camera.click(page.locator("label:has(input[value=dark]) span"))
    camera.hold(0.8)
    camera.click(page.locator("label:has(input[value=fr]) span"))
    camera.see(page.get_by_role("tab", name="Discussion"))
    camera.read()
    camera.picture("screenshots/dark-french.png")


def look_on_a_phone(studio: Studio) -> None:
    camera = studio.camera
    state = studio.reader.storage_state()
    for origin in state.get("origins", []):  # all that this browser knows, but not its theme
        origin["localStorage"] = [item for item in origin["localStorage"] if "theme" not in item["name"]]
    phone = studio.browser.new_context(
        viewport=PHONE, locale="en-US", color_scheme="light", storage_state=state, has_touch=True, is_mobile=True
    )
    phone.add_cookies([{"name": "docstral_language", "value": "en", "url": studio.address}])
    page = phone.new_page()
    page.goto(studio.page.url)
    page.locator("#settled .answer").last.wait_for()
    page.locator("#status .light").wait_for(state="attached")
    camera.show(page, pointer=False)
    camera.say("The same on a phone, with all of it.", "La même chose sur un téléphone, au complet.")
    camera.hold(1.0)
    camera.scroll(-420, 2.0)
    camera.read()
    camera.picture("screenshots/phone.png")


def call_it_over_http(studio: Studio) -> None:
    camera = studio.camera
    camera.simulated = False
    screen = studio.set(terminal())
    camera.say(
        "Programs ask over HTTP. The same answer comes as a stream of events.",
        "Les programmes passent par HTTP. La même réponse arrive en flux d'événements.",
    )
    body = '{"message": "How do I stream a chat completion?"}'
    typed = f"curl -N {studio.address}/chat -H 'Content-Type: application/json' \\\n       -d '{body}'"
    command = [
        "curl",
        "-sN",
        "--noproxy",
        "*",
        f"{studio.address}/chat",
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
    ]
    run(studio, screen, typed, command)
    camera.hold(2.0)
    camera.read()


def use_it_in_python(studio: Studio) -> None:
    camera = studio.camera
    page = studio.set(notebook("ask.ipynb", studio.ask_cells))
    camera.say(
        "In Python it is one import, in a script or in a notebook.",
        "En Python, un seul import, dans un script ou un notebook.",
    )
    camera.hold(1.5)
    page.mouse.move(640, 400)
    camera.scroll(300, 2.0)
    camera.read()


def read_its_story(studio: Studio) -> None:
    camera = studio.camera
    page = studio.set(notebook("nbs/13_ranking.ipynb", studio.story_cells))
    camera.say(
        "DocStral is itself a book of notebooks: each tells the story of one small module.",
        "DocStral est lui-même un livre de notebooks : chacun raconte un petit module.",
    )
    camera.hold(1.5)
    page.mouse.move(640, 400)
    camera.scroll(900, 4.5)
    camera.read()


def end_with_what_is_next(studio: Studio) -> None:
    camera = studio.camera
    studio.set(
        ending(
            {
                "make run": "the app on a laptop, with nothing",
                "pip install .": "the library and the docstral command",
                "docker compose up": "a container; docs/DEPLOY.md goes on to a GPU",
                "make space": "a Hugging Face Space, ready to push",
                "nbs/00_types.ipynb": "where the book begins",
                "README.md": "all the rest, with its honest limits",
            }
        )
    )
    camera.say(
        "Your turn: run it, read it, point it at documents of your own.",
        "À vous : lancez-le, lisez-le, donnez-lui vos documents.",
    )
    camera.read(1.5)


SCENES: tuple[Callable[[Studio], None], ...] = (
    open_with_the_title,
    start_it,
    arrive,
    ask_with_nothing,
    read_the_receipt,
    ask_in_french,
    ask_what_is_not_there,
    bring_a_key,
    ask_a_model,
    reproduce_it,
    look_at_the_metrics,
    change_the_looks,
    look_on_a_phone,
    call_it_over_http,
    use_it_in_python,
    read_its_story,
    end_with_what_is_next,
)
