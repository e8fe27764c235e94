"""pi-Flow: the teacher with a wider head, the imitation loss, and training with data and without."""

import pytest
import torch

from distill.core import Batch, Context, Rng, Role, Sampler, Samples, assemble, cfg
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.pi_flow import PiFlow

X = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
LABEL = torch.arange(64) % 2


def teacher():
    torch.manual_seed(0)
    return MLPDenoiser(kind="velocity", width=16, classes=2).build()


def setting(**options):
    method = PiFlow(substeps=8, **options)
    roles = assemble(method, {"teacher": Role("teacher", teacher())})
    update = method.plan(Sampler()).phases[0].updates[0]
    ctx = Context(roles, Rng(0))
    return update, ctx, next(update.trajectory.events(Batch(64, X, {"label": LABEL}), ctx, attached=True))


def test_the_loss_is_half_the_squared_error_of_the_velocity() -> None:
    update, ctx, event = setting(route={"guidance": 3.0, "interval": (0.0, 0.7)})
    guided = cfg(3.0, interval=(0.0, 0.7))
    v = ctx.roles["teacher"].ask(event.x_t, event.t, event.cond, guidance=guided).velocity
    torch.testing.assert_close(event.targets["velocity"], v)
    policy = (event.x_t - event.prediction.x0) / event.t[:, None]
    ours = update.loss.weight * update.loss.terms(event, ctx)["match"]
    torch.testing.assert_close(ours, 0.5 * ((policy - v) ** 2).mean(1), atol=1e-4, rtol=1e-3)


def test_the_gradient_reaches_the_head_and_the_network_below_it() -> None:
    update, ctx, event = setting()
    update.loss.terms(event, ctx)["match"].mean().backward()
    network = ctx.roles["student"].denoiser.network
    assert float(network.outlet[1].extra.weight.grad.abs().sum()) > 0
    assert float(network.inlet.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("data", [Samples(x=X, label=LABEL), None])
def test_it_trains_with_data_and_without(data) -> None:
    start = MLPDenoiser(kind="velocity", width=16, classes=2 if data else 0).build()
    method = PiFlow(steps=4, calls=2, substeps=4, optimiser={"lr": 1e-2})
    engine = toys.train(method, {"teacher": start}, data=data, size=16)
    assert engine.step == 4 and engine.plan.result == "average"
    grids = [engine.sampler.grid_for(start.path), engine.roles["average"].denoiser.edges.tolist()]
    torch.testing.assert_close(torch.tensor(grids[0]), torch.tensor(grids[1]))


def test_a_mixture_learns_the_ring_in_one_call() -> None:
    from distill.core.paths import Flow

    law, method = toys.ring(Flow()), PiFlow(steps=250, calls=1, substeps=16, optimiser={"lr": 5e-3}, average=0.9)
    roles = assemble(method, {"teacher": Role("teacher", MLPDenoiser(kind="velocity", width=48).build())})
    roles.add(Role("teacher", law))
    run = toys.train(method, roles, data=Samples(x=law.data(4000, Rng(0))), size=128)
    x = toys.draw(run.roles["average"], run.sampler, 2000, 1)
    euler = toys.draw(Role("teacher", law), Sampler(steps=1), 2000, 1)
    truth = law.data(2000, Rng(5))
    assert toys.sliced_wasserstein(x, truth) < 0.5 * toys.sliced_wasserstein(euler, truth)
