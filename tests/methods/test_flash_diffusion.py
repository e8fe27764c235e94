"""Flash Diffusion: starts by a mixture, targets by the teacher's solver, turns, and any critic."""

from __future__ import annotations

import copy

import pytest
import torch

from distill.core import Batch, Context, Event, Rng, Role, Roles, Sampler, Samples, rollout
from distill.core.sampling import DPM, Grid
from distill.methods import toys
from distill.methods.claims.flash_diffusion import departure, starts
from distill.methods.losses import AdversarialDiscriminator, ScoreDifference, draw_guidance
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.flash_diffusion import FlashDiffusion
from distill.methods.trajectories import SolvedData

NETWORK = MLPDenoiser(width=16, depth=2, path="cosine", kind="v")
PLAIN = {"solved": SolvedData(points=8), "score": ScoreDifference(critic="student")}


def context() -> Context:
    torch.manual_seed(0)
    return Context(Roles({name: Role(name, NETWORK.build()) for name in ("student", "teacher")}), Rng(0))


@pytest.mark.parametrize("shares", FlashDiffusion().shares)
def test_starts_follow_the_mixture(shares: tuple[float, ...]) -> None:
    law = SolvedData(shares=shares).law()
    assert sum(law) == pytest.approx(1) and departure(starts(0, shares, 4000), law) < 2.5


def test_the_mixtures_first_part_is_noise_alone() -> None:
    law = SolvedData(shares=(1.0, 0.0, 0.0, 0.0)).law()
    assert max(law) == law[0] and law[8] < 1e-10


def test_the_target_is_the_teachers_solution_from_there() -> None:
    ctx = context()
    event = next(SolvedData(points=8).events(Batch(4, torch.randn(4, 2)), ctx, attached=True))
    times = Grid().times(ctx.roles["teacher"].denoiser.path, 8)[event.meta["step"] :]
    (*_, last) = rollout(ctx.roles["teacher"], event.x_t, times, solver=DPM())
    assert torch.equal(event.targets["x0"], last.next)
    assert event.x.requires_grad and float(event.t[0]) == pytest.approx(times[0])


def test_guidance_is_drawn_for_the_batch_between_its_ends() -> None:
    ctx = context()
    drawn = [draw_guidance(3.0, 13.0, ctx, "w") for _ in range(200)]
    assert 3 <= min(drawn) < 4 and 12 < max(drawn) <= 13 and draw_guidance(2.0, None, ctx, "w") == 2


def test_equal_states_are_equal_under_shared_noise() -> None:
    ctx, seen = context(), []
    loss = AdversarialDiscriminator(features="teacher", heads="", train_features=False, shared=True)
    loss.__dict__["look"] = lambda x, *rest: seen.append(x) or {"x": x}
    x = torch.randn(8, 2)
    loss.terms(Event(x, targets={"real": x}), ctx)
    assert torch.equal(*seen)


def test_student_and_heads_take_turns() -> None:
    method = FlashDiffusion(steps=8, **PLAIN)
    run = toys.train(method, {"teacher": NETWORK.build()}, data=Samples(x=torch.randn(32, 2)), size=8, steps=0)
    assert sorted(run.plan.phases[0].optimisers) == ["discriminator", "student"]
    for step in range(8):
        before = {name: copy.deepcopy(run.roles[name].tensors()) for name in ("student", "discriminator")}
        run.run(1)
        moved = [
            n for n, kept in before.items() if any(not torch.equal(run.roles[n].tensors()[k], kept[k]) for k in kept)
        ]
        assert moved == [("student", "discriminator")[step % 2]]


def test_losses_join_stage_by_stage() -> None:
    phase = FlashDiffusion(steps=40, **PLAIN).plan(Sampler()).phases[0]
    counts = [[len(updates) for _, updates in phase.groups(step)] for step in (0, 10, 20, 30)]
    assert counts == [[1], [3], [3], [3]]
    assert phase.groups(30)[0][1][1].loss.weight == 0.7


def test_a_critic_of_its_own_is_another_role_of_the_same_loss() -> None:
    method = FlashDiffusion(steps=8, solved=SolvedData(points=8), score=ScoreDifference())
    run = toys.train(method, {"teacher": NETWORK.build()}, data=Samples(x=torch.randn(32, 2)), size=8)
    assert set(run.plan.phases[0].optimisers) == {"student", "discriminator", "critic"}
