"""A video run that is killed while it makes its teacher's pairs goes on without a duplicate and without a loss."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from distill.core import commands

RECIPE = """
method: {name: causvid, steps: 1, routes: 1024, first: 1, critic_updates: 1, times: [1.0, 0.5], at: [0, 5],
         walk: {steps: 10}, reach: {chunk: 2}}
teacher: {name: video-dit, size: [8, 8], frames: 4, width: 24, depth: 1, heads: 2, classes: 10, steps: 2}
data: {name: moving-digits, size: 8, frames: 4, count: 16}
batch_size: 2
"""
SHARDS = 4


def shards(run):
    return {path.name: path.read_bytes() for path in (run / "states").glob("[0-9]*.safetensors")}


def test_pairs_survive_a_kill_in_their_midst(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = "import sys; from distill.core.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", command, "train", "recipe.yaml", "-o", "killed"], cwd=tmp_path)
    started = time.monotonic()
    while not shards(tmp_path / "killed") and time.monotonic() - started < 100:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = shards(tmp_path / "killed")
    assert 0 < len(before) < SHARDS
    for run in ("killed", "whole"):
        commands.train(tmp_path / "recipe.yaml", out=tmp_path / run, resume=run == "killed")
    after = shards(tmp_path / "killed")
    assert len(after) == SHARDS and after == shards(tmp_path / "whole") and before.items() <= after.items()
