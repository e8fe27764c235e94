"""Regression: to the data, to a teacher, to targets that a trajectory brings."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.nn.functional import cosine_similarity

from distill.core import Context, Event, Loss, Prediction, Terms, tree
from distill.core.errors import RecipeError
from distill.core.paths import per_key
from distill.methods.losses.parts import (
    consult,
    distance,
    factors,
    features_of,
    guidance_of,
    level_weight,
    renoised,
)
from distill.methods.networks import tokens
from distill.methods.times import Times, UniformTimes


class Denoise(Loss):
    """Denoising of what the event holds, detached: a critic learns the student's law, a teacher that of the data.

    `w(t) ‖D(x_t) − x‖²` with `x_t = α_t x + σ_t ε`; D and x in the network's own kind, or as `view` says.
    """

    role: str = "critic"
    """Who learns."""
    times: Times = UniformTimes()
    """Noise levels."""
    view: Literal["value", "x0", "eps", "v", "velocity"] = "value"
    """What is compared: the network's own kind, or another view of it."""
    level: str = "one"
    """Weight of a noise level (see WEIGHTS); `edm` with the view x0 is EDM's loss."""
    sigma_data: float = 0.5
    """Standard deviation of the data, for `edm`."""
    drop: float = 0.0
    """Probability with which a sample's conditions are dropped."""
    guidance: float = 1.0
    """w of the guidance under which the role is trained."""
    parts: dict[str, float] = {}
    """Factor of each modality of a joint state; 1 for those that are left out."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        role, x0 = ctx.roles[self.role], tree.detach(event.x)
        path, size, name = role.denoiser.path, tree.batch_size(x0), f"denoise/{self.role}"
        t = self.times.draw(path, size, ctx.rng, f"{name}/time")
        noise = ctx.rng.normal_like(x0, stream=f"{name}/noise")
        x_t = path.noised(x0, noise, t)
        said = role.predict(
            x_t, t, self._conditions(event, ctx, name), guidance=guidance_of(self.guidance),
            **role.inputs(event.scalars),
        )  # fmt: skip
        view = said.kind if self.view == "value" else self.view
        truth = Prediction("x0", x0, x_t, t, path)
        wanted = noise if view == "eps" else getattr(truth, view)
        level = level_weight(self.level, said, self.sigma_data)
        if self.parts:
            level = per_key(lambda each, factor: each * factor, level, factors(self.parts, x0))
        return {f"denoise_{self.role}": distance("l2", getattr(said, view), wanted, level)}

    def _conditions(self, event: Event, ctx: Context, name: str) -> Any:
        if not self.drop or not event.cond:
            return event.cond
        gone = ctx.rng.uniform(tree.batch_size(event.x), stream=f"{name}/drop") < self.drop
        null = ctx.roles[self.role].denoiser.drop(event.cond, frozenset({"*"}), event.x)
        return {key: tree.where(gone, null[key], value) for key, value in event.cond.items()}


class Match(Loss):
    """Regression of the event's prediction, in one of its views, to a named target.

    `w(t) ‖D(x_t) − y‖²` for the target y; with `metric` the absolute difference, or Huber's.
    """

    view: Literal["x0", "eps", "v", "velocity", "value"] = "x0"
    """What is compared."""
    target: str = "x0"
    """Name among the event's targets."""
    metric: Literal["l2", "l1", "huber"] = "l2"
    """Discrepancy."""
    level: str = "one"
    """Weight of a noise level (see WEIGHTS)."""
    sigma_data: float = 0.5
    """Standard deviation of the data, for `edm`."""
    role: str = "student"
    """Whose prediction it is."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        assert event.prediction is not None
        level = level_weight(self.level, event.prediction, self.sigma_data)
        said, target = getattr(event.prediction, self.view), event.targets[self.target]
        return {"match": distance(self.metric, said, target, level)}


class MatchState(Loss):
    """Regression of the event's state itself (a sample, the next point of a roll-out) to a named target.

    `‖x − y‖²` for the target y; with `metric` the absolute difference, or Huber's.
    """

    target: str = "x"
    """Name among the event's targets."""
    metric: Literal["l2", "l1", "huber"] = "l2"
    """Discrepancy."""
    role: str = "student"
    """Whose state it is."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        return {"match_state": distance(self.metric, event.x, event.targets[self.target])}


class FeatureMoments(Loss):
    """Mean features of a sample's tokens against those of its real state, under one noise (SwD: arXiv:2503.16397).

    `√(gap² + c²) − c` for each channel: a maximum mean discrepancy with a linear kernel, sample by sample.
    """

    features: str = "critic"
    """Role whose tapped features are compared; gradient runs through it."""
    times: Times = UniformTimes(high=0.6)
    """Noise levels."""
    c: float = 1e-3
    """Where the discrepancy turns from square to linear."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.features)

    def terms(self, event: Event, ctx: Context) -> Terms:
        role = ctx.roles[self.features]
        t = self.times.draw(role.denoiser.path, tree.batch_size(event.x), ctx.rng, "moments/time")
        noise = ctx.rng.normal_like(event.x, stream="moments/noise")
        mine, true = (
            features_of(role, role.denoiser.path.noised(x, noise, t), t, event) for x in (event.x, event.real)
        )
        gaps = [(tokens(mine[name]) - tokens(true[name])).mean(1) for name in mine]
        return {"moments": torch.stack([((gap**2 + self.c**2).sqrt() - self.c).mean(1) for gap in gaps]).mean(0)}


class TokenDiversity(Loss):
    """Cosine of a sample's tokens and their mean, the mean over tokens and layers: the more alike, the larger.

    Attention diversification of FluxSR (arXiv:2502.01993, section 3.3); the event's prediction brings tapped features.
    """

    role: str = "student"
    """Whose features they are."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        features = event.prediction.features if event.prediction else {}
        if not features:
            raise RecipeError("token diversity looks at tapped features, and the trajectory brings none")
        each = [tokens(feature) for feature in features.values()]
        alike = [cosine_similarity(h, h.mean(1, keepdim=True), dim=2).mean(1) for h in each]
        return {"diversity": torch.stack(alike).mean(0)}


class TeacherTarget(Loss):
    """Regression of a sample to what a teacher makes of it after re-noising (ADD, arXiv:2311.17042, eq. 4).

    `w(t) ‖x − D_teacher(x_t)‖²` with `x_t = α_t x + σ_t ε`.
    """

    teacher: str = "teacher"
    """Role that answers; no gradient runs through it."""
    times: Times = UniformTimes(low=0.02, high=0.98)
    """Noise levels."""
    guidance: float = 1.0
    """w of the teacher's guidance."""
    level: str = "alpha"
    """Weight of a noise level (see WEIGHTS)."""
    metric: Literal["l2", "l1", "huber"] = "l2"
    """Discrepancy."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.teacher)

    def terms(self, event: Event, ctx: Context) -> Terms:
        with torch.no_grad():
            x_t, t = renoised(event, ctx, self.teacher, self.times, "teacher_target")
            said = consult(ctx.roles[self.teacher], x_t, t, event, guidance=guidance_of(self.guidance))
            target, level = said.x0, level_weight(self.level, said)
        return {"teacher_target": distance(self.metric, event.x, target, level)}
