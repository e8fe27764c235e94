"""A cache on disk: made once, whole or not at all, and never another's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from distill.core.errors import DataError
from distill.methods.cache import SHARD, Cache, home

ITEMS = list(range(2 * SHARD + 10))


class Maker:
    """Squares of items; remembers what it was asked."""

    def __init__(self, broken_at=None):
        self.asked, self.broken_at = [], broken_at

    def __call__(self, items):
        if self.broken_at in items:
            raise KeyboardInterrupt
        self.asked += items
        return {"square": torch.tensor(items) ** 2, "row": torch.tensor(items)[:, None].half().expand(-1, 3)}


def test_rows_come_back_exactly_and_are_made_once(tmp_path):
    maker = Maker()
    table = Cache(tmp_path / "c", "squares", "one").table(ITEMS, str, maker)
    rows = table[[0, SHARD, len(ITEMS) - 1, 3]]
    assert rows["square"].tolist() == [0, SHARD**2, (len(ITEMS) - 1) ** 2, 9] and rows["row"].shape == (4, 3)
    assert rows["row"].dtype == torch.float16 and len(table) == len(ITEMS)
    again = Cache(tmp_path / "c", "squares", "one").table(ITEMS, str, maker)
    assert torch.equal(again[[5]]["square"], torch.tensor([25])) and maker.asked == ITEMS


def test_what_was_made_before_an_interruption_is_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path, "squares", "one").table(ITEMS, str, Maker(broken_at=SHARD))
    maker = Maker()
    Cache(tmp_path, "squares", "one").table(ITEMS, str, maker)
    assert maker.asked == ITEMS[SHARD:]


def test_only_files_with_a_changed_item_are_made_anew(tmp_path):
    Cache(tmp_path, "squares", "one").table(ITEMS, str, Maker())
    maker = Maker()
    Cache(tmp_path, "squares", "one").table([1000, *ITEMS[1:]], str, maker)
    assert maker.asked == [1000, *ITEMS[1:SHARD]]


@pytest.mark.parametrize("other", [("squares", "two"), ("cubes", "one")])
def test_a_cache_of_something_else_is_refused(tmp_path, other):
    Cache(tmp_path, "squares", "one").table(ITEMS, str, Maker())
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        DataError, match=r"holds squares that this run cannot use: .* is .* here. Delete the folder, or give"
    ):
        Cache(tmp_path, *other)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="holds other things than squares"):
        Cache(tmp_path, "squares", "one")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_an_unreadable_note_about_a_cache_is_refused(tmp_path, content):
    (tmp_path / "about.json").write_text(content)
    with pytest.raises(DataError, match="Delete the folder"):
        Cache(tmp_path, "squares", "one")


def test_a_damaged_file_is_named(tmp_path):
    table = Cache(tmp_path, "squares", "one").table(ITEMS, str, Maker())
    table.files[0].write_bytes(table.files[0].read_bytes()[:50])
    with pytest.raises(DataError, match=rf"{table.files[0].name} is damaged .* delete it"):
        table[[0]]


def test_ranks_begin_at_different_ends_and_share(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    second = Maker(broken_at=0)
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path, "squares", "one").table(ITEMS, str, second)
    monkeypatch.setenv("RANK", "0")
    first = Maker()
    Cache(tmp_path, "squares", "one").table(ITEMS, str, first)
    assert second.asked == ITEMS[SHARD:] and first.asked == ITEMS[:SHARD]


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    cache = Cache(tmp_path, "squares", "one")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device. What it held is untouched"):
        cache.table(ITEMS, str, Maker())
    assert {path.name for path in tmp_path.iterdir()} == {"about.json", ".lock"}


def test_what_a_killed_process_left_aside_is_deleted_by_the_next_that_writes(tmp_path):
    (tmp_path / ".gone.safetensors.part").touch()
    Cache(tmp_path, "squares", "one").table(ITEMS, str, Maker())
    assert not list(tmp_path.glob(".*.part"))


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from distill.methods.cache import Cache, SHARD
made = []
def make(items):
    if made:
        Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
    made.append(items)
    return {"square": torch.tensor(items) ** 2}
Cache(Path(sys.argv[1]), "squares", "one").table(list(range(2 * SHARD + 10)), str, make)
"""


def test_a_process_killed_while_it_writes_leaves_whole_files_only(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL and len(list(tmp_path.glob("*.safetensors"))) == 1
    maker = Maker()
    table = Cache(tmp_path, "squares", "one").table(ITEMS, str, maker)
    assert maker.asked == ITEMS[SHARD:] and table[ITEMS]["square"].tolist() == [n**2 for n in ITEMS]


def test_caches_without_a_folder_of_their_own_never_meet(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    folders = {Cache(None, "text embeddings", mark).folder for mark in ("one", "two")}
    assert folders == {tmp_path / "text-embeddings" / mark for mark in ("one", "two")} and home() == tmp_path
    assert json.loads((tmp_path / "text-embeddings/one/about.json").read_text())["fingerprint"] == "one"


RANK = """
import json, os, sys, time, torch
from pathlib import Path
torch.distributed.init_process_group("gloo")
from distill.methods.cache import Cache, SHARD
rank, made, items = torch.distributed.get_rank(), [], list(range(40 * SHARD))
def make(share):
    time.sleep(0.02)
    made.append(share[0])
    return {"square": torch.tensor(share) ** 2}
torch.distributed.barrier()
for what in ("text embeddings", "latents"):
    table = Cache(Path(sys.argv[1]) / what, what, "one").table(items, str, make)
    assert table[items]["square"].tolist() == [n**2 for n in items]
(Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(made))
"""


def rank(number, port, folder):
    """A real process of two with gloo."""
    env = os.environ | {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen([sys.executable, "-c", RANK, str(folder)], env=env | {"OMP_NUM_THREADS": "1"})


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_killed_processes_leave_what_the_next_two_complete_each_file_once(tmp_path):
    at = port()
    ranks = [rank(number, at, tmp_path) for number in range(2)]
    while len(list(tmp_path.glob("*/*.safetensors"))) < 7:
        assert all(each.poll() is None for each in ranks)
        time.sleep(0.005)
    for each in ranks:
        each.kill()
        each.wait()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")}
    at = port()
    ranks = [rank(number, at, tmp_path) for number in range(2)]
    assert [each.wait(timeout=120) for each in ranks] == [0, 0]
    made = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2)]
    assert all(made) and len(made[0] + made[1]) == 80 - len(kept)
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
