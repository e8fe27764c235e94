"""Trajectories along a teacher's moves: two steps as one, its route as a target, its route as data."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, ClassVar

import torch

from distill.core import Batch, Context, Event, Trajectory, cfg, rollout, tree
from distill.core.sampling import DPM, Grid, Move, Solver
from distill.methods.losses import guidance_of
from distill.methods.trajectories import draw_scalars


class GridJumps(Trajectory):
    """Halving targets: the x0 whose one jump from t lands where two teacher jumps land.

    Times are `t = (i+1)/N` of the path's range with i drawn per sample, `m = t − 1/2N` and `s = t − 1/N`
    (progressive distillation: Salimans & Ho 2022, arXiv:2202.00512, algorithm 2). The target is the inverse
    jump of the teacher's x_s; where σ_s = 0 the teacher's last x0 is copied by it.
    """

    example: ClassVar[dict[str, Any]] = {"steps": 4}
    steps: int
    """N, the student's jumps from noise to data."""
    teacher: str = "teacher"
    """Role that makes the two jumps."""
    scalars: dict[str, tuple[float, float]] = {}
    """Extra inputs of both networks, drawn uniformly per sample; the same in all three calls."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student, path = ctx.roles["student"], ctx.roles["student"].denoiser.path
        t, m, s = self._times(batch, path, ctx)
        noise = batch.noise(ctx.rng, "halving/noise")
        x_t = path.noised(batch.data, noise, t)
        scalars = draw_scalars(self.scalars, batch.size, ctx)
        target = path.inverse_jump(x_t, self._two_jumps(x_t, (t, m, s), batch, scalars, ctx), t, s)
        with torch.set_grad_enabled(attached):
            said = student.predict(x_t, t, batch.cond, **scalars)
        yield Event(said.x0, batch.cond, t, x_t, noise, said, targets={"x0": target}, scalars=scalars, meta={"s": s})

    def _times(self, batch: Batch, path: Any, ctx: Context) -> tuple[Any, Any, Any]:
        first = tree.leaves(batch.data)[0]
        i = ctx.rng.integers(self.steps, batch.size, stream="halving/index").to(first)
        span = (path.t_max - path.t_min) / self.steps
        return tuple(path.t_min + span * (i + ahead) for ahead in (1, 0.5, 0))

    def _two_jumps(self, x: Any, times: tuple[Any, Any, Any], batch: Batch, scalars: Any, ctx: Context) -> Any:
        role, (t, m, s) = ctx.roles[self.teacher], times
        x_m = role.denoiser.path.jump(x, role.ask(x, t, batch.cond, **scalars).x0, t, m)
        return role.denoiser.path.jump(x_m, role.ask(x_m, m, batch.cond, **scalars).x0, m, s)


class TeacherRoute(Trajectory):
    """The student's own roll-out beside its teacher's, from one noise: an event at every step of the student.

    The teacher walks a grid refined K times; its states at the student's times are the targets. The student
    goes on from where it got to, detached and computed before the engine's step at that event (SFD: Zhou et
    al. 2024, arXiv:2409.19681).
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


class Harvest(Trajectory):
    """Training points picked from the teacher's own route from noise: no data, no noising.

    N jittered times, the first of them noise alone and not kept; at each of the others the event holds the
    route's state, the teacher's velocity there, and what the student says (TBCM: Tang et al. 2025,
    arXiv:2511.20410). All points of all routes form one event of (N − 1)·B samples.
    """

    points: int = 16
    """N, steps of the route."""
    shift: float = 2.5
    """Timestep shift of the flow time τ, with tan t = τ/(1−τ)."""
    guidance: tuple[float, ...] = ()
    """Guidance weights of the teacher, one drawn per sample; the student's input w; none if empty."""
    blank: float | None = None
    """Value of an empty sample; a route that ends near one is dropped with probability 1 − MSE."""
    teacher: str = "teacher"
    """Role that shows the route."""

    def times(self, ctx: Context) -> tuple[float, ...]:
        """This iteration's route: π/2, then a uniform time in each interval of the reference, then 0."""
        tau = torch.linspace(1, 0, self.points, dtype=torch.float64)
        tau = self.shift * tau / (1 + (self.shift - 1) * tau)
        edges = torch.atan2(tau, 1 - tau)
        u = torch.rand(self.points - 1, generator=ctx.rng.generator("harvest/jitter"), device=ctx.rng.device).to(edges)
        inside = torch.lerp(edges[1:], edges[:-1], u)
        return (float(edges[0]), *inside.tolist(), 0.0)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student, teacher = ctx.roles["student"], ctx.roles[self.teacher]
        times, scalars = self.times(ctx), self._weights(batch, ctx)
        start = student.denoiser.path.prior(batch.noise(ctx.rng, "harvest/noise"), times[0])
        guidance = cfg(scalars["w"]) if scalars else None
        moves = list(rollout(teacher, start, times, cond=batch.cond, guidance=guidance))
        kept, end = moves[1:], moves[-1].next
        x_t, t = tree.concatenate([move.x for move in kept]), torch.cat([move.prediction.t for move in kept])
        velocity = tree.concatenate([move.prediction.velocity for move in kept])
        cond, inputs = repeated(batch.cond, len(kept)), repeated(scalars, len(kept))
        with torch.set_grad_enabled(attached):
            said = student.predict(x_t, t, cond, **inputs)
        yield Event(
            said.x0, cond, t, x_t, None, said, targets={"velocity": velocity}, scalars=inputs,
            weight=self._full(end, ctx, len(kept)), meta={"times": times, "end": end},
        )  # fmt: skip

    def _weights(self, batch: Batch, ctx: Context) -> dict[str, Any]:
        if not self.guidance:
            return {}
        choice = ctx.rng.integers(len(self.guidance), batch.size, stream="harvest/guidance")
        return {"w": torch.tensor(self.guidance, device=choice.device)[choice]}

    def _full(self, end: Any, ctx: Context, times: int) -> Any:
        """1 for the samples that are kept and 0 for those too near to an empty one, or None."""
        if self.blank is None:
            return None
        gap = tree.mean(tree.tree_map(lambda x: (x - self.blank) ** 2, end))
        return (ctx.rng.uniform(len(gap), stream="harvest/blank") < gap).to(gap).repeat(times)


