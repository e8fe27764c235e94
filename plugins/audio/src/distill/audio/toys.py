"""TONES, the world in which methods on sound are measured: three harmonics that fade, as small log spectra."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from distill.audio.networks import AudioDiT
from distill.core import Denoiser, Mixture, Rng, Role, Sampler, Samples
from distill.core.paths import Karras
from distill.core.sampling import Grid
from distill.methods import digits, toys
from distill.methods.networks import MLPDenoiser
from distill.methods.times import LogNormalTimes
from distill.methods.trajectories import sampler_at

SIDE, SPAN = 8, {"t_min": 0.02, "t_max": 10.0}
"""Frames and bands of a spectrum, and the ends of EDM's path."""
SPREAD = 0.5
"""About the standard deviation of the data."""
LAW = LogNormalTimes(mean=-0.8, std=1.4)
"""Law of σ in training."""
SETTINGS = {
    "world": "TONES: log spectra of 8 x 8 with three harmonics and hiss of std 0.1; for layers, 16 of them",
    "teacher": "perceptron 3 x 128 with EDM preconditioning, fitted to data for 2000 steps",
    "measured on": "2000 samples, Fréchet distance on 32 main axes",
}


def tones(size: int, seed: int) -> Tensor:
    """Spectra [size, 8, 8], frames by bands, in about [−1, 1]: a tone, its octave and its twelfth."""
    rng = Rng(seed)
    low, onset, fade, loud = (rng.uniform(size, 1, stream=name) for name in ("low", "onset", "fade", "loud"))
    frames, bands = torch.arange(SIDE), torch.arange(SIDE)
    shape = rng.uniform(size, 3, stream="shape")
    since = frames - 4 * onset
    level = (0.5 + 0.5 * loud) * (since >= 0) * (-(0.05 + 0.2 * fade) * since.clamp_min(0)).exp()
    place = 0.5 + 3 * low + torch.tensor([0.0, 2.5, 4.0])
    bump = (-((bands - place[..., None]) ** 2) / 1.3).exp() * (0.3 + 0.7 * shape[..., None])
    return 2 * level[..., None] * bump.sum(1)[:, None] - 0.5


def hissing(size: int, seed: int) -> Tensor:
    """Tones with hiss of std 0.1, flat: [size, 64]."""
    return tones(size, seed).flatten(1) + 0.1 * Rng(seed).normal(size, SIDE * SIDE, stream="hiss")


@cache
def data(seed: int, size: int = 20_000) -> Samples:
    """Tones with hiss as a dataset, flat."""
    return Samples(x=hissing(size, seed + 100))


@cache
def teacher(seed: int, steps: int = 2000) -> Denoiser:
    """A perceptron fitted to the tones, from which students and critics start."""
    network = MLPDenoiser(
        shape=(SIDE * SIDE,), width=128, depth=3, path="karras", path_options=SPAN, sigma_data=SPREAD
    )  # fmt: skip
    method = toys.Fitted(network=network, times=LAW, level="edm", sigma_data=SPREAD, steps=steps)
    return toys.train(method, {}, data=data(seed), size=128, seed=seed).roles["student"].denoiser


LAYERED = AudioDiT(
    tokens=SIDE, channels=SIDE, width=32, depth=6, heads=2, ratio=2, path="karras", sigma_data=SPREAD
)  # fmt: skip
"""A transformer over the frames of a tone, with layers that can be left out."""


@cache
def layered(seed: int, steps: int = 150) -> Denoiser:
    """That transformer, fitted to the tones."""
    method = toys.Fitted(network=LAYERED, times=LAW, level="edm", sigma_data=SPREAD, steps=steps)
    return toys.train(method, {}, data=frames(seed), size=64, seed=seed).roles["student"].denoiser


@cache
def frames(seed: int, size: int = 20_000) -> Samples:
    """Sixteen tones with hiss as a dataset of tokens: so few that the transformer knows them after its short fit."""
    law = Mixture(tones(16, 7).flatten(1), 0.1, Karras(**SPAN))
    return Samples(x=law.data(size, Rng(seed + 100)).unflatten(1, (SIDE, SIDE)))


def times(denoiser: Denoiser, steps: int) -> tuple[float, ...]:
    """Karras' grid of so many steps, without its end."""
    found: tuple[Any, ...] = Grid(spacing="karras").times(denoiser.path, steps)
    return found[:-1]


@cache
def _axes(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh tones as points on their main axes, their mean, and the axes."""
    real = hissing(4000, seed + 500).double()
    _, vectors = torch.linalg.eigh(torch.cov(real.T))
    basis = vectors.flip(1)[:, :32]
    return (real - real.mean(0)) @ basis, real.mean(0), basis


def drawn(role: Role, steps: int, seed: int, sampler: Sampler | None = None, size: int = 2000) -> Tensor:
    """Samples in so many steps with fresh noise between them, or as the sampler says: [size, 64]."""
    sampler = sampler or sampler_at(times(role.denoiser, steps))
    return toys.draw(role, sampler, size, seed + 300).flatten(1)


def distance(x: Tensor, seed: int) -> float:
    """Fréchet distance to fresh tones."""
    real, mean, basis = _axes(seed)
    return digits.frechet((x.double() - mean) @ basis, real)


def variety(x: Tensor, seed: int) -> float:
    """Mean distance of samples to each other, in units of the data's."""
    real, mean, basis = _axes(seed)
    mine = (x.double() - mean) @ basis
    return float(torch.pdist(mine[:1500]).mean() / torch.pdist(real[:1500]).mean())
