"""Weak students of few steps, on the exact ring of eight and on digits, for methods that mend them in sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from distill.core import (
    Batch,
    Builder,
    Context,
    Denoiser,
    Event,
    Method,
    Mixture,
    Optimiser,
    Plan,
    Rng,
    Role,
    Roles,
    RoleSpec,
    Sampler,
    Samples,
    Trajectory,
    Update,
    tree,
)
from distill.core.paths import Cosine
from distill.core.plan import one_phase
from distill.core.sampling import Consistency, Grid
from distill.methods import digits, toys
from distill.methods.losses import Match
from distill.methods.networks import MLPDenoiser

PATH = Cosine()
SETTINGS = {"world": "ring of 8 Gaussians, radius 1, std 0.1, exact teacher, cosine path"}


class Neighbours(Trajectory):
    """Data at a time of a grid; the target is what the student itself says one step of the teacher further down.

    Consistency distillation with the student as its own target (Song et al. 2023, arXiv:2303.01469).
    """

    steps: int = 16
    """Steps of the grid."""
    grid: Grid = Grid()
    """Spacing of its times."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student, teacher = ctx.roles["student"], ctx.roles["teacher"]
        path = student.denoiser.path
        times = torch.tensor(self.grid.times(path, self.steps)[::-1], device=ctx.rng.device)
        k = 1 + ctx.rng.integers(self.steps, batch.size, stream="consistency/time")
        t, s, noise = times[k], times[k - 1], batch.noise(ctx.rng, "consistency/noise")
        x_t = path.noised(batch.data, noise, t)
        x_s = path.jump(x_t, teacher.ask(x_t, t, batch.cond).x0, t, s)
        target = tree.where(s <= path.t_min, x_s, student.ask(x_s, s, batch.cond).x0)
        with torch.set_grad_enabled(attached):
            said = student.predict(x_t, t, batch.cond)
        yield Event(said.x0, batch.cond, t, x_t, noise, said, targets={"x0": target})


class BriefConsistency(Method):
    """A small perceptron, distilled for a short while."""

    network: Builder | None = MLPDenoiser(path="cosine", kind="v", width=64, depth=2)
    """The student; a copy of the teacher if None."""
    lr: float = 2e-3
    """Learning rate, falling to 0 along a cosine."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(build=self.network) if self.network else RoleSpec(copy_of="teacher")}

    def plan(self, teacher: Any) -> Plan:
        optimisers = {"student": Optimiser(lr=self.lr, schedule="cosine")}
        return Plan(phases=one_phase([Update(trajectory=Neighbours(), loss=Match())], self.steps, optimisers))


def law() -> Mixture:
    """The teacher."""
    return toys.ring(PATH)


def sampler(times: tuple[float, ...]) -> Sampler:
    """How the student is sampled."""
    return Sampler(times=times, steps=len(times), solver=Consistency())


@cache
def student(seed: int, steps: int) -> Denoiser:
    """A student that was trained for some iterations."""
    data = Samples(x=law().data(20000, Rng(seed + 100)))
    made = toys.train(BriefConsistency(steps=steps), {"teacher": law()}, data=data, seed=seed)
    return made.roles["student"].denoiser.requires_grad_(False)


@cache
def digits_student(seed: int, steps: int = 300) -> Denoiser:
    """The same for the digits: a copy of their teacher, distilled for a short while."""
    method, fixed = BriefConsistency(network=None, lr=5e-4, steps=steps), {"teacher": digits.teacher(seed)}
    made = toys.train(method, fixed, data=digits.samples(), size=128, seed=seed)
    return made.roles["student"].denoiser.requires_grad_(False)


class LogLikelihood(torch.nn.Module):
    """The ring's log density of clean points: [B]."""

    def forward(self, x: Tensor, t: Any, cond: Mapping[str, Any]) -> Tensor:
        means, std = toys.ring(PATH).means, 0.1
        return (-(torch.cdist(x, means) ** 2) / (2 * std**2)).logsumexp(1)


class AtRandom(torch.nn.Module):
    """A score that knows nothing: [B]."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = Rng(seed)

    def forward(self, x: Tensor, t: Any, cond: Mapping[str, Any]) -> Tensor:
        return self.rng.uniform(len(x))


def lot(seed: int) -> Denoiser:
    """A judge by chance."""
    return Denoiser(AtRandom(seed), PATH, "logits", shape=(2,))


def oracle() -> Role:
    """The exact judge of this world."""
    return Role("oracle", Denoiser(LogLikelihood(), PATH, "logits", shape=(2,)))


@dataclass
class Counting(Role):
    """A role that counts the samples that it is asked about."""

    seen: int = 0

    def predict(self, x: Any, t: Any, cond: Any = None, **options: Any) -> Any:
        self.seen += tree.batch_size(x)
        return super().predict(x, t, cond, **options)


def cast(seed: int, steps: int, judge: Role | None = None) -> Roles:
    """Teacher, student and oracle, the exact one or another."""
    return Roles(
        {
            "teacher": Counting("teacher", law()),
            "student": Counting("student", student(seed, steps)),
            "oracle": judge or oracle(),
        }
    )


def distance(x: Tensor, seed: int) -> float:
    """Sliced Wasserstein distance to fresh data."""
    return toys.sliced_wasserstein(x, law().data(len(x), Rng(seed + 400)))


def seen(roles: Sequence[Role]) -> int:
    """Samples that counting roles were asked about."""
    return sum(role.seen for role in roles if isinstance(role, Counting))


def noise(size: int, seed: int) -> Tensor:
    """Where samples of a seed start: [size, 2]."""
    return Rng(seed).normal(size, 2, stream="sample/start")
