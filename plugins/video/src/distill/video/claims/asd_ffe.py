"""Claim of ASD and FFE: one step gains from clips of two, and a second step is worth most in the first chunk."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from distill.core import Cache, Claim, Denoiser, Engine, Mixture, Optimiser, Rng, Row, Sampler, Samples
from distill.core.paths import Flow
from distill.methods import toys
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.networks import MLPDenoiser
from distill.video.attention import Reach, with_deferred
from distill.video.papers.asd_ffe import ASDFFE
from distill.video.papers.causvid import LEVELS
from distill.video.papers.self_forcing import SelfForcing

FRAMES, TURN, TIMES, ALONE = 3, 0.4, (1.0, 0.5), Reach(chunk=1)
FIRST, STEPS, WEIGHT, POINTS = 500, 300, 0.3, 1000
CRITIC = MLPDenoiser(shape=(FRAMES, 2, 1, 1), width=96, depth=3, kind="x0")
SCORE: dict[str, Any] = {
    "score": ScoreDifference(times=LEVELS), "critic": Denoise(view="x0"), "reach": ALONE, "times": TIMES,
}  # fmt: skip


class Walker(nn.Module):
    """A causal perceptron: each frame [B, F, 2, 1, 1] from itself and the frame before it, with the times of both."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.reach, self.patch = ALONE, (1, 1, 1)
        self.layers = nn.Sequential(
            nn.Linear(15, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any], cache: Cache | None = None) -> Any:
        fresh = x.shape[1]
        seen, times, _, _ = with_deferred(x, t, cond, cache, ())
        times = times[:, None].expand(seen.shape[:2]) if times.ndim == 1 else times
        here, written = torch.cat([seen.flatten(2), times[..., None] / 1000], -1), None
        if cache is not None:
            written = cache.commit({"frames": (here[:, None], here[:, None])})
            here = written.layers["frames"][0][:, 0]
        before = pad(pad(here, (0, 1), value=1.0), (0, 0, 1, 0))[:, :-1]  # zeros, mark included, where there is none
        phases = here[..., 2:] * torch.tensor([1.0, 2.0, 4.0, 8.0])
        out = self.layers(torch.cat([here, before, phases.sin(), phases.cos()], -1)[:, -fresh:]).view_as(x)
        return out if cache is None else (out, written)


def walker() -> Denoiser:
    """An untrained student."""
    return Denoiser(Walker(), Flow(), "x0", shape=(FRAMES, 2, 1, 1))


@cache
def law() -> Mixture:
    """Clips of a point that starts at one of eight places on a circle and goes round it, 0.4 rad a frame."""
    angle = torch.arange(8)[:, None] * (math.pi / 4) + TURN * torch.arange(FRAMES)
    return Mixture(torch.stack([angle.cos(), angle.sin()], -1)[..., None, None], 0.1, Flow())


@cache
def starts(seed: int) -> tuple[Denoiser, Denoiser]:
    """A causal student after regression on the teacher's routes, and a critic that has learnt the data."""
    data = Samples(x=law().data(8192, Rng(seed)))
    torch.manual_seed(seed)
    critic = toys.train(toys.Fitted(network=CRITIC, steps=300), {}, data=data, size=128, seed=seed).roles["student"]
    method = SelfForcing(
        walk=Sampler(steps=20), at=(0, 10), routes=2048, first=FIRST, **SCORE,
        regression=Optimiser(lr=2e-3, schedule="cosine"),
    )  # fmt: skip
    roles = {"teacher": law(), "student": walker(), "critic": critic.denoiser}
    engine = toys.train(method, roles, data=data, size=128, seed=seed, steps=FIRST)
    return engine.roles["student"].denoiser, critic.denoiser


def trained(seed: int, weight: float) -> Engine:
    """A student that goes on from there, with the GAN of step counts at this weight."""
    pair = ASDFFE().pair.model_copy(update={"weight": weight})
    method = ASDFFE(
        routes=0, steps=STEPS, critic_updates=3, student_ema=0.95, first_steps=2, pair=pair, **SCORE,
        student_optimiser=Optimiser(lr=5e-4, betas=(0, 0.99)), critic_optimiser=Optimiser(lr=1e-3, betas=(0, 0.99)),
    )  # fmt: skip
    student, critic = (copy.deepcopy(denoiser) for denoiser in starts(seed))
    roles = {"teacher": law(), "student": student, "student_ema": copy.deepcopy(student), "critic": critic}
    return toys.train(method, roles, data=Samples(x=law().data(8192, Rng(seed + 1))), size=64, seed=seed)


def distance(engine: Engine, first: int, later: int, seed: int) -> float:
    """Energy distance to data, in thousandths, of clips in so many steps for the first frame and for the others."""
    sampler = engine.sampler.model_copy(update={"first_steps": first, "later_steps": later})
    clips = toys.draw(engine.roles["student_ema"], sampler, POINTS, seed + 5)
    real = law().data(4 * POINTS, Rng(seed + 6))
    return 1000 * toys.energy_distance(clips.flatten(1), real.flatten(1))


def claim(seed: int) -> Claim:
    """A point on a circle: the same start, iterations and rates with the GAN of step counts and without it."""
    ours, plain = trained(seed, WEIGHT), trained(seed, 0.0)
    one, one_plain = (distance(engine, 1, 1, seed) for engine in (ours, plain))
    first, first_plain = (distance(engine, 2, 1, seed) for engine in (ours, plain))
    two, two_plain = (distance(engine, 2, 2, seed) for engine in (ours, plain))
    return Claim(
        "asd-ffe",
        "Clips of one step gain from a GAN against those of two; so does a second step for the first frame.",
        [
            Row("1 step: distance / without the GAN", one / one_plain, "<=", 0.85, f"without: {one_plain:.1f}e-3"),
            Row("2 steps for the first frame only / 1 for all", first / one, "<=", 0.9, f"1: {one:.1f}e-3"),
            Row(
                "the same without the GAN", first_plain / one_plain, "<=", 0.9,
                f"{first_plain:.1f}e-3; 2 for all: {two_plain:.1f}e-3",
            ),
            Row("2 steps: distance / without the GAN", two / two_plain, "<=", 1.05, f"without: {two_plain:.1f}e-3"),
        ],
        broken=BROKEN,
        open=OPEN,
        settings={
            "data": "a point on a circle, 3 frames, exact teacher",
            "student": "causal perceptron, 64 wide, one frame a chunk, two steps", "seed": seed,
            "steps": f"{FIRST} of regression, {STEPS} of matching",
        },
    )  # fmt: skip


BROKEN = "The GAN left out, and one step for the first frame as for the others: measured in each run."
OPEN = (
    "More steps for the first frame on top of the GAN: 0.96, 1.03 and 1.05 of one step for all on seeds 0, 1 and 2, so "
    "that row fails; the GAN has already brought one step below two for all without it. Iterations are equal, but the "
    "GAN gives the student an optimiser step of its own beside that of matching, twice as many in all: a control with "
    "as many steps of matching alone was not measured, nor the GAN with its sides swapped. The student has two times, "
    "so n is 1 only. The paper's weight of the GAN and its noise levels are not public; here 0.3, and uniform. Four "
    "steps, two against three, and real clips were not measured."
)
