"""Interactive figures as one page that needs no network: Plotly's library is in it, once and compressed."""

from __future__ import annotations

import base64
import gzip
import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import plotly.io
from plotly.offline import get_plotlyjs

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#222;margin:1.2rem;max-width:1200px}"
    "h1{font-size:1.3rem}h2{font-size:1.05rem;margin:1.6rem 0 .2rem}p{margin:.2rem 0 .6rem;max-width:50rem}"
)
# The library is unpacked by the browser: 2 MB to load in the place of 5.
START = """
const packed = Uint8Array.from(atob(document.getElementById("library").textContent), c => c.charCodeAt(0));
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
new Response(unpacked).text().then(text => {
  const library = document.createElement("script");
  library.textContent = text;
  document.head.append(library);
  for (const place of document.querySelectorAll("[data-figure]")) {
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    Plotly.newPlot(place, figure.data, figure.layout, {responsive: true, displaylogo: false});
  }
  document.getElementById("wait").remove();
});
"""


@dataclass(frozen=True)
class Panel:
    """A figure of plotly with its heading and a sentence about it."""

    title: str
    about: str
    figure: Any


def page(title: str, about: str, panels: Sequence[Panel]) -> str:
    """HTML that stands alone."""
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>",
        '<p id="wait">Drawing. This needs JavaScript, and no network.</p>',
    ]
    for number, panel in enumerate(panels):
        parts += [
            f"<h2>{html.escape(panel.title)}</h2><p>{html.escape(panel.about)}</p>",
            f'<div data-figure="figure-{number}"></div>',
            f'<script type="application/json" id="figure-{number}">{_json(panel.figure)}</script>',
        ]
    parts += [
        f'<script type="application/octet-stream" id="library">{_library()}</script>',
        f"<script>{START}</script></body></html>",
    ]
    return "\n".join(parts)


def _json(figure: Any) -> str:
    """With nothing in it that could end the script element."""
    text: str = plotly.io.to_json(figure, validate=False)
    return text.replace("<", "\\u003c")


@cache
def _library() -> str:
    packed = gzip.compress(get_plotlyjs().encode(), mtime=0)
    return base64.b64encode(packed).decode()
