"""An optimiser step between two steps of one roll-out: the trajectory is a generator (SFD)."""

from __future__ import annotations

from itertools import pairwise

import torch

from distill.core import (
    Batch,
    Engine,
    Event,
    Optimiser,
    Plan,
    Rng,
    Role,
    Roles,
    Trajectory,
    Update,
    rollout,
    tree,
)
from distill.core.paths import Flow
from distill.core.plan import one_phase
from distill.core.sampling import DPM, finish
from distill.methods.losses import MatchState
from distill.methods.networks import MLPDenoiser
from distill.methods.toys import ring, rmse

TIMES = (1.0, 0.7, 0.4, 0.1)
REFINED = tuple(torch.linspace(1.0, 0.1, 13).tolist())
WATCHED: list[torch.Tensor] = []


class Stepwise(Trajectory):
    """The student's own roll-out beside the teacher's from the same noise: one event a step."""

    def events(self, batch, ctx, *, attached):
        noise = batch.noise(ctx.rng, "roll/noise")
        with torch.no_grad():
            route = list(rollout(ctx.roles["teacher"], noise, REFINED, solver=DPM(order=3)))
        walk = rollout(ctx.roles["student"], noise, TIMES, attach=range(3) if attached else ())
        sent = None
        for n in range(3):
            move = walk.send(sent)
            WATCHED.append(weights(ctx.roles["student"].module))
            yield Event(move.next, t=move.t, x_t=move.x, targets={"x": route[4 * n + 3].next}, meta={"step": n})
            sent = tree.detach(move.next)


def weights(module):
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def student():
    torch.manual_seed(1)
    return MLPDenoiser(width=64, depth=2).build()


def engine(steps, network, **optimiser):
    updates = [Update(trajectory=Stepwise(), loss=MatchState(metric="l1"))]
    plan = Plan(phases=one_phase(updates, steps, {"student": Optimiser(**{"lr": 2e-3, **optimiser})}))
    roles = Roles({"student": Role("student", network), "teacher": Role("teacher", ring(Flow()))})
    WATCHED.clear()
    return Engine(roles, plan, lambda start: iter(lambda: Batch(64, shape=(2,)), None))


def test_parameters_change_once_a_step_of_the_rollout():
    network = student()
    engine(2, network).run()
    seen = [*WATCHED, weights(network)]
    assert len(seen) == 7 and all(not torch.equal(a, b) for a, b in pairwise(seen))


def test_no_gradient_comes_through_the_step_before():
    run = engine(1, student())
    events = Stepwise().events(Batch(4, shape=(2,)), run.ctx, attached=True)
    assert [event.x_t.requires_grad for event in events] == [False, False, False]


def test_the_engine_equals_a_loop_written_by_hand():
    """Five roll-outs, fifteen optimiser steps: the same weights."""
    ours, theirs, rng, teacher = student(), student(), Rng(0), Role("teacher", ring(Flow()))
    engine(5, ours).run()
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(5):
        x = noise = rng.normal(64, 2, stream="roll/noise")
        route = list(rollout(teacher, noise, REFINED, solver=DPM(order=3)))
        for n, (t, s) in enumerate(pairwise(TIMES)):
            keep, pull = s / t, (1 - s) - (1 - t) * (s / t)
            x = keep * x.detach() + pull * theirs.predict(x.detach(), t).x0
            (x - route[4 * n + 3].next).abs().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
    torch.testing.assert_close(weights(ours), weights(theirs), atol=1e-6, rtol=1e-5)


def test_it_learns_the_teachers_route():
    network = student()
    run = engine(250, network, lr=8e-3, schedule="cosine").run()
    noise = Rng(9).normal(512, 2)
    grids = (("teacher", REFINED), ("teacher", TIMES), ("student", TIMES))
    exact, euler, ours = (finish(rollout(run.roles[role], noise, times)).detach() for role, times in grids)
    assert rmse(ours, exact) < 0.75 * rmse(euler, exact)
