"""Adaptive collaboration: an oracle decides for each of the student's samples whether the teacher improves it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch

from distill.core import Batch, Context, Fit, Phase, Plan
from distill.methods.samplers import Refined, WithTeacher, asked, chosen, judge


class FitThreshold(Fit):
    """τ, below which a given share of the student's samples score on calibration conditions."""

    count: int = 5000
    """Samples; their conditions are those of one batch, drawn with replacement."""
    share: float = 0.5
    """k, the share that is to be improved."""
    chunk: int = 500
    """Samples that are made at a time."""

    def fit(self, batch: Batch, ctx: Context, sampler: Refined) -> Refined:
        sizes = [min(self.chunk, self.count - done) for done in range(0, self.count, self.chunk)]
        scores = torch.cat([self._scores(size, batch, ctx, sampler) for size in sizes])
        threshold = float(scores.quantile(self.share))
        lower = float((scores < threshold).float().mean())
        return sampler.model_copy(update={"threshold": threshold, "fraction": lower})

    @torch.no_grad()
    def _scores(self, size: int, batch: Batch, ctx: Context, sampler: Refined) -> torch.Tensor:
        student = ctx.roles["student"]
        cond = chosen(batch.cond, ctx.rng.integers(batch.size, size, stream="calibrate/condition"))
        noise = Batch(size, shape=batch.shape or student.denoiser.shape).noise(ctx.rng, "calibrate/noise")
        alone = sampler.model_copy(update={"threshold": -math.inf})
        return judge(asked(ctx.roles, sampler.oracle), alone.sample(student, noise, cond, ctx.rng, ctx.roles), cond)


class AdaptiveCollaboration(WithTeacher):
    """Your Student is Better Than Expected (Starodubcev et al. 2024, arXiv:2312.10835).

    Trains nothing but a threshold. The run needs a role `oracle` that scores samples with one number each.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "which oracle judges is the recipe's to say"}
    until: float = 0.7
    """Time to which samples are noised for the teacher; the path's last one makes them anew."""
    share: float = 0.5
    """k, the share of the samples that the teacher improves."""
    count: int = 5000
    """Samples of the student on which the threshold is calibrated."""

    def plan(self, teacher: Any) -> Plan:
        fit = FitThreshold(count=self.count, share=self.share)
        sampler = self.together(Refined, teacher, until=self.until)
        return Plan(phases=(Phase(name="threshold", fit=fit),), sampler=sampler)
