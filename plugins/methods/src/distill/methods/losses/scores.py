"""Differences of scores: distribution matching, along the student's own route too, and its critics' targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from distill.core import Context, Event, Guidance, Loss, Prediction, State, Terms, tree
from distill.core.paths import per_key
from distill.methods.losses.parts import (
    consult,
    distance,
    draw_guidance,
    factors,
    guidance_of,
    level_weight,
    renoised,
    surrogate,
)
from distill.methods.times import KarrasTimes, Times, UniformTimes


class ScoreDifference(Loss):
    """Distribution matching: x moves along `D_critic(x_t) − D_teacher(x_t)`, in units of x0.

    Reverse KL of the diffused laws (DMD: Yin et al. 2023, arXiv:2311.18828, eq. 7; VSD: Wang et al. 2023). With
    `critic` empty the injected noise stands in for the critic, which is SDS (Poole et al. 2022, eq. 3).
    """

    teacher: str = "teacher"
    """Role that says where to go."""
    critic: str = "critic"
    """Role that knows the sample's own law; empty for SDS."""
    times: Times = UniformTimes(low=0.02, high=0.98)
    """Noise levels at which the two are compared."""
    guidance: float | dict[str, float] = 1.0
    """w of the teacher's guidance; of a joint state each modality may have its own."""
    guidance_to: float | None = None
    """Draw w for each batch, uniformly from `guidance` to here."""
    critic_guidance: float | dict[str, float] = 1.0
    """w of the critic's guidance."""
    units: Literal["normalised", "x0", "eps"] = "normalised"
    """Scale of the step: divided by mean|x − D_teacher| per sample (DMD, eq. 8) and modality, plain, or
    σ² (ε_T − ε_F) (VSD)."""
    parts: dict[str, float] = {}
    """Factor of each modality of a joint state; 1 for those that are left out."""

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(role for role in ("student", self.teacher, self.critic) if role)

    @property
    def moves(self) -> tuple[str, ...]:
        return ("student",)

    def terms(self, event: Event, ctx: Context) -> Terms:
        with torch.no_grad():
            w = draw_guidance(self.guidance, self.guidance_to, ctx, "score/guidance")
            gradient = self.gradient(event, ctx, w)
        return {"score_difference": surrogate(event.x, gradient, factors(self.parts, event.x))}

    def gradient(self, event: Event, ctx: Context, w: float) -> Any:
        """What x moves against, for a teacher with guidance w."""
        x_t, t = renoised(event, ctx, self.teacher, self.times, "score")
        return self.between(event, ctx, x_t, t, w)

    def between(self, event: Event, ctx: Context, x_t: Any, t: Any, w: float) -> Any:
        """The difference at a noised state, in the units asked for."""
        real = consult(ctx.roles[self.teacher], x_t, t, event, guidance=self.guide(w))
        fake = self.own(event, ctx, x_t, t)
        return SCALES[self.units](tree.combine((1.0, fake), (-1.0, real.x0)), event.x, real)

    def guide(self, w: float) -> Guidance | None:
        """The teacher's guidance of weight w."""
        return guidance_of(w)

    def own(self, event: Event, ctx: Context, x_t: Any, t: Any) -> Any:
        """x0 of the sample's own law at x_t: the critic's, or the sample itself, whose noise is known."""
        if not self.critic:
            return event.x
        return consult(ctx.roles[self.critic], x_t, t, event, guidance=guidance_of(self.critic_guidance)).x0


def _normalised(delta: State, x: State, real: Prediction) -> Any:
    gap = tree.tree_map(lambda a, b: (a - b).abs(), x, real.x0)
    scale = {key: tree.mean(part) for key, part in gap.items()} if isinstance(gap, Mapping) else tree.mean(gap)
    return tree.combine((per_key(lambda each: 1 / each.clamp_min(1e-5), scale), delta))


def _eps_units(delta: State, x: State, real: Prediction) -> Any:
    scale = per_key(lambda alpha, sigma: alpha * sigma, real.path.alpha(real.t), real.path.sigma(real.t))
    return tree.combine((scale, delta))


SCALES: dict[str, Callable[[State, State, Prediction], Any]] = {
    "normalised": _normalised, "x0": lambda delta, x, real: delta, "eps": _eps_units,
}  # fmt: skip


