"""Presto: its plan, its laws of noise, and layers that are left out."""

from __future__ import annotations

import copy

import pytest
import torch

from distill.audio import toys
from distill.audio.papers.presto import INFERENCE, TRAINING, Presto
from distill.core import Batch, Context, DistillError, Rng, Role, Roles
from distill.core.paths import Flow, Karras, Trigonometric
from distill.methods import toys as plain
from distill.methods.layers import LayerBudget, SelfTeacher
from distill.methods.losses import DISCRIMINATOR, GENERATOR
from distill.methods.times import LogNormalTimes, time_of
from distill.methods.trajectories import NoisedData

BUDGET = LayerBudget(levels=(0.3, 2.0), drops=(0, 1, 3))


def spoken():
    """The layered transformer with weights at random."""
    torch.manual_seed(0)
    denoiser = toys.LAYERED.build()
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.add_(0.3 * torch.randn(weight.shape) * weight.shape[-1] ** -0.5)
    return denoiser.eval()


def cast(budget=BUDGET):
    roles = Roles({"student": Role("student", spoken())})
    budget.apply(roles, "student")
    roles.add(Role("full", roles["student"].module))
    return roles


def test_with_all_layers_it_is_the_undistilled_network():
    x, t = torch.randn(3, 8, 8), torch.tensor([0.1, 1.0, 9.0])
    roles, before = cast(), spoken().predict(x, t).value
    assert torch.equal(roles["full"].ask(x, t).value, before)
    said = roles["student"].ask(x, t).value
    assert torch.allclose(said[0], before[0], atol=1e-5) and not torch.allclose(said[1], before[1], atol=1e-3)


def test_layers_before_the_last_are_left_out():
    roles, x = cast(), torch.randn(1, 8, 8)
    layers = roles["student"].denoiser.network.inner.blocks
    ran = []
    for n, layer in enumerate(layers):
        layer.layer.register_forward_hook(lambda *_, n=n: ran.append(n))
    for noise, left in ((0.1, range(6)), (1.0, (0, 1, 2, 3, 5)), (9.0, (0, 1, 5))):
        ran.clear()
        roles["student"].ask(x, noise)
        assert ran == list(left)


def test_a_batch_of_several_noises_is_as_each_alone():
    roles, x, t = cast(), torch.randn(3, 8, 8), torch.tensor([0.1, 1.0, 9.0])
    said = roles["student"].ask(x, t).value
    for n in range(3):
        assert torch.allclose(roles["student"].ask(x[n : n + 1], t[n : n + 1]).value, said[n : n + 1], atol=1e-5)


def test_folded_it_leaves_layers_out_by_itself():
    roles, x = cast(), torch.randn(2, 8, 8)
    assert torch.equal(roles["student"].alone().predict(x, 9.0).value, roles["student"].ask(x, 9.0).value)


def test_the_self_teacher_moves_the_student_only_where_layers_are_missing():
    roles = cast()
    ctx, batch = Context(roles, Rng(0)), Batch(4, torch.randn(4, 8, 8))
    for time, silent in ((0.05, True), (9.0, False)):
        event = next(NoisedData(times={"name": "listed", "times": (time,)}).events(batch, ctx, attached=True))
        terms = SelfTeacher().terms(event, ctx)["self_teacher"]
        assert bool((terms < 1e-9).all()) is silent


def test_budgets_that_do_not_fit_are_refused():
    with pytest.raises(DistillError, match="cannot be left out"):
        cast(LayerBudget(levels=(1.0,), drops=(0, 6)))
    with pytest.raises(DistillError, match="need 2 drops"):
        cast(LayerBudget(levels=(1.0,), drops=(0,)))
    with pytest.raises(DistillError, match="'nothing' must be a list"):
        cast(LayerBudget(layers="nothing"))


@pytest.mark.parametrize("path", [Karras(), Trigonometric(sigma_data=0.5), Flow()])
def test_noise_has_its_time_on_every_path(path):
    noise = torch.tensor([0.02, 0.7, 30.0])
    t = time_of(path, noise)
    assert torch.allclose(path.sigma(t) / path.alpha(t), noise, rtol=1e-3)
    drawn = LogNormalTimes(of="noise").draw(path, 4000, Rng(0), "x")
    assert abs(float((path.sigma(drawn) / path.alpha(drawn)).log().mean()) + 1.2) < 0.1


def test_least_squares_of_logits():
    q = torch.tensor([0.0, 1.0, 3.0])
    assert GENERATOR["least-squares"](q).tolist() == [1, 0, 4]
    assert DISCRIMINATOR["least-squares"](q, q).tolist() == [1, 1, 13]


def test_the_plan_has_layers_first_and_four_laws_of_noise():
    both = Presto(steps=10, layers=BUDGET, layer_steps=4)
    phases = both.plan(None).phases
    assert [(phase.name, phase.steps) for phase in phases] == [("layers", 4), ("steps", 6)]
    assert set(both.roles()) == {"student", "full", "critic", "discriminator"}
    steps = phases[1].updates
    assert steps[0].trajectory.times == INFERENCE and {update.loss.times for update in steps if "times" in
        type(update.loss).model_fields} == {TRAINING}  # fmt: skip
    assert set(Presto(steps=4, layers=BUDGET, layer_steps=4).roles()) == {"student", "full"}


@pytest.mark.parametrize("options", [{}, {"layers": BUDGET, "layer_steps": 2}, {"generator": {"weight": 0.0}}])
def test_a_few_steps(options):
    method = Presto(steps=6, critic_updates=2, **options)
    start = {"teacher": spoken()}
    data = plain.Samples(x=torch.randn(16, 8, 8))
    engine = plain.train(method, copy.deepcopy(start), data=data, size=4)
    before, after = start["teacher"], engine.roles["student"].denoiser
    names = dict(after.named_parameters())
    moved = [name for name in names if ".qkv.weight" in name]
    originals = [p for name, p in before.named_parameters() if ".qkv.weight" in name]
    assert any(not torch.equal(names[name], old) for name, old in zip(moved, originals, strict=True))
