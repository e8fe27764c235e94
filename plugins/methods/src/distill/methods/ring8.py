"""Ring-8: eight Gaussians of unequal weight, a world in which samples are judged exactly."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import Tensor

from distill.core import Denoiser, Engine, Method, Mixture, Optimiser, Rng, Role, Sampler, Samples
from distill.core.paths import PATHS
from distill.methods import toys
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.networks import MLPDenoiser
from distill.methods.times import KarrasTimes

SHARES = (0.2,) * 4 + (0.05,) * 4
RANGE = {"t_min": 0.02, "t_max": 10.0}
ONE_STEP = 2.5
OPTIMISERS: dict[str, Any] = {
    "student_optimiser": Optimiser(lr=5e-4, betas=(0, 0.999), schedule="cosine"),
    "critic_optimiser": Optimiser(lr=1e-3, betas=(0, 0.999)),
}
LOSSES: dict[str, Any] = {
    "score": ScoreDifference(times=KarrasTimes(low=0.1, high=0.8)),
    "critic": Denoise(view="x0", level="edm", times=KarrasTimes(high=0.8)),
}
SETTINGS = {
    "world": "Ring-8: 8 Gaussians, radius 0.7, std 0.06, shares 4 x 0.2 and 4 x 0.05, exact teacher, VE path",
    "network": "perceptron 3 x 128 with EDM preconditioning, fitted to data for 800 steps",
    "training": "batch 256, Adam with first moment 0, rates 5e-4 (student, cosine) and 1e-3 (critic)",
    "measured on": "4000 samples",
}


def teacher(shares: tuple[float, ...] = SHARES, path: str = "karras", span: Mapping[str, float] = RANGE) -> Mixture:
    """The exact denoiser of the ring: radius 0.7, standard deviation 0.06, modes of the given shares."""
    weights = toys.class_weights(shares=shares)
    return toys.ring(PATHS[path](**span), radius=0.7, std=0.06, weights=weights)


def data(size: int, seed: int, law: Mixture | None = None) -> Tensor:
    """Samples of the ring [size, 2]."""
    return (law or teacher()).data(size, Rng(seed))


@cache
def start(seed: int, steps: int = 800, width: int = 128, depth: int = 3) -> Denoiser:
    """A perceptron fitted briefly to the ring's data, from which students and critics start."""
    network = MLPDenoiser(path="karras", path_options=dict(RANGE), sigma_data=0.5, width=width, depth=depth)
    method = toys.Fitted(network=network, times=KarrasTimes(), level="edm", steps=steps)
    return toys.train(method, {}, data=Samples(x=data(20000, seed + 100)), seed=seed).roles["student"].denoiser


def fit(method: Method, law: Mixture, init: Denoiser, *, real: bool = False, seed: int = 0, size: int = 256) -> Engine:
    """Train a method whose student and critic start as copies of `init`; `real` adds the true ring's data."""
    fixed = {"teacher": law, "student": copy.deepcopy(init), "critic": copy.deepcopy(init)}
    samples = Samples(x=data(20000, seed + 200)) if real else None
    return toys.train(method, fixed, data=samples, size=size, seed=seed)


def measures(role: Role, sampler: Sampler, seed: int, size: int = 4000, law: Mixture | None = None) -> dict[str, Any]:
    """Energy distance to fresh data, modes that hold half of their weight, total variation of shares."""
    true = law or teacher()
    x = toys.draw(role, sampler, size, seed + 300)
    return {
        "ed": toys.energy_distance(x, data(size, seed + 400, true)),
        "modes": toys.modes_covered(x, true),
        "tv": toys.total_variation(x, true),
    }
