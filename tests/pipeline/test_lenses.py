"""Each lens does what it says: sizes, units, directions."""

from __future__ import annotations

import pytest
import torch

from distill.core.errors import DataError
from distill.pipeline.lenses import (
    Frames,
    Relief,
    Resample,
    Retime,
    Score,
    Sprite,
    Turntable,
    Upscale,
    UpscaleClip,
    Zoom,
    pitches,
)


def disc(size=16, colour=(1.0, -1.0, -1.0)):
    """A red disc on white paper, [1, 3, S, S]."""
    axis = torch.arange(size) - size / 2 + 0.5
    inside = axis[:, None] ** 2 + axis**2 < (size / 3) ** 2
    return torch.where(inside, torch.tensor(colour)[:, None, None], 1.0)[None]


def test_a_sprite_is_light_on_a_dark_canvas_and_drifts():
    clip = Sprite(size=16, frames=4, drift=(0, 2))(disc())
    assert clip.shape == (1, 4, 1, 16, 16) and clip.min() == -1 and clip.max() == 1
    assert torch.equal(clip[:, 1], clip[:, 0].roll(2, 3)) and clip[0, 0, 0, 0, 0] == -1
    assert torch.equal(Sprite(dark=True)(-disc()), Sprite()(disc()))


def test_zoom_begins_with_the_picture_and_ends_within_it():
    picture = disc(32)
    clip = Zoom(frames=5, until=4.0)(picture)
    assert clip.shape == (1, 5, 3, 32, 32) and torch.allclose(clip[:, 0], picture, atol=1e-5)
    assert torch.allclose(clip[0, -1, 1], torch.tensor(-1.0), atol=1e-4)  # nothing but the disc


@pytest.mark.parametrize("scale", [4.0, 2.5])
def test_upscaled_pictures_look_like_the_small_ones(scale):
    torch.manual_seed(0)
    picture = disc(16)
    large = Upscale(model="restorer", steps=1, scale=scale, tile=64)(picture)
    assert large.shape == (1, 3, int(16 * scale), int(16 * scale))
    small = torch.nn.functional.interpolate(large, (16, 16), mode="area")
    assert float((small - picture).abs().mean()) < 0.2


def test_an_upscaled_clip_does_not_flicker_where_nothing_moves():
    still = disc(16)[:, None].expand(-1, 3, -1, -1, -1)
    lens = UpscaleClip(model="restorer", steps=1, tile=64, rate=8.0)
    large = lens(still)
    assert large.shape == (1, 3, 3, 64, 64) and lens.carried == {"rate": 8.0}
    assert torch.equal(large[:, 0], large[:, 1]) and torch.equal(large[:, 0], large[:, 2])


def test_frames_are_pictures_of_a_clip():
    clip = torch.randn(2, 5, 3, 4, 4)
    assert Frames()(clip).shape == (10, 3, 4, 4) and torch.equal(Frames(at=(4,))(clip), clip[:, 4])
    with pytest.raises(DataError, match="has 5 frames"):
        Frames(at=(5,))(clip)


def test_retimed_and_resampled_last_as_long_as_before():
    clip = torch.arange(6.0).view(1, 6, 1, 1, 1)
    assert Retime(rate=12, to=24)(clip).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert Retime(rate=12, to=4)(clip).flatten().tolist() == [0, 3]
    assert Resample(rate=16_000, to=8_000)(torch.zeros(1, 2, 160)).shape == (1, 2, 80)


@pytest.mark.parametrize(("period", "phase"), [(5, 2), (6, 0), (8, 3), (12, 7)])
def test_the_beat_of_flashes_is_found_and_chords_change_on_it(period, phase):
    clip = torch.zeros(1, 60, 1, 4, 4)
    for n in range(60):
        clip[:, n] = float((n - phase) // period % 2) + 0.01 * torch.rand(1)
    found = Score(rate=12)(clip)
    assert Score(rate=12).beats(clip[0])[:3].mul(12).round().tolist() == [phase + n * period for n in range(3)]
    assert float(found["tempo"]) == pytest.approx(7.2 / period) and float(found["seconds"]) == 5
    changes = (found["chords"][0, 1:] != found["chords"][0, :-1]).any(1).nonzero()[:, 0] + 1
    beats = torch.arange(phase, 60, period) / 12
    assert len(changes) >= 60 // period - 1 and float((changes[:, None] / 15.625 - beats).abs().amin(1).max()) < 0.065


def test_chords_are_triads():
    assert pitches("C").nonzero()[:, 0].tolist() == [0, 4, 7] and pitches("Am").nonzero()[:, 0].tolist() == [0, 4, 9]
    assert pitches("Bb").nonzero()[:, 0].tolist() == [2, 5, 10]
    for name in ("H", "", "Cmaj7", "C#b", "m"):
        with pytest.raises(DataError, match="is no chord"):
            pitches(name)


def test_a_relief_looks_like_the_picture_from_the_front_and_is_thick_from_the_side():
    turn = Turntable(size=32, frames=4, elevation=0)(Relief()(disc(32)))
    assert turn.shape == (1, 4, 3, 32, 32)
    ink = (turn[0, :, 1] < 0).sum((1, 2)).tolist()
    assert 100 < ink[1] < 0.8 * ink[0] and abs(ink[0] - ink[2]) < 20
    assert torch.allclose(turn[0, 0, :, 16, 16], torch.tensor([1.0, -1.0, -1.0]), atol=0.2)
    assert torch.allclose(turn[0, 0, :, 0, 0], torch.ones(3), atol=0.02)


def test_the_right_of_a_picture_is_on_the_right():
    picture = torch.ones(1, 3, 32, 32)
    picture[..., 12:20, 22:28] = -1
    front = Turntable(size=32, frames=1, elevation=0)(Relief()(picture))[0, 0].mean(0)
    assert front[:, 16:].mean() < front[:, :16].mean() - 0.01


@pytest.mark.parametrize("lens", [Sprite(), Zoom(), Relief(), Score(), Frames(), Retime(), Resample()])
def test_another_state_is_refused_in_one_sentence(lens):
    with pytest.raises(DataError, match="this lens takes"):
        lens(torch.zeros(2, 2))
