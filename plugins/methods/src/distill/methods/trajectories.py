"""Where training events come from: data, the student's own roll-out, a teacher's route, a view of a subject."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from distill.core import Batch, Context, Event, Sampler, Subject, Trajectory, rollout, tree
from distill.core.sampling import DPM, Consistency, Grid, Solver, finish
from distill.methods.losses import draw_guidance, guidance_of
from distill.methods.times import Times, UniformTimes


class Data(Trajectory):
    """The data themselves, for losses that noise them on their own (teachers, critics of real data)."""

    @property
    def moves(self) -> tuple[str, ...]:
        return ()

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        yield Event(batch.data, batch.cond, targets={"real": batch.data})


class NoisedData(Trajectory):
    """Data noised to random times, `x_t = α_t x0 + σ_t ε`, and the student's prediction there."""

    times: Times = UniformTimes()
    """Noise levels."""
    scalars: dict[str, tuple[float, float]] = {}
    """Extra inputs of the student, drawn uniformly per sample between two values."""
    role: str = "student"
    """Who predicts."""
    pure_end: bool = False
    """At the path's last time the state is noise alone, as in sampling, even where the path keeps some of the data."""
    tapped: bool = False
    """Keep the features at the taps that the network names, for losses that look at them, of the same call."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role, size = ctx.roles[self.role], batch.size
        path = role.denoiser.path
        t = self.times.draw(path, size, ctx.rng, "data/time")
        noise = batch.noise(ctx.rng, "data/noise")
        x_t = path.noised(batch.data, noise, t)
        if self.pure_end:
            x_t = tree.where(t >= path.t_max, path.prior(noise), x_t)
        scalars = draw_scalars(self.scalars, size, ctx)
        taps = role.denoiser.taps if self.tapped else ()
        with torch.set_grad_enabled(attached):
            prediction = role.predict(x_t, t, batch.cond, taps=taps, **scalars)
        yield Event(prediction.x0, batch.cond, t, x_t, noise, prediction, targets={"real": batch.x}, scalars=scalars)


class Generate(Trajectory):
    """The student's own samples, by backward simulation: one step of its sampler carries gradient, those before do not.

    One time is a one-step generator. With several, one is drawn for the whole batch, the steps before it run as in
    sampling, and the loss sees that step's x0 (DMD2: Yin et al. 2024, arXiv:2405.14867, section 4.5): `x = D(x_t)`,
    where each step before led to `x_s = α_s D(x_t) + σ_s ε`.
    """

    times: tuple[float, ...] = (1.0,)
    """The student's times, descending, as in its sampler."""
    shares: tuple[float, ...] = ()
    """Probability of each time to be the one that is learnt at; equal if empty."""
    solver: Solver = Consistency()
    """How it moves between them."""
    temperature: float = 1.0
    """Factor of the noise that it starts from; at 0 it starts from the state 0, where states are residuals."""
    role: str = "student"
    """Who generates."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role = ctx.roles[self.role]
        path = role.denoiser.path
        noise = batch.noise(ctx.rng, "generate/noise")
        one = len(self.times) == 1
        k = 0 if one else ctx.rng.choice(len(self.times), shares=self.shares, stream="generate/step")
        start = path.prior(noise if self.temperature == 1 else tree.combine((self.temperature, noise)), self.times[0])
        walk = rollout(
            role, start, (*self.times, path.t_min), solver=self.solver, cond=batch.cond, rng=ctx.rng,
            stream="generate/renoise", attach={k} if attached else (),
        )  # fmt: skip
        with torch.set_grad_enabled(attached):
            move = next(move for move in walk if move.n == k)
            x = ctx.through_lens(move.prediction.x0)
        step = torch.full((tree.batch_size(x),), float(k), device=ctx.rng.device)
        yield Event(
            x, ctx.conditions(batch.cond, move.x), move.prediction.t, move.x, noise, move.prediction,
            targets={} if batch.x is None else {"real": batch.x}, scalars={"step": step}, meta={"step": k},
        )  # fmt: skip


class OwnRoute(Trajectory):
    """The student's own deterministic route from noise, and its x0 at one of its times, drawn for each sample.

    `targets["next"]` is the point of the route that this x0 leads to, without gradient, and `scalars["next_time"]` its
    time [B] (TDM: Luo et al. 2025, arXiv:2503.06674, section 3).
    """

    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times, descending, as in its sampler."""
    role: str = "student"
    """Who walks."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role = ctx.roles[self.role]
        path = role.denoiser.path
        start = path.prior(batch.noise(ctx.rng, "route/noise"), self.times[0])
        walk = rollout(role, start, self.times, cond=batch.cond)
        k = ctx.rng.integers(len(self.times), batch.size, stream="route/step")
        x_t = start
        for move in walk:
            x_t = tree.where(k == move.n + 1, move.next, x_t)
        edges = torch.tensor((*self.times, path.t_min), device=k.device)
        t, s = edges[k], edges[k + 1]
        with torch.set_grad_enabled(attached):
            said = role.predict(x_t, t, batch.cond)
        onward = path.jump(x_t, tree.detach(said.x0), t, s)
        yield Event(
            said.x0, batch.cond, t, x_t, None, said, targets={"next": onward},
            scalars={"step": k.to(t), "next_time": s},
        )  # fmt: skip


class StageJumps(Trajectory):
    """One jump of the student over each stretch of a grid, beside several of its teacher's from the same state.

    With N steps, `t = (i+1)/N` of the path's range with i drawn per sample; at the last time the state is noise alone.
    The event's state is where the student lands, `targets["real"]` where the teacher does, `targets["x0"]` the x0 whose
    jump lands there too, and `scalars["next_time"]` the time of both (SDXL-Lightning: Lin et al. 2024,
    arXiv:2402.13929, section 3.2).
    """

    steps: int = 4
    """N, the student's jumps from noise to data."""
    refine: int = 2
    """The teacher's jumps in one of the student's."""
    teacher: str = "teacher"
    """Role that shows where to land."""
    guidance: float = 1.0
    """w of the teacher's guidance."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student, path = ctx.roles["student"], ctx.roles["student"].denoiser.path
        i = ctx.rng.integers(self.steps, batch.size, stream="stage/index").to(tree.leaves(batch.data)[0])
        stretch = (path.t_max - path.t_min) / self.steps
        s = path.t_min + stretch * i
        t = s + stretch
        noise = batch.noise(ctx.rng, "stage/noise")
        x_t = tree.where(i == self.steps - 1, path.prior(noise), path.noised(batch.data, noise, t))
        end = self._land(x_t, s, stretch, batch, ctx)
        with torch.set_grad_enabled(attached):
            said = student.predict(x_t, t, batch.cond)
            x = path.jump(x_t, said.x0, t, s)
        yield Event(
            x, batch.cond, t, x_t, noise, said, scalars={"next_time": s},
            targets={"real": end, "x0": path.inverse_jump(x_t, end, t, s)},
        )  # fmt: skip

    def _land(self, x: Any, s: Any, stretch: float, batch: Batch, ctx: Context) -> Any:
        role, step = ctx.roles[self.teacher], stretch / self.refine
        guidance = guidance_of(self.guidance)
        for left in range(self.refine, 0, -1):
            t, t_next = s + left * step, s + (left - 1) * step
            x0 = role.ask(x, t, batch.cond, guidance=guidance).x0
            x = role.denoiser.path.jump(x, x0, t, t_next)
        return x


class SolvedData(Trajectory):
    """Data noised to one point of a grid, drawn for the whole batch, and where a teacher's solver takes it from there.

    The target is the state at the end of the grid, under a guidance drawn with it. The point's law is a mixture of
    Gaussians on the grid's K indices around `len(shares)` of them at equal distances, the first of which is noise alone
    (Flash Diffusion: Chadebec et al. 2024, arXiv:2406.02347, section 3.2).
    """

    points: int = 32
    """K, steps of the teacher from noise to data."""
    shares: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)
    """Weights of the mixture's parts, noisiest first."""
    variance: float = 0.5
    """Variance of each part, in indices."""
    guidance: tuple[float, float] = (1.0, 1.0)
    """Between which w of the teacher's guidance is drawn."""
    solver: Solver = DPM()
    """How the teacher moves."""
    teacher: str = "teacher"
    """Role that solves."""

    def law(self) -> tuple[float, ...]:
        """Probability of each index of the grid."""
        place = torch.arange(self.points, dtype=torch.float64)
        centres = place[:: self.points // len(self.shares), None][: len(self.shares)]
        parts = (-((place - centres) ** 2) / (2 * self.variance)).exp()
        weights = torch.tensor(self.shares, dtype=torch.float64) @ (parts / parts.sum(1, keepdim=True))
        return tuple((weights / weights.sum()).tolist())

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student, path = ctx.roles["student"], ctx.roles["student"].denoiser.path
        times = Grid().times(path, self.points)
        k = ctx.rng.choice(self.points, shares=self.law(), stream="solved/index")
        noise = batch.noise(ctx.rng, "solved/noise")
        t = student.denoiser.times(times[k], noise)
        x_t = path.noised(batch.data, noise, t) if k else path.prior(noise)
        w = draw_guidance(*self.guidance, ctx, "solved/guidance")
        teacher = ctx.roles[self.teacher]
        walk = rollout(teacher, x_t, times[k:], solver=self.solver, cond=batch.cond, guidance=guidance_of(w))
        targets = {"real": batch.data, "x0": finish(walk)}
        with torch.set_grad_enabled(attached):
            said = student.predict(x_t, t, batch.cond)
        yield Event(said.x0, batch.cond, t, x_t, noise, said, targets=targets, meta={"step": k})


class View(Trajectory):
    """A view of a subject that is no network: it materialises itself, and a lens shows it in the teacher's modality."""

    role: str = "student"
    """The subject's role."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        subject = ctx.roles[self.role].module
        assert isinstance(subject, Subject)
        with torch.set_grad_enabled(attached):
            state = subject.materialise(batch, ctx.rng)
            x = ctx.through_lens(state)
        yield Event(x, ctx.conditions(batch.cond, state), targets={} if batch.x is None else {"real": batch.x})


def draw_scalars(ranges: dict[str, tuple[float, float]], size: int, ctx: Context) -> dict[str, Any]:
    """Extra inputs, uniform between two values, one per sample [B]."""
    return {
        name: low + (high - low) * ctx.rng.uniform(size, stream=f"scalar/{name}")
        for name, (low, high) in ranges.items()
    }


def sampler_at(times: tuple[float, ...], **options: Any) -> Sampler:
    """The sampler of a student that was trained at these times with `Generate`."""
    return Sampler(times=times, steps=len(times), solver=Consistency(), **options)
