"""The network: a perceptron that knows the odour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.core import Builder, Denoiser, Sampler
from distill.core.paths import Flow
from smell.odours import ODOURS, SENSORS


class Perceptron(nn.Module):
    """Readings [B, 16], times [B] in thousandths and labels [B] to a velocity [B, 16]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(8) / 500)
        self.time = nn.Linear(16, width)
        self.odour = nn.Embedding(len(ODOURS) + 1, width)
        self.inlet, self.hidden, self.outlet = (
            nn.Linear(SENSORS, width), nn.Linear(width, width), nn.Linear(width, SENSORS),
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        phase = t[:, None] * self.frequencies
        h = self.inlet(x) + self.time(torch.cat([phase.sin(), phase.cos()], 1)) + self.odour(cond["label"])
        h = self.hidden(nn.functional.silu(h))
        out: Tensor = self.outlet(nn.functional.silu(h))
        return out


class Nose(Builder):
    """A flow-matching denoiser of readings, conditional on the odour."""

    width: int = 128
    """Units of its two layers."""
    steps: int = 16
    """Steps of its own sampler."""

    def build(self) -> Denoiser:
        null = {"label": len(ODOURS)}
        return Denoiser(
            Perceptron(self.width),
            Flow(),
            "velocity",
            shape=(SENSORS,),
            null=null,
            taps=("hidden",),
            scalar_sites=("time",),
        )

    def sampler(self) -> Sampler:
        return Sampler(steps=self.steps)
