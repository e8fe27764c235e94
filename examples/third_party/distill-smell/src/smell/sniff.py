"""The method: one call of the student for sixteen of the teacher, from the same noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from distill.core import (
    Batch,
    Context,
    Event,
    Loss,
    Method,
    Optimiser,
    Plan,
    Sampler,
    Terms,
    Trajectory,
    Update,
)  # fmt: skip
from distill.core.plan import one_phase
from distill.methods.losses import MatchState


class SniffPairs(Trajectory):
    """The teacher's reading at the end of its roll-out, and the student's in one call from the same noise."""

    sampler: Sampler = Sampler(steps=16)
    """How the teacher is sampled."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student, noise = ctx.roles["student"], batch.noise(ctx.rng, "sniff/noise")
        start = student.denoiser.path.prior(noise)
        target = self.sampler.sample(ctx.roles["teacher"], noise, batch.cond)
        with torch.set_grad_enabled(attached):
            said = student.predict(start, student.denoiser.path.t_max, batch.cond)
        yield Event(said.x0, batch.cond, said.t, start, noise, said, targets={"x": target})


class Fingerprint(Loss):
    """One minus the cosine between two readings, above the bare sensor: the odour, whatever its strength."""

    target: str = "x"
    """Name among the event's targets."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        said, true = (_coverage(x) for x in (event.x, event.targets[self.target]))
        return {"fingerprint": 1 - torch.cosine_similarity(said, true, dim=1, eps=1e-6)}


def _coverage(x: Any) -> Tensor:
    """Readings in [−1, 1] as coverages in [0, 1]."""
    coverage: Tensor = (x.flatten(1) + 1) / 2
    return coverage


class Sniff(Method):
    """A one-step student by regression to the teacher's readings, in value and in fingerprint."""

    steps: int = 600
    """Optimiser iterations."""
    match: MatchState = MatchState()
    """Regression, value by value."""
    fingerprint: Fingerprint = Fingerprint()
    """Regression of the odour's pattern."""
    optimiser: Optimiser = Optimiser(lr=1e-3, schedule="cosine")
    """The student's optimiser."""

    def plan(self, teacher: Sampler) -> Plan:
        pairs = SniffPairs(sampler=teacher)
        updates = [Update(trajectory=pairs, loss=loss) for loss in (self.match, self.fingerprint)]
        return Plan(
            phases=one_phase(updates, self.steps, {"student": self.optimiser}),
            sampler=Sampler(times=(1.0,), steps=1),
        )
