"""Pairs of pictures: crops of photographs with what a degradation leaves of them.

A sample is `{"x": state, "low": y}` with y, the low-resolution picture at the full size again (bicubic), in [−1, 1],
and a state that is the residual `x − y` (for `ResidualShift` and for flows on residuals) or the picture itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource, Samples, State
from distill.core.errors import DataError
from distill.image.datasets import SUFFIXES, opened
from distill.image.super_resolution.degradations import (
    AnyDegradation,
    Bicubic,
    Degradation,
    from_picture,
    resized,
)

HELD_OUT = ("chelsea.png", "coffee.png", "flower.jpg", "rocket.jpg")
"""Photographs that nothing here is trained on."""
PHOTOGRAPHS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "skimage": (
        "scikit-image",
        "data",
        (
            "astronaut.png", "motorcycle_left.png", "chelsea.png", "coffee.png", "rocket.jpg", "ihc.png",
            "hubble_deep_field.jpg", "camera.png", "brick.png", "grass.png", "gravel.png", "coins.png", "moon.png",
        ),
    ),
    "sklearn": ("scikit-learn", "datasets/images", ("china.jpg", "flower.jpg")),
    "matplotlib": ("matplotlib", "mpl-data/sample_data", ("grace_hopper.jpg",)),
}  # fmt: skip
"""Packages, the distributions that bring them, and the photographs that they ship."""
STEP = 7919
"""Between the seeds of two samples; a prime, so that seeds of runs do not meet."""


def pair(high: Tensor, low: Tensor, state: str = "residual") -> dict[str, Tensor]:
    """One sample of a picture [C, H, W] and its low-resolution picture [C, h, w]."""
    y = resized(low, (high.shape[1], high.shape[2]))
    return {"x": high - y if state == "residual" else high, "low": y}


class WithHigh(Dataset[dict[str, Tensor]]):
    """Pairs with the picture itself as the condition `high`: for teachers that see it, and for metrics."""

    def __init__(self, pairs: Dataset[dict[str, Tensor]], length: int, state: str) -> None:
        self.pairs, self.length, self.state = pairs, length, state

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        sample = self.pairs[row]
        return {**sample, "high": whole(sample["x"], sample["low"], self.state)}


class Alone(Dataset[dict[str, Tensor]]):
    """Pairs without their low-resolution pictures: for networks that are told something else."""

    def __init__(self, pairs: Dataset[dict[str, Tensor]], length: int) -> None:
        self.pairs, self.length = pairs, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {"x": self.pairs[row]["x"]}


def whole(state: State, low: Tensor, kind: str = "residual") -> Any:
    """The pictures [B, C, H, W] that states mean, within [−1, 1]."""
    assert isinstance(state, Tensor)
    return (state + low if kind == "residual" else state).clamp(-1, 1)


class Crops(Dataset[dict[str, Tensor]]):
    """Random crops of pictures; crop, flips and degradation of a row follow from the seed and the row alone.

    Args:
        pictures: [3, H, W] each, in [−1, 1].
        rows: length of the data set; pictures take turns in proportion to their area.
        size: side of a crop.
        ratios: one is drawn for each row.
    """

    def __init__(
        self, pictures: Sequence[Tensor], rows: int, size: int, ratios: Sequence[float], degradation: Degradation,
        state: str, seed: int, augment: bool,
    ) -> None:  # fmt: skip
        self.pictures = [picture for picture in pictures if min(picture.shape[1:]) >= size]
        if not self.pictures:
            raise DataError(f"no picture is as large as a crop of {size} pixels: lower 'size', or add larger ones")
        self.areas = torch.tensor([float(p.shape[1] * p.shape[2]) for p in self.pictures]).sqrt()
        self.rows, self.size, self.ratios, self.degradation = rows, size, tuple(ratios), degradation
        self.state, self.seed, self.augment = state, seed, augment

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        if not 0 <= row < self.rows:
            raise IndexError(row)
        draw = torch.Generator().manual_seed(self.seed * STEP * STEP + row * STEP + 1)
        high = self._crop(draw)
        ratio = self.ratios[int(torch.randint(len(self.ratios), (), generator=draw))]
        return pair(high, self.degradation(high, ratio, draw), self.state)

    def _crop(self, draw: torch.Generator) -> Tensor:
        picture = self.pictures[int(torch.multinomial(self.areas, 1, generator=draw))]
        top, left = (int(torch.randint(side - self.size + 1, (), generator=draw)) for side in picture.shape[1:])
        crop = picture[:, top : top + self.size, left : left + self.size]
        if not self.augment:
            return crop.contiguous()
        flips = torch.randint(2, (3,), generator=draw).tolist()
        crop = crop.flip([dim for dim, flip in zip((1, 2), flips, strict=False) if flip])
        return (crop.transpose(1, 2) if flips[2] else crop).contiguous()


NO_FOLDER = {"samples": "there is no folder of pictures that every machine has"}


class Pairs(DataSource):
    """What the sources of pairs share."""

    size: PositiveInt = 48
    """Side of a crop in pixels, a multiple of 4."""
    ratios: tuple[float, ...] = (4.0,)
    """How many times smaller low-resolution pictures are; one is drawn for each row."""
    degradation: AnyDegradation = Bicubic()
    """How they come about."""
    state: Literal["residual", "picture"] = "residual"
    """What is denoised: the picture less its up-sampled low-resolution picture, or itself."""
    rows: PositiveInt = 65536
    """Crops in the data set."""
    seed: int = 0
    """Of crops and degradations."""
    augment: bool = True
    """Flip and transpose crops of the training split."""
    with_high: bool = False
    """Give the picture itself as the condition `high` too: metrics that compare with it need that."""
    with_low: bool = True
    """Give the low-resolution picture as the condition `low`; decoders of latents, say, are told those instead."""

    @abstractmethod
    def pictures(self, split: str) -> list[Tensor]:
        """Whole pictures [3, H, W] of a split, `train` or `test`; none is in both."""

    def open(self, split: str = "train") -> Dataset[Any]:
        pairs = self.pairs(split)
        if not self.with_low:
            return Alone(pairs, self.rows)
        return WithHigh(pairs, self.rows, self.state) if self.with_high else pairs

    def pairs(self, split: str) -> Dataset[Any]:
        """Crops of the split's pictures."""
        return Crops(
            self.pictures(split), self.rows, self.size, self.ratios, self.degradation, self.state,
            self.seed + (0 if split == "train" else 1_000_003), self.augment and split == "train",
        )  # fmt: skip


