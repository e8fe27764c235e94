"""Where training events come from: data, the student's own roll-out, a teacher's route, a view of a subject."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from distill.core import Batch, Context, Event, Sampler, Subject, Trajectory, rollout, tree
from distill.core.sampling import Consistency, Solver
from distill.methods.times import Times, UniformTimes


class Data(Trajectory):
    """The data themselves, for losses that noise them on their own (teachers, critics of real data)."""

    @property
    def moves(self) -> tuple[str, ...]:
        return ()

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        yield Event(batch.data, batch.cond, targets={"real": batch.data})


class NoisedData(Trajectory):
    """Data noised to random times, and the student's prediction there."""

    times: Times = UniformTimes()
    """Noise levels."""
    scalars: dict[str, tuple[float, float]] = {}
    """Extra inputs of the student, drawn uniformly per sample between two values."""
    role: str = "student"
    """Who predicts."""
    pure_end: bool = False
    """At the path's last time the state is noise alone, as in sampling, even where the path keeps some of the data."""

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
        with torch.set_grad_enabled(attached):
            prediction = role.predict(x_t, t, batch.cond, **scalars)
        yield Event(prediction.x0, batch.cond, t, x_t, noise, prediction, targets={"real": batch.x}, scalars=scalars)


class Generate(Trajectory):
    """The student's own samples, by backward simulation: one step of its sampler carries gradient, those before do not.

    One time is a one-step generator. With several, one is drawn for the whole batch, the steps before it run as in
    sampling, and the loss sees that step's x0 (DMD2: Yin et al. 2024, arXiv:2405.14867, section 4.5).
    """

    times: tuple[float, ...] = (1.0,)
    """The student's times, descending, as in its sampler."""
    shares: tuple[float, ...] = ()
    """Probability of each time to be the one that is learnt at; equal if empty."""
    solver: Solver = Consistency()
    """How it moves between them."""
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
        start = path.prior(noise, self.times[0])
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
        yield Event(x, ctx.conditions(batch.cond, state))


def draw_scalars(ranges: dict[str, tuple[float, float]], size: int, ctx: Context) -> dict[str, Any]:
    """Extra inputs, uniform between two values, one per sample [B]."""
    return {
        name: low + (high - low) * ctx.rng.uniform(size, stream=f"scalar/{name}")
        for name, (low, high) in ranges.items()
    }


def sampler_at(times: tuple[float, ...], **options: Any) -> Sampler:
    """The sampler of a student that was trained at these times with `Generate`."""
    return Sampler(times=times, steps=len(times), solver=Consistency(), **options)
