"""A run that is killed again and again, and resumed each time, ends with the weights of one that never
was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from distill.core import checkpoint

TRAINER = Path(__file__).with_name("_trainer.py")
MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def crashed():
    """What the trainer left, and its report; in memory where there is such a folder, since every save waits
    for the disk."""
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    done = subprocess.run(
        [sys.executable, TRAINER, "crashes", folder, "1"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    yield folder, json.loads(done.stdout)
    shutil.rmtree(folder)


def test_sigkill_at_random_moments_changes_no_bit(crashed):
    """At least ten kills, whole checkpoints after each, and equal digests of weights, moments, generators
    and state."""
    folder, report = crashed
    assert report["status"] == 0 and report["kills"] >= 10 and report["seen"] >= 8, report
    peace, war = (
        (folder / side / "checkpoints" / "step-300" / "manifest.json").read_text() for side in ("peace", "war")
    )
    assert peace == war and len(json.loads(peace)) >= 7
    assert not list((folder / "war" / "checkpoints").glob(".*"))


def test_a_full_disk_keeps_the_last_good_checkpoint(crashed):
    folder = crashed[0] / "full"
    message = (folder / "message").read_text()
    assert "step-10 was not written (File too large)" in message and "Free some space" in message
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-5"]
    assert checkpoint.read(folder / "checkpoints" / "step-5")[1]["progress"]["step"] == 5
