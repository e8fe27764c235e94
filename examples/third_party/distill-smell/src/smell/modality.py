"""Readings as files: one CSV a sample, and a heat map of many, drawn with the standard library alone."""

from __future__ import annotations

import csv
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from distill.core import Modality, State


class Smell(Modality):
    """Readings [B, 16] in [−1, 1]: the coverage of each sensor, from bare to saturated."""

    suffix: ClassVar[str] = ".csv"
    pixels: int = 12
    """Side of a reading's square in previews."""

    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        assert isinstance(samples, Tensor)
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(reading, folder / f"{stem}-{row:04d}.csv") for row, reading in enumerate(samples)]

    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        assert isinstance(samples, Tensor)
        grey = ((samples.clamp(-1, 1) + 1) * 127.5).round().byte().cpu()
        large = grey.repeat_interleave(self.pixels, 0).repeat_interleave(self.pixels, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(large))
        return path


def _write(reading: Tensor, path: Path) -> Path:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("sensor", "reading"))
        rows.writerows((sensor, f"{value:.5f}") for sensor, value in enumerate(reading.tolist()))
    return path


def png(grey: Tensor) -> bytes:
    """Bytes [H, W] as a PNG file."""
    height, width = grey.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = b"".join(b"\0" + bytes(line) for line in grey.tolist())
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
