"""Consistency: of jumps to a target time across one step of a teacher, and along the tangent of the flow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from distill.core import (
    Batch,
    Context,
    DistillError,
    Event,
    HeadBuilder,
    Loss,
    Options,
    Prediction,
    Rng,
    Roles,
    Terms,
    Trajectory,
    tree,
)
from distill.core.guidance import EVERYTHING, cfg
from distill.core.paths import GaussianPath, Trigonometric
from distill.methods.losses import guidance_of
from distill.methods.trajectories import draw_scalars

Function = Callable[[Any, Tensor], Any]

# ---------------------------------------------------------------- directional derivatives


def exact(fn: Function, x: Any, t: Tensor, dx: Any, dt: Tensor) -> tuple[Any, Any]:
    """fn(x, t) and its derivative along (dx, dt), by forward-mode differentiation."""
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward mode
        # torch's forward mode loads decompositions that it compiles with its own deprecated compiler
        warnings.simplefilter("ignore", FutureWarning)
        both: tuple[Any, Any] = torch.func.jvp(fn, (x, t), (dx, dt))  # type: ignore[assignment]
    return both


def difference(fn: Function, x: Any, t: Tensor, dx: Any, dt: Tensor, step: float = 1e-3) -> tuple[Any, Any]:
    """The same by a central difference, for attention kernels and states that know no forward mode."""
    ahead = fn(tree.combine((1.0, x), (step, dx)), t + step * dt)
    behind = fn(tree.combine((1.0, x), (-step, dx)), t - step * dt)
    return fn(x, t), tree.combine((0.5 / step, ahead), (-0.5 / step, behind))


DERIVATIVES: dict[str, Callable[..., tuple[Any, Any]]] = {"exact": exact, "difference": difference}


# ---------------------------------------------------------------- the loss


class ContinuousConsistency(Loss):
    """Consistency of a TrigFlow student along dx/dt, for small steps (Lu & Song 2024, arXiv:2410.11081).

    With `F = velocity / σ_d`, the student is pulled along the tangent
    `g = −cos²t (σ_d F⁻ − dx/dt) − r (cos t sin t x_t + σ_d ∂F)`, `∂F` being its derivative along cos t sin t
    (dx/dt, 1) and F⁻ itself without gradient: `e^−v ‖F − F⁻ − g/(‖g‖ + c)‖² / (σ_d tan t) + v`.
    """

    teacher: str = "teacher"
    """Role whose velocity is dx/dt where the event brings none."""
    derivative: Literal["exact", "difference"] = "exact"
    """How ∂F is taken."""
    warmup: int = 4000
    """Iterations over which r grows from 0 to 1; r = 0 is velocity matching."""
    floor: float = 0.1
    """c, added to the tangent's norm."""
    variance: str = "variance"
    """Role that says v, the log of the loss's own size at a time; none if empty."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (*self.moves, self.teacher)

    @property
    def moves(self) -> tuple[str, ...]:
        return ("student", self.variance) if self.variance else ("student",)

    def terms(self, event: Event, ctx: Context) -> Terms:
        assert event.prediction is not None
        said, t, sigma_data = event.prediction, event.t, data_std(event.prediction.path)
        tangent = self.tangent(event, ctx)
        norm = tree.per_sample(tree.tree_map(torch.square, tangent))[0].sqrt()
        gap = tree.combine(
            (1 / sigma_data, said.velocity),
            (-1 / sigma_data, tree.detach(said.velocity)),
            (-1 / (norm + self.floor), tangent),
        )
        error = tree.per_sample(tree.tree_map(torch.square, gap))[0] / (sigma_data * t.tan()).clamp_min(1e-3)
        if not self.variance:
            return {"consistency": error}
        level = ctx.roles[self.variance](t)
        return {"consistency": (-level).exp() * error + level}

    @torch.no_grad()
    def tangent(self, event: Event, ctx: Context) -> Any:
        """g, before it is normalised."""
        x, t, slope = event.x_t, event.t, event.t.cos() * event.t.sin()
        flow = event.targets["velocity"] if "velocity" in event.targets else self._velocity(event, ctx)

        inputs: dict[str, Any] = dict(event.scalars)

        def velocity(x: Any, t: Tensor) -> Any:
            return ctx.roles["student"].predict(x, t, event.cond, **inputs).velocity

        own, change = DERIVATIVES[self.derivative](velocity, x, t, tree.combine((slope, flow)), slope)
        rate = min(1.0, ctx.step / self.warmup) if self.warmup else 1.0
        return tree.combine((-(t.cos() ** 2), own), (t.cos() ** 2, flow), (-rate * slope, x), (-rate, change))

    def _velocity(self, event: Event, ctx: Context) -> Any:
        return ctx.roles[self.teacher].ask(event.x_t, event.t, event.cond).velocity


def data_std(path: GaussianPath) -> float:
    """σ_d of a trigonometric path; other paths have no such consistency."""
    if not isinstance(path, Trigonometric):
        raise DistillError(
            "continuous-time consistency is written for the trigonometric path, "
            f"and this denoiser's is {type(path).__name__}"
        )
    return path.sigma_data


class LogVariance(nn.Module):
    """v(t), zero until it is trained: [B]."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-2, 3, width // 2))
        self.out = nn.Linear(width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, t: Tensor) -> Tensor:
        phase = t[:, None] * self.frequencies
        out: Tensor = self.out(torch.cat([phase.sin(), phase.cos()], 1)).squeeze(1)
        return out


