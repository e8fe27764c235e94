"""The data, drawn from a seed: outlines with lobes; and how far samples are from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from distill.core import DataSource, Metric, Rng, Samples, State
from torch import Tensor

RADII = 32
LOBES = (2, 3, 5)


def outlines(label: Tensor, rng: Rng) -> Tensor:
    """Radii [B, 32] less their mean, of outlines with `LOBES[label]` lobes [B], turned and sized at random."""
    angle = torch.arange(RADII) * (2 * torch.pi / RADII)
    turn = 2 * torch.pi * rng.uniform(len(label), 1, stream="turn")
    size = 0.3 + 0.4 * rng.uniform(len(label), 1, stream="size")
    return size * torch.cos(torch.tensor(LOBES)[label][:, None] * (angle + turn))


class Outlines(DataSource):
    """Outlines `x` [32] with the `label` of their number of lobes; the same for everyone who asks with one seed."""

    size: int = 2048
    """How many."""
    seed: int = 0
    """Seed of all that is drawn."""

    def open(self, split: str = "train") -> Samples:
        label = torch.arange(self.size) % len(LOBES)
        return Samples(x=outlines(label, Rng(self.seed).fork(split)), label=label)


class Distance(Metric):
    """`‖μ − μ′‖² + ‖σ − σ′‖²` of the Fourier magnitudes of curves, which turning leaves alone."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        assert isinstance(samples, Tensor) and isinstance(reference, Tensor)
        mine, true = (torch.fft.rfft(x, norm="forward").abs() for x in (samples, reference))
        gaps = mine.mean(0) - true.mean(0), mine.std(0) - true.std(0)
        return float(sum(gap.square().sum() for gap in gaps))
