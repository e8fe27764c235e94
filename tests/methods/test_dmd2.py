"""DMD2: two time scales, a GAN that leaks no gradient, and inputs that are those of sampling."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from distill.core import Batch, Context, Engine, Rng, Role, Roles, Sampler, Samples, assemble, batches
from distill.methods import ring8, toys
from distill.methods.claims.dmd2 import TIMES, inputs, met_in_sampling
from distill.methods.losses import AdversarialGenerator
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.dmd import DMD
from distill.methods.papers.dmd2 import DMD2
from distill.methods.times import ListedTimes
from distill.methods.trajectories import Generate, NoisedData, sampler_at

NO_GAN = AdversarialGenerator(weight=0)


def engine(method, size: int = 8) -> Engine:
    torch.manual_seed(0)
    roles = assemble(method, {"teacher": Role("teacher", MLPDenoiser(width=16, depth=2).build())})
    data = Samples(x=torch.randn(64, 2))
    return Engine(roles, method.plan(Sampler()), partial(_source, data, size))


def _source(data: Samples, size: int, start: int):
    return batches(data, size, start=start, shape=(2,))


def test_without_gan_and_with_equal_time_scales_it_is_dmd_step_by_step() -> None:
    fast = DMD().student_optimiser.model_copy(update={"lr": 1e-3})
    same = {"steps": 5, "student_optimiser": fast, "critic_optimiser": fast}
    one, other = engine(DMD(pairs=0, **same)), engine(DMD2(critic_updates=1, generator=NO_GAN, **same))
    for _ in range(5):
        one.run(1), other.run(1)
        for name in ("student", "critic"):
            mine, theirs = one.roles[name].tensors(), other.roles[name].tensors()
            assert all(torch.equal(value, theirs[key]) for key, value in mine.items())


def test_the_students_gan_term_leaves_no_gradient_elsewhere() -> None:
    run = engine(DMD2(steps=1)).run(0)
    (trajectory, updates), *_ = run.phase.groups(0)
    event = next(iter(trajectory.events(next(run.data(0)), run.ctx, attached=True)))
    run._backward([u for u in updates if u.loss.moves == ("student",)], event, {})
    grads = {name: any(p.grad is not None for p in run.roles[name].parameters()) for name in run.roles}
    assert grads == {"teacher": False, "student": True, "critic": False, "discriminator": False}


def test_nothing_is_left_over_after_an_iteration() -> None:
    run = engine(DMD2(steps=2, critic_updates=2)).run()
    assert all(p.grad is None for role in run.roles.values() for p in role.parameters())


def test_student_moves_every_fifth_iteration_and_the_critic_always() -> None:
    run, moved = engine(DMD2(steps=11)), {"student": [], "critic": [], "discriminator": []}
    for _ in range(11):
        before = {name: copy.deepcopy(run.roles[name].tensors()) for name in moved}
        run.run(1)
        for name, kept in before.items():
            now = run.roles[name].tensors()
            moved[name].append(any(not torch.equal(now[key], value) for key, value in kept.items()))
    assert moved["student"] == [step % 5 == 0 for step in range(11)]
    assert all(moved["critic"]) and all(moved["discriminator"])


def test_gan_reaches_the_critics_trunk() -> None:
    losses = [update.loss for update in DMD2().plan(Sampler()).phases[0].updates]
    assert losses[-1].moves == ("critic", "discriminator")


def test_the_average_of_the_student_is_the_result() -> None:
    run = engine(DMD2(steps=6, critic_updates=2, student_ema=0.9)).run()
    assert run.plan.result == "student_ema"
    average, student = run.roles["student_ema"].tensors(), run.roles["student"].tensors()
    assert any(not torch.equal(average[key], student[key]) for key in student)


def test_one_step_of_the_walk_carries_gradient() -> None:
    torch.manual_seed(0)
    student, calls = MLPDenoiser(width=16, depth=2).build(), []
    predict = student.predict
    student.predict = lambda *a, **k: calls.append(torch.is_grad_enabled()) or predict(*a, **k)  # type: ignore
    ctx = Context(Roles({"student": Role("student", student)}), Rng(0))
    for _ in range(8):
        calls.clear()
        (event,) = Generate(times=(1.0, 0.7, 0.4)).events(Batch(4, shape=(2,)), ctx, attached=True)
        assert calls == [False] * event.meta["step"] + [True]


@pytest.fixture(scope="module")
def weak():
    return ring8.start(0, steps=300, width=24, depth=2)


def test_backward_simulation_shows_the_inputs_of_sampling(weak) -> None:
    true = met_in_sampling(sampler_at(TIMES), weak, 1)
    assert toys.energy_distance(inputs(Generate(times=TIMES), weak, 0), true) < 1e-3


def test_noised_data_are_other_inputs(weak) -> None:
    true = met_in_sampling(sampler_at(TIMES), weak, 1)
    noised = NoisedData(times=ListedTimes(times=TIMES[-1:]))
    assert toys.energy_distance(inputs(noised, weak, 0), true) > 5e-3
