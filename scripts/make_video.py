"""Make docs/demo.mp4, its poster, its subtitles, and the screenshots: a real browser in front of the real app, filmed.

`--dry` plays all scenes as fast as they go and films nothing; `--scenes` plays only the first so many. What was filmed
lies in build/video/; `--again` makes the video from it anew.
"""

import argparse
import asyncio
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "scripts"), str(ROOT / "tests")]

from mistral_server import Gate, Reply, ScriptedMistral  # noqa: E402
from playwright.sync_api import Browser, sync_playwright  # noqa: E402
from video.camera import BAND, WIDTH, Camera, Reel  # noqa: E402
from video.cells import first_result, run_cells  # noqa: E402
from video.scenes import SCENES, Studio  # noqa: E402
from video.sets import Cell, band  # noqa: E402

TAKEN = ROOT / "build" / "video"
VIDEO, POSTER, FRENCH = (ROOT / "docs" / name for name in ("demo.mp4", "demo.jpg", "demo.fr.vtt"))
POSTER_AT = "Each claim carries a number"  # the caption under which the poster's frame is
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
         " --disable-component-update --disable-sync --hide-scrollbars").split()  # fmt: skip
STORY = "13_ranking.ipynb"
ASKING = (
    'from docstral import ask\n\nanswer = ask("How do I know that a stream is finished?")\nanswer',
    "[source.url for number, source in answer.cited]",
    'ask("How do I do that in TypeScript?", chat_id=answer.chat_id)',
)
# What the scripted model writes; {words} stands for the number of the passage that has these words. No passage has the
# last claim, so that one sees what becomes of such a claim.
SCRIPT = """You describe the functions in `tools`, the model answers with `tool_calls`, and **your code runs them**: \
the model never runs your function itself [{never runs your function}].

1. Describe each function with a name, a description and a JSON schema of its parameters [{takes five steps}].
2. Send the user's question together with `tools` [{takes five steps}].
3. Read `choices[0].message.tool_calls`; `finish_reason` is then `"tool_calls"` [{takes five steps}].
4. Run the functions in your own code, and add one `tool` message for each call [{takes five steps}].
5. Send the messages again; the model writes the answer, or asks for another call [{takes five steps}].

Your functions may be written in any language [{never runs your function}].
"""


class Pause(Gate):
    "A moment between two pieces of an answer, as long as a model's next token takes."

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds

    async def wait(self) -> None:
        await asyncio.sleep(self.seconds)


def play_the_model(body: Any, pace: float) -> Reply:
    "The scripted answer to a request, citing the passages that the request carries."
    prompt = "\n".join(message["content"] for message in body["messages"])
    passages = re.findall(r"<passage (\d+) \w+>(.*?)</passage", prompt, re.DOTALL)

    def number(words: re.Match[str]) -> str:
        return next((n for n, text in passages if words[1] in text), "1")

    text = re.sub(r"\{([^}]+)\}", number, SCRIPT)
    pieces: list[str | bytes | Gate] = []
    for piece in re.findall(r"\s*\w{1,7}|\s*\S|\s+", text):
        pieces += [Pause(pace), piece]
    return Reply(pieces, usage=(len(prompt) // 4, len(pieces) // 2))


def cells(data: Path) -> tuple[list[Cell], list[Cell]]:
    "The two notebooks that are shown, with what their cells say: one that asks, and one of the project's own."
    asked = [Cell(source, result) for source, result in zip(ASKING, run_cells(ASKING, data), strict=True)]
    return asked, [Cell(source, result) for source, result in first_result(STORY, data)]


def port() -> str:
    "The app's usual port where nothing listens on it; else 0, which is any free one."
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 7860))
        except OSError:
            return "0"
    return "7860"