class Photographs(Pairs):
    """The real photographs that scikit-image, scikit-learn and matplotlib ship; four of them, whole, are held out."""

    def pictures(self, split: str) -> list[Tensor]:
        found = photographs()
        return [picture for name, picture in found.items() if (name in HELD_OUT) == (split != "train")]


@cache
def photographs() -> dict[str, Tensor]:
    """Every photograph that is installed, by its file's name: [3, H, W] in [−1, 1]; grey ones have equal channels.

    Raises:
        DataError: there is none.
    """
    found: dict[str, Tensor] = {}
    for module, (_, folder, names) in PHOTOGRAPHS.items():
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            continue
        files = [Path(spec.origin).parent / folder / name for name in names]
        found |= {file.name: read(file) for file in files if file.exists()}
    if not found:
        known = ", ".join(name for name, *_ in PHOTOGRAPHS.values())
        raise DataError(f"no photographs are installed: pip install scikit-image (or {known})")
    return found


def held_out() -> dict[str, Tensor]:
    """The photographs that nothing is trained on, as far as they are installed."""
    return {name: picture for name, picture in photographs().items() if name in HELD_OUT}


def read(file: Path) -> Tensor:
    """A picture file, upright: [3, H, W] in [−1, 1]."""
    return from_picture(opened(file, str(file)).convert("RGB"))


