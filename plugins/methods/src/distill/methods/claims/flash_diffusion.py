"""Flash Diffusion on Ring-8: all of its losses against the regression alone, in two steps."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch

from distill.core import Claim, Denoiser, Engine, Optimiser, Rng, Row, Samples
from distill.methods import ring8, toys
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, ScoreDifference
from distill.methods.networks import FeatureHeads, MLPDenoiser
from distill.methods.papers.flash_diffusion import FlashDiffusion
from distill.methods.times import ListedTimes
from distill.methods.trajectories import SolvedData

TIMES = (1.0, 0.5)
STEPS = 1200
NONE = (0.0,) * 4


GAN = {"features": "features", "form": "squares", "times": ListedTimes(times=(0.01, 0.25, 0.5, 0.75))}


@cache
def fitted(seed: int, width: int, steps: int) -> Denoiser:
    """A perceptron of v, fitted to the ring's data."""
    method = toys.Fitted(network=MLPDenoiser(path="cosine", kind="v", width=width), steps=steps)
    return toys.train(method, {}, data=Samples(x=ring8.data(20000, seed + 100)), seed=seed).roles["student"].denoiser


def run(seed: int, **options: Any) -> Engine:
    """Train a small student of the exact teacher on the ring's data, unguided: it has no condition."""
    same: dict[str, Any] = {
        "times": TIMES,
        "steps": STEPS,
        "solved": SolvedData(points=16),
        "score": ScoreDifference(critic="student"),
        "generator": AdversarialGenerator(**GAN),
        "discriminator": AdversarialDiscriminator(**GAN, train_features=False, shared=True),
        "heads": FeatureHeads(features="features"),
        "student_optimiser": Optimiser(lr=1e-3, schedule="cosine"),
        "heads_optimiser": Optimiser(lr=1e-3),
    }
    fixed = {
        "teacher": ring8.teacher(path="cosine", span={}),
        "student": copy.deepcopy(fitted(seed, 32, 800)),
        "features": fitted(seed, 96, 300),
    }
    data = Samples(x=ring8.data(20000, seed + 200))
    return toys.train(FlashDiffusion(**{**same, **options}), fixed, data=data, seed=seed)


def measure(engine: Engine, seed: int) -> dict[str, Any]:
    """Distances to fresh data of the student's samples."""
    return ring8.measures(engine.roles["student"], engine.sampler, seed)


def departure(drawn: torch.Tensor, law: tuple[float, ...]) -> float:
    """χ² of drawn indices against a law, per degree of freedom; indices that are rarer than 5 draws are one."""
    seen = torch.bincount(drawn, minlength=len(law)).double()
    expected = torch.tensor(law, dtype=torch.float64) * len(drawn)
    rare = expected < 5
    seen, expected = (torch.cat([part[~rare], part[rare].sum()[None]]) for part in (seen, expected))
    return float(((seen - expected) ** 2 / expected.clamp_min(1)).sum() / (len(seen) - 1))


def starts(seed: int, shares: tuple[float, ...], size: int = 10_000) -> torch.Tensor:
    """Where the batches of a stage start on the grid: [size]."""
    rng, law = Rng(seed), SolvedData(shares=shares).law()
    return torch.tensor([rng.choice(len(law), shares=law, stream="solved/index") for _ in range(size)])


def claim(seed: int) -> Claim:
    """Regression with a GAN against regression alone; the law of the starting points."""
    alone = measure(run(seed, score_weights=NONE, generator_weights=NONE), seed)
    helped = measure(run(seed, score_weights=NONE, generator_weights=(0.0, 1.0, 1.0, 1.0)), seed)
    drawn = {shares: starts(seed, shares) for shares in FlashDiffusion().shares}
    miss = max(departure(k, SolvedData(shares=shares).law()) for shares, k in drawn.items())
    equal = SolvedData().law()
    other = min(departure(k, equal) for shares, k in drawn.items() if len(set(shares)) > 1)
    return Claim(
        "flash-diffusion",
        "A GAN added to the regression on a teacher's solutions sharpens a student of two steps.",
        (
            Row("energy distance, GAN added to the regression", helped["ed"], "<=", 0.9 * alone["ed"], "0.9 x alone"),
            Row("modes of 8 that it covers", helped["modes"], ">=", 7),
            Row("largest chi-squared of the starting points, 4 stages", miss, "<=", 2.5, "per degree of freedom"),
            Row(
                "smallest against the last but one stage's law", other, ">=", 10, "so that the measure tells laws apart"
            ),
        ),
        broken=BROKEN,
        settings=ring8.SETTINGS
        | {
            "world": ring8.SETTINGS["world"].replace("VE", "cosine"),
            "network": "student 3 x 32, frozen features 3 x 96, fitted to data for 800 and 300 steps",
            "training": f"{STEPS} iterations of 256, rate 1e-3, grid of 16, weights of the GAN 0, 1, 1, 1",
            "seed": seed,
        },
        open=OPEN,
    )


BROKEN = (
    "Seed 0. Sign of the student's GAN term flipped: energy distance 0.140 where it is 0.012. The starting points' law "
    "is broken in each run: against another stage's law chi-squared is above 10."
)
OPEN = (
    "That all losses together reach 0.7 x the regression's energy distance: on seed 0 it is 0.0296 with all of them, "
    "0.0174 with the regression alone, 0.0148 with the GAN at the paper's weights and 0.0121 at weight 1. It is the "
    "score difference with the student as its own critic that harms here: a student of few steps says where the flow "
    "ends, not the mean of what noise hides, so that the difference does not vanish where the laws agree."
)
