"""A page with a slider between a picture and what became of it."""

from __future__ import annotations

from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from distill.image.super_resolution.pictures import Picture

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
 body {{ margin: 0; background: #222; color: #ddd; font: 15px system-ui, sans-serif; }}
 figure {{ position: relative; margin: 0; line-height: 0; overflow: hidden; }}
 img {{ width: 100%; height: auto; }}
 .before {{ position: absolute; inset: 0; height: 100%; clip-path: inset(0 calc(100% - var(--at)) 0 0); }}
 .bar {{ position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; background: #fff; pointer-events: none; }}
 label {{ display: flex; gap: 1em; padding: .8em 1em; line-height: 1.3; }} input {{ flex: 1; }}
</style></head><body>
<label><span>as it was</span><input id="at" type="range" min="0" max="100" step="0.1" value="50"
 aria-label="How much of the picture as it was is shown"><span>as it is now</span></label>
<figure id="both" style="--at: 50%; max-width: {width}px">
<img src="{after}" alt="the picture, enlarged" width="{width}" height="{height}">
<img class="before" src="{before}" alt="the picture as it was"><div class="bar"></div></figure>
<script>
 const both = document.getElementById("both"), at = document.getElementById("at");
 const show = () => both.style.setProperty("--at", at.value + "%");
 at.addEventListener("input", show);
 both.addEventListener("pointermove", event => {{
  at.value = 100 * (event.clientX - both.getBoundingClientRect().left) / both.clientWidth; show(); }});
</script></body></html>
"""


def slider(picture: Picture, out: Path, size: tuple[int, int]) -> Path:
    """Write the page beside `out`, of a height and a width, and the picture as it was, in 8 bits, for it to show."""
    from PIL import Image

    before, page = out.with_name(f"{out.stem}-before.png"), out.with_suffix(".html")
    values = picture.values if picture.bits == 8 else (picture.values >> 8).astype(np.uint8)
    Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(before)
    height, width = size
    page.write_text(
        PAGE.format(
            title=escape(out.name), width=width, height=height, after=quote(out.name), before=quote(before.name)
        ),
        encoding="utf-8",
    )
    return page
