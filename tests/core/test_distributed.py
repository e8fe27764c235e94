"""Two processes with gloo learn what one process learns from the same global batch, with whole weights or shares."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from distill.core import checkpoint
from distill.core.errors import CheckpointError

TRAINER, SHARDED = (Path(__file__).with_name(name) for name in ("_trainer.py", "_sharded.py"))
MEMORY = Path("/dev/shm")
LAUNCH = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"
LAUNCH += " --mixed_precision no --dynamo_backend no"


def alone(out):
    AcceleratorState._reset_state(reset_partial_state=True)
    runpy.run_path(str(TRAINER))["curve"](out)
    return json.loads(out.read_text())


def together(out):
    command = [sys.executable, *LAUNCH.split(), TRAINER, "curve", out]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    """Each process starts from weights of its own; those of the first are everyone's. (`--multi_gpu` without
    one is gloo.)"""
    one, two = alone(tmp_path / "one.json"), together(tmp_path / "two.json")
    assert (one["world"], two["world"], len(one["curve"])) == (1, 2, 60)
    for single, shared in zip(one["curve"], two["curve"], strict=True):
        assert single.keys() == shared.keys()
        assert all(abs(single[name] - shared[name]) < 1e-5 for name in single)
    assert max(abs(a - b) for a, b in zip(one["weights"], two["weights"], strict=True)) < 1e-5


@pytest.fixture(scope="module")
def runs(trained):
    """The folder that the runs of `_sharded.py` left; in memory where there is such a folder."""
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for attempt in ("first", "second", "third"):
        command = [sys.executable, SHARDED, folder / attempt, trained.parent / "tiny.yaml"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=env)
        if "c10::Error" not in done.stderr:  # under load, a process in twenty aborts within torch's own C++ threads
            break
    assert done.returncode == 0, done.stderr
    yield folder / attempt
    shutil.rmtree(folder)


def learnt(runs, name):
    return json.loads((runs / f"{name}.json").read_text())


def differ(one, other):
    assert one["weights"].keys() == other["weights"].keys()
    pairs = ((torch.tensor(value), torch.tensor(other["weights"][name])) for name, value in one["weights"].items())
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("kind", ["copies", "adapters"])
def test_two_processes_with_shares_learn_what_one_learns(runs, kind):
    """DMD2 with GAN, clipping, an EMA, an extra input and activations computed again; adapters share one module."""
    one, two = learnt(runs, kind), learnt(runs, f"{kind}-shared")
    assert differ(one, two) < 1e-5 and two["share"] < 0.8 < one["share"]  # heads of discriminators stay whole
    for single, shared in zip(one["curve"], two["curve"], strict=True):
        assert single.keys() == shared.keys()
        assert all(abs(single[name] - shared[name]) < 1e-5 for name in single)


@pytest.mark.parametrize("name", ["resumed-1", "resumed-3", "adopted"])
def test_a_run_goes_on_with_another_number_of_processes(runs, name):
    """Two processes with shares, then one or three; one without, then two with."""
    assert differ(learnt(runs, "copies"), learnt(runs, name)) < 1e-5


def test_shares_survive_kills(runs):
    """Whatever checkpoint can be seen after a kill is whole, and the run ends with the weights of any other."""
    assert learnt(runs, "report")["seen"] >= 2
    assert differ(learnt(runs, "copies"), learnt(runs, "killed")) < 1e-5
    assert not list((runs / "killed" / "checkpoints").glob(".*"))


def test_a_damaged_share_is_named(runs):
    step = runs / "killed" / "checkpoints" / "step-6"
    share = next((step / "shares").iterdir())
    share.write_bytes(share.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{share.name} is missing or damaged"):
        checkpoint.read(step)


def test_a_run_of_shares_is_exported_and_sampled_as_any_other(runs, trained, cli, tmp_path):
    run = runs / "told"
    assert any((run / "checkpoints" / "step-4" / "shares").iterdir()) and (run / "previews" / "step-4.png").exists()
    assert {path.suffix for path in (run / "checkpoints").rglob("*.*")} == {".json", ".safetensors"}
    for name, folder in (("whole", trained), ("shared", run)):
        assert cli("export", folder, "--to", "safetensors", "--out", tmp_path / name).code == 0
        assert cli("sample", folder, "--n", 2, "--out", tmp_path / f"{name}-samples").code == 0
    whole, shared = (load_file(tmp_path / name / "denoiser.safetensors") for name in ("whole", "shared"))
    assert whole.keys() == shared.keys()
    assert all(torch.allclose(whole[name], shared[name], rtol=0, atol=1e-5) for name in whole)
