"""Where students of super-resolution learn: at two ratios of one picture, and at the ends of their teacher's routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from distill.core import Batch, Context, Event, GaussianPath, Prediction, Role, Sampler, Trajectory
from distill.core.tree import combine
from distill.image.super_resolution.data import whole
from distill.image.super_resolution.degradations import AnyDegradation, Bicubic, degraded, resized
from distill.methods.pairs import recall
from distill.methods.times import Times, UniformTimes


class TwoScales(Trajectory):
    """A picture noised once, which the student sees with a low-resolution picture at one ratio, and its teacher with
    one at a smaller ratio (YONOS-SR: arXiv:2401.17258, section 3.2).

    `targets["x0"]` is what the teacher says, or the truth if there is none, and `targets["real"]` the truth, both as
    states of the student's ratio. Residuals belong to their ratio: theirs share the picture, the time and the noise.
    """

    ratio: float = 4.0
    """How many times smaller the student's pictures are."""
    easy: float = 2.0
    """How many times smaller the teacher's are."""
    teacher: str = ""
    """Role of the teacher; none if empty."""
    times: Times = UniformTimes()
    """Noise levels."""
    degradation: AnyDegradation = Bicubic()
    """How low-resolution pictures come about; both have the same draw."""
    state: Literal["residual", "picture"] = "residual"
    """What states are."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student = ctx.roles["student"]
        high = whole(batch.data, batch.cond["low"], self.state)
        seed = int(ctx.rng.integers(2**31, 1, stream="scales/degradation"))
        t = self.times.draw(student.denoiser.path, batch.size, ctx.rng, "scales/time")
        noise = batch.noise(ctx.rng, "scales/noise")
        x, x_t, cond = self._seen(high, self.ratio, seed, t, noise, student, batch)
        with torch.set_grad_enabled(attached):
            said = student.predict(x_t, t, cond)
        target = x
        if self.teacher:
            easy, easy_t, told = self._seen(high, self.easy, seed, t, noise, student, batch)
            target = ctx.roles[self.teacher].ask(easy_t, t, told).x0 + x - easy
        yield Event(said.x0, cond, t, x_t, noise, said, targets={"x0": target, "real": x})

    def _seen(
        self, high: Tensor, ratio: float, seed: int, t: Any, noise: Any, role: Role, batch: Batch
    ) -> tuple[Any, Any, dict[str, Any]]:
        """The state at a ratio, clean and noised, and its conditions."""
        small = degraded(high, ratio, self.degradation, seed)
        low = torch.stack([resized(one, (high.shape[2], high.shape[3])) for one in small])
        x = high - low if self.state == "residual" else high
        return x, role.denoiser.path.noised(x, noise, t), {**batch.cond, "low": low}


class TeacherEnds(Trajectory):
    """The student's answer to noise alone, and where the teacher's sampler leads from the same noise: `targets["x"]`.

    The pairs of SinSR (arXiv:2311.14760, section 3.2); the student starts from the very state that the teacher does.
    """

    sampler: Sampler = Sampler(steps=15)
    """How the teacher moves; a deterministic one, for the pairs to be pairs."""
    teacher: str = "teacher"
    """Role that moves."""
    tapped: bool = False
    """Keep the features at the taps that the student's network names."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student = ctx.roles["student"]
        noise, end = self.pair(batch, ctx)
        start, t = self.sampler.start(student, noise), student.denoiser.path.t_max
        taps = student.denoiser.taps if self.tapped else ()
        with torch.set_grad_enabled(attached):
            said = student.predict(start, t, batch.cond, taps=taps)
        yield Event(said.x0, batch.cond, said.t, start, noise, said, targets={"x": end, "real": batch.data})

    def pair(self, batch: Batch, ctx: Context) -> tuple[Any, Any]:
        """Noise, and the teacher's end for it."""
        noise = batch.noise(ctx.rng, "ends/noise")
        return noise, self.sampler.sample(ctx.roles[self.teacher], noise, batch.cond, ctx.rng)


class AnchoredPairs(Trajectory):
    """Stored pairs of a generator's noise and end, met between the low-resolution picture and the noise (FluxSR:
    arXiv:2502.01993, section 3.2).

    The low-resolution picture x_L stands at the time T, and `x_t = ((1 − t) x_L + (t − T) x_1) / (1 − T)` above it, x_1
    being the generator's start at the path's last time, 1. The answer is `x_L − T v` of a network that says velocities,
    so that v goes from x0 to x_L, and the x0 of any other. The event's state is the answer to x_L at T,
    `meta["paired"]` that to x_t at t, and the targets `real` and `end` are the generator's end.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "a phase before must have stored pairs"}
    anchor: float = 0.25
    """T."""
    state: Literal["residual", "picture"] = "residual"
    """What states are; x_L is the residual 0."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student, (noise, end, cond) = ctx.roles["student"], recall(batch.size, ctx)
        low = torch.zeros_like(end) if self.state == "residual" else cond["low"]
        t, x_t = self.between(student.denoiser.path, low, noise, ctx)
        with torch.set_grad_enabled(attached):
            said = student.predict(low, self.anchor, cond, taps=student.denoiser.taps)
            x, paired = (self.answer(each, low) for each in (said, student.predict(x_t, t, cond)))
        targets = {"real": end, "end": end}
        yield Event(x, cond, said.t, low, noise, said, targets=targets, meta={"paired": paired})

    def between(self, path: GaussianPath, low: Tensor, noise: Tensor, ctx: Context) -> tuple[Tensor, Any]:
        """t, drawn for each sample, and x_t."""
        share = ctx.rng.uniform(len(low), stream="anchored/time")
        x_t = combine((1 - share, low), (share, path.prior(noise)))
        return self.anchor + (path.t_max - self.anchor) * share, x_t

    def answer(self, said: Prediction, low: Tensor) -> Any:
        """The clean state that a prediction means."""
        return combine((1.0, low), (-self.anchor, said.value)) if said.kind == "velocity" else said.x0
