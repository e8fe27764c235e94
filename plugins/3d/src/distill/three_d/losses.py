"""How far views are from pictures of the same place, and where a teacher's score wants them to go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import conv2d

from distill.core import Context, Event, GaussianPath, Guidance, Loss, Options, Prediction, Sampler, Terms, cfg, tree
from distill.core.errors import RecipeError
from distill.core.guidance import PLAIN
from distill.core.sampling import finish
from distill.methods.losses import ScoreDifference, consult, guidance_of

# ---------------------------------------------------------------- pictures of the same place


class Photometric(Loss):
    """`(1 − λ) |x − real| + λ (1 − SSIM)` of views in [−1, 1] (Kerbl et al. 2023, arXiv:2308.04079, eq. 7)."""

    structure: float = Field(0.2, ge=0, le=1)
    """λ: share of the structural term."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        x, real = event.x, event.real
        terms = {"colour": (1 - self.structure) * (x - real).abs().flatten(1).mean(1)}
        if self.structure and x.ndim == 4:
            terms["structure"] = self.structure * (1 - ssim(x, real))
        return terms


def ssim(x: Tensor, y: Tensor, width: int = 11, sigma: float = 1.5, span: float = 2.0) -> Tensor:
    """Structural similarity of pictures [B, C, H, W] whose values span so much: [B] (Wang et al. 2004)."""
    across = torch.arange(width, device=x.device).to(x) - width // 2
    bell = torch.exp(-across.square() / (2 * sigma**2))
    kernel = (bell[:, None] * bell / bell.sum() ** 2).expand(x.shape[1], 1, -1, -1)

    def blurred(picture: Tensor) -> Tensor:
        return conv2d(picture, kernel, padding=width // 2, groups=x.shape[1])

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    both = blurred(x * y) - mean_x * mean_y
    a, b = (0.01 * span) ** 2, (0.03 * span) ** 2
    likeness = (2 * mean_x * mean_y + a) * (2 * both + b) / ((mean_x**2 + mean_y**2 + a) * (var_x + var_y + b))
    return likeness.flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor, span: float = 2.0) -> Tensor:
    """Peak signal to noise in decibels of each picture [B], whose values span so much."""
    return 10 * torch.log10(span**2 / (x - y).square().flatten(1).mean(1).clamp_min(1e-12))


# ---------------------------------------------------------------- where a teacher's score wants them to go

Knots = tuple[tuple[float, float], ...]
"""Pairs of a share of the run and a noise level, as a fraction of the path's range; straight lines lie between."""


class Levels(Options):
    """Noise levels between two ends that move while the run goes on; without a lower end all samples have one level."""

    high: Knots = ((0.0, 0.98), (1.0, 0.02))
    """The upper end."""
    low: Knots = ()
    """The lower end, if there is one; levels are uniform between the two."""
    power: PositiveFloat = 1.0
    """Of the share of the run: below 1 the ends move faster at first."""

    def at(self, knots: Knots, path: GaussianPath, progress: float) -> float:
        """The time that knots mean after a share of the run."""
        share, knots = progress**self.power, tuple(sorted(knots))
        level = knots[0][1] if share < knots[0][0] else knots[-1][1]
        for (a, first), (b, last) in zip(knots, knots[1:], strict=False):
            level = first + (last - first) * (share - a) / (b - a) if a <= share < b else level
        return path.t_min + (path.t_max - path.t_min) * level

    def draw(self, path: GaussianPath, size: int, ctx: Context, stream: str) -> Tensor:
        """Times [B]."""
        high = self.at(self.high, path, ctx.progress)
        low = self.at(self.low, path, ctx.progress) if self.low else high
        u = ctx.rng.uniform(size, stream=stream) if self.low else torch.zeros(size, device=ctx.rng.device)
        return low + (high - low) * u