def film(browser: Browser, camera: Camera, model: ScriptedMistral, data: Path, scenes: int) -> None:
    "Play the scenes."
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCSTRAL_", "MISTRAL_"))}
    if camera.folder:  # what is filmed is how it starts, not how long a network takes
        subprocess.run(["make", "--silent", "venv", f"PYTHON={sys.executable}"], cwd=ROOT, check=True)
    settings = {"DOCSTRAL_DATA_DIR": str(data / "app"), "DOCSTRAL_PORT": port(), "DOCSTRAL_MISTRAL_URL": model.url}
    app = ["make", "--silent", "run", f"PYTHON={sys.executable}"] if camera.folder else [sys.executable, "app.py"]
    studio = Studio(camera, browser, app, kept | settings, ROOT, *cells(data / "library"))
    try:
        for scene in SCENES[:scenes]:
            print(f"  {scene.__name__.replace('_', ' ')}", flush=True)
            scene(studio)
        camera.read()
        camera.stop()
    finally:
        for process in studio.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def take(folder: Path | None, scenes: int) -> Reel:
    "Film all scenes into a folder; without one, only play them."
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not executable:
        raise SystemExit("There is no browser to film. On Debian and Ubuntu: sudo apt-get install chromium")
    with (
        tempfile.TemporaryDirectory(prefix="docstral-") as data,
        ScriptedMistral() as model,
        sync_playwright() as playwright,
    ):
        model.answer = lambda body: play_the_model(body, 0.028 if folder else 0)
        browser = playwright.chromium.launch(executable_path=executable, args=QUIET)
        camera = Camera(folder)
        film(browser, camera, model, Path(data), scenes)
        if folder:
            draw_bands(browser, camera.reel, folder)
        browser.close()
    return camera.reel


def draw_bands(browser: Browser, reel: Reel, folder: Path) -> None:
    "Write a picture of the band for each caption."
    page = browser.new_page(viewport={"width": WIDTH, "height": BAND})
    for number, caption in enumerate(reel.captions):
        page.set_content(band(caption))
        page.evaluate("document.fonts.ready")
        page.screenshot(path=folder / f"band-{number:03}.png")


def cut(reel: Reel, folder: Path) -> None:
    "Make the video, its poster and its subtitles."
    from video.film import Film, encode, poster, subtitles

    made = Film(reel, folder, sorted(folder.glob("band-*.png")))
    FRENCH.write_text(subtitles(reel, made.cutting), encoding="utf8")
    encode(made, FRENCH, VIDEO)
    at = next((c.time for c in reel.captions if c.english.startswith(POSTER_AT)), reel.captions[0].time)
    poster(made.draw(made.cutting.shown(at) + 2)).save(POSTER, quality=88, optimize=True)
    shutil.copytree(folder / "pictures", VIDEO.parent, dirs_exist_ok=True)
    size = VIDEO.stat().st_size / 1e6
    print(f"{VIDEO.relative_to(ROOT)}: {made.cutting.seconds:.0f} s, {size:.1f} MB, {len(reel.frames)} frames filmed")


def main() -> None:
    "Film, then cut."
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dry", action="store_true", help="play the scenes, film nothing")
    options.add_argument("--again", action="store_true", help="make the video from what was filmed before")
    options.add_argument("--scenes", type=int, default=len(SCENES), help="how many of the scenes")
    chosen = options.parse_args()
    if chosen.dry:
        take(None, chosen.scenes)
        return
    if not shutil.which("ffmpeg"):
        raise SystemExit("There is no ffmpeg to make the video with. On Debian and Ubuntu: sudo apt-get install ffmpeg")
    if not chosen.again:
        shutil.rmtree(TAKEN, ignore_errors=True)
        TAKEN.mkdir(parents=True)
        print("Filming (four minutes) ...", flush=True)
        (TAKEN / "reel.pickle").write_bytes(pickle.dumps(take(TAKEN, chosen.scenes)))
    print("Cutting (two minutes) ...", flush=True)
    cut(pickle.loads((TAKEN / "reel.pickle").read_bytes()), TAKEN)


if __name__ == "__main__":
    main()
