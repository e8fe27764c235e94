"""Stored pairs: made once, kept with the run, drawn for a regression."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from distill.core import (
    Batch,
    Context,
    DistillError,
    Engine,
    Rng,
    Role,
    Roles,
    Sampler,
    Samples,
    assemble,
    batches,
)
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.pairs import MakePairs, Paired, PairRegression, Replay, recall
from distill.methods.papers.dmd import DMD
from distill.methods.trajectories import Data, Generate

NETWORK = MLPDenoiser(width=16, depth=2, classes=3)


def context(seed: int = 0) -> Context:
    torch.manual_seed(seed)
    return Context(Roles({name: Role(name, NETWORK.build()) for name in ("teacher", "student")}), Rng(seed))


def batch(size: int = 8) -> Batch:
    return Batch(size, cond={"label": torch.arange(size) % 3}, shape=(2,))


def made(count: int = 20) -> Context:
    ctx = context()
    MakePairs(count=count, chunk=8, sampler=Sampler(steps=4)).fit(batch(), ctx, "sampler")
    return ctx


def test_pairs_are_tensors_in_the_runs_state() -> None:
    ctx = made()
    assert {key: len(value) for key, value in ctx.state.items()} == {
        "pairs/noise": 20, "pairs/end": 20, "pairs/cond/label": 20
    }  # fmt: skip


def test_an_end_point_is_the_teachers_sample_of_its_noise() -> None:
    ctx = made()
    noise, end, cond = recall(16, ctx)
    again = Sampler(steps=4).sample(ctx.roles["teacher"], noise, cond)
    assert torch.allclose(again, end, atol=1e-5)


def test_fit_leaves_the_students_sampler_alone() -> None:
    assert MakePairs(count=4).fit(batch(), context(), "sampler") == "sampler"


def test_states_of_several_tensors_come_back_whole() -> None:
    ctx = context()
    ctx.state.update(
        {
            "pairs/noise/a": torch.zeros(4, 2),
            "pairs/noise/b": torch.ones(4, 3),
            "pairs/end": torch.zeros(4, 2),
        }
    )
    noise, end, cond = recall(3, ctx)
    assert noise["a"].shape == (3, 2) and noise["b"].shape == (3, 3) and cond == {}


def test_without_pairs_the_remedy_is_named() -> None:
    with pytest.raises(DistillError, match="MakePairs"):
        recall(2, context())


@pytest.mark.parametrize("joined", [True, False])
def test_answers_stand_beside_the_fresh_samples(joined: bool) -> None:
    ctx = made()
    (event,) = Paired(generate=Generate(), joined=joined).events(batch(), ctx, attached=True)
    assert len(event.x) == len(event.cond["label"]) == (16 if joined else 8)
    terms = PairRegression().terms(event, ctx)
    assert terms["pairs"].shape == (8,) and terms["pairs"].requires_grad


def test_replay_puts_the_teachers_samples_in_the_datas_place() -> None:
    ctx = made()
    (event,) = Replay(inner=Data()).events(batch(), ctx, attached=False)
    assert all((ctx.state["pairs/end"] == row).all(1).any() for row in event.targets["real"])


def engine(folder: Path, teacher: Role) -> Engine:
    torch.manual_seed(1)
    method = DMD(steps=6, pairs=12, pair_sampler=Sampler(steps=2))
    roles = assemble(method, {"teacher": teacher})
    data = Samples(x=torch.zeros(64, 2), label=torch.arange(64) % 3)
    return Engine(roles, method.plan(Sampler()), partial(_source, data), folder=folder, checkpoint_every=3)


def _source(data: Samples, start: int):
    return batches(data, 4, start=start, shape=(2,))


def test_a_resumed_run_has_the_pairs_and_ends_bit_for_bit_alike(tmp_path: Path) -> None:
    teacher = context().roles["teacher"]
    whole = engine(tmp_path / "whole", teacher).run()
    again = engine(tmp_path / "again", teacher).resume(tmp_path / "whole" / "checkpoints" / "step-3").run()
    assert torch.equal(whole.ctx.state["pairs/end"], again.ctx.state["pairs/end"])
    mine, other = whole.roles["student"].tensors(), again.roles["student"].tensors()
    assert all(torch.equal(value, other[name]) for name, value in mine.items())


def test_pairs_are_learnt() -> None:
    ring = toys.ring(MLPDenoiser().build().path)
    method = DMD(steps=150, pairs=32, pair_sampler=Sampler(steps=8))
    fast = method.student_optimiser.model_copy(update={"lr": 3e-3})
    method = method.model_copy(update={"student_optimiser": fast, "regression": PairRegression(weight=10)})
    torch.manual_seed(0)
    start = MLPDenoiser(width=32).build()
    run = toys.train(method, {"teacher": ring, "student": start, "critic": MLPDenoiser(width=32).build()}, size=32)
    said = run.roles["student"].ask(run.ctx.state["pairs/noise"], 1.0).x0
    assert toys.rmse(said, run.ctx.state["pairs/end"]) < 0.8