class TargetScore(ScoreDifference):
    """Score distillation that sets the teacher's score of the truth against that of the sample too, along two routes
    (TSD-SR: Dong et al. 2024, arXiv:2411.18263, section 3).

    With `v = ε − x0` of what each role says, `g = Σ_j w_j σ_j² (v_T(a_j) − λ v_F(a_j) − (1 − λ) v_T(b_j))`: a and b are
    the sample and the truth under one noise; then a goes down by the critic's prediction, b by the teacher's.
    """

    times: Times = UniformTimes(low=0.05, high=0.95)
    """Noise levels at which both routes begin."""
    share: float = Field(default=0.7, ge=0, le=1)
    """λ, share of the critic; 1 is VSD alone."""
    shares: tuple[float, ...] = (1.0, 0.3, 0.3, 0.3)
    """w_j, one a point of the routes; a single one compares at their beginning only."""
    stride: float = 0.05
    """From one point to the next, as a fraction of the path's range."""
    jitter: float = 0.025
    """How far the routes' end is moved at most, likewise."""
    floor: float = 0.01
    """Lowest level of a route, likewise."""

    def gradient(self, event: Event, ctx: Context, w: float) -> Any:
        path, size = ctx.roles[self.teacher].denoiser.path, tree.batch_size(event.x)
        t: Any = self.times.draw(path, size, ctx.rng, "score/time")
        noise = ctx.rng.normal_like(event.x, stream="score/noise")
        a, b = (path.noised(x, noise, t) for x in (event.x, event.real))
        span, moved = path.t_max - path.t_min, 2 * ctx.rng.uniform(size, stream="score/jitter") - 1
        stride, parts = span * (self.stride + self.jitter / len(self.shares) * moved), []
        for share in self.shares:
            here, there = (self._teacher(x, t, event, ctx, w) for x in (a, b))
            own = consult(ctx.roles[self.critic], a, t, event, guidance=guidance_of(self.critic_guidance))
            level = per_key(lambda s, share=share: share * s**2, path.sigma(t))
            parts.append(tree.combine((level, self.against(here, own, there))))
            s = (t - stride).clamp_min(path.t_min + self.floor * span).minimum(t)
            a, b, t = path.jump(a, own.x0, t, s), path.jump(b, there.x0, t, s), s
        return tree.combine(*((1.0, part) for part in parts))

    def against(self, here: Prediction, own: Prediction, there: Prediction) -> Any:
        """One point's difference: teacher and critic at the sample, teacher at the truth."""
        return tree.combine((1.0, _straight(here)), (-self.share, _straight(own)), (self.share - 1, _straight(there)))

    def _teacher(self, x: Any, t: Any, event: Event, ctx: Context, w: float) -> Prediction:
        return consult(ctx.roles[self.teacher], x, t, event, guidance=self.guide(w))


def _straight(said: Prediction) -> Any:
    return tree.combine((1.0, said.eps), (-1.0, said.x0))


