"""Consistency: target times and jumps to them; derivatives, the tangent's zeros, and its limit."""

import math

import pytest
import torch

from distill.core import Batch, Context, Denoiser, DistillError, Event, Mixture, Rng, Role, Roles
from distill.core.guidance import cfg
from distill.core.paths import Cosine, Trigonometric
from distill.methods.consistency import (
    ContinuousConsistency,
    Segments,
    StepTimes,
    TargetJumps,
    VarianceHead,
    data_std,
    difference,
    exact,
)
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


# ---------------------------------------------------------------- target times

STARTS = torch.arange(1, 51).float().repeat(40)


def drawn(rule, skip=1, points=50):
    floor = rule.floor(STARTS, points)
    following = torch.maximum(STARTS - skip, floor)
    return floor, following, rule.draw(following, floor, points, Rng(0))


@pytest.mark.parametrize("count", [1, 2, 5, 8, 10])
@pytest.mark.parametrize("skip", [1, 3])
def test_a_jump_stays_within_the_segment_that_it_begins_in(count, skip) -> None:
    floor, following, end = drawn(Segments(count=count), skip)
    assert torch.all(floor <= end) and torch.all(end <= following) and torch.all(following < STARTS)
    assert torch.all(STARTS - floor <= 50 / count + 1e-4)


def test_a_start_on_a_boundary_belongs_to_the_segment_below() -> None:
    assert Segments(count=5).floor(torch.tensor([10.0, 11.0, 50.0]), 50).tolist() == [0, 10, 40]


def test_one_segment_to_its_floor_is_plain_consistency() -> None:
    assert drawn(Segments(anywhere=False))[2].abs().max() == 0


def test_step_times_are_the_union_of_all_samplers_times() -> None:
    union = {0}
    for count in (4, 5, 6, 7, 8):
        union |= {50 - math.floor(n * 50 / count) for n in range(count)}
    assert StepTimes().members(50).tolist() == sorted(union)


def test_targets_are_members_within_the_window_below_the_next_point() -> None:
    rule = StepTimes(shrink=0.0)
    _, following, end = drawn(rule)
    members = rule.members(50)
    highest = torch.stack([members[members <= u].max() for u in following])
    assert set(end.tolist()) <= set(members.tolist())
    assert torch.all(end <= highest) and torch.all(end >= highest - 0.26 * 50)
    shrunk = drawn(StepTimes(shrink=0.3))[2]
    assert torch.all(shrunk <= end) and torch.all(shrunk >= 0.7 * end)


# ---------------------------------------------------------------- jumps


def jumper(classes=0, law=None, size=40):
    torch.manual_seed(0)
    roles = {name: Role(name, MLPDenoiser(path="cosine", kind="v", width=8, classes=classes).build()) for name in NAMES}
    ctx = Context(Roles(roles | ({"teacher": Role("teacher", law)} if law else {})), Rng(0))
    return ctx, Batch(size, torch.randn(size, 2), {"label": torch.arange(size) % classes} if classes else {})


NAMES = ("teacher", "student", "average")


def jump_event(ctx, batch, **options):
    return next(TargetJumps(**options).events(batch, ctx, attached=True))


def test_both_jumps_are_the_formula_and_only_the_students_carries_gradient() -> None:
    ctx, batch = jumper()
    event = jump_event(ctx, batch, points=10, ahead="average")
    t, u, s, path = event.t, event.meta["next"], event.meta["level"], Cosine()
    x_u = path.jump(event.x_t, ctx.roles["teacher"].ask(event.x_t, t).x0, t, u)
    target = path.jump(x_u, ctx.roles["average"].ask(x_u, u).x0, u, s)
    torch.testing.assert_close(event.targets["x"], target)
    torch.testing.assert_close(event.x, path.jump(event.x_t, ctx.roles["student"].ask(event.x_t, t).x0, t, s))
    assert event.x.requires_grad and not event.targets["x"].requires_grad


def test_without_a_teacher_both_points_share_the_datas_line_and_its_noise() -> None:
    ctx, batch = jumper()
    event = jump_event(ctx, batch, points=4, teacher="", together=True, target=Segments(anywhere=False))
    for x, t in ((event.x_t, event.t), (event.meta["x_next"], event.meta["next"])):
        torch.testing.assert_close(x, Cosine().noised(batch.x, event.noise, t))
    assert len(set(event.t.tolist())) == 1


def test_where_the_jump_ends_at_the_next_point_the_target_is_copied() -> None:
    ctx, batch = jumper()
    event = jump_event(ctx, batch, points=10, target=Segments(count=10))
    assert torch.equal(event.targets["x"], event.meta["x_next"])


def test_the_blend_is_the_state_at_the_end_and_the_prediction_elsewhere() -> None:
    ctx, batch = jumper()
    event = jump_event(ctx, batch, points=4, boundary="blend", target=Segments(anywhere=False))
    at_end = event.meta["next"] == 0
    assert torch.equal(event.targets["x"][at_end], event.meta["x_next"][at_end]) and at_end.any()
    torch.testing.assert_close(event.x, event.prediction.x0, atol=1e-3, rtol=1e-3)


def test_dropped_conditions_reach_the_student_but_not_its_guided_teacher() -> None:
    ctx, batch = jumper(classes=4)
    event = jump_event(ctx, batch, points=10, drop=0.5, guidance=3.0)
    gone = event.cond["label"] == 4
    assert 0 < int(gone.sum()) < 40 and torch.equal(event.cond["label"][~gone], batch.cond["label"][~gone])
    x0 = ctx.roles["teacher"].ask(event.x_t, event.t, batch.cond, guidance=cfg(3.0)).x0
    torch.testing.assert_close(event.meta["x_next"], Cosine().jump(event.x_t, x0, event.t, event.meta["next"]))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_stochastic_moves_keep_the_marginals_with_fresh_noise_in_each(eta) -> None:
    ctx, batch = jumper(law=Mixture(torch.zeros(1, 2), STD, Cosine()), size=20000)
    batch = Batch(20000, STD * torch.randn(20000, 2))
    event = jump_event(ctx, batch, points=10, skip=1, eta=eta, moves_of_teacher=3)
    alpha, sigma = Cosine().alpha(event.meta["next"]), Cosine().sigma(event.meta["next"])
    spread = (alpha**2 * STD**2 + sigma**2).sqrt()[:, None]
    assert abs(float((event.meta["x_next"] / spread).std()) - 1) < 0.02
