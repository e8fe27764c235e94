"""TDM: the student's own route, points noised on within their segment, and the weight of an odd noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from distill.core import Batch, Context, Event, Mixture, Prediction, Rng, Role, Roles, Sampler, rollout
from distill.core.paths import Cosine, Flow
from distill.methods import toys
from distill.methods.losses import RouteDenoise, RouteScore
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.tdm import TDM
from distill.methods.trajectories import OwnRoute

TIMES = (1.0, 0.75, 0.5, 0.25)


def exact(path, **laws: tuple[float, float]) -> Context:
    return Context(
        Roles({name: Role(name, Mixture(torch.tensor([[m]]), s, path)) for name, (m, s) in laws.items()}), Rng(0)
    )


def route(path, low: float, high: float, size: int = 200_000) -> tuple[Event, Context]:
    """Points of a true route: data N(0, 1), noised to `low`."""
    ctx = exact(path, teacher=(0.0, 1.0), critic=(0.0, 1.0))
    x0 = ctx.rng.normal(size, 1, stream="x0")
    s, t = torch.full((size,), low), torch.full((size,), high)
    point = path.noised(x0, ctx.rng.normal(size, 1, stream="point"), s)
    return Event(x0, t=t, targets={"next": point}, scalars={"next_time": s}), ctx


def test_the_route_is_that_of_the_sampler() -> None:
    student = Role("student", MLPDenoiser(width=16, depth=2).build())
    ctx = Context(Roles({"student": student}), Rng(0))
    event = next(OwnRoute(times=TIMES).events(Batch(32, shape=(2,)), ctx, attached=True))
    start = Rng(0).normal(32, 2, stream="route/noise")
    moves = list(rollout(student, start, (*TIMES, 0.0)))
    for row, k in enumerate(event.scalars["step"].long()):
        assert torch.allclose(event.x_t[row], moves[k].x[row], atol=1e-6)
        assert torch.allclose(event.targets["next"][row], moves[k].next[row], atol=1e-5)
    assert event.x.requires_grad and not event.targets["next"].requires_grad


@pytest.mark.parametrize("path", [Flow(), Cosine()])
def test_points_noised_on_have_the_law_of_the_path(path) -> None:
    event, ctx = route(path, 0.25, 0.5)
    x_t, t, _ = RouteScore().noised(event, ctx, "teacher", "score")
    noise = (x_t - path.alpha(t)[:, None] * event.x) / path.sigma(t)[:, None]
    assert float(noise.std()) == pytest.approx(1, abs=1e-2)
    assert abs(float((noise * event.x).mean())) < 1e-2


def test_levels_stay_in_their_segment_unless_told_otherwise() -> None:
    event, ctx = route(Flow(), 0.25, 0.5)
    _, inside, _ = RouteScore().noised(event, ctx, "teacher", "score")
    _, beyond, _ = RouteScore(beyond=True).noised(event, ctx, "teacher", "score")
    assert 0.25 <= float(inside.min()) and float(inside.max()) <= 0.5
    assert float(beyond.max()) > 0.95


def test_at_its_own_level_a_point_stays() -> None:
    event, ctx = route(Flow(), 0.25, 0.25, size=8)
    x_t, t, _ = RouteScore(margin=0).noised(event, ctx, "teacher", "score")
    assert torch.equal(t, event.t) and torch.allclose(x_t, event.targets["next"])


def test_the_score_pulls_towards_the_teacher() -> None:
    """D_T − D_F at one level is (m_T − m_F) σ² / (α² + σ²) for unit Gaussians."""
    event, _ = route(Flow(), 0.5, 0.5)
    ctx = exact(Flow(), teacher=(0.0, 1.0), critic=(1.0, 1.0))
    x = event.x.clone().requires_grad_()
    term = RouteScore(margin=0, metric="l2").terms(replace(event, x=x), ctx)
    scale = (event.x - exact(Flow(), teacher=(0.0, 1.0)).roles["teacher"].ask(event.targets["next"], 0.5).x0).abs()
    expected = 2 * 0.5 / scale.clamp_min(1e-5)
    assert torch.allclose(torch.autograd.grad(term["route_score"].sum(), x)[0], expected, rtol=1e-3)


def test_weight_is_one_for_gaussian_noise_and_small_for_too_much() -> None:
    loss, rng, t = RouteDenoise(), Rng(0), torch.full((4,), 0.5)
    x0, noise = rng.normal(4, 20_000), rng.normal(4, 20_000, stream="other")
    weights = [
        loss.likelihood(x_t, t, x0, noise, Prediction("x0", x0, x_t, t, Flow()))
        for x_t in (0.5 * x0 + 0.5 * noise, 0.5 * x0 + noise)
    ]
    assert torch.allclose(weights[0], torch.ones(4), atol=1e-3)
    assert float(weights[1].max()) < 0.3


@pytest.mark.parametrize("aware", [False, True])
def test_it_trains_without_data_and_samples_without_noise(aware: bool) -> None:
    run = toys.train(TDM(steps=3, steps_aware=aware), {"teacher": MLPDenoiser(width=16, depth=2).build()}, size=8)
    first, again = (run.sampler.sample(run.roles["student"], torch.ones(4, 2), {}, Rng(s)) for s in (0, 1))
    assert torch.equal(first, again) and run.sampler.calls(Flow()) == 4
    assert ("step" in run.roles["critic"].denoiser.scalars) == aware
    assert Sampler.model_validate(run.sampler.model_dump()) == run.sampler
