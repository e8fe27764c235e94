"""Stores: what a record is, who makes it, and what a kill leaves."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from distill.core import DistillError, Role, Samples, cfg
from distill.core.errors import DataError
from distill.core.folder import ABOUT
from distill.core.store import RecordRng, Rows, Store, identity_of, pack, reopened, unpack
from distill.core.tree import Masked, Ragged
from distill.methods.networks import MLPDenoiser

SHARD, COUNT = 4, 18
ABOUT_IT = {"seed": 0, "sampler.steps": 8}


def make(records: range) -> dict[str, torch.Tensor]:
    noise = RecordRng(0, records).normal(len(records), 3)
    return {"noise": noise, "end": noise.sin()}


def store(path: Path, **identity) -> Store:
    return Store(path, "pairs", ABOUT_IT | identity, shard=SHARD)


class Asked:
    def __init__(self) -> None:
        self.records: list[int] = []

    def __call__(self, records: range) -> dict[str, torch.Tensor]:
        self.records += records
        return make(records)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_records_come_back_in_the_order_in_which_they_are_asked_for(tmp_path):
    kept = store(tmp_path).fill(COUNT, make)
    rows = [17, 0, 5, 5, 8]
    found = kept.read(rows)
    assert len(kept) == COUNT and torch.equal(found["noise"], make(range(COUNT))["noise"][rows])
    assert torch.equal(found["end"], found["noise"].sin())


def test_a_record_follows_from_its_seed_and_number_alone(tmp_path):
    whole = RecordRng(3, range(10))
    part = RecordRng(3, [7, 2])
    assert torch.equal(whole.normal(10, 4)[[7, 2]], part.normal(2, 4))
    assert torch.equal(whole.uniform(10)[[7, 2]], part.uniform(2))
    assert torch.equal(whole.integers(99, 20)[[14, 15, 4, 5]], part.integers(99, 4))
    assert not torch.equal(part.normal(2, 4), RecordRng(4, [7, 2]).normal(2, 4))


def test_ragged_records_are_drawn_one_by_one():
    state = Ragged(torch.zeros(6, 2), torch.tensor([2, 1, 3]))
    other = Ragged(torch.zeros(4, 2), torch.tensor([1, 3]))
    drawn = RecordRng(0, [4, 5, 6]).normal_like(state)
    assert torch.equal(drawn.values[2:], RecordRng(0, [5, 6]).normal_like(other).values)


def test_rows_that_no_record_owns_are_refused():
    with pytest.raises(DataError, match="7 rows cannot be drawn for 3 records"):
        RecordRng(0, range(3)).normal(7, 2)


def test_states_of_any_kind_are_kept(tmp_path):
    ragged = Ragged(torch.arange(6.0)[:, None], torch.tensor([2, 1, 3]))
    masked = Masked(torch.ones(3, 2), torch.tensor([[True, False]] * 3))
    state = {"x": {"a": torch.zeros(3), "b": ragged}, "m": masked, "cond": {}}
    back = unpack(pack(state))
    assert torch.equal(back["x"]["b"].lengths, ragged.lengths) and torch.equal(back["m"].mask, masked.mask)
    kept = Store(tmp_path, "clips", {}, shard=3).fill(3, lambda _: state)
    assert torch.equal(kept.read([2, 0])["x"]["b"].values.flatten(), torch.tensor([3.0, 4, 5, 0, 1]))


def test_what_is_no_tensor_is_refused():
    with pytest.raises(DataError, match="'x/name' is a str"):
        pack({"x": {"name": "me"}})


def test_a_second_user_makes_nothing_and_a_greater_count_only_what_lacks(tmp_path):
    store(tmp_path).fill(COUNT, make)
    asked = Asked()
    store(tmp_path).fill(COUNT, asked)
    assert asked.records == []
    store(tmp_path).fill(COUNT + SHARD, asked)
    assert asked.records == [20, 21, 22, 23]


def test_the_folder_says_how_many_records_a_shard_has(tmp_path):
    store(tmp_path).fill(COUNT, make)
    other = Store(tmp_path, "pairs", ABOUT_IT, shard=100).fill(COUNT, Asked())
    assert other.shard == SHARD and torch.equal(other.read([9])["noise"], make(range(9, 10))["noise"])


def test_a_stale_store_is_refused_by_the_key_that_differs_and_left_alone(tmp_path):
    store(tmp_path).fill(COUNT, make)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"sampler.steps is 8 there and 4 here. Delete the folder, or .* 'store:'"):
        store(tmp_path, **{"sampler.steps": 4})
    with pytest.raises(DataError, match="weights is unknown there and abc here"):
        store(tmp_path, weights="abc")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", ["", "[]", '{"what": "pairs"', '{"what": "pairs", "shard": 0}'])
def test_an_unreadable_note_is_refused(tmp_path, content):
    (tmp_path / ABOUT).write_text(content)
    with pytest.raises(DataError, match="[Dd]elete the folder"):
        Store(tmp_path, "pairs", {})


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="holds other things than pairs: choose an empty folder for 'store:'"):
        store(tmp_path)
    assert set(contents(tmp_path)) == {"thesis.tex"}


@pytest.mark.parametrize("harm", [lambda b: b[:50], lambda b: b"", lambda b: b"\xff" * 8 + b[8:]])
def test_a_damaged_shard_is_named(tmp_path, harm):
    kept = store(tmp_path).fill(COUNT, make)
    shard = tmp_path / "00000001.safetensors"
    shard.write_bytes(harm(shard.read_bytes()))
    with pytest.raises(DataError, match="00000001.safetensors is missing or damaged .* delete it"):
        kept.read([SHARD])


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    kept = store(tmp_path).fill(SHARD, make)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device. What it held is untouched"):
        kept.fill(COUNT, make)
    assert {name for name in contents(tmp_path) if name[0] != "."} == {ABOUT, "00000000.safetensors"}


def test_an_error_of_the_maker_is_not_blamed_on_the_folder(tmp_path):
    def broken(records):
        raise FileNotFoundError(2, "No such file", "photo.png")

    with pytest.raises(FileNotFoundError, match="photo"):
        store(tmp_path).fill(COUNT, broken)


def child(work) -> int:
    """A real process of its own that does the work and nothing else."""
    process = os.fork()
    if process:
        return process
    work()
    os._exit(0)


def slowly(path: Path) -> None:
    def make_slowly(records):
        time.sleep(0.004)
        return make(records)

    store(path).fill(40 * SHARD, make_slowly)


def test_kills_at_any_moment_leave_the_store_that_no_kill_leaves(tmp_path):
    slowly(tmp_path / "whole")
    moments, kills = random.Random(0), 0
    while True:
        process = child(lambda: slowly(tmp_path / "killed"))
        time.sleep(moments.uniform(0.0, 0.06))
        os.kill(process, signal.SIGKILL)
        if os.waitpid(process, 0)[1] == 0:
            break
        kills += 1
        names = [name for name in os.listdir(tmp_path / "killed") if name[0] != "."]
        assert all((tmp_path / "killed" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)
        if kills == 60:
            slowly(tmp_path / "killed")
            break
    assert kills >= 5 and contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_processes_share_a_store_and_make_no_record_twice(tmp_path):
    log = tmp_path / "log"

    def work(name):
        def noted(records):
            time.sleep(0.01)
            with log.open("a") as file:
                file.write(f"{name} {records.start}\n")
            return make(records)

        store(tmp_path / "store").fill(40 * SHARD, noted)
        assert len(list((tmp_path / "store").glob("*.safetensors"))) == 40

    children = [child(lambda name=name: work(name)) for name in "ab"]
    assert [os.waitpid(each, 0)[1] for each in children] == [0, 0]
    who, first = zip(*(line.split() for line in log.read_text().splitlines()), strict=True)
    assert sorted(map(int, first)) == list(range(0, 40 * SHARD, SHARD)) and set(who) == {"a", "b"}


def test_who_waits_for_a_process_that_is_killed_makes_its_shard(tmp_path):
    process = child(lambda: store(tmp_path).fill(SHARD, lambda _: time.sleep(60)))
    while not (tmp_path / ".lock").exists():
        time.sleep(0.01)
    waiting = child(lambda: store(tmp_path).fill(SHARD, make))
    time.sleep(0.1)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert os.waitpid(waiting, 0)[1] == 0 and len(store(tmp_path).fill(SHARD, Asked()).read([0])["end"]) == 1


def test_a_store_is_found_again_by_its_digest_if_it_is_whole(tmp_path):
    kept = store(tmp_path).fill(COUNT, make)
    assert len(reopened(tmp_path, "pairs", COUNT, kept.digest)) == COUNT
    assert reopened(tmp_path, "pairs", COUNT, "another") is None
    (tmp_path / "00000002.safetensors").unlink()
    assert reopened(tmp_path, "pairs", COUNT, kept.digest) is None


def test_the_identity_of_a_role_changes_with_anything_that_its_answers_depend_on():
    torch.manual_seed(0)
    role = Role("teacher", MLPDenoiser(width=8, depth=1).build())
    first = identity_of(role)
    assert identity_of(role) == first
    role.guidance = cfg(3.0)
    assert {key for key, value in identity_of(role).items() if value != first[key]} == {"guidance"}
    role.module.some_setting = 3
    assert identity_of(role)["config"] != first["config"]
    with torch.no_grad():
        role.parameters()[0][0] += 1e-6
    assert identity_of(role)["weights"] != first["weights"]


def test_conditions_are_each_row_once_a_round_whoever_asks():
    data = Samples(x=torch.zeros(6, 2), label=torch.arange(6))
    rows = Rows(data, seed=1)
    assert sorted(rows(range(6))["label"].tolist()) == list(range(6)) and set(rows(range(6))) == {"label"}
    assert rows([8, 3])["label"].tolist() == [int(Rows(data, 1)([k])["label"]) for k in (8, 3)]
    assert rows.digest != Rows(Samples(x=torch.zeros(6, 2), label=torch.arange(6) + 1), 1).digest


def test_an_empty_dataset_has_no_conditions():
    with pytest.raises(DistillError, match="no samples"):
        Rows(Samples(x=torch.zeros(0, 2)), 0)
