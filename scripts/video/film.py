"""Makes the video from what the camera filmed: the caption's band, the page below it, the pointer, the subtitles."""

import subprocess
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .camera import BAND, HEIGHT, WIDTH, Place, Reel, between, ease, reading_time

RATE = 25  # frames a second
LONGEST = 168.0  # seconds of the video
FADE = 0.32  # seconds that one shot takes to become the next
RIPPLE = 0.45  # seconds that a click is shown
BACKDROP = (42, 36, 30)  # around a page that is narrower than the video
PROGRESS = (250, 82, 15)
MOST = 5_000_000  # bytes of the video
ARROW = [(0, 0), (0, 17), (3.9, 13.4), (6.4, 19.4), (9.2, 18.2), (6.8, 12.4), (12, 12)]


def paces(lengths: list[float], least: list[float]) -> list[float]:
    "How fast each caption's part is shown, so that all take `LONGEST` seconds at most: only the longest are hurried."
    limit = max(lengths)
    while limit > 1 and sum(kept(lengths, least, limit)) > LONGEST:
        limit -= 0.1
    return [length / shown for length, shown in zip(lengths, kept(lengths, least, limit), strict=True)]


def kept(lengths: list[float], least: list[float], limit: float) -> list[float]:
    "Seconds of each part under a limit, with time enough to read its caption."
    return [min(length, max(limit, reading)) for length, reading in zip(lengths, least, strict=True)]


class Cutting:
    "Times of the film: real time without the waits that were cut out, and hurried where a busy machine was slow."

    def __init__(self, reel: Reel):
        start = min(reel.captions[0].time, reel.frames[0][0])
        edges = [start, *(caption.time for caption in reel.captions[1:]), reel.ended]
        cuts = merged(reel.cuts)
        moments = sorted({*edges, *(moment for cut in cuts for moment in cut if start < moment < reel.ended)})
        spans = [
            (begins, 0.0 if any(cut[0] <= begins < cut[1] for cut in cuts) else ends - begins)
            for begins, ends in pairwise(moments)
        ]
        parts = [bisect_right(edges, begins) - 1 for begins, _ in spans]
        lengths = [
            sum(length for part, (_, length) in zip(parts, spans, strict=True) if part == n) or 0.01
            for n in range(len(reel.captions))
        ]
        pace = paces(lengths, [reading_time(max(c.english, c.french, key=len)) for c in reel.captions])
        self._real, self._shown = moments, [0.0]
        for part, (_, length) in zip(parts, spans, strict=True):
            self._shown.append(self._shown[-1] + length / pace[part])
        self.seconds = self._shown[-1]

    def shown(self, real: float) -> float:
        "Seconds into the film at which this moment is seen."
        return float(np.interp(real, self._real, self._shown))

    def real(self, shown: float) -> float:
        "The moment that is seen so many seconds into the film: after a cut, the later one."
        n = min(max(bisect_right(self._shown, shown) - 1, 0), len(self._real) - 2)
        length = self._shown[n + 1] - self._shown[n]
        share = (shown - self._shown[n]) / length if length else 1.0
        return self._real[n] + share * (self._real[n + 1] - self._real[n])


def merged(cuts: list[tuple[float, float]]) -> list[tuple[float, float]]:
    "The cuts in their order, those that overlap as one."
    found: list[tuple[float, float]] = []
    for start, end in sorted(cuts):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def stamp(seconds: float) -> str:
    "A time as WebVTT writes it."
    return f"{int(seconds // 3600):02}:{int(seconds // 60) % 60:02}:{seconds % 60:06.3f}"


def subtitles(reel: Reel, cutting: Cutting) -> str:
    "The French subtitles, as WebVTT."
    times = [cutting.shown(caption.time) for caption in reel.captions]
    ends = [*times[1:], cutting.seconds]
    cues = [
        f"{stamp(start)} --> {stamp(end)}\n{caption.french}\n"
        for caption, start, end in zip(reel.captions, times, ends, strict=True)
    ]
    return "WEBVTT\nLanguage: fr\n\n" + "\n".join(cues)


@lru_cache(8)
def picture(path: Path) -> Image.Image:
    "An image from its file."
    with Image.open(path) as image:
        return image.convert("RGB")


def on_canvas(page: Image.Image) -> Image.Image:
    "A page as it stands below the band; a narrow one in the middle, like a phone."
    canvas = Image.new("RGB", (WIDTH, HEIGHT - BAND), BACKDROP)
    left = (WIDTH - page.width) // 2
    if page.width < WIDTH:
        frame = (left - 9, -20, left + page.width + 8, HEIGHT - BAND + 20)
        ImageDraw.Draw(canvas).rounded_rectangle(frame, 26, (12, 10, 8))
    canvas.paste(page, (left, 0))
    return canvas


@lru_cache(1)
def arrow() -> Image.Image:
    "The pointer, drawn four times as large and made small, so that its edges are smooth."
    size, scale = 30, 4
    image = Image.new("RGBA", (size * scale, size * scale))
    corners = [((x * 1.25 + 2) * scale, (y * 1.25 + 2) * scale) for x, y in ARROW]
    draw = ImageDraw.Draw(image)
    draw.polygon(corners, (25, 20, 16, 255))
    draw.line([*corners, corners[0], corners[1]], (255, 255, 255, 255), 6, "curve")
    return image.resize((size, size), Image.Resampling.LANCZOS)