class ScoreIdentity(Loss):
    """SiD: the Fisher divergence with gradient through teacher and critic (Zhou et al. 2024, arXiv:2404.04057, eq. 23).

    `(y_T − y_F) · [(y_T − x) − α (y_T − y_F)] / mean|x − y_T|`; detached predictions would turn it into DMD.
    """

    teacher: str = "teacher"
    """Role of the true score; frozen, and differentiated through."""
    critic: str = "critic"
    """Role of the generator's score; not moved here, and differentiated through."""
    alpha: float = 1.2
    """α: 1 is the exact Fisher gradient, 1.2 corrects for the critic's error."""
    times: Times = KarrasTimes(high=0.8)
    """Noise levels."""
    guidance: float = 1.0
    """w of the teacher's guidance."""
    critic_guidance: float = 1.0
    """w of the critic's guidance; 0 leaves its conditions out."""
    normalise: bool = True
    """Divide by mean|x − y_T|; off for the oracle on Gaussians."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.teacher, self.critic)

    def terms(self, event: Event, ctx: Context) -> Terms:
        x_t, t = renoised(event, ctx, self.teacher, self.times, "score")
        real = consult(ctx.roles[self.teacher], x_t, t, event, guidance=guidance_of(self.guidance)).x0
        fake = consult(ctx.roles[self.critic], x_t, t, event, guidance=guidance_of(self.critic_guidance)).x0
        value = tree.mean(
            tree.tree_map(lambda r, f, x: (r - f) * ((r - x) - self.alpha * (r - f)), real, fake, event.x)
        )
        if self.normalise:
            gap = tree.mean(tree.tree_map(lambda x, r: (x - r).abs(), event.x, real))
            value = value / gap.detach().clamp_min(1e-5)
        return {"score_identity": value}


class _Onward(Loss):
    floor: float = 0.02
    """Lowest level that is drawn, as a fraction of the path's range."""
    margin: float = 0.01
    """How far below a segment's end the levels stop, as a fraction of the path's range."""
    beyond: bool = False
    """Draw up to the path's last time instead of within the segment; the critic is then told the step."""

    def noised(self, event: Event, ctx: Context, role: str, name: str) -> tuple[Any, Tensor, Any]:
        """The next point x_s of the event's route at a freshly drawn level: (x_t, t, the fresh noise ε).

        `x_t = (α_t/α_s) x_s + √(σ_t² − (α_t σ_s/α_s)²) ε`.
        """
        low, high, path = event.scalars["next_time"], event.t, ctx.roles[role].denoiser.path
        span = path.t_max - path.t_min
        least = low.clamp_min(path.t_min + self.floor * span)
        most = (torch.full_like(high, path.t_max) if self.beyond else high) - self.margin * span
        t = least + (most - least).clamp_min(0) * ctx.rng.uniform(len(low), stream=f"{name}/time")
        noise = ctx.rng.normal_like(event.targets["next"], stream=f"{name}/noise")
        return path.renoise(event.targets["next"], noise, low, t), t, noise


class RouteScore(_Onward):
    """Distribution matching of a route's x0, compared at levels between its two points (TDM: arXiv:2503.06674).

    Discrepancy of x and `x + D_teacher(x_t) − D_critic(x_t)`, divided by mean|x − D_teacher|.
    """

    teacher: str = "teacher"
    """Role that says where to go."""
    critic: str = "critic"
    """Role that knows the law of the student's routes."""
    guidance: float = 1.0
    """w of the teacher's guidance."""
    metric: Literal["l2", "l1", "huber"] = "huber"
    """Discrepancy."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.teacher, self.critic)

    def terms(self, event: Event, ctx: Context) -> Terms:
        with torch.no_grad():
            x_t, t, _ = self.noised(event, ctx, self.teacher, "score")
            real = consult(ctx.roles[self.teacher], x_t, t, event, guidance=guidance_of(self.guidance)).x0
            fake = consult(ctx.roles[self.critic], x_t, t, event).x0
            target = tree.combine((1.0, event.x), (1.0, tree.combine((1.0, real), (-1.0, fake))))
            scale = tree.mean(tree.tree_map(lambda a, b: (a - b).abs(), event.x, real)).clamp_min(1e-5)
        return {"route_score": distance(self.metric, event.x, target) / scale}


class RouteDenoise(_Onward):
    """A critic of routes: from a level between two points back to the x0 that led there (TDM: arXiv:2503.06674).

    `min(SNR, cap) · w · ‖D(x_t) − x0‖²`, where w = exp(½ mean ε² − ½ mean ε'²) is the likelihood of ε', the whole
    noise in x_t, against that of the fresh noise ε.
    """

    role: str = "critic"
    """Who learns."""
    cap: float = 5.0
    """Largest weight of a noise level."""
    importance: bool = True
    """Weigh by w."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        x0 = tree.detach(event.x)
        x_t, t, noise = self.noised(event, ctx, self.role, "denoise")
        said = consult(ctx.roles[self.role], x_t, t, event)
        level = per_key(lambda weight: weight.clamp_max(self.cap), level_weight("snr", said))
        error = distance("l2", said.x0, x0, level)
        return {"route_denoise": error * self.likelihood(x_t, t, x0, noise, said) if self.importance else error}

    @torch.no_grad()
    def likelihood(self, x_t: State, t: Any, x0: State, noise: State, said: Prediction) -> Tensor:
        """w of each sample [B]."""
        whole = Prediction("x0", x0, x_t, t, said.path).eps
        fresh, total = (tree.mean(tree.tree_map(torch.square, part)) for part in (noise, whole))
        return ((fresh - total) / 2).exp()
