"""Losses that no modality owns. Each draws its noise and its times from named streams of the run's rng."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity, relu, softplus

from distill.core import Context, Event, Guidance, Loss, Prediction, Role, State, Terms, cfg, tree
from distill.core.errors import RecipeError
from distill.core.guidance import Weight
from distill.core.paths import per_key
from distill.core.tree import Coefficient
from distill.methods.networks import tokens
from distill.methods.times import KarrasTimes, Times, UniformTimes

# ---------------------------------------------------------------- discrepancies and weights

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda a, b: (a - b) ** 2,
    "l1": lambda a, b: (a - b).abs(),
    "huber": lambda a, b: ((a - b) ** 2 + 1e-6).sqrt() - 1e-3,
}
"""Value by value; `huber` is the pseudo-Huber distance of the LCM line with c = 0.001."""


def distance(name: str, said: State, target: State, weight: Coefficient = 1.0) -> Tensor:
    """Mean discrepancy per sample [B]; the weight has the shape of the times: one a sample, a frame, a modality."""
    return tree.mean(tree.combine((weight, tree.tree_map(DISTANCES[name], said, target))))


WEIGHTS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "one": lambda a, s, d: torch.ones_like(a),
    "snr": lambda a, s, d: (a / s) ** 2,
    "truncated-snr": lambda a, s, d: ((a / s) ** 2).clamp_min(1),
    "snr+1": lambda a, s, d: (a / s) ** 2 + 1,
    "alpha": lambda a, s, d: a,
    "alpha-squared": lambda a, s, d: a**2,
    "edm": lambda a, s, d: (s**2 + d**2) / (s * d) ** 2,
}
"""Weight of a squared x0 error at a noise level, from α, σ and the data's standard deviation."""


def level_weight(name: str, prediction: Prediction, sigma_data: float = 0.5) -> Any:
    """The named weight in the shape of the prediction's times."""
    path, t = prediction.path, prediction.t
    return per_key(lambda a, s: WEIGHTS[name](a, s.clamp_min(1e-6), sigma_data), path.alpha(t), path.sigma(t))


def surrogate(x: State, gradient: State, weight: Coefficient = 1.0) -> Tensor:
    """`½ mean ‖x − sg(x − g)‖²` per sample [B]: its gradient with respect to x is g / N, and x moves along −g."""
    target = tree.detach(tree.combine((1.0, x), (-1.0, gradient)))
    return 0.5 * distance("l2", x, target, weight)


def factors(parts: Mapping[str, float], like: State) -> Coefficient:
    """The factor of each modality of a joint state, 1 for those that are not named; 1 for any other state.

    Raises:
        RecipeError: the state has no modality of that name.
    """
    known = list(like) if isinstance(like, Mapping) else []
    if odd := set(parts) - set(known):
        has = ", ".join(known) or "one modality only"
        raise RecipeError(f"a factor is given for the modality {', '.join(sorted(odd))}, and the state has {has}")
    return {key: parts.get(key, 1.0) for key in known} if known else 1.0


def guidance_of(w: Weight) -> Guidance | None:
    """Guidance of weight w, or None (the role's own) for 1."""
    return None if w == 1 else cfg(w)


def draw_guidance(low: Any, high: float | None, ctx: Context, stream: str) -> Any:
    """One weight for the batch, uniform between two, the same on every process; the lower one if there is no other."""
    if high is None:
        return low
    if isinstance(low, Mapping):
        raise RecipeError("a guidance is drawn between two numbers, or each modality has its own: not both")
    u = torch.rand((), generator=ctx.rng.generator(stream), device=ctx.rng.device)
    return low + (high - low) * float(u)


def renoised(event: Event, ctx: Context, role: str, times: Any, name: str) -> tuple[Any, Tensor]:
    """The event's state at freshly drawn times, with fresh noise: (x_t, t). Streams carry the term's name."""
    path = ctx.roles[role].denoiser.path
    t = times.draw(path, tree.batch_size(event.x), ctx.rng, f"{name}/time")
    return path.noised(event.x, ctx.rng.normal_like(event.x, stream=f"{name}/noise"), t), t


