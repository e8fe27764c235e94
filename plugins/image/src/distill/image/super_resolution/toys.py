"""A small world in which claims of super-resolution are measured: real photographs, 32×32 crops at ratio 4."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from distill.core import Batch, Rng, Role, Sampler, Samples
from distill.core.data import collate
from distill.core.sampling import ALONE
from distill.image.features import shipped
from distill.image.super_resolution import metrics
from distill.image.super_resolution.data import HELD_OUT, Crops, crops, held_out, photographs, whole
from distill.image.super_resolution.degradations import Bicubic, Degradation
from distill.image.super_resolution.networks import RestorerDenoiser

SIZE, RATIO, FLAT = 32, 4.0, 0.15
NETWORK = RestorerDenoiser(size=SIZE, width=48, blocks=6)
"""The toy's network: 0.17 M parameters."""
SAMPLER = Sampler(steps=15)
"""How the teacher is sampled: 15 deterministic steps."""


def teacher() -> Role:
    """The trained toy (`recipes/sr-toy.yaml`), frozen, as the role `teacher`."""
    options = {"weights": shipped("sr-toy.safetensors")}
    return Role("teacher", NETWORK.model_copy(update=options).build(), frozen=True)


@cache
def train_data(count: int = 4096, seed: int = 0, size: int = SIZE, ratio: float = RATIO) -> Samples:
    """Random crops of the photographs that are not held out, in memory."""
    found = [picture for name, picture in photographs().items() if name not in HELD_OUT]
    source = Crops(found, count, size, (ratio,), Bicubic(), "residual", seed, augment=True)
    return Samples(**collate([source[row] for row in range(count)]))


@cache
def judged(count: int = 128, size: int = SIZE, ratio: float = RATIO, degradation: Degradation | None = None) -> Samples:
    """Crops of the held-out photographs that are not flat, evenly spread over them, the same for every seed."""
    every = crops(list(held_out().values()), size, ratio, degradation).tensors
    rich = (whole(every["x"], every["low"]).flatten(1).std(1) > FLAT).nonzero().flatten()
    rows = rich[torch.linspace(0, len(rich) - 1, count).long()]
    return Samples(**{name: value[rows] for name, value in every.items()})


@torch.no_grad()
def restore(role: Role, sampler: Sampler, data: Samples, seed: int = 0, roles: Any = ALONE) -> Tensor:
    """Pictures that a role makes of the low-resolution pictures, for the noises of a seed: [B, 3, H, W]."""
    low, rng = data.tensors["low"], Rng(seed)
    noise = Batch(len(low), shape=tuple(low.shape[1:])).noise(rng, "sample/start")
    state = sampler.sample(role, noise, {"low": low}, rng, roles)
    out: Tensor = whole(state, low)
    return out


def truth(data: Samples) -> Tensor:
    """The pictures themselves: [B, 3, H, W]."""
    out: Tensor = whole(data.tensors["x"], data.tensors["low"])
    return out


def scores(pictures: Tensor, data: Samples) -> dict[str, float]:
    """psnr, ssim, lpips (in EfficientNet-lite0's features), low-fidelity, blur, and detail: high-frequency energy over
    that of the truth."""
    return metrics.scores(pictures, truth(data), data.tensors["low"], RATIO)
