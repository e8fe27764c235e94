"""Picture files as they come: upright, with alpha and 16 bits kept, and PNG files that are written row by row."""

from __future__ import annotations

import json
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core.errors import DataError

MOST = 100_000_000
"""Pixels of the largest picture that is read."""
MODES = {
    "1": "L", "L": "L", "LA": "LA", "La": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "RGBX": "RGB",
    "RGBa": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "I;16": "I;16", "I;16B": "I;16",
    "I;16L": "I;16", "I": "I;16",
}  # fmt: skip
"""What each of Pillow's modes is read as."""


@dataclass(frozen=True)
class Picture:
    """A picture in memory: values [H, W, C] of 8 or 16 bits, the last channel alpha where it is `clear`."""

    values: Any
    clear: bool
    profile: bytes = b""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def bits(self) -> int:
        """8 or 16."""
        return 8 * int(self.values.dtype.itemsize)

    @property
    def colours(self) -> int:
        """Channels without alpha: 1 or 3."""
        return int(self.values.shape[2]) - self.clear

    def rows(self, first: int, last: int) -> Tensor:
        """Colours of some rows [3, n, W] in [−1, 1]; grey ones have equal channels."""
        part = self._part(first, last, slice(0, self.colours))
        return part.expand(3, -1, -1) if self.colours == 1 else part

    def alpha(self, first: int, last: int) -> Tensor:
        """Alpha of some rows [1, n, W] in [−1, 1]."""
        return self._part(first, last, slice(self.colours, None))

    def _part(self, first: int, last: int, channels: slice) -> Tensor:
        part = self.values[first:last, :, channels].astype(np.float32)
        return torch.from_numpy(part / ((1 << self.bits) - 1) * 2 - 1).permute(2, 0, 1)


def load(path: Path, most: int = MOST) -> Picture:
    """A picture file, upright.

    Raises:
        DataError: it is none, is cut off, or has more than `most` pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as found:
                if found.width * found.height > most:
                    raise Image.DecompressionBombError(f"{found.width}x{found.height}")
                return _deep(path) if _is_deep(found) else _plain(found, path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path} says that it has more than {most / 1e6:g} million pixels ({error}), which may be a trap: if it is "
            "none, cut it into parts"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is no picture that Pillow can read: give a PNG, JPEG, WebP, TIFF or BMP") from error
    except (SyntaxError, ValueError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise
        raise DataError(f"{path} is damaged: {error}. Mend it, or save it again from where it came from.") from error


def _plain(found: Any, path: Path) -> Picture:
    """A picture that Pillow reads whole."""
    from PIL import ImageOps

    found.load()
    if found.mode not in MODES:
        raise DataError(f"{path} has values of the sort {found.mode}, which is none of pictures to look at")
    profile = found.info.get("icc_profile", b"") if found.mode != "CMYK" else b""
    seen, mode = ImageOps.exif_transpose(found), MODES[found.mode]
    if "transparency" in found.info:
        mode = "LA" if mode == "L" else "RGBA"
    if mode == "I;16":
        return Picture(np.asarray(seen).clip(0, 65535).astype(np.uint16)[:, :, None], clear=False, profile=profile)
    values = np.asarray(seen if seen.mode == mode else seen.convert(mode))
    return Picture(values if values.ndim == 3 else values[:, :, None], mode in ("LA", "RGBA"), profile)


def _is_deep(found: Any) -> bool:
    """Whether it is a PNG of 16 bits and several channels, of which Pillow keeps 8."""
    tiles = [tile[3] for tile in getattr(found, "tile", ())]
    return found.format == "PNG" and any("16B" in str(mode) for mode in tiles) and not found.mode.startswith("I")


DEEP = {2: ("rgb48le", 3), 4: ("ya16le", 2), 6: ("rgba64le", 4)}


def _deep(path: Path) -> Picture:
    """A PNG of 16 bits and several channels."""
    try:
        import av
    except ImportError as error:
        raise DataError(f"{path} has 16 bits a colour: pip install av, which reads them, or save it with 8") from error
    kind, channels = DEEP[path.read_bytes()[25]]
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0)).reformat(format=kind)
    plane = frame.planes[0]
    rows = np.frombuffer(bytes(plane), np.uint16).reshape(frame.height, plane.line_size // 2)
    values = rows[:, : frame.width * channels].reshape(frame.height, frame.width, channels).copy()
    return Picture(values, clear=channels in (2, 4))


COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's colour types, by channels."""