def consult(role: Role, x: Any, t: Any, event: Event, **options: Any) -> Prediction:
    """What a role says at (x, t) under the event's conditions and those of its extra inputs that it takes."""
    return role.predict(x, t, event.cond, **role.inputs(event.scalars), **options)


def features_of(role: Role, x: Any, t: Any, event: Event) -> Mapping[str, Any]:
    """A role's hidden features of a state, at the taps that its network names.

    Raises:
        RecipeError: it names none.
    """
    if not role.denoiser.taps:
        raise RecipeError(f"the network of role '{role.name}' names no taps, whose features this loss looks at")
    return consult(role, x, t, event, taps=role.denoiser.taps).features


# ---------------------------------------------------------------- score differences


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


# ---------------------------------------------------------------- denoising and regression


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


# ---------------------------------------------------------------- along the student's own route


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


# ---------------------------------------------------------------- adversarial

GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": lambda q: softplus(-q),
    "hinge": lambda q: -q,
    "squares": lambda q: (q.sigmoid() - 1) ** 2 / 2,
    "least-squares": lambda q: (q - 1) ** 2,
}
DISCRIMINATOR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softplus": lambda real, fake: softplus(-real) + softplus(fake),
    "hinge": lambda real, fake: relu(1 - real) + relu(1 + fake),
    "squares": lambda real, fake: ((real.sigmoid() - 1) ** 2 + fake.sigmoid() ** 2) / 2,
    "least-squares": lambda real, fake: (real - 1) ** 2 + fake**2,
}


class _Adversarial(Loss):
    features: str = "critic"
    """Role whose hidden features the discriminator looks at; empty to let it look at the state itself."""
    heads: str = "discriminator"
    """Role of the discriminator's heads; empty to take the mean of each feature for a logit."""
    form: Literal["softplus", "hinge", "squares", "least-squares"] = "softplus"
    """Non-saturating, hinge, least squares of probabilities, or of the logits themselves."""
    times: Times | None = UniformTimes()
    """Noise levels of what the discriminator sees; None for states as they are: at the event's `level`, or clean."""
    conditional: bool = False
    """Tell the heads the time and the conditions too (projection heads)."""

    def noised(self, x: State, event: Event, ctx: Context, name: str) -> tuple[Any, Tensor | None]:
        """The state as the discriminator sees it, and its time."""
        return self.under(self.draw(x, ctx, name), x, event, ctx)

    def draw(self, x: State, ctx: Context, name: str) -> tuple[Tensor, Any] | None:
        """A time and a noise for each sample; None for states as they are."""
        if self.times is None:
            return None
        t = self.times.draw(self._path(ctx), tree.batch_size(x), ctx.rng, f"{name}/time")
        return t, ctx.rng.normal_like(x, stream=f"{name}/noise")

    def under(self, drawn: tuple[Tensor, Any] | None, x: State, event: Event, ctx: Context) -> Any:
        """The state under a time and a noise, and its time."""
        if drawn is None:
            return x, event.meta.get("level")
        return self._path(ctx).noised(x, drawn[1], drawn[0]), drawn[0]

    def _path(self, ctx: Context) -> Any:
        return ctx.roles[self.features or "teacher"].denoiser.path

    def look(self, x: State, t: Tensor | None, event: Event, ctx: Context) -> Any:
        """What the heads get: a role's hidden features of the state, or the state itself."""
        if not self.features:
            return x
        role = ctx.roles[self.features]
        time = role.denoiser.path.t_min if t is None else t
        return features_of(role, x, time, event)

    def judge(self, seen: Any, t: Tensor | None, event: Event, ctx: Context) -> Tensor:
        """Logits of what was seen: [B], or [B, K] of K heads or places."""
        if not self.heads:
            return torch.stack([tree.mean(feature) for feature in seen.values()], 1)
        heads = ctx.roles[self.heads]
        logits: Tensor = heads(seen, t, event.cond) if self.conditional else heads(seen)
        return logits

    def opinion(self, x: State, t: Tensor | None, event: Event, ctx: Context) -> Tensor:
        """Logits of a state: [B] or [B, K]."""
        return self.judge(self.look(x, t, event, ctx), t, event, ctx)


