"""A run that is killed again and again, and resumed each time, ends with the weights of one that never was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

TRAINER = Path(__file__).with_name("_trainer.py")
MEMORY = Path("/dev/shm")


def run(*args):
    return subprocess.run([sys.executable, TRAINER, *map(str, args)], capture_output=True, text=True, timeout=300)


@pytest.fixture
def folder():
    """A folder in memory where there is such a thing, since every checkpoint waits for the disk."""
    path = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    yield path
    shutil.rmtree(path)


def test_sigkill_at_random_moments_changes_no_bit(folder):
    """At least ten kills, whole checkpoints after each, and equal digests of weights, moments, generators and state."""
    done = run("kills", folder, 1)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["status"] == 0 and report["kills"] >= 10 and report["seen"] >= 8, report
    peace, war = ((folder / side / "checkpoints" / "step-300" / "manifest.json").read_text() for side in ("peace", "war"))
    assert peace == war and len(json.loads(peace)) >= 7
    assert not list((folder / "war" / "checkpoints").glob(".*"))


def test_a_full_disk_keeps_the_last_good_checkpoint(folder):
    done = run("full", folder, 2000)
    message, left = done.stdout.strip().splitlines()
    assert "step-10 was not written (File too large)" in message and "Free some space" in message
    assert left == "step-5 ['step-5']"
