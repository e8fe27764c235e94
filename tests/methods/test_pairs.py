"""Stored pairs: made once, kept with the run, drawn for a regression."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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
from distill.methods.pairs import MakePairs, Paired, PairRegression, RecordStates, Replay, recall, recalled
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


DATA = Samples(x=torch.zeros(64, 2), label=torch.arange(64) % 3)


def engine(folder: Path, teacher: Role, seed: int = 0, **options) -> Engine:
    torch.manual_seed(1)
    method = DMD(**({"steps": 6, "pairs": 12, "pair_sampler": Sampler(steps=2)} | options))
    roles = assemble(method, {"teacher": teacher})
    source = partial(_source, DATA, seed)
    return Engine(
        roles, method.plan(Sampler()), source, folder=folder, checkpoint_every=3, seed=seed, dataset=DATA
    )  # fmt: skip


def _source(data: Samples, seed: int, start: int):
    return batches(data, 4, seed=seed, start=start, shape=(2,))


def counted(teacher: Role) -> list[int]:
    """Samples of each call of a role's network, from now on."""
    sizes: list[int] = []
    teacher.denoiser.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("lost", [False, True])
def test_a_resumed_run_has_the_pairs_and_ends_bit_for_bit_alike(tmp_path: Path, lost: bool) -> None:
    teacher = context().roles["teacher"]
    whole = engine(tmp_path, teacher).run()
    before = contents(tmp_path / "pairs")
    if lost:
        (tmp_path / "pairs" / "00000000.safetensors").unlink()
    again = engine(tmp_path, teacher).resume(tmp_path / "checkpoints" / "step-3").run()
    assert contents(tmp_path / "pairs") == before
    mine, other = whole.roles["student"].tensors(), again.roles["student"].tensors()
    assert all(torch.equal(value, other[name]) for name, value in mine.items())


def test_a_run_does_not_go_on_with_pairs_of_another_teacher(tmp_path: Path) -> None:
    engine(tmp_path, context().roles["teacher"]).run()
    shutil.rmtree(tmp_path / "pairs")
    stranger = engine(tmp_path, context(seed=5).roles["teacher"])
    with pytest.raises(DistillError, match="pairs does not hold the pairs that this run was trained with"):
        stranger.resume(tmp_path / "checkpoints" / "step-3")


def test_checkpoints_of_a_run_with_a_store_hold_no_pairs(tmp_path: Path) -> None:
    done = engine(tmp_path, context().roles["teacher"]).run()
    assert set(done.ctx.state) == {"store/pairs"} and len(done.ctx.stores["pairs"]) == 12


def test_a_second_run_with_the_store_asks_no_teacher_for_a_pair(tmp_path: Path) -> None:
    store, teacher = tmp_path / "store", context().roles["teacher"]
    first = counted(teacher)
    engine(tmp_path / "one", teacher, store=store).run(1)
    second = counted(teacher)
    engine(tmp_path / "two", teacher, seed=9, store=store).run(1)
    assert first[:2] == [12, 12] and sum(first) - 2 * sum(second) == 24


@pytest.mark.parametrize(
    "change, key",
    [({"teacher": 5}, "weights"), ({"pair_sampler": Sampler(steps=3)}, "sampler.steps"), ({"data": 1}, "conditions")],
)
def test_a_stale_store_names_what_changed_and_the_remedy(tmp_path: Path, change, key, monkeypatch) -> None:
    engine(tmp_path / "one", context().roles["teacher"], store=tmp_path / "store").run(1)
    before = contents(tmp_path / "store")
    if change.pop("data", None):
        monkeypatch.setitem(globals(), "DATA", Samples(x=torch.zeros(8, 2), label=torch.arange(8) % 3))
    other = engine(
        tmp_path / "two", context(change.pop("teacher", 0)).roles["teacher"], store=tmp_path / "store", **change
    )
    with pytest.raises(DistillError, match=rf"{key} is .* there and .* here. Delete the folder, or .* 'store:'"):
        other.run(1)
    assert contents(tmp_path / "store") == before


@pytest.mark.parametrize("weights", ["whole", "shard"])
def test_two_processes_make_the_pairs_that_one_makes(tmp_path: Path, weights: str) -> None:
    """Each once; together where each holds a share of the teacher's weights."""
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"
    launch += " --mixed_precision no --dynamo_backend no"
    rank = str(Path(__file__).with_name("_pairs_rank.py"))
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *launch.split(), rank, str(tmp_path), weights],
        capture_output=True, text=True, timeout=300, env=env, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    shards = list(range(0, 512, 16))
    assert all(made) and (made == [shards, shards] if weights == "shard" else sorted(made[0] + made[1]) == shards)
    MakePairs(count=512, chunk=16, store=tmp_path / "alone", sampler=Sampler(steps=2)).fit(batch(64), context(), None)
    assert contents(tmp_path / "alone") == contents(tmp_path / "shared")


def test_states_on_the_way_are_kept_beside_the_end(tmp_path: Path) -> None:
    ctx, sampler = context(), Sampler(steps=4)
    RecordStates(count=8, at=(0, 2), sampler=sampler, store=tmp_path).fit(batch(), ctx, None)
    found = recalled("states", 5, ctx, RecordStates)
    moves = list(sampler.walk(ctx.roles["teacher"], found["noise"], found["cond"]))
    assert set(found) == {"noise", "x-0", "x-2", "end", "cond"}
    torch.testing.assert_close(found["x-2"], moves[2].x)
    torch.testing.assert_close(found["end"], moves[-1].next)


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
