"""Pictures: states [B, C, H, W] in [−1, 1], written as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from distill.core import Modality, State
from distill.core.errors import DataError


class Image(Modality):
    """Pictures with one (grey) or three (RGB) channels."""

    suffix: ClassVar[str] = ".png"
    has_demo: ClassVar[bool] = True
    precedence: ClassVar[int] = 1
    pair: ClassVar[tuple[str, str] | None] = ("emoji-teacher", "emoji-student")
    scale: int | None = None
    """Pixels are drawn this many times larger in previews of pictures below 64 pixels; None makes them 64 wide."""

    def demo_recipe(self) -> Path:
        return Path(str(files("distill.image") / "recipes" / "demo.yaml"))

    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{stem}-{index:04d}.png" for index in range(len(_tensor(samples)))]
        for pixels, path in zip(to_bytes(_tensor(samples)), paths, strict=True):
            _picture(pixels).save(path)
        return paths

    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        pixels = to_bytes(_tensor(samples))
        sheet = grid(pixels, columns=10 if len(pixels) >= 20 else max(1, len(pixels)))
        picture = _picture(sheet)
        if pixels.shape[1] < 64:
            scale = self.scale or 64 // pixels.shape[1]
            picture = picture.resize((picture.width * scale, picture.height * scale), resample=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        return path


def _tensor(samples: State) -> Tensor:
    if not isinstance(samples, Tensor) or samples.ndim != 4 or samples.shape[1] not in (1, 3):
        given = list(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
        raise DataError(f"pictures are [B, 1 or 3, H, W], and these samples {given}: latents need a decoder")
    return samples


def to_bytes(samples: Tensor) -> Tensor:
    """[B, C, H, W] in [−1, 1] to bytes [B, H, W, C]."""
    return ((samples.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()


def grid(pixels: Tensor, columns: int) -> Tensor:
    """Pictures [B, H, W, C] on one sheet, row by row with a pixel between them."""
    rows = -(-len(pixels) // columns)
    height, width, channels = pixels.shape[1] + 1, pixels.shape[2] + 1, pixels.shape[3]
    sheet = torch.full((rows * height + 1, columns * width + 1, channels), 64, dtype=torch.uint8)
    for index, picture in enumerate(pixels):
        top, left = index // columns * height + 1, index % columns * width + 1
        sheet[top : top + height - 1, left : left + width - 1] = picture
    return sheet


def _picture(pixels: Tensor) -> Any:
    from PIL import Image as Pillow

    array = pixels.numpy()
    return Pillow.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