class AdversarialGenerator(_Adversarial):
    """The student's side: `softplus(−Q)` or `−Q` of its samples, with gradient through frozen features."""

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(role for role in ("student", self.features, self.heads) if role)

    def terms(self, event: Event, ctx: Context) -> Terms:
        x_t, t = self.noised(event.x, event, ctx, "adversarial/generator")
        return {"adversarial": tree.mean(GENERATOR[self.form](self.opinion(x_t, t, event, ctx)))}


class AdversarialDiscriminator(_Adversarial):
    """The discriminator's side: samples against real states (`targets["real"]`), each noised on its own.

    `softplus(Q(x)) + softplus(−Q(y))` for samples x and real states y, or another of the forms.
    """

    train_features: bool = True
    """Move the feature network too (DMD2); off where the features are a frozen teacher's (LADD)."""
    shared: bool = False
    """Noise samples and real states alike: one time and one noise for both."""
    r1: float = 0.0
    """Weight of the approximate R1 penalty `‖Q(x) − Q(x + 0.1 ε)‖²` on real states (Lin et al. 2025, APT)."""
    feature_r1: float = 0.0
    """Weight of the exact R1 penalty on what the heads get of real states (ADD, arXiv:2311.17042, eq. 3)."""

    @property
    def moves(self) -> tuple[str, ...]:
        moved = (self.features, self.heads) if self.train_features else (self.heads,)
        return tuple(role for role in moved if role)

    def terms(self, event: Event, ctx: Context) -> Terms:
        drawn = self.draw(event.real, ctx, "adversarial/real")
        real, t = self.under(drawn, event.real, event, ctx)
        with torch.set_grad_enabled(self.train_features):
            seen = self.look(real, t, event, ctx)
        on_real = self.judge(seen, t, event, ctx)
        on_fake = self._on_fake(drawn if self.shared else self.draw(event.x, ctx, "adversarial/fake"), event, ctx)
        terms = {"discriminator": tree.mean(DISCRIMINATOR[self.form](on_real, on_fake))}
        if self.r1:
            near = tree.combine((1.0, real), (0.1, ctx.rng.normal_like(real, stream="adversarial/r1")))
            terms["r1"] = self.r1 * tree.mean((on_real - self.opinion(near, t, event, ctx)) ** 2)
        if self.feature_r1:
            terms["feature_r1"] = self.feature_r1 * self._steepness(seen, t, event, ctx)
        return terms

    def _on_fake(self, drawn: tuple[Tensor, Any] | None, event: Event, ctx: Context) -> Tensor:
        x_t, t = self.under(drawn, tree.detach(event.x), event, ctx)
        with torch.set_grad_enabled(self.train_features):
            seen = self.look(x_t, t, event, ctx)
        return self.judge(seen, t, event, ctx)

    def _steepness(self, seen: Any, t: Tensor | None, event: Event, ctx: Context) -> Tensor:
        seen = tree.tree_map(lambda feature: feature.detach().requires_grad_(), seen)
        logits = self.judge(seen, t, event, ctx)
        slopes = torch.autograd.grad(logits.sum(), tree.leaves(seen), create_graph=True)
        return torch.stack([tree.per_sample(slope**2)[0] for slope in slopes]).sum(0)


