"""A report that is one file: tables, pictures and curves in plain HTML, readable in ten years without us."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.35rem .8rem;text-align:right}
th{border-bottom:2px solid #444}tr+tr td{border-top:1px solid #ddd}th:first-child,td:first-child{text-align:left;white-space:nowrap}
figure{display:inline-block;margin:0 1rem 1rem 0;vertical-align:top;max-width:100%}
summary{font-size:1.2rem;font-weight:bold;margin:2rem 0 1rem;cursor:pointer}figcaption{font-size:.85rem;color:#555;max-width:28rem}
img{image-rendering:pixelated;max-width:100%}pre{background:#f5f5f5;padding:1rem;overflow-x:auto;font-size:.85rem}
svg{max-width:100%;height:auto}.scroll{overflow-x:auto}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}pre{background:#222}figcaption{color:#aaa}
tr+tr td{border-color:#333}}
"""
MEDIA = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}
COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#b07d12", "#7b4fc9", "#0b8a94")


def page(title: str, *sections: str) -> str:
    """The whole document."""
    name = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{name}</h1>{''.join(sections)}</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it."""
    return f"<h2>{html.escape(title)}</h2>{''.join(parts)}"


def folded(title: str, *parts: str) -> str:
    """What is there for those who ask."""
    return f"<details><summary>{html.escape(title)}</summary>{''.join(parts)}</details>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def picture(path: Path, caption: str, width: int = 450) -> str:
    """A PNG, GIF or SVG, embedded."""
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return (
        f'<figure><img width="{width}" alt="{text}" src="data:{MEDIA[path.suffix]};base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def code(text: str) -> str:
    """A block of text as it is."""
    return f"<pre>{html.escape(text)}</pre>"


def curves(series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Small multiples of named curves over steps, one SVG each."""
    drawn = (_curve(name, points, COLOURS[i % len(COLOURS)]) for i, (name, points) in enumerate(series.items()))
    return "".join(drawn)


def _curve(name: str, points: Sequence[tuple[float, float]], colour: str, width: int = 420, height: int = 170) -> str:
    points = smooth([point for point in points if math.isfinite(point[1])]) or [(0.0, 0.0)]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = min(ys), max(ys)
    span_x, span_y = max(xs) - min(xs) or 1.0, high - low or 1.0
    path = " ".join(
        f"{56 + (x - xs[0]) / span_x * (width - 66):.1f},{height - 22 - (y - low) / span_y * (height - 36):.1f}"
        for x, y in points
    )
    text = html.escape(name)
    return (
        f'<figure><svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{text}">'
        f'<g font-size="11" fill="currentColor"><text x="2" y="{height - 20}">{low:.3g}</text>'
        f'<text x="2" y="16">{high:.3g}</text><text x="56" y="{height - 4}">{xs[0]:.0f}</text>'
        f'<text x="{width - 8}" y="{height - 4}" text-anchor="end">step {xs[-1]:.0f}</text></g>'
        f'<path d="M56 14V{height - 18}H{width - 8}" fill="none" stroke="currentColor" opacity=".3"/>'
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/></svg>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def smooth(points: Sequence[tuple[float, float]], most: int = 120) -> list[tuple[float, float]]:
    """At most so many points, each the mean of a stretch."""
    size = max(1, -(-len(points) // most))
    stretches = [points[i : i + size] for i in range(0, len(points), size)]
    return [(s[-1][0], sum(p[1] for p in s) / len(s)) for s in stretches]
