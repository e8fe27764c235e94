"""SiD: critic first, fresh samples for the student, gradient through both scores."""

from __future__ import annotations

import copy

import torch

from distill.core import Context, Event, Rng, Role, Roles, Sampler
from distill.methods import toys
from distill.methods.losses import ScoreIdentity
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.sid import SiD

NETWORK = MLPDenoiser(width=16, depth=2, path="karras", sigma_data=0.5)


def test_critic_first_then_the_student_on_fresh_samples() -> None:
    groups = SiD().plan(Sampler()).phases[0].groups(0)
    assert [[u.loss.moves[0] for u in updates] for _, updates in groups] == [["critic"], ["student"]]


def test_the_student_meets_the_moved_critic() -> None:
    """In one iteration the critic's step comes before the student's loss is computed."""
    teacher = NETWORK.build()
    slow = SiD(steps=1).critic_optimiser.model_copy(update={"lr": 1e-1})
    losses = [
        toys.train(SiD(steps=1, critic_optimiser=critic), {"teacher": teacher}, size=8).roles["student"].tensors()
        for critic in (slow, slow.model_copy(update={"lr": 0.0}))
    ]
    assert any(not torch.equal(losses[0][key], losses[1][key]) for key in losses[0])


def test_gradient_runs_through_frozen_networks_and_stays_out_of_them() -> None:
    roles = Roles({name: Role(name, NETWORK.build().requires_grad_(False)) for name in ("teacher", "critic")})
    x = torch.zeros(8, 2, requires_grad=True)
    terms = ScoreIdentity().terms(Event(x), Context(roles, Rng(0)))["score_identity"]
    assert float(torch.autograd.grad(terms.sum(), x)[0].abs().max()) > 0
    assert all(p.grad is None for role in roles.values() for p in role.parameters())


def test_the_average_is_the_result_and_the_teacher_stays() -> None:
    torch.manual_seed(0)
    teacher = NETWORK.build()
    before = copy.deepcopy(teacher.state_dict())
    run = toys.train(SiD(steps=3), {"teacher": teacher}, size=8)
    assert run.plan.result == "student_ema"
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_no_data_are_needed() -> None:
    assert SiD().plan(Sampler()).needs() == {"student", "teacher", "critic"}
