"""The examples as a page of their own."""

from __future__ import annotations

import html
from collections.abc import Sequence

from experiments.figures.examples import Example, Item

STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;color:#222;margin:1.2rem;max-width:1100px}"
    "h1{font-size:1.3rem}h2{font-size:1.05rem;margin:1.8rem 0 .1rem}p{margin:.2rem 0 .5rem}"
    ".lists{display:grid;grid-template-columns:1fr 1fr;gap:1.5rem}"
    "table{border-collapse:collapse;width:100%}caption{text-align:left;font-weight:600;padding:.2rem 0}"
    "td{padding:.15rem .4rem;border-top:1px solid #ddd;vertical-align:top}"
    "td:first-child{color:#666;text-align:right;width:1.4rem}"
    "td small{color:#666}.hit{background:#d6e9f5}.miss{background:#f3e3d5}"
)
MARKS = {"liked": "✓ liked in the test part", "not liked": "✗ rated in the test part, not liked"}


def page(found: Sequence[Example], about: str) -> str:
    """The same as HTML, a user after the other."""
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Example recommendations</title>',
        f"<style>{STYLE}</style></head><body><h1>Example recommendations</h1>",
        f"<p>{html.escape(about)}. The model has not seen the test part. Users are from the shortest history to "
        "the longest; a recommended item that they did not rate in the test part may be a good one all the same.</p>",
        *map(_section, found),
        "</body></html>",
    ]
    return "\n".join(parts)


def _section(one: Example) -> str:
    missed = "; ".join(html.escape(item.title) for item in one.missed)
    rest = one.likes - one.hits - len(one.missed)
    if rest > 0:
        missed += f"; and {rest:,} more"
    return "\n".join(
        [
            f"<h2>User {html.escape(str(one.user))}</h2>",
            f"<p>Interactions before the test part: {one.length:,}. Likes in it: {one.likes:,}, of which among the "
            f"{len(one.recommended)} recommended items: {one.hits}. NDCG@10: {one.ndcg:.3f}.",
            f" Not personal: {html.escape(one.why)}.</p>" if one.why else "</p>",
            '<div class="lists">',
            _list("Liked last, the latest first", one.liked),
            _list("Recommended", one.recommended),
            "</div>",
            f"<p><small>Liked in the test part and not recommended: {missed}.</small></p>" if missed else "",
        ]
    )


def _list(title: str, items: Sequence[Item]) -> str:
    lines = []
    for place, item in enumerate(items, 1):
        kind = {"liked": ' class="hit"', "not liked": ' class="miss"'}.get(item.fate, "")
        mark = f"<br>{MARKS[item.fate]}" if item.fate else ""
        text = f"{html.escape(item.title)}{mark}<br><small>{html.escape(item.genres)}</small>"
        lines.append(f"<tr{kind}><td>{place}</td><td>{text}</td></tr>")
    none = "" if items else "<tr><td></td><td>none</td></tr>"
    return f"<div><table><caption>{title}</caption>{''.join(lines)}{none}</table></div>"