def poster(image: Image.Image) -> Image.Image:
    "The frame with the sign that says: this plays."
    middle, radius, scale = (784, HEIGHT - 140), 54, 3  # where the page is empty
    sign = Image.new("RGBA", (radius * 2 * scale, radius * 2 * scale))
    draw = ImageDraw.Draw(sign)
    draw.ellipse((0, 0, radius * 2 * scale - 1, radius * 2 * scale - 1), (201, 60, 5, 235))
    draw.polygon(
        [(radius * scale * x, radius * scale * y) for x, y in ((0.76, 0.56), (0.76, 1.44), (1.5, 1.0))], "white"
    )
    sign = sign.resize((radius * 2, radius * 2), Image.Resampling.LANCZOS)
    image.paste(sign, (middle[0] - radius, middle[1] - radius), sign)
    return image


def ring(share: float) -> Image.Image:
    "The circle that a click draws, after this share of its time."
    size, scale = 64, 3
    image = Image.new("RGBA", (size * scale, size * scale))
    radius = (6 + 24 * share) * scale
    middle = size * scale / 2
    corners = (middle - radius, middle - radius, middle + radius, middle + radius)
    ImageDraw.Draw(image).ellipse(corners, outline=(*PROGRESS, int(230 * (1 - share))), width=4 * scale)
    return image.resize((size, size), Image.Resampling.LANCZOS)


@dataclass
class Film:
    "The frames of the video, one after the other."

    reel: Reel
    folder: Path  # with the frames and the bands
    bands: list[Path]  # one for each caption

    def __post_init__(self) -> None:
        self.cutting = Cutting(self.reel)
        self.frames = sorted(self.reel.frames)
        self.times = [time for time, _, _ in self.frames]
        self.shots = self._shots()
        self.captions = [caption.time for caption in self.reel.captions]

    def _shots(self) -> list[tuple[float, int]]:
        "When each shot begins, and the number of its first frame."
        starts = [0, *(n for n in range(1, len(self.frames)) if self.frames[n][2] != self.frames[n - 1][2])]
        return [(self.times[n], n) for n in starts]

    def page(self, real: float) -> Image.Image:
        "What the browser showed, one shot fading into the next."
        now = max(bisect_right(self.times, real) - 1, 0)
        shown = on_canvas(picture(self.folder / self.frames[now][1]))
        begun, first = next(shot for shot in reversed(self.shots) if shot[1] <= now)
        share = (self.cutting.shown(real) - self.cutting.shown(begun)) / FADE
        if first and share < 1:
            before = on_canvas(picture(self.folder / self.frames[first - 1][1]))
            shown = Image.blend(before, shown, ease(max(share, 0.0)))
        return shown

    def place(self, real: float) -> Place | None:
        "Where the pointer is; None while it is not shown."
        if not next((on for time, on in reversed(self.reel.pointer) if time <= real), False):
            return None
        last = next((move for move in reversed(self.reel.moves) if move[0] <= real), None)
        if not last:
            return self.reel.moves[0][2] if self.reel.moves else None
        start, end, origin, to = last
        return to if real >= end else between(origin, to, ease((real - start) / max(end - start, 0.01)))

    def draw(self, shown: float) -> Image.Image:
        "The frame at a time of the film."
        real = self.cutting.real(shown)
        image = Image.new("RGB", (WIDTH, HEIGHT))
        page = self.page(real)
        image.paste(page, (0, BAND))
        number = max(bisect_right(self.captions, real) - 1, 0)
        image.paste(picture(self.bands[number]), (0, 0))
        length = int(WIDTH * shown / self.cutting.seconds)
        ImageDraw.Draw(image).rectangle((0, BAND - 3, length, BAND - 1), PROGRESS)
        if place := self.place(real):
            x, y = int(place[0] + self.left(real)), int(place[1]) + BAND
            click = next((time for time, _ in reversed(self.reel.clicks) if time <= real), 0.0)
            share = (shown - self.cutting.shown(click)) / RIPPLE
            if click and share < 1:
                circle = ring(share)
                image.paste(circle, (x - 32, y - 32), circle)
            image.paste(arrow(), (x - 2, y - 2), arrow())
        return image

    def left(self, real: float) -> int:
        "Pixels between the video's left edge and the page's."
        now = max(bisect_right(self.times, real) - 1, 0)
        return (WIDTH - picture(self.folder / self.frames[now][1]).width) // 2

    def __iter__(self) -> Iterator[bytes]:
        for number in range(int(self.cutting.seconds * RATE)):
            yield self.draw(number / RATE).tobytes()


def encode(film: Film, subtitle: Path, output: Path, quality: int = 24) -> None:
    "Write the video as H.264 with its subtitles; `quality` is x264's constant rate factor, lower is better."
    raw = f"-f rawvideo -pix_fmt rgb24 -s {WIDTH}x{HEIGHT} -r {RATE} -i -".split()
    video = f"-c:v libx264 -preset slow -tune animation -crf {quality} -pix_fmt yuv420p -g {RATE * 10}".split()
    texts = ["-c:s", "mov_text", "-metadata:s:s:0", "language=fra", "-metadata:s:s:0", "handler_name=Français"]
    about = ["-metadata", "title=DocStral", "-metadata:s:v:0", "language=eng", "-movflags", "+faststart"]
    command = ["ffmpeg", "-v", "error", "-y", *raw, "-i", str(subtitle), "-map", "0:v", "-map", "1:s"]
    with subprocess.Popen([*command, *video, *texts, *about, str(output)], stdin=subprocess.PIPE) as process:
        assert process.stdin
        for frame in film:
            process.stdin.write(frame)
        process.stdin.close()
    if process.returncode:
        raise SystemExit(f"ffmpeg could not write {output}; what it said stands above.")
    if output.stat().st_size > MOST and quality < 36:
        encode(film, subtitle, output, quality + 3)