class PngWriter:
    """A PNG that is written strip by strip, and can be gone on with after any kill.

    Beside `path` lie, until it is finished, `path.part` with what is written, and `path.part.json` with how far that
    is sound. Strips are compressed each by itself, so that one can follow the other in another process.

    Args:
        key: what the picture depends on: a part of another key is not gone on with.
    """

    def __init__(self, path: Path, size: tuple[int, int], channels: int, bits: int, key: str, profile: bytes = b""):
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.journal = path.with_name(path.name + ".part.json")
        self.key, self.channels, self.bits = key, channels, bits
        self.state: dict[str, Any] = {"key": key, "strips": 0, "adler": 1, "offset": 0, "notes": {}}
        if not self._continues():
            self._begin(size, profile)

    @property
    def strips(self) -> int:
        """How many are written."""
        return int(self.state["strips"])

    def _continues(self) -> bool:
        try:
            known = json.loads(self.journal.read_text())
        except (OSError, ValueError):
            return False
        if known.get("key") != self.key or not self.part.exists() or self.part.stat().st_size < known["offset"]:
            return False
        self.state = known
        self.file = self.part.open("r+b")
        self.file.truncate(known["offset"])
        self.file.seek(known["offset"])
        return True

    def _begin(self, size: tuple[int, int], profile: bytes) -> None:
        self.file = self.part.open("w+b")
        self.file.write(b"\x89PNG\r\n\x1a\n")
        kind = COLOURS[self.channels]
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], self.bits, kind, 0, 0, 0))
        if profile:
            self._chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile))
        self._chunk(b"IDAT", b"\x78\x9c")  # zlib's header; the strips are bare deflate streams behind it

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    def write(self, rows: Tensor, **notes: Any) -> None:
        """The next strip [C, n, W] in [−1, 1]; notes are kept in the journal."""
        raw = self._filtered(rows)
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        self._chunk(b"IDAT", packer.compress(raw) + packer.flush(zlib.Z_FULL_FLUSH))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.state |= {
            "strips": self.strips + 1, "offset": self.file.tell(), "adler": zlib.adler32(raw, self.state["adler"]),
            "notes": notes,
        }  # fmt: skip
        aside = self.journal.with_name(self.journal.name + ".new")
        aside.write_text(json.dumps(self.state))
        aside.replace(self.journal)

    def _filtered(self, rows: Tensor) -> bytes:
        """Rows as bytes, each less the one above; the first of a strip as it is."""
        scale = ((1 << self.bits) - 1) / 2
        whole = ((rows.clamp(-1, 1) + 1) * scale).round().permute(1, 2, 0).numpy()
        values = whole.astype(">u2" if self.bits == 16 else np.uint8)
        plain = np.frombuffer(values.tobytes(), np.uint8).reshape(len(values), -1)
        lines = np.empty((len(plain), plain.shape[1] + 1), np.uint8)
        lines[:, 0], lines[0, 0] = 2, 0
        lines[0, 1:] = plain[0]
        lines[1:, 1:] = plain[1:] - plain[:-1]
        return lines.tobytes()

    def finish(self) -> None:
        """Close the picture and give it its name."""
        self._chunk(b"IDAT", b"\x03\x00" + struct.pack(">I", self.state["adler"]))
        self._chunk(b"IEND", b"")
        self.close()
        self.part.replace(self.path)
        self.journal.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file, finished or not."""
        self.file.close()
