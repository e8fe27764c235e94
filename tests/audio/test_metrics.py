"""Metrics hear what they should: pitch, onsets, chords, noise, and too little variety."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from distill.audio.datasets import Chorales
from distill.audio.metrics import (
    ChordAgreement,
    FrechetAudio,
    MelDistance,
    OnsetGap,
    PitchGap,
    SoundDiversity,
    onsets,
)
from distill.audio.modality import Audio
from distill.audio.pitch import heard, semitones
from distill.core.errors import DataError

METRICS = [FrechetAudio(), FrechetAudio(features="mel"), MelDistance()]


@cache
def some(start, count=8):
    """Windows of many pieces as sound, and their chords."""
    data = Chorales().open()
    fields = data.__getitems__([start + 377 * n for n in range(count)])
    return Audio(rounds=2).decode(fields["x"]), fields["chords"]


def test_the_network_hears_pitch():
    time = torch.arange(16_000) / 16_000
    tones = torch.stack([(2 * torch.pi * f * time).sin() for f in (220.0, 440.0)])
    found = semitones(heard(tones)[1]).median(1).values
    assert (found - torch.tensor([57.0, 69.0])).abs().max() < 0.5


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__ + getattr(m, "features", ""))
def test_more_noise_is_worse(metric):
    real, other = some(0, 24)[0], some(190, 24)[0]
    noise = torch.randn(other.shape, generator=torch.Generator().manual_seed(0))
    said = [metric.measure(other + level * noise, real) for level in (0.0, 0.1, 0.5)]
    assert metric.measure(real, real) < said[0] < said[1] < said[2]


def test_pitches_that_are_moved_are_found():
    real = some(0)[0]
    moved = torch.nn.functional.interpolate(real, scale_factor=1.5)  # a fifth lower
    same, lower = PitchGap().measure(real, real), PitchGap().measure(moved, real)
    assert same == 0 and lower > 0.3


def test_clicks_are_counted():
    sounds = torch.zeros(2, 64_000)
    sounds[0, ::8000] = 1.0
    sounds[1, ::16_000] = 1.0
    assert onsets(sounds).tolist() == pytest.approx([2, 1], abs=0.3)
    rolled = OnsetGap().measure(sounds[:1, None], sounds[1:, None])
    assert rolled == pytest.approx(1.0, abs=0.3)


def test_chords_that_were_asked_for_agree():
    sounds, chords = some(0)
    metric = ChordAgreement()
    right = metric.measure(sounds, sounds, {"chords": chords})
    assert right > metric.measure(sounds, sounds, {"chords": chords.roll(1, 2)}) + 0.2
    assert metric.measure(sounds, sounds) > 0.99


def test_one_sound_again_and_again_is_no_variety():
    real = some(0)[0]
    metric = SoundDiversity()
    alike = real[:1] + 0.01 * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    assert metric.measure(real, real) == 1.0 and metric.measure(alike, real) < 0.7
    with pytest.raises(DataError, match="two sounds or more"):
        metric.measure(real[:1].expand(4, -1, -1), real)
