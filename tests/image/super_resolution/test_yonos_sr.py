import pytest
import torch

from distill.core import Batch, Context, Rng, Role, Roles, Sampler, Samples
from distill.core.errors import RecipeError
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.papers.yonos_sr import YonosSR
from distill.image.super_resolution.trajectories import TwoScales
from distill.methods.toys import train

HIGH = Rng(1).uniform(4, 3, 16, 16) * 1.6 - 0.8
LOW = torch.zeros_like(HIGH)


class Seen(Role):
    """A role that keeps what it was asked."""

    def predict(self, x, t, cond=None, **options):
        self.met = (x, t, cond["low"])
        return super().predict(x, t, cond, **options)


def role(name):
    torch.manual_seed(0)
    denoiser = RestorerDenoiser(width=8, blocks=3, size=16).build()
    torch.nn.init.normal_(denoiser.network.outlet.weight, std=0.1)
    return Seen(name, denoiser)


def meet(**options):
    ctx = Context(Roles({"student": role("student"), "previous": role("previous")}), Rng(0))
    state = options.get("state", "residual")
    batch = Batch(4, HIGH, {"low": LOW})
    event = next(iter(TwoScales(teacher="previous", **options).events(batch, ctx, attached=True)))
    return event, *(ctx.roles[name].met for name in ("student", "previous")), state


def test_teacher_and_student_meet_one_noised_picture():
    _, (x, t, low), (y, s, easy), _ = meet(state="picture")
    assert torch.equal(x, y) and torch.equal(t, s) and not torch.equal(low, easy)


def test_residuals_differ_by_what_the_smaller_ratio_knows_more():
    event, (x, t, low), (y, _, easy), _ = meet()
    alpha = role("student").denoiser.path.alpha(t)[:, None, None, None]
    torch.testing.assert_close(y - x, alpha * (low - easy))
    torch.testing.assert_close(event.targets["real"] + low, HIGH)
    assert (HIGH - easy).square().mean() < (HIGH - low).square().mean()


def test_at_equal_ratios_the_teacher_says_what_its_copy_says():
    event, *_ = meet(ratio=2.0, easy=2.0)
    torch.testing.assert_close(event.targets["x0"], event.x.detach())


def test_without_a_teacher_the_target_is_the_truth():
    ctx = Context(Roles({"student": role("student")}), Rng(0))
    event = next(iter(TwoScales().events(Batch(4, HIGH, {"low": LOW}), ctx, attached=False)))
    assert torch.equal(event.targets["x0"], event.targets["real"]) and not event.x.requires_grad


def test_ratios_rise_and_each_stage_teaches_the_next():
    plan = YonosSR(steps=80).plan(Sampler())
    scales = [phase.updates[0].trajectory for phase in plan.phases]
    assert [(each.easy, each.ratio, each.teacher) for each in scales] == [
        (2, 2, ""),
        (2, 4, "previous"),
        (4, 8, "previous"),
    ]
    assert [phase.steps for phase in plan.phases] == [40, 20, 20] and plan.sampler.steps == 1
    assert len(YonosSR(first=0).plan(Sampler()).phases) == 2
    with pytest.raises(RecipeError, match="rise"):
        YonosSR(ratios=(4.0, 2.0)).plan(Sampler())


def test_what_was_learnt_is_handed_on():
    engine = train(
        YonosSR(steps=4, ratios=(2.0, 4.0)), Roles({"student": role("student")}), data=Samples(x=HIGH, low=LOW), size=4
    )
    pairs = zip(engine.roles["student"].tensors().values(), engine.roles["previous"].tensors().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
