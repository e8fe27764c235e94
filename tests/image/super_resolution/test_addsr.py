import pytest
import torch

from distill.core import Batch, Context, Event, Rng, Role, Roles, Sampler, Samples, assemble
from distill.core.sampling import Consistency
from distill.image.super_resolution import toys
from distill.image.super_resolution.losses import HighTarget
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.papers.addsr import AddSR
from distill.image.super_resolution.refinement import Refined, SelfRefinement, refined
from distill.methods.toys import train

X, LOW = 0.1 * Rng(1).normal(4, 3, 8, 8), Rng(2).uniform(4, 3, 8, 8) - 0.5


class Seen(Role):
    """A role that keeps what it is given for a low-resolution picture."""

    def predict(self, x, t, cond=None, **options):
        self.scalars.clear()
        self.given = [*getattr(self, "given", []), cond["low"]]
        return super().predict(x, t, cond, **options)


def role(name, seed=0):
    torch.manual_seed(seed)
    denoiser = RestorerDenoiser(width=8, blocks=3, size=8).build()
    torch.nn.init.normal_(denoiser.network.outlet.weight, std=0.1)
    return Seen(name, denoiser)


def context(**roles):
    return Context(Roles(roles), Rng(0))


@pytest.mark.parametrize("high", [True, False])
def test_the_teacher_alone_is_given_the_picture_itself(high):
    ctx = context(teacher=role("teacher"), student=role("student", 1))
    event = next(iter(SelfRefinement(probability=0).events(Batch(4, X, {"low": LOW}), ctx, attached=True)))
    HighTarget(high=high).terms(event, ctx)
    wanted = X + LOW if high else LOW
    torch.testing.assert_close(ctx.roles["teacher"].given[0], wanted)
    torch.testing.assert_close(ctx.roles["student"].given[0], LOW)


def test_later_steps_weigh_as_in_the_paper():
    ctx = context(teacher=role("teacher"))
    found = []
    for step in range(4):
        ctx.rng = Rng(0)
        event = Event(X, {"low": LOW}, targets={"real": X}, meta={"step": step})
        found.append(HighTarget().terms(event, ctx)["high_target"].mean())
    flat = HighTarget(first=1, growth=1).terms(event, context(teacher=role("teacher")))["high_target"].mean()
    torch.testing.assert_close(torch.stack(found) / flat, torch.tensor([0.5, 1.05, 2.205, 4.6305]))


def test_the_target_moves_the_student_through_its_sample_alone():
    x = X.clone().requires_grad_()
    ctx = context(teacher=role("teacher"))
    HighTarget().terms(Event(x, {"low": LOW}, targets={"real": X}, meta={"step": 0}), ctx)[
        "high_target"
    ].sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad is None for p in ctx.roles["teacher"].parameters())


def test_a_later_step_is_given_the_answer_before_without_gradient():
    ctx = context(student=role("student"))
    events = SelfRefinement(probability=1).events(Batch(4, X, {"low": LOW}), ctx, attached=True)
    event = next(iter(events))
    first, second = ctx.roles["student"].given
    assert torch.equal(first, LOW) and not torch.equal(second, LOW) and not second.requires_grad
    assert event.meta["step"] > 0 and event.x.requires_grad and torch.equal(event.cond["low"], LOW)


def test_sampling_hands_on_a_mixture():
    student = role("student")
    sampler = Refined(times=(1.0, 0.5), steps=2, solver=Consistency(), share=0.5)
    moves = list(sampler.walk(student, Rng(3).normal(4, 3, 8, 8), {"low": LOW}, Rng(0)))
    halfway = (LOW + (LOW + moves[0].prediction.x0).clamp(-1, 1)) / 2
    torch.testing.assert_close(student.given[-1], halfway)
    assert [move.n for move in moves] == [0, 1]


def test_without_a_share_it_is_the_plain_sampler():
    same = {"times": (1.0, 0.5), "steps": 2, "solver": Consistency()}
    data = Samples(x=X, low=LOW)
    plain, none = (toys.restore(role("student"), kind, data) for kind in (Sampler(**same), Refined(share=0, **same)))
    assert torch.equal(plain, none)
    torch.testing.assert_close(refined(LOW, X, 1.0, "picture"), X)


@pytest.mark.parametrize("weight", [0.0, 0.02])
def test_three_iterations_move_the_student_and_leave_the_teacher(weight):
    teacher = role("teacher")
    known = {name: value.clone() for name, value in teacher.tensors().items()}
    method = AddSR(steps=3, generator=AddSR().generator.model_copy(update={"weight": weight}))
    engine = train(method, Roles({"teacher": teacher}), data=Samples(x=X, low=LOW), size=4)
    assert ("discriminator" in assemble(method, {"teacher": teacher})) == bool(weight)
    assert all(torch.equal(value, known[name]) for name, value in teacher.tensors().items())
    assert any(not torch.equal(value, known[name]) for name, value in engine.roles["student"].tensors().items())
