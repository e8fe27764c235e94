"""Curves as files and as pictures, with the standard library and torch alone."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from distill.core import Lens, Modality, State
from torch import Tensor


class Picture(Lens):
    """Closed curves [B, N] as filled pictures [B, 1, H, W] in [−1, 1], differentiable in the radii."""

    takes: ClassVar[str] = "sprout"
    gives: ClassVar[str] = "image"
    size: int = 32
    """Pixels a side."""
    sharpness: float = 8.0
    """How steep the edge is."""

    def __call__(self, state: State) -> Tensor:
        assert isinstance(state, Tensor)
        line, count = torch.linspace(-2, 2, self.size), state.shape[1]
        y, x = torch.meshgrid(line, line, indexing="ij")
        place = torch.atan2(y, x) / (2 * torch.pi) % 1 * count
        low, share = place.long() % count, place - place.floor()
        radius = 1 + state[:, low] * (1 - share) + state[:, (low + 1) % count] * share
        return torch.tanh(self.sharpness * (radius - (x**2 + y**2).sqrt()))[:, None]


class Curves(Modality):
    """Closed curves [B, 32]: radii, less 1, at equal angles."""

    suffix: ClassVar[str] = ".svg"

    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        assert isinstance(samples, Tensor)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{stem}-{row:04d}{self.suffix}" for row in range(len(samples))]
        for path, sample in zip(paths, samples, strict=True):
            path.write_text(svg(sample))
        return paths

    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        assert isinstance(samples, Tensor)
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures = ((1 - Picture(size=64)(samples[:16].cpu())) * 127.5).round().byte()
        path.write_bytes(png(torch.cat(list(pictures[:, 0]), 1)))
        return path


def svg(radii: Tensor) -> str:
    """One curve as an SVG file."""
    turns = [2 * math.pi * k / len(radii) for k in range(len(radii))]
    corners = [(math.cos(a) * (1 + r), math.sin(a) * (1 + r)) for a, r in zip(turns, radii.tolist(), strict=True)]
    points = " ".join(f"{x:.4f},{y:.4f}" for x, y in corners)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 4 4"><polygon points="{points}"/></svg>\n'


def png(grey: Tensor) -> bytes:
    """Bytes [H, W] as a PNG file."""
    height, width = grey.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = b"".join(b"\0" + bytes(line) for line in grey.tolist())
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
