"""Checkpoints appear whole or not at all, are compared with their digests, and never hold a pickle."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch

from distill.core import checkpoint
from distill.core.errors import CheckpointError

FILES = {
    "role-student": {"w": torch.arange(6.0).view(2, 3), "half": torch.ones(3, dtype=torch.bfloat16)},
    "rng": {"noise": torch.Generator().get_state()},
    "state": {},
}
STATE = {"progress": {"step": 3}, "sampler": {"times": [1.0, 0.1 + 0.2], "end": float("inf")}}


@pytest.fixture
def saved(tmp_path):
    return checkpoint.write(tmp_path / "checkpoints" / "step-3", FILES, STATE)


def test_what_was_written_is_read_bit_for_bit(saved):
    files, state = checkpoint.read(saved)
    assert state == STATE and files.keys() == FILES.keys()
    for name, tensors in FILES.items():
        assert all(
            torch.equal(files[name][key], value) and files[name][key].dtype == value.dtype
            for key, value in tensors.items()
        )


def test_views_and_shared_tensors_are_saved_by_value(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    files = {"a": {"row": base[1], "column": base[:, 2], "same": base, "again": base}}
    read, _ = checkpoint.read(checkpoint.write(tmp_path / "step-1", files, {}))
    assert torch.equal(read["a"]["column"], base[:, 2]) and torch.equal(read["a"]["again"], base)


def test_weights_are_shrunk_to_eight_bits_a_row_and_grow_again():
    weights = {"linear": torch.randn(6, 64) * torch.logspace(-3, 3, 6)[:, None], "kernel": torch.randn(4, 8, 3, 3)}
    rest = {"bias": torch.arange(6.0), "few": torch.randn(4, 3), "count": torch.tensor(3)}
    small = checkpoint.shrunk(weights | rest)
    grown = checkpoint.grown(small)
    assert {small[name].dtype for name in weights} == {torch.int8} and grown.keys() == (weights | rest).keys()
    for name, value in weights.items():
        row = value.abs().flatten(1).amax(1)
        assert ((grown[name] - value).abs().flatten(1).amax(1) <= row / 250).all()
    assert all(torch.allclose(grown[name].float(), value.float(), rtol=1e-3) for name, value in rest.items())


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def fold(path):
    path.unlink()
    path.mkdir()


DAMAGE = {"cut": cut, "flipped": flip, "missing": lambda path: path.unlink(),
"empty": lambda path: path.write_bytes(b""),
          "folder": fold}  # fmt: skip


@pytest.mark.parametrize("name", ["role-student.safetensors", "rng.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_clear_error_with_the_file_and_the_remedy(saved, name, damage):
    DAMAGE[damage](saved / name)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(saved)
    message = str(caught.value)
    assert (name in message or damage == "flipped") and "--resume-from" in message and "\n" not in message


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="step-9"):
        checkpoint.read(tmp_path / "step-9")


@pytest.mark.parametrize("manifest", [
    [], 3, None, {}, {"state.json": 5}, {"state.json": None, "x\u0000y": "a"}, {"../../../etc/passwd": "a"},
    {"a" * 5000: "b"},
])  # fmt: skip
def test_a_strange_manifest_is_refused(saved, manifest):
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        checkpoint.read(saved)


def test_nothing_is_pickled(tmp_path, monkeypatch):
    """Neither in what runs here, nor anywhere in our packages; the files of others are read as tensors alone."""
    for module, name in (
        (pickle, "dumps"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
        (torch, "save"),
    ):
        monkeypatch.setattr(module, name, None)
    checkpoint.read(checkpoint.write(tmp_path / "step-1", FILES, STATE))
    root = Path(checkpoint.__file__).parents[4]
    sources = [*root.glob("core/src/**/*.py"), *root.glob("plugins/*/src/**/*.py")]
    banned = re.compile(
        r"^\s*import pickle|^\s*from pickle import (?!UnpicklingError)"
        r"|^\s*(import|from) (cloudpickle|dill|joblib|shelve)\b"
        r"|torch\.save\(|torch\.load\((?!.*weights_only=True)",
        re.M,
    )
    assert len(sources) > 20 and [path.name for path in sources if banned.search(path.read_text())] == []


@pytest.mark.parametrize("call", ["open", "rename", "fsync"])
def test_a_failed_write_leaves_what_was_there(saved, monkeypatch, call):
    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(*(("builtins.open", fail) if call == "open" else (os, call, fail)))
        with pytest.raises(CheckpointError, match="No space left on device.*untouched"):
            checkpoint.write(saved, {"role-student": {"w": torch.zeros(9)}}, {})
    assert checkpoint.steps(saved.parent) == [3]
    assert checkpoint.read(saved)[1] == STATE
    assert [path.name for path in saved.parent.iterdir()] == ["step-3"]


def test_a_checkpoint_replaces_one_of_the_same_step(saved):
    checkpoint.write(saved, {"role-student": {"w": torch.zeros(2)}}, {"new": True})
    files, state = checkpoint.read(saved)
    assert state == {"new": True} and list(files) == ["role-student"]
    assert [path.name for path in saved.parent.iterdir()] == ["step-3"]


def test_unfinished_and_foreign_folders_are_no_checkpoints(saved):
    for name in ("step-7", ".step-9.part", "step-x", "step-"):
        (saved.parent / name).mkdir()
    (saved.parent / ".step-9.part" / "manifest.json").write_text("{}")
    (saved.parent / "step-x" / "manifest.json").write_text("{}")
    assert checkpoint.steps(saved.parent) == [3] and checkpoint.steps(saved / "nowhere") == []


def test_pruning_keeps_the_last_and_sweeps_up_after_killed_processes(saved):
    for step in (5, 11, 20):
        shutil.copytree(saved, saved.with_name(f"step-{step}"))
    (saved.parent / ".step-30.part").mkdir()
    checkpoint.prune(saved.parent, 2)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["step-11", "step-20"]


def test_an_optimiser_survives_being_taken_apart():
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.1, betas=(0.5, 0.9))
    net(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    tensors, groups = checkpoint.flatten_optimiser(optimiser.state_dict())
    fresh = torch.optim.AdamW(net.parameters())
    fresh.load_state_dict(checkpoint.unflatten_optimiser(tensors, json.loads(json.dumps(groups))))
    old, new = optimiser.state_dict(), fresh.state_dict()
    assert tuple(new["param_groups"][0]["betas"]) == (0.5, 0.9)
    assert all(torch.equal(old["state"][i][k], new["state"][i][k]) for i in old["state"] for k in old["state"][i])
