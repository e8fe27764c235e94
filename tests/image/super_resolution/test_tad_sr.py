import pytest
import torch

from distill.core import Batch, Context, Event, Rng, Role, Roles, Sampler, Samples
from distill.image.super_resolution.losses import EndScore
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.papers.tad_sr import TADSR
from distill.image.super_resolution.paths import Tempered
from distill.image.super_resolution.trajectories import TeacherEnds
from distill.methods.toys import train

X, Y = 0.1 * Rng(1).normal(4, 3, 8, 8), 0.1 * Rng(2).normal(4, 3, 8, 8)
LOW = Rng(3).uniform(4, 3, 8, 8) - 0.5


def context():
    torch.manual_seed(0)
    denoiser = RestorerDenoiser(width=8, blocks=3, size=8).build()
    torch.nn.init.normal_(denoiser.network.outlet.weight, std=0.1)
    return Context(Roles({name: Role(name, denoiser) for name in ("teacher", "student")}), Rng(0))


def event(x, y=Y):
    return Event(x, {"low": LOW}, targets={"x": y, "real": y})


def test_the_gradient_is_the_gap_of_the_teachers_noises():
    x = X.clone().requires_grad_()
    EndScore().terms(event(x), context())["end_score"].sum().backward()
    torch.testing.assert_close(x.grad, EndScore().gap(event(X), context()) / X[0].numel())


def test_nothing_moves_where_sample_and_target_agree_unless_the_noise_stands_in():
    gaps = [EndScore(reference=reference).gap(event(X, X), context()).abs().max() for reference in (True, False)]
    assert gaps[0] == 0 and gaps[1] > 0


def test_only_the_three_cleanest_levels_are_drawn():
    ctx = context()
    times = EndScore().times.draw(ctx.roles["teacher"].denoiser.path, 64, ctx.rng, "t")
    assert set((15 * times).round().int().tolist()) == {1, 2, 3}


def test_student_and_teacher_start_from_one_state():
    ctx = context()
    sampler = Tempered(steps=3, temperature=0.5)
    found = next(iter(TeacherEnds(sampler=sampler).events(Batch(4, X, {"low": LOW}), ctx, attached=True)))
    assert torch.equal(found.x_t, sampler.start(ctx.roles["teacher"], found.noise))
    again = sampler.sample(ctx.roles["teacher"], found.noise, {"low": LOW}, Rng(0))
    assert torch.equal(found.targets["x"], again) and not found.targets["x"].requires_grad and found.x.requires_grad


def method(weight, **options):
    generator = TADSR().generator.model_copy(update={"weight": weight})
    return TADSR(ends=TeacherEnds(sampler=Tempered(steps=2)), decay=0.9, generator=generator, **options)


def test_a_student_learns_where_its_teacher_ends():
    torch.manual_seed(0)
    teacher = Role("teacher", context().roles["teacher"].denoiser, frozen=True)
    torch.nn.init.normal_(teacher.denoiser.network.outlet.weight, std=0.5)
    rate = {"lr": 3e-3, "schedule": "cosine"}
    paper = method(0.0, steps=80, score=EndScore(weight=0), student_optimiser=rate)
    engine = train(paper, Roles({"teacher": teacher}), data=Samples(x=X, low=LOW), size=4)
    noise, plan = Rng(4).normal(4, 3, 8, 8), paper.plan(Sampler())
    wanted = paper.ends.sampler.sample(teacher, noise, {"low": LOW}, Rng(0))
    made = [plan.sampler.sample(role, noise, {"low": LOW}, Rng(0)) for role in (teacher, engine.roles[plan.result])]
    before, after = ((each - wanted).square().mean() for each in made)
    assert after < before and isinstance(plan.sampler, Tempered)


@pytest.mark.parametrize("weight", [0.0, 0.02])
def test_heads_are_there_where_the_gan_is(weight):
    teacher = Role("teacher", context().roles["teacher"].denoiser, frozen=True)
    known = {name: value.clone() for name, value in teacher.tensors().items()}
    engine = train(method(weight, steps=2), Roles({"teacher": teacher}), data=Samples(x=X, low=LOW), size=4)
    assert ("discriminator" in engine.roles) == bool(weight)
    assert all(torch.equal(value, known[name]) for name, value in teacher.tensors().items())
