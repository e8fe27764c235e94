"""Continuous-time consistency: the tangent of a student along the flow, exact or by a finite difference."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.core import Context, DistillError, Event, HeadBuilder, Loss, Roles, Terms, tree
from distill.core.paths import GaussianPath, Trigonometric

Function = Callable[[Any, Tensor], Any]

# ---------------------------------------------------------------- directional derivatives


def exact(fn: Function, x: Any, t: Tensor, dx: Any, dt: Tensor) -> tuple[Any, Any]:
    """fn(x, t) and its derivative along (dx, dt), by forward-mode differentiation."""
    with warnings.catch_warnings():
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