class _Jump(_Adversarial):
    features: str = "trunk"
    """Role whose hidden features the discriminator looks at."""
    times: Times | None = None
    """Levels to which both ends are noised, where those are noisier; None leaves the ends at their own time."""
    from_start: bool = True
    """Show the heads the state that the jump began at too, so that they can tell whether it kept to the flow."""

    def both(self, event: Event, ctx: Context, name: str) -> tuple[Tensor, Tensor]:
        """Logits of where the teacher landed and of where the student did, at one level and with one noise."""
        path, s = ctx.roles[self.features].denoiser.path, event.scalars["next_time"]
        t = s if self.times is None else self.times.draw(path, len(s), ctx.rng, f"{name}/time").maximum(s)
        noise = ctx.rng.normal_like(event.x, stream=f"{name}/noise")
        start = self.look(event.x_t, event.t, event, ctx) if self.from_start else {}
        real, fake = (
            self.judge(_beside(self.look(path.renoise(end, noise, s, t), t, event, ctx), start), t, event, ctx)
            for end in (event.real, event.x)
        )
        return real, fake


def _beside(features: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Features with those of another state appended to each token."""
    return {
        name: torch.cat([tokens(value), tokens(others[name])], 2) if others else value
        for name, value in features.items()
    }


class JumpGenerator(_Jump):
    """The student's side of a GAN on jumps: `softplus(−Q)` (SDXL-Lightning: Lin et al. 2024, arXiv:2402.13929).

    Q sees where the student landed and, from `from_start`, where it began.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.features, self.heads)

    def terms(self, event: Event, ctx: Context) -> Terms:
        _, fake = self.both(event, ctx, "jump/generator")
        return {"jump": tree.mean(GENERATOR[self.form](fake))}


class JumpDiscriminator(_Jump):
    """The discriminator's side: where the teacher landed against where the student did, from one start."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.features, self.heads)

    def terms(self, event: Event, ctx: Context) -> Terms:
        real, fake = self.both(replace(event, x=tree.detach(event.x)), ctx, "jump/discriminator")
        return {"jump_discriminator": tree.mean(DISCRIMINATOR[self.form](real, fake))}


class RelativisticGenerator(_Adversarial):
    """The student's side of a relativistic GAN: `softplus(−(Q(x) − Q(y)))` for samples x and real states y.

    R3GAN: Huang et al. 2024, arXiv:2501.05441, eq. 2; `real` states may be a teacher's.
    """

    role: str = "student"
    """Whose sample it is."""

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(role for role in (self.role, self.features, self.heads) if role)

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        x_t, t = self.noised(event.x, event, ctx, "relativistic/x")
        y_t, s = self.noised(event.real, event, ctx, "relativistic/y")
        with torch.no_grad():
            on_real = self.opinion(y_t, s, event, ctx)
        return {"relativistic": tree.mean(softplus(on_real - self.opinion(x_t, t, event, ctx)))}


class RelativisticDiscriminator(_Adversarial):
    """The discriminator's side: `softplus(−(Q(y) − Q(x)))`, and R1 and R2, its steepness at real and at fake states.

    `targets["fake"]` stands for the event's own sample where there is one. Features are frozen.
    """

    gamma: float = 0.2
    """γ of `γ/2 (‖∇Q(y)‖² + ‖∇Q(x)‖²)`; 0 leaves both out."""

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(role for role in (self.features, self.heads) if role)

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.heads,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        real, r1 = self._judged(event.real, event, ctx, "relativistic/real")
        fake, r2 = self._judged(event.targets.get("fake", event.x), event, ctx, "relativistic/fake")
        terms = {"discriminator": tree.mean(softplus(fake - real))}
        return terms | ({"r1": self.gamma / 2 * r1, "r2": self.gamma / 2 * r2} if self.gamma else {})

    def _judged(self, x: State, event: Event, ctx: Context, name: str) -> tuple[Tensor, Any]:
        """Logits of a state, and the squared norm of their slope there [B]."""
        x_t, t = self.noised(tree.detach(x), event, ctx, name)
        if not self.gamma:
            return self.opinion(x_t, t, event, ctx), None
        x_t = tree.tree_map(lambda leaf: leaf.requires_grad_(), x_t)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be differentiated twice
            logits = self.opinion(x_t, t, event, ctx)
        slopes = torch.autograd.grad(logits.sum(), tree.leaves(x_t), create_graph=True)
        return logits, torch.stack([tree.per_sample(slope**2)[0] for slope in slopes]).sum(0)
