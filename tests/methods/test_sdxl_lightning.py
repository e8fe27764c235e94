"""SDXL-Lightning: jumps beside the teacher's, heads that see where a jump began, and stages that hand over."""

from __future__ import annotations

import copy

import pytest
import torch

from distill.core import Batch, Context, Event, Rng, Role, Roles, Sampler, Samples, rollout
from distill.core.errors import RecipeError
from distill.methods import toys
from distill.methods.losses import JumpDiscriminator, JumpGenerator
from distill.methods.networks import FeatureHeads, JumpHeads, MLPDenoiser
from distill.methods.papers.sdxl_lightning import SDXLLightning
from distill.methods.times import ListedTimes
from distill.methods.trajectories import StageJumps

NETWORK = MLPDenoiser(width=16, depth=2)


def context() -> Context:
    torch.manual_seed(0)
    roles = Roles({name: Role(name, NETWORK.build()) for name in ("student", "teacher", "trunk")})
    roles.add(Role("flow", JumpHeads(hidden=8).build(roles)))
    roles.add(Role("relaxed", FeatureHeads(features="trunk", hidden=8).build(roles)))
    return Context(roles, Rng(0))


def jumps(ctx: Context, **options) -> Event:
    batch = Batch(16, torch.randn(16, 2))
    return next(StageJumps(**options).events(batch, ctx, attached=True))


def test_the_teacher_walks_its_own_grid() -> None:
    ctx = context()
    event = jumps(ctx, steps=2, refine=4)
    for row in range(4):
        t, s = float(event.t[row]), float(event.scalars["next_time"][row])
        times = tuple(t + (s - t) * step / 4 for step in range(5))
        (*_, last) = rollout(ctx.roles["teacher"], event.x_t[row : row + 1], times)
        assert torch.allclose(event.real[row], last.next[0], atol=1e-5)


def test_the_regression_target_lands_where_the_teacher_does() -> None:
    ctx = context()
    event = jumps(ctx, steps=2, refine=4)
    landed = event.prediction.path.jump(event.x_t, event.targets["x0"], event.t, event.scalars["next_time"])
    assert torch.allclose(landed, event.real, atol=1e-5)


def test_it_starts_from_noise_alone() -> None:
    event = jumps(context(), steps=1)
    assert torch.equal(event.x_t, event.noise) and not event.scalars["next_time"].any()


def test_heads_of_the_flow_half_see_where_the_jump_began() -> None:
    ctx = context()
    event = jumps(ctx, steps=2)
    other = copy.copy(event)
    other.x_t = event.x_t + 1
    for name, sees in (("flow", True), ("relaxed", False)):
        loss = JumpGenerator(heads=name, from_start=sees)
        _, fake = loss.both(event, ctx, name)
        _, moved = loss.both(other, ctx, name)
        assert torch.equal(fake, moved) != sees


def test_equal_ends_get_equal_logits_at_every_level() -> None:
    ctx = context()
    event = jumps(ctx, steps=2)
    event.x = event.real
    real, fake = JumpDiscriminator(heads="flow", times=ListedTimes(times=(0.2, 0.9))).both(event, ctx, "level")
    assert torch.allclose(real, fake)


def test_stages_hand_over_and_only_the_last_half_lets_go() -> None:
    plan = SDXLLightning(stages=(16, 8, 4, 1), regression=8, steps=30).plan(Sampler())
    names = [phase.name for phase in plan.phases]
    assert names == ["8-steps-regression", "4-steps-flow", "4-steps-relaxed", "1-steps-flow", "1-steps-relaxed"]
    assert [bool(phase.at_end) for phase in plan.phases] == [True, False, True, False, True]
    refined = [phase.updates[0].trajectory.refine for phase in plan.phases]
    assert refined == [2, 2, 2, 4, 4] and plan.sampler.steps == 1


def test_stages_must_divide() -> None:
    with pytest.raises(RecipeError, match="divide"):
        SDXLLightning(stages=(8, 3)).plan(Sampler())


def test_it_trains_through_all_stages() -> None:
    method = SDXLLightning(stages=(4, 2, 1), regression=2, guidance=1, steps=8)
    run = toys.train(method, {"teacher": NETWORK.build()}, data=Samples(x=torch.randn(32, 2)), size=8)
    previous, student = run.roles["previous"].tensors(), run.roles["student"].tensors()
    assert all(torch.equal(previous[name], value) for name, value in student.items())
