"""Losses against closed forms: what each one's gradient must be, whatever the network says it in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from distill.core import Context, Event, Mixture, Prediction, Rng, Role, Roles, tree
from distill.core.paths import Cosine, Flow, Karras
from distill.methods import oracle
from distill.methods.losses import (
    AdversarialDiscriminator,
    Denoise,
    ScoreDifference,
    ScoreIdentity,
    TeacherTarget,
    surrogate,
)
from distill.methods.times import ListedTimes

LEVELS = (0.3, 1.0, 3.0)


def at(time: float) -> ListedTimes:
    return ListedTimes(times=(time,))


def context(path=None, **laws: tuple[float, float]) -> Context:
    """Exact one-dimensional Gaussian denoisers by role name: (mean, std)."""
    path = path or Flow()
    roles = {name: Role(name, Mixture(torch.tensor([[m]]), s, path)) for name, (m, s) in laws.items()}
    return Context(Roles(roles), Rng(0))


@pytest.mark.parametrize("level", LEVELS)
def test_score_difference_is_reverse_kl(level: float) -> None:
    loss = ScoreDifference(times=at(level), units="x0")
    assert oracle.gradient(loss) == pytest.approx(oracle.reverse_kl(level), rel=0.02)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2])
def test_score_identity_is_fisher(level: float, alpha: float) -> None:
    loss = ScoreIdentity(alpha=alpha, times=at(level), normalise=False)
    assert oracle.gradient(loss) == pytest.approx(oracle.fisher(level, alpha), rel=0.02)


def test_alpha_one_is_the_fisher_divergence() -> None:
    m, v, s = 1.5, 0.5, 1.0
    assert oracle.fisher(s, 1.0) == pytest.approx(m * s**4 / ((1 + s**2) * (v + s**2)))


def detached(ctx: Context) -> Context:
    """The same roles, whose predictions carry no gradient."""
    for role in ctx.roles.values():
        role.predict = torch.no_grad()(role.predict)  # type: ignore[method-assign]
    return ctx


@pytest.mark.parametrize("level", LEVELS)
def test_detached_score_identity_collapses_to_dmd(level: float) -> None:
    ctx = detached(context(Karras(t_min=0.0), teacher=(0.0, 1.0), critic=(1.5, 0.5**0.5)))
    shift = torch.tensor(1.5, requires_grad=True)
    event = Event(shift + 0.5**0.5 * ctx.rng.normal(100_000, 1))
    ScoreIdentity(alpha=1.0, times=at(level), normalise=False).terms(event, ctx)["score_identity"].mean().backward()
    assert float(shift.grad) == pytest.approx(oracle.reverse_kl(level), rel=0.02)


def test_score_identity_is_not_dmd() -> None:
    loss = ScoreIdentity(alpha=1.0, times=at(0.3), normalise=False)
    assert oracle.reverse_kl(0.3) > 2 * oracle.gradient(loss)


@pytest.mark.parametrize("path", [Flow(), Cosine(), Karras()])
@pytest.mark.parametrize("kind", ["x0", "eps", "v", "velocity"])
def test_samples_move_towards_the_teacher(path, kind: str) -> None:
    """The teacher's law lies above the student's: a descent step must go up, in every parameterisation."""
    ctx = context(path, teacher=(1.0, 0.2), critic=(0.0, 0.2))
    for role in ctx.roles.values():
        role.predict = _said_as(role, kind)  # type: ignore[method-assign]
    x = (0.2 * torch.randn(64, 1, generator=torch.Generator().manual_seed(0))).requires_grad_()
    ScoreDifference(times=at(0.4)).terms(Event(x), ctx)["score_difference"].sum().backward()
    assert (x.grad < 0).all()


def _said_as(role: Role, kind: str):
    plain = role.predict

    def predict(x, t, cond=None, **options):
        said = plain(x, t, cond, **options)
        return Prediction(kind, getattr(said, kind), said.x, said.t, said.path)

    return predict


def test_eps_units_are_the_difference_of_predicted_noises() -> None:
    ctx = context(Cosine(), teacher=(1.0, 0.2), critic=(0.3, 0.5))
    x_t, t = ctx.rng.normal(256, 1).double(), torch.linspace(0.02, 0.98, 256, dtype=torch.float64)
    real, fake = (ctx.roles[name].module.double().predict(x_t, t) for name in ("teacher", "critic"))
    alpha, sigma = (tree.expand(c(t), x_t) for c in (real.path.alpha, real.path.sigma))
    assert torch.allclose(sigma**2 * (real.eps - fake.eps), alpha * sigma * (fake.x0 - real.x0), atol=1e-6)


def test_eps_units_match_plain_ones_up_to_the_level() -> None:
    """With one level and no guidance SwiftBrush's gradient is ασ times the plain score difference."""
    ctx = context(Cosine(), teacher=(1.0, 0.2), critic=(0.3, 0.5))
    x = ctx.rng.normal(64, 1)
    slopes = [_slope(ScoreDifference(times=at(0.5), units=units), x, ctx) for units in ("eps", "x0")]
    assert torch.allclose(slopes[0], 0.5 * slopes[1], rtol=1e-4)


