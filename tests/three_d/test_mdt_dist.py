"""MDT-dist: the velocity that an average velocity stands for, and what its two losses do on a Gaussian."""

from __future__ import annotations

import pytest
import torch

from distill.core import Batch, Context, Event, Mixture, Optimiser, Rng, Role, Roles, Samples
from distill.core.errors import RecipeError
from distill.core.paths import Cosine, Flow
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.trajectories import NoisedData
from distill.three_d.latents import VelocityDistillation, VelocityMatching
from distill.three_d.papers.mdt_dist import MDTDist
from distill.three_d.toys_scenes import gaussian_average

LAW = Mixture(torch.tensor([[1.5]]), 0.4, Flow())


def context(student) -> Context:
    return Context(Roles({"student": Role("student", student), "teacher": Role("teacher", LAW)}), Rng(0))


def noised(student) -> tuple[Event, Context]:
    ctx = context(student)
    (event,) = NoisedData().events(Batch(512, LAW.data(512, Rng(1))), ctx, attached=True)
    return event, ctx


def test_the_exact_average_velocity_has_the_teachers_velocity_to_first_order():
    event, ctx = noised(gaussian_average(1.5, 0.4))
    gaps = []
    for step in (1e-2, 1e-3):
        true, own, change = VelocityMatching(step=step).change(event.x_t, event.t, {}, ctx)
        gaps.append(float((own + event.t[:, None] * change - true).square().mean().sqrt()))
    assert gaps[0] < 0.01 and gaps[1] < 0.2 * gaps[0]


def test_matching_vanishes_at_the_exact_average_alone():
    losses = []
    for std in (0.4, 0.2):
        event, ctx = noised(gaussian_average(1.5, std))
        losses.append(float(VelocityMatching().terms(event, ctx)["velocity_matching"].detach().mean()))
    assert losses[0] < 1e-3 < 0.01 < losses[1]


def test_the_target_is_the_identity_written_out():
    event, ctx = noised(gaussian_average(1.0, 0.7))
    student, teacher = ctx.roles["student"], ctx.roles["teacher"]
    true = teacher.ask(event.x_t, event.t).velocity
    s = (event.t - 0.01).clamp_min(0)
    gone = (event.t - s).clamp_min(1e-4)[:, None]
    then = student.ask(event.x_t - gone * true, s).velocity
    target = true - event.t[:, None] * (student.ask(event.x_t, event.t).velocity - then) / gone
    said = VelocityMatching().terms(event, ctx)["velocity_matching"]
    torch.testing.assert_close(said, (event.prediction.velocity - target).square().mean(1))


@pytest.mark.parametrize(("std", "sign"), [(0.2, 1), (0.8, -1)])
def test_distillation_moves_a_samples_spread_to_the_teachers(std, sign):
    ctx = context(gaussian_average(1.5, std))
    network = ctx.roles["student"].denoiser.network
    x = ctx.roles["student"].predict(Rng(2).normal(2000, 1), 1.0).x0
    VelocityDistillation().terms(Event(x), ctx)["velocity_distillation"].mean().backward()
    assert -sign * float(network.log_std.grad) > 0


def test_both_losses_find_the_average_velocity():
    roles, data = {"teacher": LAW, "student": gaussian_average(1.2, 0.25)}, Samples(x=LAW.data(1000, Rng(3)))
    engine = toys.train(MDTDist(steps=40, optimiser=Optimiser(lr=0.03)), roles, data=data, size=64)
    x = toys.draw(engine.roles["student"], engine.sampler, 2000, 4)
    assert float(x.mean()) == pytest.approx(1.5, abs=0.1) and 0.33 < float(x.std()) < 0.47


def test_other_paths_are_refused():
    ctx = context(MLPDenoiser(shape=(1,), path="cosine").build())
    assert isinstance(ctx.roles["student"].denoiser.path, Cosine)
    with pytest.raises(RecipeError, match="flow path"):
        VelocityMatching().change(torch.zeros(2, 1), torch.ones(2), {}, ctx)
