"""A stranger's plugin: installed with plain pip into an environment of its own, and used by the unchanged
command line.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

SMELL = Path(__file__).parents[2] / "examples/third_party/distill-smell"
PARTS = {
    "denoiser": "nose",
    "trajectory": "sniff-pairs",
    "loss": "fingerprint",
    "modality": "smell",
    "dataset": "odours",
    "metric": "channel-distance",
    "method": "sniff",
}


@pytest.fixture
def stranger(fresh, wheels):
    """An environment with the wheels of this repository, and the example's folder as pip installs it."""
    fresh.install(*wheels.values())
    fresh.install("--no-build-isolation", SMELL)
    return fresh


def run(env, *arguments) -> str:
    done = env.distill(*arguments, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_stands_outside_the_workspace():
    root = SMELL.parents[2]
    assert "third_party" not in (root / "pyproject.toml").read_text()
    assert not any(
        b"smell" in path.read_bytes() for path in (root / "core/src").rglob("*.py") if path.parent.name != "testing"
    )
    assert not (SMELL / "src/distill").exists()


def test_it_is_listed_and_shown(stranger):
    found = {
        entry["kind"]: entry for entry in json.loads(run(stranger, "list", "--json")) if entry["plugin"] == "smell"
    }
    assert {kind: entry["name"] for kind, entry in found.items()} == PARTS
    assert {entry["distribution"] for entry in found.values()} == {"distill-smell"}
    shown = run(stranger, "show", "sniff")
    assert "fingerprint" in shown and "optimiser" in shown and "smell.claim:claim" in shown


def test_it_is_trained_measured_and_sampled(stranger):
    small = ("batch_size=64", "data.size=512")
    run(stranger, "train", SMELL / "recipes/teacher.yaml", "method.steps=60", *small, "-o", "runs/teacher")
    student = ("teacher=runs/teacher", "method.steps=30", *small)
    run(stranger, "train", SMELL / "recipes/student.yaml", *student, "-o", "runs/student")
    measured = json.loads((stranger.path / "runs/student/metrics.json").read_text())
    assert any("channel-distance" in row for row in measured.values())
    run(stranger, "sample", "runs/student", "--n", "3", "-o", "sniffs")
    files = sorted((stranger.path / "sniffs").glob("*.csv"))
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    assert len(files) == 3 and len(rows) == 16 and set(rows[0]) == {"sensor", "reading"}
    assert (stranger.path / "sniffs/grid.png").read_bytes()[1:4] == b"PNG"


def test_its_claim_is_reproduced(stranger):
    run(stranger, "reproduce", "sniff", "--seeds", "0", "-o", "out")
    claim = json.loads((stranger.path / "out/sniff-seed0.json").read_text())
    assert claim["holds"] and len(claim["rows"]) == 3


def test_it_passes_the_conformance_kit(stranger):
    said = run(stranger, "check", "smell")
    assert "FAILED" not in said
    assert {line.split(":")[0].removeprefix("ok").strip() for line in said.splitlines()} == {
        "smell",
        *(f"{kind} {name}" for kind, name in PARTS.items()),
    }


def test_its_own_tests_pass(stranger):
    done = stranger.python("-m", "pytest", "-q", "-p", "no:cacheprovider", SMELL / "tests", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