def _slope(loss: ScoreDifference, x: torch.Tensor, ctx: Context) -> torch.Tensor:
    x = x.clone().requires_grad_()
    fresh = replace(ctx, rng=Rng(1))
    return torch.autograd.grad(loss.terms(Event(x), fresh)["score_difference"].sum(), x)[0]


def test_normalised_difference_does_not_depend_on_the_scale_of_the_data() -> None:
    ctx = context(Karras(), teacher=(0.0, 1.0), critic=(0.5, 1.0))
    slope = _slope(ScoreDifference(times=at(2.0)), ctx.rng.normal(512, 1), ctx)
    assert 0.05 < float(slope.abs().median()) < 5


def test_surrogate_gradient_is_what_it_is_given() -> None:
    x, gradient = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3)
    surrogate(x, gradient).sum().backward()
    assert torch.allclose(x.grad, gradient / 3, atol=1e-6)


def test_sds_needs_no_critic() -> None:
    ctx = context(teacher=(1.0, 0.2))
    loss = ScoreDifference(critic="", times=at(0.5))
    assert "critic" not in loss.needs
    assert loss.terms(Event(ctx.rng.normal(8, 1)), ctx)["score_difference"].shape == (8,)


def test_alpha_squared_weight_of_the_noise_error() -> None:
    ctx = context(Cosine(), critic=(0.0, 1.0))
    x = ctx.rng.normal(4096, 1)
    plain, weighted = (
        Denoise(view="eps", level=level, times=at(0.5)).terms(Event(x), replace(ctx, rng=Rng(1)))["denoise_critic"]
        for level in ("one", "alpha-squared")
    )
    assert torch.allclose(weighted, 0.5 * plain, rtol=1e-4)


def test_teacher_target_pulls_to_the_teachers_answer() -> None:
    """The gradient is α (x − D_teacher(x_t)) · 2, with nothing through the target."""
    ctx = context(Flow(), teacher=(1.0, 1e-3))
    x = torch.zeros(16, 1, requires_grad=True)
    TeacherTarget(times=at(0.25)).terms(Event(x), ctx)["teacher_target"].sum().backward()
    assert torch.allclose(x.grad, torch.full_like(x, -2 * 0.75), atol=1e-3)


class Linear(torch.nn.Module):
    """Heads whose slope is known: the logit is 3 x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * x[:, 0]


def test_exact_r1_is_the_squared_slope_of_the_heads() -> None:
    ctx = Context(Roles({"discriminator": Role("discriminator", Linear())}), Rng(0))
    loss = AdversarialDiscriminator(features="", times=None, feature_r1=0.5, form="hinge")
    event = Event(torch.zeros(4, 1), targets={"real": torch.ones(4, 1)})
    assert torch.allclose(loss.terms(event, ctx)["feature_r1"], torch.full((4,), 0.5 * 9.0))


def test_hinge_is_taken_head_by_head() -> None:
    """One head certain and one wrong is not the same as two heads undecided."""
    heads = torch.nn.Identity()
    ctx = Context(Roles({"discriminator": Role("discriminator", heads)}), Rng(0))
    loss = AdversarialDiscriminator(features="", times=None, form="hinge")
    event = Event(torch.tensor([[3.0, -3.0]]), targets={"real": torch.tensor([[3.0, -3.0]])})
    assert float(loss.terms(event, ctx)["discriminator"]) == pytest.approx((0 + 4) / 2 + (4 + 0) / 2)
