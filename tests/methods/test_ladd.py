"""LADD: heads on the frozen teacher's noised features, samples of its own for data, levels in two stages."""

from __future__ import annotations

import hashlib

import torch

from distill.core import Event, Sampler, Samples
from distill.methods import toys
from distill.methods.networks import MLPDenoiser, ProjectionHeads
from distill.methods.papers.ladd import LADD
from distill.methods.trajectories import NoisedData

NETWORK = MLPDenoiser(width=16, depth=2, classes=3, kind="velocity")
HEADS = ProjectionHeads(condition="label")


def fingerprint(module: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in module.state_dict().values())).hexdigest()


def run(**options):
    torch.manual_seed(0)
    teacher = NETWORK.build()
    data = Samples(x=torch.randn(32, 2), label=torch.arange(32) % 3)
    method = LADD(steps=4, warmup=2, synthetic=8, synthetic_sampler=Sampler(steps=2), heads=HEADS, **options)
    return fingerprint(teacher), toys.train(method, {"teacher": teacher}, data=data, size=8)


def test_the_teacher_keeps_its_weights() -> None:
    before, engine = run()
    assert fingerprint(engine.roles["teacher"].module) == before
    assert fingerprint(engine.roles["student"].module) != before


def test_gradient_flows_through_the_frozen_teacher_to_the_sample() -> None:
    _, engine = run()
    loss = engine.plan.phases[1].updates[0].loss
    x = torch.zeros(8, 2, requires_grad=True)
    terms = loss.terms(Event(x, {"label": torch.arange(8) % 3}), engine.ctx)["adversarial"]
    assert float(torch.autograd.grad(terms.sum(), x)[0].abs().max()) > 0


def test_samples_and_real_states_are_noised_on_their_own() -> None:
    _, engine = run()
    loss = engine.plan.phases[1].updates[1].loss
    x = torch.zeros(64, 2)
    (fake, t_fake), (real, t_real) = (
        loss.noised(x, Event(x), engine.ctx, f"adversarial/{name}") for name in ("fake", "real")
    )
    assert not torch.equal(t_fake, t_real) and not torch.equal(fake, real)


def test_levels_favour_noise() -> None:
    _, engine = run()
    loss = engine.plan.phases[1].updates[0].loss
    x = torch.zeros(4000, 2)
    _, t = loss.noised(x, Event(x), engine.ctx, "adversarial/generator")
    assert float((t > 0.5).float().mean()) > 0.8


def test_light_noise_comes_first_then_mostly_noise_alone() -> None:
    updates = LADD(warmup=10, synthetic=0).plan(Sampler()).phases[0]
    first, later = (updates.groups(step)[0][0] for step in (0, 10))
    assert isinstance(first, NoisedData)
    assert (first.times.shares[0], later.times.shares[0]) == (0.0, 0.7)
    assert [len(updates.groups(step)) for step in (0, 10)] == [1, 1]


def test_the_data_are_the_teachers_own() -> None:
    _, engine = run()
    assert len(engine.ctx.state["pairs/end"]) == 8
    assert LADD(synthetic=0).plan(Sampler()).phases[0].fit is None
