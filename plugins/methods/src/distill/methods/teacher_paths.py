"""Trajectories along a teacher's moves: two jumps as one, its route as a target, its route as training data."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

import torch
from distill.core import Batch, Context, Event, Trajectory, rollout, tree
from distill.core.sampling import DPM, Grid, Move, Solver

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
        x_m = role.denoiser.path.jump(x, role.ask(x, t, batch.cond, **scalars).x0, t, m)
        return role.denoiser.path.jump(x_m, role.ask(x_m, m, batch.cond, **scalars).x0, m, s)


class TeacherRoute(Trajectory):
    """The student's own roll-out beside its teacher's, from one noise: an event at every step of the student.

    The teacher walks a grid refined K times; its states at the student's times are the targets. The student goes on from
    where it got to, detached and computed before the engine's step at that event (SFD: Zhou et al. 2024,
    arXiv:2409.19681).
    """

    steps: tuple[int, ...] = (3,)
    """Steps of the student's sampler, a free one included; with several, one is drawn for each iteration."""
    grid: Grid = Grid(spacing="karras", low=0.006)
    """The student's times; the teacher's are the same spacing with K times as many steps."""
    refine: int = 4
    """K, the teacher's steps in one of the student's."""
    solver: Solver = DPM(order=3)
    """How the teacher moves; a multistep solver's history runs along the whole route."""
    free_first: bool = True
    """The student's first step needs no network and is not trained (analytical first step)."""
    teacher: str = "teacher"
    """Role that shows the route."""
    count: str = ""
    """Extra input of the student that gets the number of steps; none if empty."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role = ctx.roles["student"]
        steps = self.steps[ctx.rng.choice(len(self.steps), stream="route/steps")]
        fine = self.grid.times(role.denoiser.path, steps * self.refine)
        start = role.denoiser.path.prior(batch.noise(ctx.rng, "route/noise"), fine[0])
        route = self._route(start, fine, batch, ctx)
        scalars = {self.count: torch.full((batch.size,), float(steps), device=ctx.rng.device)} if self.count else {}
        walk = rollout(
            role, start, fine[:: self.refine], cond=batch.cond, scalars=scalars, free_first=self.free_first,
            attach=range(steps) if attached else (),
        )  # fmt: skip
        for move in detached(walk):
            if move.n or not self.free_first:
                yield Event(
                    move.next, batch.cond, move.prediction.t, move.x, None, move.prediction,
                    targets={"x": route[move.n]}, scalars=scalars, meta={"step": move.n},
                )  # fmt: skip

    def _route(self, start: Any, fine: tuple[Any, ...], batch: Batch, ctx: Context) -> list[Any]:
        """The teacher's states at the ends of the student's steps."""
        walk = rollout(ctx.roles[self.teacher], start, fine, solver=self.solver, cond=batch.cond)
        return [move.next for move in walk][self.refine - 1 :: self.refine]


def detached(walk: Generator[Move, Any, Any]) -> Iterator[Move]:
    """The steps of a roll-out, each from the last one's state without its gradient."""
    with suppress(StopIteration):
        move = next(walk)
        while True:
            yield move
            move = walk.send(tree.detach(move.next))