class PhotographFolder(Pairs):
    """A folder of pictures of the user's own; every n-th one, by name, is held out."""

    example: ClassVar[dict[str, Any]] = {"folder": "pictures"}
    conformance: ClassVar[dict[str, str]] = NO_FOLDER
    folder: Path
    """Where the pictures are."""
    every: int = 10
    """The first of so many pictures is held out, whole."""

    def pictures(self, split: str) -> list[Tensor]:
        files = listed(self.folder)
        return [read(file) for n, file in enumerate(files) if (n % self.every == 0) == (split != "train")]


class PairedFolder(Pairs):
    """Two folders with pictures of the same names: what is wanted, and what there is of it, smaller or as large."""

    example: ClassVar[dict[str, Any]] = {"high": "sharp", "low": "blurred"}
    conformance: ClassVar[dict[str, str]] = NO_FOLDER
    high: Path
    """Folder of what is wanted."""
    low: Path
    """Folder of what there is."""
    every: int = 10
    """The first of so many pictures is held out, whole."""

    def pictures(self, split: str) -> list[Tensor]:
        return [high for high, _ in self._both(split)]

    def pairs(self, split: str) -> Dataset[Any]:
        return PairedCrops(self._both(split), self.rows, self.size, self.state, self.seed)

    def _both(self, split: str) -> list[tuple[Tensor, Tensor]]:
        files = listed(self.high)
        missing = [file.name for file in files if not (self.low / file.name).exists()]
        if missing:
            raise DataError(
                f"{self.low} lacks {', '.join(missing[:5])}, which {self.high} has: pairs share their names"
            )
        chosen = [file for n, file in enumerate(files) if (n % self.every == 0) == (split != "train")]
        return [(read(file), read(self.low / file.name)) for file in chosen]


class PairedCrops(Dataset[dict[str, Tensor]]):
    """Crops of pairs; the low-resolution picture is brought to the full size before it is cut."""

    def __init__(
        self, pairs: Sequence[tuple[Tensor, Tensor]], rows: int, size: int, state: str, seed: int
    ) -> None:  # fmt: skip
        self.pairs = [(high, resized(low, (high.shape[1], high.shape[2]))) for high, low in pairs]
        self.pairs = [(high, low) for high, low in self.pairs if min(high.shape[1:]) >= size]
        if not self.pairs:
            raise DataError(f"no pair is as large as a crop of {size} pixels: lower 'size', or add larger ones")
        self.rows, self.size, self.state, self.seed = rows, size, state, seed

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        if not 0 <= row < self.rows:
            raise IndexError(row)
        draw = torch.Generator().manual_seed(self.seed * STEP * STEP + row * STEP + 1)
        high, low = self.pairs[int(torch.randint(len(self.pairs), (), generator=draw))]
        top, left = (int(torch.randint(side - self.size + 1, (), generator=draw)) for side in high.shape[1:])
        cut = (slice(None), slice(top, top + self.size), slice(left, left + self.size))
        return pair(high[cut], low[cut], self.state)


def listed(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give the folder that holds the pictures")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return files


def crops(pictures: Sequence[Tensor], size: int, ratio: float = 4.0, degradation: Degradation | None = None,
          state: str = "residual", seed: int = 0) -> Samples:  # fmt: skip
    """All crops of pictures side by side, as data in memory; what is left over at the right and below is not used."""
    cut = [
        picture[:, top : top + size, left : left + size]
        for picture in pictures
        for top in range(0, picture.shape[1] - size + 1, size)
        for left in range(0, picture.shape[2] - size + 1, size)
    ]
    make, found = degradation or Bicubic(), []
    for n, high in enumerate(cut):
        found.append(pair(high, make(high, ratio, torch.Generator().manual_seed(seed + n)), state))
    return Samples(**{name: torch.stack([one[name] for one in found]) for name in ("x", "low")})


def latents(data: Samples, code: Callable[[Tensor], Tensor], state: str = "residual") -> Samples:
    """The same pairs as latents: `code` makes latents [B, c, h, w] of pictures [B, C, H, W] in [−1, 1].

    `LatentImage.code` of a diffusers pipeline is one; the condition becomes the latent of y.
    """
    x, low = data.tensors["x"], data.tensors["low"]
    y = code(low)
    high = code(whole(x, low, state))
    return Samples(x=high - y if state == "residual" else high, low=y)
