"""Picture data: scikit-learn's digits, which need no download, and folders of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource, Samples
from distill.core.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


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
        from PIL import Image, ImageOps

        try:
            with Image.open(self.files[row]) as opened:
                upright = ImageOps.exif_transpose(opened).convert(self.mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{self.files[row]} is not a readable picture: {error}. Mend or remove it.") from error
        fitted = ImageOps.fit(upright, (self.size, self.size))
        raw = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8)
        x = raw.view(self.size, self.size, -1).permute(2, 0, 1).float() / 127.5 - 1
        return {"x": x, "label": torch.tensor(self.labels[row])}


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