class ViewScore(ScoreDifference):
    """A score difference at levels that may fall, under the noise that the event brings along, if it does.

    Score distillation (Poole et al. 2022, arXiv:2209.14988, eq. 3) where noise and levels are drawn; with a scene's own
    noise and falling levels CFD's flow of clean pictures `dx/dλ = ε(α(x + λ ε̃)) − ε̃` (Yan et al. 2025,
    arXiv:2501.05445).
    """

    critic: str = ""
    """Role that knows the law of the views; empty to let the noise stand in for it."""
    units: Literal["normalised", "x0", "eps"] = "eps"
    """σ² (ε_teacher − ε), `x0` for σ/α instead of σ², or `normalised`."""
    levels: Levels | None = None
    """Noise levels that change while the run goes on; None for `times`."""
    drops: tuple[str, ...] = ()
    """Conditions that guidance leaves out; all that it can if empty."""
    rescale: float = Field(0.0, ge=0, le=1)
    """How far guided predictions get back the standard deviation of plain ones."""

    def guide(self, w: float) -> Guidance:
        return cfg(w, *self.drops, rescale=self.rescale)

    def gradient(self, event: Event, ctx: Context, w: float) -> Any:
        path, size = ctx.roles[self.teacher].denoiser.path, tree.batch_size(event.x)
        if self.levels is None:
            t = self.times.draw(path, size, ctx.rng, "score/time")
        else:
            t = self.levels.draw(path, size, ctx, "score/time")
        noise = ctx.rng.normal_like(event.x, stream="score/noise") if event.noise is None else event.noise
        return self.between(event, ctx, path.noised(event.x, noise, t), t, w)


class SelfScore(ViewScore):
    """Self score distillation: the reference is the teacher itself, unguided, under plain conditions.

    `σ² (ε_w(x_t | conditions of the view) − ε(x_t | plain))` (HeadArtist: Liu et al. 2023, arXiv:2312.07539).
    """

    guidance: float = 7.5
    """w of the first opinion; at 1 and under one text there is nothing between the two."""
    plain: dict[str, Any] = {}
    """Values of conditions that the reference has instead of the view's: a text, encoded, that names no direction."""

    def own(self, event: Event, ctx: Context, x_t: Any, t: Any) -> Any:
        if odd := set(self.plain) - set(event.cond):
            known = ", ".join(event.cond) or "no conditions"
            raise RecipeError(f"'plain' names {', '.join(sorted(odd))}, and views have {known}")
        told = {name: torch.as_tensor(value).to(event.cond[name]) for name, value in self.plain.items()}
        cond = {name: told[name].expand_as(v) if name in told else v for name, v in event.cond.items()}
        return consult(ctx.roles[self.teacher], x_t, t, replace(event, cond=cond), guidance=PLAIN).x0


class SeededScore(ViewScore):
    """The step of a seed's own DDIM path, taken at the view as it is (DSD: Xu et al. 2024, arXiv:2412.06780).

    From the event's noise z the teacher goes down to a level t + δ, where it says ε*; the view is noised with ε* to
    t + δ and to t, and moves along `σ_t² (ε_w(x_t) − ε(x_{t+δ}))`.
    """

    levels: Levels | None = Levels(high=((0.0, 0.98), (1.0, 0.32)), power=0.5)
    """t; the same for all samples."""
    ahead: float = Field(0.1, ge=0)
    """Largest δ, as a share of the way to t from the level at which the run ends."""
    steps: PositiveInt = 10
    """Of the whole path from z to the data, of which those above t + δ are made."""

    def gradient(self, event: Event, ctx: Context, w: float) -> Any:
        if event.noise is None:
            raise RecipeError("the path of a seed needs noise that belongs to the scene: views with noise 'seed'")
        role, levels = ctx.roles[self.teacher], self.levels or Levels()
        path, one = role.denoiser.path, torch.ones(tree.batch_size(event.x), device=ctx.rng.device)
        t = levels.at(levels.high, path, ctx.progress)
        u = float(torch.rand((), generator=ctx.rng.generator("score/ahead"), device=ctx.rng.device))
        later = min(t + u * self.ahead * (t - levels.at(levels.high, path, 1.0)), 0.999 * path.t_max)
        noise = self.seen(event, ctx, later, w)
        x_later = path.noised(event.x, noise, later * one)
        known = consult(role, x_later, later * one, event, guidance=guidance_of(self.critic_guidance)).eps
        return self.between(replace(event, noise=known), ctx, path.noised(event.x, noise, t * one), t * one, w)

    def seen(self, event: Event, ctx: Context, level: float, w: float) -> Any:
        """ε*: what the teacher says on the path of the event's noise, at a level."""
        role = ctx.roles[self.teacher]
        sampler = Sampler(steps=self.steps, guidance=w)
        times = (*(time for time in sampler.grid_for(role.denoiser.path) if time > level), level)
        x = finish(sampler.descend(role, sampler.start(role, event.noise), times, event.cond))
        return consult(role, x, level, event, guidance=self.guide(w)).eps

    def own(self, event: Event, ctx: Context, x_t: Any, t: Any) -> Any:
        return Prediction("eps", event.noise, x_t, t, ctx.roles[self.teacher].denoiser.path).x0
