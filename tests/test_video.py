"The video: its file, its subtitles, and that all its scenes can still be played."

import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from helpers import ROOT

from docstral.chat import ChatService
from docstral.web.desk import Desk, Reader, show_dialogs
from docstral.web.ui import make_pages
from docstral.web.words import ENGLISH

VIDEO, POSTER, FRENCH = (ROOT / "docs" / name for name in ("demo.mp4", "demo.jpg", "demo.fr.vtt"))
SCENES = ROOT / "scripts" / "video" / "scenes.py"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    "The boxes of an MP4 file, or of one of its boxes: kind and content."
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        yield kind.decode("latin1"), data[8:size]
        data = data[size:]


def within(data: bytes, *kinds: str) -> list[bytes]:
    "The contents of all boxes on a path of kinds."
    found = [data]
    for kind in kinds:
        found = [content for outer in found for name, content in boxes(outer) if name == kind]
    return found


def test_the_video_is_short_small_and_plays_while_it_loads() -> None:
    data = VIDEO.read_bytes()
    assert len(data) < 5_000_000
    kinds = [kind for kind, _ in boxes(data)]
    assert kinds.index("moov") < kinds.index("mdat"), "what a player needs first stands last"
    [header] = within(data, "moov", "mvhd")
    scale, duration = struct.unpack(">II", header[12:20])
    assert 120 <= duration / scale <= 180
    assert POSTER.read_bytes().startswith(b"\xff\xd8") and POSTER.stat().st_size < 250_000


def test_it_is_h264_of_1280_by_720_with_french_subtitles() -> None:
    tracks = within(VIDEO.read_bytes(), "moov", "trak")
    handlers = [within(track, "mdia", "hdlr")[0][8:12] for track in tracks]
    assert sorted(handlers) == [b"sbtl", b"vide"]
    picture, texts = tracks[handlers.index(b"vide")], tracks[handlers.index(b"sbtl")]
    assert within(picture, "mdia", "minf", "stbl", "stsd")[0][12:16] == b"avc1"
    width, height = struct.unpack(">II", within(picture, "tkhd")[0][-8:])
    assert (width >> 16, height >> 16) == (1280, 720)
    [language] = struct.unpack(">H", within(texts, "mdia", "mdhd")[0][20:22])
    assert "".join(chr((language >> shift & 31) + 96) for shift in (10, 5, 0)) == "fra"


async def test_the_welcome_leads_to_it_and_the_app_serves_it(service: ChatService) -> None:
    desk = Desk(service)
    reader = Reader("user_ada", "tab", ENGLISH)
    assert 'href="demo.mp4"' in show_dialogs(desk, reader)
    with TestClient(make_pages(service)) as client:
        shown = client.get("/demo.mp4")
    assert shown.headers["content-type"] == "video/mp4" and shown.content == VIDEO.read_bytes()


def captions() -> list[tuple[str, str]]:
    "What the scenes say, in English and in French."
    said = re.findall(r'camera\.say\(\s*"([^"]+)",\s*"([^"]+)",?\s*\)', SCENES.read_text(encoding="utf8"))
    assert len(said) == SCENES.read_text(encoding="utf8").count("camera.say(")
    return said


def seconds(stamp: str) -> float:
    "A time of WebVTT."
    hours, minutes, rest = stamp.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def test_each_caption_has_its_subtitle_and_can_be_read() -> None:
    start, *cues = FRENCH.read_text(encoding="utf8").strip().split("\n\n")
    assert start.startswith("WEBVTT")
    texts, end = [], 0.0
    for cue in cues:
        times, text = cue.split("\n")
        began, ended = (seconds(stamp) for stamp in times.split(" --> "))
        assert began == pytest.approx(end, abs=0.02) or not texts, "subtitles follow one another"
        assert ended - began >= max(3.0, len(text) / 16), f"too short to be read: {text}"
        end = ended
        texts.append(text)
    assert texts == [french for _, french in captions()], "make video: the scenes say something else by now"


def test_whatever_is_simulated_is_said_to_be() -> None:
    code = SCENES.read_text(encoding="utf8")
    key, model = code.index("write(KEY)"), code.index('name="Check and use"')
    assert key < code.index("camera.simulated = True") < model, (
        "the label comes before the scripted server's first word"
    )


def test_all_scenes_can_be_played() -> None:
    if not any(map(shutil.which, BROWSERS)):
        reason = f"no browser: none of {', '.join(BROWSERS)} is installed (Debian: apt-get install chromium)"
        if os.environ.get("DOCSTRAL_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    if not shutil.which("curl"):
        pytest.skip("there is no curl on this machine")
    command = [sys.executable, ROOT / "scripts" / "make_video.py", "--dry"]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert played.returncode == 0, played.stdout + played.stderr[-3000:]
    assert "end with what is next" in played.stdout


def test_without_ffmpeg_it_says_what_to_install(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts" / "make_video.py"]
    ran = subprocess.run(command, env={"PATH": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode and "apt-get install ffmpeg" in ran.stderr
