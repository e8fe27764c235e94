"""Continuous-time consistency: derivatives, the tangent's zeros, and its limit."""

import math

import pytest
import torch

from distill.core import Context, Denoiser, DistillError, Event, Mixture, Rng, Role, Roles
from distill.core.paths import Cosine, Trigonometric
from distill.methods.consistency import ContinuousConsistency, VarianceHead, data_std, difference, exact
from distill.methods.networks import MLPDenoiser

PATH, STD = Trigonometric(sigma_data=0.5), 0.7


class FlowMap(Denoiser):
    """The exact consistency function of `N(0, s²)`: end of the flow through (x, t)."""

    def _call(self, x, t, cond, cache):
        return (STD / (t.cos() ** 2 * STD**2 + 0.25 * t.sin() ** 2).sqrt())[:, None] * x, None


def setting(student, step=10**6, size=9):
    roles = {
        "teacher": Role("teacher", Mixture(torch.zeros(1, 2), STD, PATH)),
        "student": Role("student", student),
    }
    roles["variance"] = Role("variance", VarianceHead().build(Roles({})))
    ctx = Context(Roles(roles), Rng(0), step=step)
    t = torch.linspace(0.05, 1.5, size)
    x_t = PATH.noised(STD * ctx.rng.normal(size, 2, stream="x"), ctx.rng.normal(size, 2), t)
    said = roles["student"].predict(x_t, t)
    return ctx, Event(said.x0, {}, t, x_t, None, said)


def flow_map():
    return FlowMap(torch.nn.Identity(), PATH, "x0", shape=(2,))


def network():
    torch.manual_seed(0)
    return MLPDenoiser(path="trigonometric", path_options={"sigma_data": 0.5}, kind="velocity", width=16).build()


@pytest.mark.parametrize(("derivative", "tolerance"), [("exact", 1e-5), ("difference", 1e-3)])
def test_the_exact_consistency_function_has_no_tangent(derivative, tolerance) -> None:
    ctx, event = setting(flow_map())
    tangent = ContinuousConsistency(derivative=derivative).tangent(event, ctx)
    assert float(tangent.abs().max()) < tolerance


def test_a_wrong_function_has_one() -> None:
    ctx, event = setting(Mixture(torch.zeros(1, 2), STD, PATH))
    assert float(ContinuousConsistency().tangent(event, ctx).abs().max()) > 0.05


def test_both_derivatives_agree_on_a_network() -> None:
    denoiser, t = network().double(), torch.linspace(0.2, 1.3, 5, dtype=torch.float64)
    x, dx = torch.ones(5, 2, dtype=torch.float64), torch.full((5, 2), 0.3, dtype=torch.float64)
    results = [along(lambda x, t: denoiser.predict(x, t).velocity, x, t, dx, 0.5 * t) for along in (exact, difference)]
    for ours, twin in zip(*results, strict=True):
        torch.testing.assert_close(ours, twin, atol=1e-4, rtol=1e-3)


def test_at_rate_zero_the_gradient_is_that_of_velocity_matching() -> None:
    student = network()
    ctx, event = setting(student, step=0)
    loss = ContinuousConsistency(warmup=100, variance="")
    flow = ctx.roles["teacher"].ask(event.x_t, event.t).velocity
    value = event.prediction.value
    (ours,) = torch.autograd.grad(loss.terms(event, ctx)["consistency"].sum(), value, retain_graph=True)
    (plain,) = torch.autograd.grad((value - flow).square().sum(), value)
    torch.testing.assert_close(torch.cosine_similarity(ours, plain), torch.ones(9))


def test_the_tangent_carries_no_gradient_and_the_student_gets_all_of_it() -> None:
    ctx, event = setting(network())
    loss = ContinuousConsistency()
    assert not loss.tangent(event, ctx).requires_grad
    loss.terms(event, ctx)["consistency"].sum().backward()
    assert all(p.grad is None for p in ctx.roles["teacher"].parameters())
    assert any(float(p.grad.abs().sum()) > 0 for p in ctx.roles["student"].parameters())


def test_the_log_variance_scales_the_error_and_is_paid_for() -> None:
    ctx, event = setting(network())
    head, loss = ctx.roles["variance"].module, ContinuousConsistency()
    plain = ContinuousConsistency(variance="").terms(event, ctx)["consistency"]
    torch.testing.assert_close(loss.terms(event, ctx)["consistency"], plain)
    torch.nn.init.constant_(head.out.bias, 0.7)
    torch.testing.assert_close(loss.terms(event, ctx)["consistency"], plain * math.exp(-0.7) + 0.7)


def test_other_paths_are_refused() -> None:
    with pytest.raises(DistillError, match="trigonometric"):
        data_std(Cosine())