class VarianceHead(HeadBuilder):
    """The log-variance of a loss as a function of time (Karras et al. 2024, arXiv:2312.02696)."""

    width: int = 64
    """Fourier features of the time."""

    def build(self, roles: Roles) -> nn.Module:
        return LogVariance(self.width)


# ---------------------------------------------------------------- target times


class Segments(Options):
    """The range is cut into equal segments; a jump ends within the segment that it begins in."""

    name: Literal["segments"] = "segments"
    count: int = 1
    """Segments k; with one, jumps may end anywhere (CTM: Kim et al. 2024, arXiv:2310.02279)."""
    anywhere: bool = True
    """Uniformly between the segment's floor and the next point (Hyper-SD: arXiv:2404.13686, section 3.1), or always at
    the floor, which is plain consistency with one segment (PCM: Wang et al. 2024, arXiv:2405.18407)."""

    def floor(self, start: Tensor, points: int) -> Tensor:
        """Lower end of the segment that each start lies in; a start on a boundary belongs to the segment below."""
        return ((start * self.count / points).ceil() - 1) * points / self.count

    def draw(self, following: Tensor, floor: Tensor, points: int, rng: Rng) -> Tensor:
        """Where each jump ends, in steps of the grid: [B]."""
        if not self.anywhere:
            return floor
        return floor + (following - floor) * rng.uniform(len(floor), stream="jump/target")


