"""Two processes with gloo learn what one process learns from the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TRAINER = Path(__file__).with_name("_trainer.py")
TWO = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"


def curve(out, *launcher):
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *launcher, TRAINER, "curve", out], capture_output=True, text=True, timeout=300, env=env
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    """Each process starts from weights of its own; those of the first are everyone's. (`--multi_gpu` without one is gloo.)"""
    one = curve(tmp_path / "one.json")
    two = curve(tmp_path / "two.json", *TWO.split(), "--main_process_port", "0")
    assert (one["world"], two["world"], len(one["curve"])) == (1, 2, 60)
    for alone, shared in zip(one["curve"], two["curve"], strict=True):
        assert alone.keys() == shared.keys()
        assert all(abs(alone[name] - shared[name]) < 1e-5 for name in alone)
    assert max(abs(a - b) for a, b in zip(one["weights"], two["weights"], strict=True)) < 1e-4
