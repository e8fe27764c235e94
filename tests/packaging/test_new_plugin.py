"""What `distill new-plugin` makes, in an environment that has our wheels and nothing else of ours."""

from __future__ import annotations

import json

import pytest

HELPER = """
def same(a, b):
    assert a == b
"""
TESTS = """
import sys
from distill.core.testing import kit
from distill_waves.testing import same

def test_fails():
    same([1, 2], [1, 3])

def test_the_kits_assertions_are_rewritten_too():
    assert "Rewrit" in type(kit.__spec__.loader).__name__
"""


@pytest.fixture
def waves(fresh, wheels, build):
    """An environment with a plugin from the template, made there, built as a wheel and installed; its folder."""
    fresh.install(*wheels.values())
    done = fresh.distill("new-plugin", "waves")
    assert done.returncode == 0, done.stderr
    folder = fresh.path / "distill-waves"
    (folder / "src/distill_waves/testing.py").write_text(HELPER)
    made = build(folder, fresh.path / "dist")
    assert made.returncode == 0, made.stdout + made.stderr
    fresh.install(next((fresh.path / "dist").glob("*.whl")))
    return fresh, folder


def run(env, *arguments) -> str:
    done = env.distill(*arguments, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pytest_on(env, path):
    return env.python("-m", "pytest", "-q", "-p", "no:cacheprovider", path, OMP_NUM_THREADS="1")


def test_it_is_listed_trained_sampled_tested_and_part_of_a_pipeline(waves):
    env, folder = waves
    run(env, "plugins", "--check")
    listed = [entry for entry in json.loads(run(env, "list", "--json")) if entry["plugin"] == "waves"]
    assert len(listed) == 7 and {entry["distribution"] for entry in listed} == {"distill-waves"}
    small = ("batch_size=64", "data.size=256")
    run(env, "train", folder / "recipes/teacher.yaml", "method.steps=60", *small, "-o", "runs/teacher")
    run(env, "train", folder / "recipes/student.yaml", "method.steps=10", *small, "-o", "runs/student")
    run(env, "sample", "runs/student", "--n", "3", "-o", "samples")
    assert len(list((env.path / "samples").glob("*.svg"))) == 3
    run(env, "pipeline", folder / "recipes/pipeline.yaml", "-o", "runs/pipeline")
    assert list((env.path / "runs/pipeline").rglob("*.svg")) and list((env.path / "runs/pipeline").rglob("*.png"))
    (env.path / "test_it.py").write_text(TESTS)
    done = pytest_on(env, env.path / "test_it.py")
    assert "1 failed, 1 passed" in done.stdout and "At index 1 diff: 2 != 3" in done.stdout, done.stdout
    done = pytest_on(env, folder / "tests")  # `distill check`, one test a check
    assert done.returncode == 0, done.stdout + done.stderr
