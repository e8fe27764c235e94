"""SwD on Digits-8: samples that grow from 4 x 4 to 8 x 8, against three steps at full size."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from distill.core import (
    Batch,
    Claim,
    Context,
    Denoiser,
    Engine,
    Event,
    Method,
    Optimiser,
    Plan,
    Rng,
    Role,
    RoleSpec,
    Row,
    Sampler,
    Samples,
    Update,
)
from distill.core.paths import Flow
from distill.core.plan import one_phase
from distill.methods import digits, toys
from distill.methods.losses import (
    AdversarialDiscriminator,
    AdversarialGenerator,
    Denoise,
    ScoreDifference,
)
from distill.methods.networks import TimeEmbedding
from distill.methods.papers.swd import SwD
from distill.methods.scales import Growing, Sizes, resized
from distill.methods.times import UniformTimes
from distill.methods.trajectories import Data

TIMES = (1.0, 0.8, 0.6)
GROWING: Sizes = ((4, 4), (6, 6), (8, 8))
FULL: Sizes = ((8, 8),) * 3
STEPS, WIDTH = 800, 32


class Blocks(nn.Module):
    """Residual convolutions that know time, label and the mean of all places: [B, 1, H, W] of any size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time, self.label = TimeEmbedding(width, 2e-3), nn.Embedding(digits.CLASSES + 1, width)
        self.inlet = nn.Conv2d(1, width, 3, padding=1)
        self.hidden = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(4))
        self.whole = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.outlet = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        told = self.time(t) + self.label(cond["label"])
        h = self.inlet(x)
        for place, whole in zip(self.hidden, self.whole, strict=True):
            about = (told + whole(h.mean((2, 3))))[:, :, None, None]
            h = h + place(nn.functional.silu(h + about))
        out: Tensor = self.outlet(nn.functional.silu(h))
        return out


class AnySize(Data):
    """Data at one of the sizes, drawn for the batch."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        size = GROWING[ctx.rng.choice(len(GROWING), stream="size")]
        yield Event(resized(batch.data, size), batch.cond)


class Fitted(Method):
    """A teacher of all sizes."""

    def roles(self) -> dict[str, RoleSpec]:
        return {}

    def plan(self, teacher: Any) -> Plan:
        updates = [Update(trajectory=AnySize(), loss=Denoise(role="student", drop=0.1))]
        return Plan(phases=one_phase(updates, self.steps, {"student": Optimiser(lr=2e-3, schedule="cosine")}))


def images() -> Samples:
    """The digits as [1, 8, 8] with labels."""
    x, label = digits.load()
    return Samples(x=x.view(-1, 1, 8, 8), label=label)


@cache
def teacher(seed: int, steps: int = 2000) -> Denoiser:
    """Blocks fitted to the digits at every size."""
    torch.manual_seed(seed)
    null = {"label": digits.CLASSES}
    start = Denoiser(Blocks(WIDTH), Flow(), "velocity", shape=(1, 8, 8), null=null, taps=("hidden.1", "hidden.2"))
    return (
        toys.train(Fitted(steps=steps), {"student": start}, data=images(), size=64, seed=seed).roles["student"].denoiser
    )


def run(seed: int, sizes: Sizes, **options: Any) -> Engine:
    """Train from a copy of the teacher, unguided."""
    fast = Optimiser(lr=1e-3, betas=(0, 0.99))
    same: dict[str, Any] = {
        "sizes": sizes,
        "times": TIMES,
        "steps": STEPS,
        "critic_updates": 2,
        "score": ScoreDifference(times=UniformTimes(low=0.02, high=0.8)),
        "generator": AdversarialGenerator(weight=5e-3),
        "discriminator": AdversarialDiscriminator(weight=1e-2, shared=True),
        "student_optimiser": Optimiser(lr=3e-4, betas=(0, 0.99), schedule="cosine"),
        "critic_optimiser": fast,
    }
    fixed = {"teacher": copy.deepcopy(teacher(seed))}
    return toys.train(SwD(**{**same, **options}), fixed, data=images(), size=64, seed=seed)


@torch.no_grad()
def grown_with_noise(role: Role, sampler: Growing, noise: Tensor, cond: Any, rng: Rng) -> Tensor:
    """The sampler's mistake on purpose: x0 is noised first and enlarged then."""
    times, path = sampler.grid_for(role.denoiser.path), role.denoiser.path
    x = sampler.start(role, noise)
    for n, t in enumerate(times[:-1]):
        x0 = role.ask(x, t, cond).x0
        after = role.denoiser.times(times[n + 1], x0)
        x = resized(path.noised(x0, rng.normal_like(x0), after), sampler.sizes[min(n + 1, len(sampler.sizes) - 1)])
    return x


def dfid(x: Tensor) -> float:
    """Fréchet distance of a classifier's features to those of the data."""
    judge, (real, _) = digits.classifier(), digits.load()
    return digits.frechet(digits.features(real, judge), digits.features(x.flatten(1), judge))


def drawn(role: Role, sampler: Sampler, seed: int) -> Tensor:
    """Digits with the labels of the data."""
    _, label = digits.load()
    return toys.draw(role, sampler, len(label), seed + 300, {"label": label})


def claim(seed: int) -> Claim:
    """Growing against full size and against the teacher, and noise before or after the enlargement."""
    growing, full = run(seed, GROWING), run(seed, FULL)
    score, at_full = (dfid(drawn(engine.roles["student"], engine.sampler, seed)) for engine in (growing, full))
    raw = dfid(drawn(Role("teacher", teacher(seed)), Sampler(steps=3), seed))
    _, label = digits.load()
    assert isinstance(growing.sampler, Growing)
    noise, rng = Rng(seed + 300).normal(len(label), 1, 8, 8), Rng(seed + 300)
    wrong = dfid(grown_with_noise(growing.roles["student"], growing.sampler, noise, {"label": label}, rng))
    places = sum(h * w for h, w in GROWING) / sum(h * w for h, w in FULL)
    return Claim(
        "swd",
        "Samples that grow from step to step beat the teacher's few steps at full size, on three fifths of the pixels.",
        (
            Row("pixels that the network sees, of those at full size", places, "<=", 0.61),
            Row("dFID over that of the teacher's three steps", score / raw, "<=", 0.75, f"teacher: {raw:.2f}"),
            Row("dFID where noise is added before enlarging, over it", wrong / score, ">=", 1.1),
        ),
        broken=BROKEN,
        settings={
            "data": "Digits-8 as pictures, flow path, labels, no guidance",
            "network": f"4 residual convolutions of {WIDTH} channels; the teacher is fitted at 4, 6 and 8 pixels",
            "training": f"{STEPS} iterations of 64, student every other, times {TIMES}",
            "dFID": {"growing": score, "the same method at full size": at_full},
            "seed": seed,
        },
        open=OPEN,
    )


BROKEN = "Noise added before the enlargement is measured in each run."
OPEN = (
    "That growing loses at most 10 % of dFID against the same method at full size: it loses 29, 13 and 6 % on seeds 0 "
    "to 2, and 14, 26 and 52 % with 500 iterations and 24 channels, where the last row fails on seed 2 (1.05); the "
    "budget was raised after that. That noise before the enlargement costs 1.5 x: 1.2 x. That moments of features "
    "gain 5 %: on seed 0 2.5 %, 23.2 for 23.8."
)
