"""Pictures side by side on a sheet, or one after the other in a film: what modalities that can be seen write."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BORDER = 64
"""Brightness of the line between two pictures."""
SAME_BYTES = {"x264-params": "mbtree=0"}
"""x264's trees of macroblocks read memory that nobody wrote where pictures are small: without them, the same frames are
the same bytes every time."""


def tiled(pixels: Tensor, columns: int) -> Tensor:
    """Pictures [N, H, W, C], bytes, on one sheet, row by row with a line between them."""
    count, height, width, channels = pixels.shape
    rows = -(-count // columns)
    sheet = torch.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), BORDER, dtype=torch.uint8)
    for index, picture in enumerate(pixels):
        top, left = index // columns * (height + 1) + 1, index % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = picture
    return sheet


def write_mp4(frames: Iterable[Tensor], path: Path, rate: float) -> None:
    """Frames [H, W, 3], bytes, as H.264, or as MPEG-4 where this FFmpeg has no H.264; odd sides lose a line of pixels.

    Packages that write films depend on PyAV themselves.
    """
    import av

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=Fraction(rate).limit_denominator(1001), options=SAME_BYTES)
        for number, frame in enumerate(frames):
            height, width = (side - side % 2 for side in frame.shape[:2])
            if not number:
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            pixels = frame[:height, :width].contiguous().numpy()
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


def write_gif(frames: Iterable[Tensor], path: Path, rate: float) -> None:
    """Frames [H, W, 3], bytes, as an animation that repeats."""
    from PIL import Image

    pictures = [Image.fromarray(frame.contiguous().numpy()) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / rate), loop=0)
