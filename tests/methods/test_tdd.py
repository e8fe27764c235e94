"""TDD: its target times, the self-made target, its adapter, and the sampler that it is made for."""

import pytest
import torch

from distill.core import Batch, Context, Rng, Role, Sampler, Samples, assemble
from distill.core.paths import Cosine
from distill.methods import toys
from distill.methods.losses import AdversarialGenerator
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.tdd import TDD

DATA = Samples(x=torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), label=torch.arange(64) % 4)


def teacher():
    torch.manual_seed(0)
    return MLPDenoiser(path="cosine", kind="v", width=8, classes=4).build()


def event_of(method):
    roles = assemble(method, {"teacher": Role("teacher", teacher())})
    update = method.plan(Sampler()).phases[0].updates[0]
    batch = Batch(64, DATA.tensors["x"], {"label": DATA.tensors["label"]})
    ctx = Context(roles, Rng(0))
    return next(update.trajectory.events(batch, ctx, attached=True)), update.loss, ctx


def test_the_loss_is_the_pseudo_huber_distance_of_the_two_jumps() -> None:
    event, loss, ctx = event_of(TDD(points=50))
    error = ((event.x - event.targets["x"]) ** 2 + 1e-6).sqrt() - 1e-3
    torch.testing.assert_close(loss.terms(event, ctx)["match_state"], error.mean(1))


def test_the_students_own_answer_is_the_target() -> None:
    event, _, ctx = event_of(TDD(points=50, drop=0.0))
    u, s = event.meta["next"], event.meta["level"]
    said = ctx.roles["student"].ask(event.meta["x_next"], u, event.cond)
    torch.testing.assert_close(event.targets["x"], Cosine().jump(said.x, said.x0, u, s))


def test_the_adapter_alone_is_trained() -> None:
    engine = toys.train(TDD(steps=3, points=10, optimiser={"lr": 1e-2}), {"teacher": teacher()}, data=DATA, size=16)
    x, cond = torch.randn(8, 2), {"label": torch.arange(8) % 4}
    assert torch.equal(engine.roles["teacher"].ask(x, 0.5, cond).x0, teacher().eval().predict(x, 0.5, cond).x0)
    assert not torch.equal(engine.roles["student"].ask(x, 0.5, cond).x0, engine.roles["teacher"].ask(x, 0.5, cond).x0)


def test_a_gan_compares_jumps_with_data_at_the_same_level() -> None:
    gan = AdversarialGenerator(weight=0.1, features="teacher", times=None)
    method = TDD(steps=2, points=10, generator=gan, lora=None)
    event, _, _ = event_of(method)
    torch.testing.assert_close(event.real, Cosine().noised(DATA.tensors["x"], event.noise, event.meta["level"]))
    assert toys.train(method, {"teacher": teacher()}, data=DATA, size=16).step == 2


@pytest.mark.parametrize("times", [None, (1.0, 0.88, 0.75, 0.5, 0.25)])
def test_the_sampler_overshoots_renoises_and_guides(times) -> None:
    sampler = TDD(times=times).plan(Sampler()).sampler
    assert sampler.solver.gamma == 0.2 and sampler.guidance == 1.7
    assert len(sampler.grid_for(Cosine())) == (6 if times else 5)
    weights = [sampler.solver.weights(Cosine(), sampler.grid_for(Cosine()), n) for n in range(4)]
    assert all(step.fresh > 0 for step in weights[:3])
