"""The network: a perceptron that knows the number of lobes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from distill.core import Builder, Denoiser, Sampler
from distill.core.paths import Flow
from torch import Tensor, nn
from torch.nn.functional import silu

from distill_sprout.data import LOBES, RADII


class Perceptron(nn.Module):
    """Radii [B, 32], times [B] in thousandths and labels [B] to a velocity [B, 32]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(8) / 500)
        self.time, self.label = nn.Linear(16, width), nn.Embedding(len(LOBES) + 1, width)
        self.inlet, self.hidden, self.outlet = nn.Linear(RADII, width), nn.Linear(width, width), nn.Linear(width, RADII)

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        phase = t[:, None] * self.get_buffer("frequencies")
        label = cond["label"] if "label" in cond else torch.full((len(x),), len(LOBES), device=x.device)
        h = self.inlet(x) + self.time(torch.cat([phase.sin(), phase.cos()], 1)) + self.label(label)
        out: Tensor = self.outlet(silu(self.hidden(silu(h))))
        return out


class Net(Builder):
    """A flow-matching denoiser of curves, conditional on the number of lobes."""

    width: int = 128
    """Units of its two layers."""
    steps: int = 16
    """Steps of its own sampler."""

    def build(self) -> Denoiser:
        return Denoiser(
            Perceptron(self.width),
            Flow(),
            "velocity",
            shape=(RADII,),
            null={"label": len(LOBES)},
            taps=("hidden",),
            scalar_sites=("time",),
        )

    def sampler(self) -> Sampler:
        return Sampler(steps=self.steps)
