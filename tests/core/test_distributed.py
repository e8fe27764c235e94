"""Two processes with gloo learn what one process learns from the same global batch."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

from accelerate.state import AcceleratorState

TRAINER = Path(__file__).with_name("_trainer.py")
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
