"""TTSnap: the budget, the order in which judges learn, and whether they look ahead."""

import copy

import pytest
import torch

from distill.core import Batch, Context, DistillError, Event, Optimiser, Rng, Role, Roles, Sampler
from distill.methods import few_step, toys
from distill.methods.claims import ttsnap as claim
from distill.methods.foresight import Foresight, ScoreAhead
from distill.methods.papers.ttsnap import TTSnap
from distill.methods.samplers import judge

ROUTE = Sampler(steps=20)


def trained(steps=3, **options):
    method = TTSnap(student=ROUTE, steps=steps, routes=600, optimiser=Optimiser(lr=2e-3), **options)
    return toys.train(method, {"teacher": few_step.law(), "oracle": copy.deepcopy(claim.oracle(0, 200))})


def test_the_paper_s_counts() -> None:
    method = TTSnap()
    assert method.cost(20) == pytest.approx(52.656) and TTSnap(at=(), keep=()).cost(20) == pytest.approx(199.2)
    assert method.plan(ROUTE).sampler.candidates == 38
    assert TTSnap(at=(), keep=()).plan(ROUTE).sampler.candidates == 10


def test_the_latest_moment_is_learnt_first_and_hands_over() -> None:
    plan = TTSnap(steps=30).plan(ROUTE)
    assert [phase.name for phase in plan.phases] == ["routes", "after 11", "after 6", "after 2"]
    assert [phase.steps for phase in plan.phases] == [0, 10, 10, 10]
    copies = [(each.source, each.target) for phase in plan.phases for each in phase.at_end]
    assert copies == [("oracle-11", "oracle-6"), ("oracle-6", "oracle-2")]


def test_judges_move_and_the_oracle_does_not() -> None:
    engine = trained()
    before = claim.oracle(0, 200).state_dict()
    same = {n: all(torch.equal(v, before[k]) for k, v in engine.roles[n].tensors().items()) for n in engine.roles
            if n.startswith("oracle")}  # fmt: skip
    assert same == {"oracle": True, "oracle-2": False, "oracle-6": False, "oracle-11": False}


def test_predictions_stand_beside_the_ends_of_their_routes() -> None:
    engine = trained()
    event = next(iter(Foresight(after=6).events(Batch(40), engine.ctx, attached=False)))
    kept = engine.ctx.state
    row = (kept["routes/x0-6"][:, None] == event.x[None]).all(-1).float().argmax(0)
    assert torch.equal(kept["routes/end"][row], event.targets["end"])


def test_the_loss_is_the_squared_difference_of_scores() -> None:
    names = ("oracle", "oracle-2")
    roles = Roles({name: Role(name, copy.deepcopy(claim.oracle(seed, 50))) for seed, name in enumerate(names)})
    x, end = Rng(0).normal(5, 2), Rng(1).normal(5, 2)
    terms = ScoreAhead().terms(Event(x, targets={"end": end}), Context(roles, Rng(0)))
    torch.testing.assert_close(terms["score_ahead"], (judge(roles["oracle-2"], x) - judge(roles["oracle"], end)) ** 2)


def test_without_routes_there_is_nothing_to_foresee() -> None:
    ctx = Context(Roles({}), Rng(0))
    with pytest.raises(DistillError, match="RecordRoutes"):
        next(iter(Foresight().events(Batch(4), ctx, attached=False)))


def test_taught_judges_rank_earlier_than_the_oracle() -> None:
    engine = trained(steps=900)
    naive, aware = (claim.correlations(engine, 0, aware=aware) for aware in (False, True))
    assert aware[1] > naive[1] + 0.1