def repeated(named: Any, times: int) -> dict[str, Any]:
    """Named values of a batch, so many times over."""
    return {name: tree.concatenate([value] * times) for name, value in named.items()}


class WindowPairs(Trajectory):
    """The mean velocity over two neighbouring windows as a target for the first of them (SCFM: arXiv:2510.17858).

    A share of the samples steps on the teacher's grid, the first window by the teacher; the others on grids of a few
    steps, the first window by `fast`. The second window is `slow`'s. Grids are shifted, each sample's by its own s.
    """

    fine: int = 32
    """Steps of the teacher's grid."""
    coarse: tuple[int, ...] = (2, 4, 8, 16)
    """Steps of the other grids, all even; one is drawn per sample."""
    share: float = 0.4
    """Share of the samples on the teacher's grid."""
    shift: tuple[float, float] = (2.5, 4.5)
    """Range of s of the timestep shift s t / (1 + (s − 1) t)."""
    teacher: str = "teacher"
    """Role of the first window on the fine grid."""
    guidance: float = 1.0
    """w of its guidance where it is drawn from no range."""
    weights: tuple[float, float] | None = None
    """Range of w, drawn per sample; None takes `guidance`."""
    fast: str = "fast"
    """Role of the first window on coarse grids."""
    slow: str = "slow"
    """Role of every second window."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student = ctx.roles["student"]
        noise = batch.noise(ctx.rng, "windows/noise")
        count = int(self.share * batch.size + ctx.rng.uniform(1, stream="windows/share"))
        t, m, s = self.windows(count, batch, student.denoiser.path, ctx)
        x_t = student.denoiser.path.noised(batch.data, noise, t)
        velocity = self._mean_velocity(x_t, (t, m, s), count, batch, ctx)
        with torch.set_grad_enabled(attached):
            said = student.predict(x_t, t, batch.cond)
        yield Event(
            said.x0, batch.cond, t, x_t, noise, said, targets={"velocity": velocity, "real": batch.data},
            meta={"middle": m, "end": s, "of_teacher": count},
        )  # fmt: skip

    def windows(self, count: int, batch: Batch, path: Any, ctx: Context) -> tuple[Any, ...]:
        """Ends of the two windows, [B] each, descending; the first `count` samples are the teacher's."""
        first, size = tree.leaves(batch.data)[0], batch.size
        steps = torch.tensor(self.coarse, device=ctx.rng.device)
        n = steps[ctx.rng.integers(len(self.coarse), size, stream="windows/steps")]
        n[:count] = self.fine
        pair = (ctx.rng.uniform(size, stream="windows/pair") * (n // 2)).long()
        low, high = self.shift
        shift = low + (high - low) * ctx.rng.uniform(size, stream="windows/shift")
        even = [(n - 2 * pair - ahead) / n for ahead in range(3)]
        shifted = [
            (shift * t / (1 + (shift - 1) * t)).to(torch.promote_types(first.dtype, torch.float32)) for t in even
        ]
        return tuple(path.t_min + (path.t_max - path.t_min) * t for t in shifted)

    @torch.no_grad()
    def _mean_velocity(self, x: Any, times: tuple[Any, ...], count: int, batch: Batch, ctx: Context) -> Any:
        t, m, s = times
        v = self._first(x, t, count, batch, ctx)
        w = ctx.roles[self.slow].predict(tree.combine((1.0, x), (m - t, v)), m, batch.cond).velocity
        return tree.combine(((t - m) / (t - s), v), ((m - s) / (t - s), w))

    def _first(self, x: Any, t: Any, count: int, batch: Batch, ctx: Context) -> Any:
        """Velocities in the first window: the teacher's of the first `count` samples, then those of `fast`."""
        place = torch.arange(batch.size, device=t.device)
        parts = []
        for name, rows in ((self.teacher, place[:count]), (self.fast, place[count:])):
            if len(rows):
                cond = {key: tree.index(value, rows) for key, value in batch.cond.items()}
                guidance = self._guidance(rows, ctx) if name == self.teacher else None
                parts.append(ctx.roles[name].predict(tree.index(x, rows), t[rows], cond, guidance=guidance).velocity)
        return tree.concatenate(parts)

    def _guidance(self, rows: Any, ctx: Context) -> Any:
        if self.weights is None:
            return guidance_of(self.guidance)
        low, high = self.weights
        return cfg(low + (high - low) * ctx.rng.uniform(len(rows), stream="windows/guidance"))
