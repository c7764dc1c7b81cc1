"""Films pages of a real browser: frames of the DevTools protocol's screencast, and what the film adds to them.

What is filmed is kept as it came, with real times: frames, the pointer's ways, captions, and the waits to leave out.
`film.py` makes the video from that. A camera without a folder films nothing and waits for nothing: a dry run.
"""

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

WIDTH, HEIGHT, BAND = 1280, 720, 72  # pixels of the video, and of the band with the caption above the page
READ = 15.0  # characters a second that a reader of captions manages
LEAST = 3.2  # seconds that a caption stays
SLOW = 0.5  # seconds of a wait that are shown
DEADLINE = 60_000  # milliseconds for the app to do what takes it about one second

Place = tuple[float, float]


@dataclass
class Caption:
    "What stands in the band from a time on."

    time: float
    english: str
    french: str
    simulated: bool


@dataclass
class Reel:
    "All that was filmed. Times are seconds since 1970."

    frames: list[tuple[float, str, int]] = field(default_factory=list)  # time, file, number of the shot
    moves: list[tuple[float, float, Place, Place]] = field(default_factory=list)  # when, and from where to where
    clicks: list[tuple[float, Place]] = field(default_factory=list)
    captions: list[Caption] = field(default_factory=list)
    cuts: list[tuple[float, float]] = field(default_factory=list)
    pointer: list[tuple[float, bool]] = field(default_factory=list)  # whether it is shown, from a time on
    ended: float = 0.0


def reading_time(text: str) -> float:
    "Seconds that a caption has to stay."
    return max(LEAST, len(text) / READ + 0.8)


class Camera:
    "Films one page after the other, moves the pointer, and says what is seen."

    def __init__(self, folder: Path | None):
        self.folder, self.reel = folder, Reel()
        self.simulated = False  # whether what is seen was written by a scripted server
        self.page: Page
        self._at: Place = (WIDTH * 0.6, HEIGHT * 0.6)
        self._session: Any = None
        self._shot = 0

    # --- Filming
    def show(self, page: Page, pointer: bool = True) -> None:
        "Film this page from now on."
        self.page = page
        if not self.folder:
            return
        self.stop()
        self._shot += 1
        self.reel.pointer.append((time.time(), pointer))
        page.bring_to_front()
        self._session = session = page.context.new_cdp_session(page)
        session.on("Page.screencastFrame", lambda frame: self._take(session, frame))
        session.send("Page.startScreencast", {"format": "png", "everyNthFrame": 1})

    def stop(self) -> None:
        "Film nothing until the next `show`."
        if self._session:
            self._session.send("Page.stopScreencast")
            self._session.detach()
            self._session = None
        self.reel.ended = time.time()

    def _take(self, session: Any, frame: dict[str, Any]) -> None:
        if session is not self._session or not self.folder:
            return
        name = f"{len(self.reel.frames):05}.png"
        (self.folder / name).write_bytes(base64.b64decode(frame["data"]))
        self.reel.frames.append((frame["metadata"]["timestamp"], name, self._shot))
        session.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})

    def picture(self, name: str) -> None:
        "Keep what the page shows as a picture of its own, without band and pointer."
        if self.folder:
            with self.waiting(0):
                self.page.screenshot(path=self.folder / "pictures" / name)

    # --- Time
    def hold(self, seconds: float) -> None:
        "Let the reader look."
        if self.folder:
            self.page.wait_for_timeout(seconds * 1000)

    def say(self, english: str, french: str) -> None:
        "Change the caption, once there was time to read the last one."
        self.read()
        self.reel.captions.append(Caption(time.time(), english, french, self.simulated))

    def read(self, more: float = 0.0) -> None:
        "Wait until there was time to read the caption, and some seconds more."
        if self.reel.captions:
            last = self.reel.captions[-1]
            shown = time.time() - last.time - sum(end - start for start, end in self.reel.cuts if start >= last.time)
            self.hold(max(0.0, reading_time(max(last.english, last.french, key=len)) - shown) + more)

    @contextmanager
    def waiting(self, shown: float = SLOW) -> Iterator[None]:
        "Of a wait, show so many seconds at most and leave out the rest."
        started = time.time()
        yield
        self.cut(started + shown, time.time() - 0.1)

    def cut(self, start: float, end: float) -> None:
        "Leave this time out."
        if end > start:
            self.reel.cuts.append((start, end))

    def see(self, what: Locator, text: Any = None, shown: float = SLOW) -> None:
        "Wait until something is to be seen."
        with self.waiting(shown):
            expect(what).to_be_visible(timeout=DEADLINE)
            if text is not None:
                expect(what).to_contain_text(text, timeout=DEADLINE)
            self.hold(0.15)  # until its frame is there

    # --- The reader's hands
    def point(self, what: Locator, at: Place = (0.5, 0.5)) -> Place:
        "Move the pointer to a part of something, given as shares of its width and height; again, where it has moved."
        for _ in range(4):
            what.wait_for(timeout=DEADLINE)
            box = what.bounding_box()
            assert box, f"{what} cannot be pointed at"
            to = (box["x"] + box["width"] * at[0], box["y"] + box["height"] * at[1])
            far = ((to[0] - self._at[0]) ** 2 + (to[1] - self._at[1]) ** 2) ** 0.5
            if far < 3:
                break
            self._glide(to, 0.35 + min(far, 1000) / 1600)
        return self._at

    def _glide(self, to: Place, seconds: float) -> None:
        start, origin = time.time(), self._at
        steps = int(seconds * 25) if self.folder else 1
        for step in range(1, steps + 1):
            share = ease(step / steps)
            self.page.mouse.move(*between(origin, to, share))
            self.hold(max(0.0, start + seconds * step / steps - time.time()))
        self._at = to
        self.reel.moves.append((start, time.time(), origin, to))

    def click(self, what: Locator, at: Place = (0.5, 0.5)) -> None:
        "Move the pointer there and click."
        what.scroll_into_view_if_needed(timeout=DEADLINE)
        to = self.point(what, at)
        self.hold(0.2)
        self.reel.clicks.append((time.time(), to))
        box = what.bounding_box()
        assert box, f"{what} cannot be clicked"
        what.click(position={"x": box["width"] * at[0], "y": box["height"] * at[1]}, timeout=DEADLINE)
        self.hold(0.3)

    def write(self, text: str) -> None:
        "Type a text as people do."
        for letter in text:
            self.page.keyboard.type(letter)
            self.hold(0.045)

    def scroll(self, pixels: float, seconds: float = 1.0) -> None:
        "Turn the mouse's wheel."
        steps = max(int(seconds * 25), 1) if self.folder else 1
        for _ in range(steps):
            self.page.mouse.wheel(0, pixels / steps)
            self.hold(seconds / steps)

    def bring(self, what: Locator, to: float) -> None:
        "Turn the wheel until something begins so many pixels below the page's top."
        box = what.bounding_box()
        assert box, f"{what} is nowhere"
        self.scroll(box["y"] - to, 1.2)


def ease(share: float) -> float:
    "How far a hand is after this share of its time: it starts and ends slowly."
    return share * share * (3 - 2 * share)


def between(start: Place, end: Place, share: float) -> Place:
    "The place on the way from one to the other."
    return (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)
