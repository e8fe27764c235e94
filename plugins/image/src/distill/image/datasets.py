"""Picture data: scikit-learn's digits, which need no download, and folders of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource, Samples
from distill.core.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
SMALLEST = 4
"""Pixels that a picture has on its shorter side."""


class Digits(DataSource):
    """1,797 handwritten digits of 8×8 pixels (Alpaydin & Kaynak 1998; scikit-learn's copy), labels 0 to 9."""

    def open(self, split: str = "train") -> Dataset[Any]:
        from sklearn.datasets import load_digits

        found = load_digits()
        x = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
        return Samples(x=x, label=torch.tensor(found.target))


class Pictures(Dataset[dict[str, Tensor]]):
    """Picture files, resized and cropped to a square; the label is the folder's rank among its siblings."""

    def __init__(self, files: list[Path], labels: list[int], size: int, mode: str) -> None:
        self.files, self.labels, self.size, self.mode = files, labels, size, mode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        x = fitted(opened(self.files[row], str(self.files[row])), (self.size, self.size), self.mode)
        return {"x": x, "label": torch.tensor(self.labels[row])}


def opened(file: Path | BinaryIO, name: str) -> Any:
    """A picture, upright.

    Raises:
        DataError: it is none, or too small to show anything.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as found:
            found.load()
            upright = ImageOps.exif_transpose(found)
    except UnidentifiedImageError as error:  # whose own words name an object in memory
        raise DataError(
            f"{name} is not a readable picture: its first bytes are those of none. Mend or remove it."
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is not a readable picture: {error}. Mend or remove it.") from error
    if min(upright.size) < SMALLEST:
        sides = f"{upright.width}x{upright.height}"
        raise DataError(f"{name} is {sides} pixels, and pictures have at least {SMALLEST} a side: remove it")
    return upright


def fitted(picture: Any, size: tuple[int, int], mode: str) -> Tensor:
    """A picture [C, H, W] in [−1, 1], scaled and cropped to width and height; what is transparent becomes white."""
    from PIL import Image, ImageOps

    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    cropped = ImageOps.fit(picture.convert(mode), size)
    raw = torch.frombuffer(bytearray(cropped.tobytes()), dtype=torch.uint8)
    return raw.view(size[1], size[0], -1).permute(2, 0, 1).float() / 127.5 - 1


class PictureFolder(DataSource):
    """A folder of pictures; its subfolders, in alphabetical order, are the classes."""

    example: ClassVar[dict[str, Any]] = {"folder": "pictures"}
    conformance: ClassVar[dict[str, str]] = {"samples": "there is no folder of pictures that every machine has"}
    folder: Path
    """Where the pictures are."""
    size: PositiveInt = 64
    """Side of the square in pixels."""
    mode: Literal["RGB", "L"] = "RGB"
    """Colour or grey."""

    def open(self, split: str = "train") -> Dataset[Any]:
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is no folder: give the folder that holds the pictures")
        files = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"{self.folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        classes = {name: rank for rank, name in enumerate(sorted({path.parent for path in files}))}
        return Pictures(files, [classes[path.parent] for path in files], self.size, self.mode)
