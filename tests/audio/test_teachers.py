"""The pair that ships with the package: what it is, and that it plays the chords that it is asked for."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from distill.audio.datasets import Chorales
from distill.audio.metrics import ChordAgreement, SoundDiversity
from distill.audio.modality import Audio
from distill.audio.teachers import MusicStudent, MusicTeacher
from distill.core import Rng, Role

SIZE = 8


@cache
def asked():
    """Windows of test pieces with their conditions."""
    data = Chorales(conditions=("text", "chords"), text=32, words=6).open("test")
    return data.__getitems__([10 + 170 * n for n in range(SIZE)])


def cond():
    return {name: asked()[name] for name in ("text", "chords")}


@cache
def played():
    """What the student makes of these conditions, as sound."""
    role = Role("student", MusicStudent().build(), frozen=True)
    with torch.no_grad():
        latents = MusicStudent().sampler().sample(role, Rng(0).normal(SIZE, 64, 32, stream="start"), cond(), Rng(0))
    return Audio(rounds=2).decode(latents)


@pytest.mark.parametrize("builder", [MusicTeacher(), MusicStudent()], ids=lambda b: b.stem)
def test_weights_are_small(builder):
    assert builder.file.stat().st_size < 4.5e6


def test_the_student_plays_the_chords_that_it_is_asked_for():
    said = ChordAgreement().measure(played(), played(), cond())
    other = ChordAgreement().measure(played(), played(), {"chords": cond()["chords"].roll(1, 2)})
    assert said > other + 0.2


def test_the_student_is_about_as_varied_as_music():
    real = Audio(rounds=2).decode(asked()["x"])
    assert SoundDiversity().measure(played(), real) > 0.7


def test_the_student_leaves_out_more_layers_the_more_noise_there_is():
    denoiser, ran = MusicStudent().build(), []
    for n, layer in enumerate(denoiser.network.inner.blocks):
        layer.layer.register_forward_hook(lambda *_, n=n: ran.append(n))
    sampler, counts = MusicStudent().sampler(), []
    for time in sampler.times:
        ran.clear()
        denoiser.predict(torch.randn(1, 64, 32), time, {name: value[:1] for name, value in cond().items()})
        counts.append(len(ran))
    assert counts == [4, 5, 5, 6] and 7 in ran and sampler.calls(denoiser.path) == 4


def test_the_pair_is_what_the_demo_shows():
    assert Audio.pair == (MusicTeacher.stem, MusicStudent.stem) and MusicTeacher().sampler().calls(
        MusicTeacher().build().path
    ) == 128  # fmt: skip
