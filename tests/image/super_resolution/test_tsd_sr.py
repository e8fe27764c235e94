"""TSD-SR: the score difference against its formula, adapters that keep apart, and a student without noise."""

import pytest
import torch

from distill.core import Batch, Context, Event, Rng, Role, Roles, Sampler, Samples
from distill.core.paths import Flow
from distill.image.super_resolution import toys
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.papers.tsd_sr import TSDSR
from distill.methods.losses import ScoreDifference, TargetScore
from distill.methods.networks import MLPDenoiser
from distill.methods.times import ListedTimes
from distill.methods.toys import train
from distill.methods.trajectories import Generate
from distill.methods.transforms import LoRA

SMALL = RestorerDenoiser(width=8, blocks=2, size=16)
POINTWISE = LoRA(rank=4, targets=("inlet", "outlet", "modulation"))


def setting(**options):
    torch.manual_seed(0)
    roles = {name: Role(name, MLPDenoiser(path="flow", kind="velocity", width=8).build()) for name in ROLES}
    ctx = Context(Roles(roles), Rng(0))
    event = Event(torch.randn(5, 2, requires_grad=True), targets={"real": torch.randn(5, 2)})
    return TargetScore(jitter=0.0, **options), event, ctx


ROLES = ("teacher", "critic", "student")


def test_one_point_is_the_papers_formula() -> None:
    loss, event, ctx = setting(times=ListedTimes(times=(0.6,)), shares=(1.0,), share=0.7)
    noise = Rng(0).normal_like(event.x, stream="score/noise")
    a, b = (Flow().noised(x, noise, torch.full((5,), 0.6)) for x in (event.x, event.real))
    teacher, critic = (ctx.roles[name] for name in ROLES[:2])
    vsd = 0.36 * (teacher.ask(a, 0.6).velocity - critic.ask(a, 0.6).velocity)
    tsm = 0.36 * (teacher.ask(a, 0.6).velocity - teacher.ask(b, 0.6).velocity)
    found = loss.gradient(event, ctx, 1.0)
    torch.testing.assert_close(found, 0.7 * vsd + 0.3 * tsm)
    loss.terms(event, Context(ctx.roles, Rng(0)))["score_difference"].sum().backward()
    torch.testing.assert_close(event.x.grad, found.detach() / 2)


def test_the_routes_go_by_the_critic_and_by_the_teacher(monkeypatch) -> None:
    loss, event, ctx = setting(times=ListedTimes(times=(0.6,)), shares=(1.0, 0.5), share=0.7, stride=0.2)
    asked = {name: [] for name in ROLES}
    for name, role in ctx.roles.items():
        said = role.denoiser.predict
        monkeypatch.setattr(role.denoiser, "predict", _noting(said, asked[name]))
    with torch.no_grad():
        loss.gradient(event, ctx, 1.0)
    (a, b, a_next, b_next), own = asked["teacher"], asked["critic"]
    torch.testing.assert_close(a_next.x, a.x - 0.2 * own[0].velocity)
    torch.testing.assert_close(b_next.x, b.x - 0.2 * b.velocity)
    assert torch.allclose(a_next.t, torch.tensor(0.4)) and not asked["student"]


def _noting(said, found):
    def predict(*given, **options):
        found.append(said(*given, **options))
        return found[-1]

    return predict


def test_a_sample_that_is_the_truth_feels_no_target_and_routes_stay_above_the_floor() -> None:
    loss, event, ctx = setting(times=ListedTimes(times=(0.1,)), share=0.0, shares=(1.0,), floor=0.05)
    event.x = event.real.clone()
    assert not loss.gradient(event, ctx, 1.0).any()
    low = loss.model_copy(update={"shares": (1.0,) * 4})
    assert torch.isfinite(low.gradient(event, ctx, 1.0)).all()


def test_the_critic_alone_is_score_distillation() -> None:
    loss, event, ctx = setting(times=ListedTimes(times=(0.6,)), shares=(1.0,), share=1.0)
    plain = ScoreDifference(units="eps", times=loss.times).gradient(event, Context(ctx.roles, Rng(0)), 1.0)
    torch.testing.assert_close(loss.gradient(event, ctx, 1.0), plain / 0.4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_student_may_start_without_noise(temperature) -> None:
    ctx = Context(Roles({"student": Role("student", SMALL.build())}), Rng(0))
    batch = Batch(2, torch.randn(2, 3, 16, 16), {"low": torch.randn(2, 3, 16, 16)})
    event = next(Generate(temperature=temperature).events(batch, ctx, attached=True))
    assert bool(event.x_t.any()) == bool(temperature)


@pytest.fixture(scope="module")
def trained():
    pytest.importorskip("peft")
    torch.manual_seed(0)
    low = torch.rand(32, 3, 16, 16) * 2 - 1
    data, rates = Samples(x=0.1 * low.flip(1), low=low), {"lr": 2e-2}
    teacher = Role("teacher", SMALL.build(), frozen=True)
    torch.nn.init.normal_(teacher.denoiser.network.outlet.weight, std=0.1)
    asked = (data.tensors["x"], 0.5, {"low": low})
    first = teacher.ask(*asked).value
    method = TSDSR(
        steps=15, adapter=POINTWISE, perceptual={"weight": 0}, student_optimiser=rates, critic_optimiser=rates,
        score={"shares": (1.0, 0.3), "weight": 0.1}, decay=0.8,
    )  # fmt: skip
    return train(method, {"teacher": teacher}, data=data, size=4), method, data, (asked, first)


def test_adapters_leave_the_teacher_and_each_other_alone(trained) -> None:
    engine, _, _, (asked, first) = trained
    assert torch.equal(engine.roles["teacher"].ask(*asked).value, first)
    said = [engine.roles[name].ask(*asked).value for name in ("student", "critic")]
    assert all(not torch.equal(each, first) for each in said) and not torch.equal(*said)


def test_the_student_comes_nearer_to_the_truth_in_one_call_without_noise(trained) -> None:
    engine, method, data, _ = trained
    sampler = method.plan(Sampler()).sampler
    made = [toys.restore(engine.roles["student_ema"], sampler, data, seed) for seed in (0, 1)]
    raw = toys.restore(engine.roles["teacher"], sampler, data)
    assert torch.equal(*made) and sampler.calls(engine.roles["teacher"].denoiser.path) == 1
    truth = toys.truth(data)
    assert (made[0] - truth).square().mean() < 0.9 * (raw - truth).square().mean()


def test_without_the_score_there_is_no_critic() -> None:
    method = TSDSR(score=TargetScore(weight=0))
    assert "critic" not in method.roles() and len(method.plan(Sampler()).phases[0].updates) == 2
