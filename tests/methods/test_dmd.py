"""DMD: who is moved by what, in which order, and on which samples."""

from __future__ import annotations

import copy

import torch

from distill.core import Sampler
from distill.methods import toys
from distill.methods.losses import ScoreDifference
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.dmd import DMD
from distill.methods.trajectories import Generate


def test_student_and_critic_learn_from_the_same_samples() -> None:
    train = DMD(pairs=0).plan(Sampler()).phases[0]
    ((trajectory, updates),) = train.groups(0)
    assert isinstance(trajectory, Generate)
    assert [update.loss.moves for update in updates] == [("student",), ("critic",)]


def test_pairs_are_made_before_training_with_the_teachers_sampler() -> None:
    teacher = Sampler(steps=7, guidance=3.0)
    make, train = DMD(pairs=5).plan(teacher).phases
    assert make.fit.count == 5 and make.fit.sampler == teacher
    assert len(train.groups(0)) == 1


def test_guidance_is_the_teachers_alone() -> None:
    score = DMD(score=ScoreDifference(guidance=3.0)).score
    assert (score.guidance, score.critic_guidance) == (3.0, 1.0)


def test_student_is_sampled_at_the_time_that_it_was_trained_at() -> None:
    plan = DMD(time=0.8, pairs=0).plan(Sampler())
    assert plan.sampler.times == (0.8,) and plan.result == "student"


def test_training_moves_student_and_critic_and_not_the_teacher() -> None:
    teacher = MLPDenoiser(width=16, depth=2).build()
    before = copy.deepcopy(teacher.state_dict())
    run = toys.train(DMD(steps=3, pairs=4), {"teacher": teacher}, size=4)
    moved = {name: differs(role.module.state_dict(), before) for name, role in run.roles.items()}
    assert moved == {"teacher": False, "student": True, "critic": True}


def differs(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(value, b[name]) for name, value in a.items())