class StepTimes(Options):
    """A jump ends at one of the times that samplers of a few steps would visit (TDD: arXiv:2409.01347, section 3.2)."""

    name: Literal["step-times"] = "step-times"
    fewest: int = 4
    """Smallest number of steps whose times belong to the set."""
    most: int = 8
    """Largest number of steps."""
    window: float = 0.26
    """How far below the highest allowed time of the set a jump may end, as a fraction of the range."""
    shrink: float = 0.3
    """η: targets move down to (1 − U η) of themselves, U uniform, for a sampler that overshoots and re-noises."""

    def members(self, points: int) -> Tensor:
        """The set, ascending, 0 included, in steps of the grid."""
        counts = range(self.fewest, self.most + 1)
        times = {points - n * points // count for count in counts for n in range(count)}
        return torch.tensor(sorted(times | {0}), dtype=torch.float32)

    def floor(self, start: Tensor, points: int) -> Tensor:
        """Nothing bounds the next point but the end of the path."""
        return torch.zeros_like(start)

    def draw(self, following: Tensor, floor: Tensor, points: int, rng: Rng) -> Tensor:
        """Where each jump ends, in steps of the grid: [B]."""
        members = self.members(points).to(following)
        high = torch.searchsorted(members, following, right=True) - 1
        low = torch.searchsorted(members, members[high] - self.window * points)
        u, shrunk = (rng.uniform(len(following), stream=f"jump/{name}") for name in ("target", "shrink"))
        chosen = members[low + (u * (high - low + 1)).long()]
        return chosen * (1 - self.shrink * shrunk)


TargetRule = Annotated[Segments | StepTimes, Field(discriminator="name")]


# ---------------------------------------------------------------- jumps


def _exact_jump(said: Prediction, s: Tensor) -> Any:
    return said.path.jump(said.x, said.x0, said.t, s)


def _blended(said: Prediction, s: Tensor) -> Any:
    level = (10 * said.path.native(said.t)).clamp_min(0)
    norm = (level**2 + 0.25).rsqrt()
    return tree.combine((0.25 * norm**2, said.x), (level * norm, said.x0))


BOUNDARIES: dict[str, Callable[[Prediction, Tensor], Any]] = {"jump": _exact_jump, "blend": _blended}
"""How a prediction lands at s: the DDIM jump, exact at s = t (Kim et al. 2024), or `c_skip x + c_out x0` for s = 0 with
`c_skip = 0.25 / (k² + 0.25)`, `c_out = k / √(k² + 0.25)`, k ten times the network's time (LCM: arXiv:2310.04378)."""


class TargetJumps(Trajectory):
    """Jumps from t to a target time s, and what the same network says from where its teacher leads in between.

    t lies on an even grid; the teacher moves from t to u, `skip` points lower. The event's state is the student's jump
    from x_t to s; `targets["x"]` is the jump of the role `ahead` from x_u to s, without gradient: at s = u x_u itself.
    """

    points: int = 50
    """N, steps of the grid."""
    skip: int = 1
    """Steps of the grid that the teacher goes down; never below the segment."""
    target: TargetRule = Segments()
    """Where jumps end."""
    boundary: Literal["jump", "blend"] = "jump"
    """How a prediction lands at s (see BOUNDARIES); `blend` is for s = 0."""
    teacher: str = "teacher"
    """Role that moves the state; if empty it stays on the data's own line, with one noise (consistency training: Song
    et al. 2023, arXiv:2303.01469, algorithm 3)."""
    together: bool = False
    """Draw one t for the whole batch."""
    ahead: str = "student"
    """Role that answers at the next point: the student itself, or an average of it."""
    moves_of_teacher: int = 1
    """Equal moves in which the teacher goes."""
    eta: float = 0.0
    """Share of the noise that each of them replaces; 1 is ancestral, 0 deterministic."""
    guidance: float = 1.0
    """w of the teacher's guidance where it is no input."""
    scalars: dict[str, tuple[float, float]] = {}
    """Extra inputs of the student, drawn uniformly per sample; one named w is the teacher's guidance weight."""
    drop: float = 0.0
    """Probability with which student and `ahead`, but not the teacher, see a sample's conditions dropped."""
    real: Literal["data", "noised-data", "target"] = "data"
    """What a discriminator takes for real: the data, the data at s, or the target."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student = ctx.roles["student"]
        path = student.denoiser.path
        t, u, s = self.times(batch, path, ctx)
        noise = batch.noise(ctx.rng, "jump/noise")
        x_t = path.noised(batch.data, noise, t)
        scalars = draw_scalars(self.scalars, batch.size, ctx)
        if self.teacher:
            x_u = self.lead(x_t, t, u, batch.cond, scalars, ctx)
        else:
            x_u = path.noised(batch.data, noise, u)
        cond, land = self._conditions(batch, ctx), BOUNDARIES[self.boundary]
        with torch.no_grad():
            target = land(ctx.roles[self.ahead].predict(x_u, u, cond, **scalars), s)
        with torch.set_grad_enabled(attached):
            said = student.predict(x_t, t, cond, **scalars)
            x = land(said, s)
        real = path.noised(batch.data, noise, s) if self.real == "noised-data" else batch.data
        yield Event(
            x, cond, t, x_t, noise, said, targets={"x": target, "real": target if self.real == "target" else real},
            scalars=scalars, meta={"next": u, "level": s, "x_next": x_u},
        )  # fmt: skip

    def times(self, batch: Batch, path: GaussianPath, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        """t, u and s of each sample: [B] each."""
        first = tree.leaves(batch.data)[0]
        start = 1 + self._index(batch.size, ctx.rng).to(torch.promote_types(first.dtype, torch.float32))
        floor = self.target.floor(start, self.points)
        following = torch.maximum(start - self.skip, floor)
        end = self.target.draw(following, floor, self.points, ctx.rng)
        unit = (path.t_max - path.t_min) / self.points
        return path.t_min + unit * start, path.t_min + unit * following, path.t_min + unit * end

    def _index(self, size: int, rng: Rng) -> Tensor:
        if self.together:
            return torch.full((size,), rng.choice(self.points, stream="jump/start"), device=rng.device)
        return rng.integers(self.points, size, stream="jump/start")

    @torch.no_grad()
    def lead(self, x: Any, t: Tensor, u: Tensor, cond: Any, scalars: dict[str, Tensor], ctx: Context) -> Any:
        """Where the teacher gets from x_t."""
        role = ctx.roles[self.teacher]
        guidance = cfg(scalars["w"]) if "w" in scalars else guidance_of(self.guidance)
        given = {name: value for name, value in role.inputs(scalars).items() if name != "w"}
        for move in range(self.moves_of_teacher):
            here = torch.lerp(t, u, move / self.moves_of_teacher)
            there = u if move + 1 == self.moves_of_teacher else torch.lerp(t, u, (move + 1) / self.moves_of_teacher)
            x0 = role.predict(x, here, cond, guidance=guidance, **given).x0
            if self.eta:
                fresh = ctx.rng.normal_like(x, stream="jump/fresh")
                x = role.denoiser.path.stochastic_jump(x, x0, fresh, here, there, self.eta)
            else:
                x = role.denoiser.path.jump(x, x0, here, there)
        return x

    def _conditions(self, batch: Batch, ctx: Context) -> Any:
        if not self.drop or not batch.cond:
            return batch.cond
        gone = ctx.rng.uniform(batch.size, stream="jump/drop") < self.drop
        null = ctx.roles["student"].denoiser.drop(batch.cond, EVERYTHING, batch.data)
        return {name: tree.where(gone, null[name], value) for name, value in batch.cond.items()}
