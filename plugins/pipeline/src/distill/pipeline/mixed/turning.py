"""Digits that turn into another of their kind: clips for which every frame is a picture of a digit."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource, Rng, Samples
from distill.pipeline.mixed.bouncing import known

WORLD = "clips of 6 frames in which a digit of 8 x 8 pixels (scikit-learn's) turns evenly into another of its kind"


class TurningDigits(DataSource):
    """Clips [6, 1, 8, 8] in which one digit becomes another with the same `label`, evenly from frame to frame."""

    classes: tuple[int, ...] = Field(tuple(range(10)), min_length=1)
    """Labels that occur."""
    count: PositiveInt = 1000
    """How many clips there are."""
    seed: int = 0
    """Which digits they show."""

    def open(self, split: str = "train") -> Dataset[Any]:
        pixels, labels = known(split)
        rng, share = Rng(self.seed), torch.linspace(0, 1, 6).view(6, 1, 1, 1)
        label = torch.tensor(self.classes)[torch.arange(self.count) % len(self.classes)]
        ends = [self._drawn(pixels, labels, label, rng, stream) for stream in ("first", "last")]
        return Samples(x=(1 - share) * ends[0] + share * ends[1], label=label)

    def _drawn(self, pixels: Tensor, labels: Tensor, label: Tensor, rng: Rng, stream: str) -> Tensor:
        """A digit of each label: [N, 1, 1, 8, 8]."""
        u = rng.uniform(len(label), stream=f"turning/{stream}")
        places = [torch.nonzero(labels == each)[:, 0] for each in range(10)]
        rows = [places[int(each)][int(u[n] * len(places[int(each)]))] for n, each in enumerate(label)]
        return pixels[torch.stack(rows)][:, None, None]


def roughness(clips: Tensor) -> float:
    """Mean absolute second difference of frames, over that of the first: 0 where everything changes evenly."""
    change = clips.diff(dim=1)
    return float(change.diff(dim=1).abs().mean() / change.abs().mean().clamp_min(1e-6))
