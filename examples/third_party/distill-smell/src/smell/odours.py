"""A simulated electronic nose: gases, sensors that saturate, and the odours before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distill.core import DataSource, Metric, Rng, Samples, State

SENSORS, GASES = 16, 6
ODOURS = {
    "coffee": (0.50, 0.20, 0.05, 0.05, 0.10, 0.10),
    "citrus": (0.05, 0.10, 0.70, 0.10, 0.05, 0.00),
    "mint": (0.00, 0.05, 0.15, 0.70, 0.10, 0.00),
    "smoke": (0.15, 0.05, 0.00, 0.00, 0.20, 0.60),
}
"""Share of each gas in an odour: pyrazines, aldehydes, terpenes, menthol, alcohols, phenols."""


def sensitivities() -> Tensor:
    """Adsorption constants K [sensors, gases]: log-normal, the same nose for everyone."""
    return (1.2 * Rng(16).normal(SENSORS, GASES, stream="sensitivity")).exp()


def readings(concentrations: Tensor, noise: Tensor) -> Tensor:
    """Coverage of each sensor under competitive Langmuir adsorption, [B, gases] to [B, 16], scaled to [−1,
    1].
    """
    pressure = concentrations @ sensitivities().T
    return (2 * pressure / (1 + pressure) - 1 + 0.01 * noise).clamp(-1, 1)


def sniff(label: Tensor, rng: Rng) -> Tensor:
    """Readings [B, 16] of odours [B]: the strength is log-normal, the composition scatters about the
    recipe.
    """
    recipe = torch.tensor(list(ODOURS.values()))[label]
    scatter = (0.15 * rng.normal(len(label), GASES, stream="composition")).exp()
    strength = (0.6 * rng.normal(len(label), 1, stream="strength")).exp()
    return readings(strength * recipe * scatter, rng.normal(len(label), SENSORS, stream="sensor"))


class Odours(DataSource):
    """Simulated readings `x` [16] with the odour's `label`; the same for everyone who asks with one seed."""

    size: int = 4096
    """Readings."""
    seed: int = 0
    """Seed of the simulation."""

    def open(self, split: str = "train") -> Samples:
        rng = Rng(self.seed).fork(split)
        label = torch.arange(self.size) % len(ODOURS)
        return Samples(x=sniff(label, rng), label=label)


class ChannelDistance(Metric):
    """`‖μ − μ′‖² + ‖σ − σ′‖²` over the channels: the Fréchet distance of Gaussians with independent
    channels.
    """

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        assert isinstance(samples, Tensor) and isinstance(reference, Tensor)
        gaps = samples.mean(0) - reference.mean(0), samples.std(0) - reference.std(0)
        return float(sum(gap.square().sum() for gap in gaps))
