"""Trajectories along a teacher's moves: two jumps as one, its route as a target, its route as training data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from distill.core import Batch, Context, Event, Trajectory, tree

from distill.methods.trajectories import draw_scalars


class GridJumps(Trajectory):
    """Halving targets: the x0 whose one jump from t lands where two teacher jumps land.

    Times are `t = (i+1)/N` of the path's range with i drawn per sample, `m = t − 1/2N` and `s = t − 1/N` (progressive
    distillation: Salimans & Ho 2022, arXiv:2202.00512, algorithm 2). The target is the inverse jump of the teacher's x_s;
    where σ_s = 0 the teacher's last x0 is copied by it.
    """

    steps: int
    """N, the student's jumps from noise to data."""
    teacher: str = "teacher"
    """Role that makes the two jumps."""
    scalars: dict[str, tuple[float, float]] = {}
    """Extra inputs of both networks, drawn uniformly per sample between two values: the same in all three calls."""
    teacher_takes: bool = True
    """Whether the teacher has those inputs too."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student, path = ctx.roles["student"], ctx.roles["student"].denoiser.path
        t, m, s = self._times(batch, path, ctx)
        noise = batch.noise(ctx.rng, "halving/noise")
        x_t = path.noised(batch.x, noise, t)
        scalars = draw_scalars(self.scalars, batch.size, ctx)
        target = path.inverse_jump(x_t, self._two_jumps(x_t, (t, m, s), batch, scalars, ctx), t, s)
        with torch.set_grad_enabled(attached):
            said = student.predict(x_t, t, batch.cond, **scalars)
        yield Event(said.x0, batch.cond, t, x_t, noise, said, targets={"x0": target}, scalars=scalars, meta={"s": s})

    def _times(self, batch: Batch, path: Any, ctx: Context) -> tuple[Any, Any, Any]:
        first = tree.leaves(batch.x)[0]
        i = ctx.rng.integers(self.steps, batch.size, stream="halving/index").to(first)
        span = (path.t_max - path.t_min) / self.steps
        return tuple(path.t_min + span * (i + ahead) for ahead in (1, 0.5, 0))  # type: ignore[return-value]

    def _two_jumps(self, x: Any, times: tuple[Any, Any, Any], batch: Batch, scalars: Any, ctx: Context) -> Any:
        role, (t, m, s) = ctx.roles[self.teacher], times
        inputs = scalars if self.teacher_takes else {}
        x_m = role.denoiser.path.jump(x, role.ask(x, t, batch.cond, **inputs).x0, t, m)
        return role.denoiser.path.jump(x_m, role.ask(x_m, m, batch.cond, **inputs).x0, m, s)
