"""The pair that ships with the package: what it is, and that it draws digits in motion."""

from __future__ import annotations

from importlib.resources import files

import pytest
import torch

from distill.core import Rng, Role
from distill.video import metrics
from distill.video.datasets import MovingDigits
from distill.video.teachers import MovingStudent, MovingTeacher

CLIPS, FRAMES = 24, 24


@pytest.fixture(scope="module")
def real():
    return MovingDigits(size=32, frames=FRAMES).open("test").__getitems__(range(200))


def drawn(builder, sampler, cond):
    role = Role("student", builder.build(), frozen=True)
    noise = Rng(0).normal(CLIPS, *role.denoiser.shape, stream="start")
    with torch.inference_mode():
        return sampler.sample(role, noise, cond, Rng(0)).clamp(-1, 1)


@pytest.mark.parametrize("stem", ["moving-teacher", "moving-student"])
def test_weights_are_small(stem):
    assert (files("distill.video") / "weights" / f"{stem}.safetensors").stat().st_size < 10e6


def test_the_student_draws_digits_that_move_as_they_should(real):
    cond = {"label": real["label"][:CLIPS]}
    clips = drawn(MovingStudent(), MovingStudent().sampler(), cond)
    frozen = real["x"][CLIPS : 2 * CLIPS, :1].expand(-1, FRAMES, -1, -1, -1)
    assert metrics.motion(clips, real["x"]) < metrics.motion(frozen, real["x"]) / 3
    assert metrics.appearance(clips, real["x"]) < metrics.appearance(torch.randn_like(clips), real["x"]) / 3


def test_only_the_teacher_looks_ahead(real):
    x, cond = real["x"][:2], {"label": real["label"][:2]}
    assert metrics.lookahead(MovingStudent().build(), x, 0.5, 4, cond) == 0
    assert metrics.lookahead(MovingTeacher().build(), x, 0.5, 4, cond) > 0.01


def test_the_student_is_sampled_as_it_was_trained():
    sampler = MovingStudent().sampler()
    assert sampler.steps == len(sampler.times) and MovingStudent().reach.chunk == MovingTeacher().patch[0]
