"""The pages that the video shows beside the app's own: title, end, a terminal, a notebook, and the captions' band."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

import gradio
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from docstral.web.markdown import render_markdown
from docstral.web.panels import BRAND
from docstral.web.theme import CSS, color_variables

from .camera import BAND, HEIGHT, WIDTH, Caption

FONTS = Path(gradio.__file__).parent / "templates" / "frontend" / "static" / "fonts"
STYLE = Path(__file__).with_name("sets.css").read_text(encoding="utf8")
PROMISE = "Unofficial demo. Sources cited. Licenses respected."
SIMULATED = "Simulated: a scripted server writes what the model says"
TERMINAL = """<main><header><i></i><i></i><i></i></header><div id="lines" class="mono"></div></main><script>
const lines = document.getElementById('lines');
function line(kind) { lines.append(Object.assign(document.createElement('div'), {className: kind})); }
function put(text) { lines.lastChild.textContent += text; lines.scrollTop = lines.scrollHeight; }
function say(text) { line(/^(event|data)(?=:)/.exec(text)?.[0] ?? ''); put(text); }
</script>"""


@cache
def fonts() -> str:
    "The app's fonts as CSS that holds the files."
    faces = ""
    for family, file, weight in (
        ("IBM Plex Sans", "IBMPlexSans/IBMPlexSans-Regular.woff2", 400),
        ("IBM Plex Sans", "IBMPlexSans/IBMPlexSans-Bold.woff2", 700),
        ("IBM Plex Mono", "IBMPlexMono/IBMPlexMono-Regular.woff2", 400),
    ):
        data = base64.b64encode((FONTS / file).read_bytes()).decode()
        source = f"url(data:font/woff2;base64,{data})"
        faces += f"@font-face {{font-family: '{family}'; font-weight: {weight}; src: {source}}}"
    return faces


def page(kind: str, body: str, dark: bool = False, height: int = HEIGHT - BAND, style: str = "") -> str:
    "A page in the app's colours and fonts; `kind` is what the style sheet calls it."
    size = f"body {{width: {WIDTH}px; height: {height}px}}"
    return (
        f'<!doctype html><html lang="en"{" class=dark" if dark else ""}><meta charset="utf-8">'
        f"<style>{fonts()}{color_variables()}{style}{STYLE}{size}</style><body class={kind}>{body}</body></html>"
    )


def band(caption: Caption) -> str:
    "The band above the page, with a caption."
    label = f'<p class="simulated">{escape(SIMULATED)}</p>' if caption.simulated else ""
    return page("band", f'{BRAND}<p class="caption">{escape(caption.english)}</p>{label}', dark=True, height=BAND)


def title() -> str:
    "The first picture."
    return page("card", f'{BRAND}<h1>DocStral</h1><p class="lead">Ask Mistral\'s documentation</p><p>{PROMISE}</p>')


def ending(ways: Mapping[str, str]) -> str:
    "The last picture: where to go on, what to type or to read with what it is."
    rows = "".join(f"<dt>{escape(what)}</dt><dd>{escape(why)}</dd>" for what, why in ways.items())
    return page("card", f"{BRAND}<dl>{rows}</dl><p>{PROMISE}</p>")


def terminal() -> str:
    "An empty terminal. In it `line` and `put` write, and `say` adds a line that a program said."
    return page("terminal", TERMINAL, dark=True)


@dataclass
class Cell:
    "A cell of a notebook."

    source: str
    shown: Mapping[str, str] | None  # what its code shows, by media type; None: it is Markdown


def notebook(name: str, cells: Iterable[Cell]) -> str:
    "A notebook with what its cells show."
    body, number = "", 0
    for cell in cells:
        if cell.shown is None:
            body += f'<section class="doc">{render_markdown(cell.source)}</section>'
            continue
        number += 1
        code = highlight(cell.source, PythonLexer(), HtmlFormatter(nowrap=True))
        body += f'<section class="cell"><b>In [{number}]</b><pre>{code}</pre></section>'
        if cell.shown:
            text = cell.shown.get("text/markdown", "")
            said = render_markdown(text) if text else f"<pre>{escape(cell.shown['text/plain'])}</pre>"
            body += f'<section class="cell out"><b>Out[{number}]</b><div class="doc">{said}</div></section>'
    return page("notebook", f'<main><p class="tab mono">{escape(name)}</p>{body}</main>', style=CSS)
