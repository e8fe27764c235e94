"""HeadArtist: two opinions of one teacher, landmarks as a camera sees them, words of a direction."""

from __future__ import annotations

import pytest
import torch

from distill.core import Context, Event, Rng, Role
from distill.core.errors import RecipeError
from distill.core.roles import Roles
from distill.three_d import toys
from distill.three_d.cameras import Orbit
from distill.three_d.claims import headartist
from distill.three_d.directions import JAW, Directions, Landmarks
from distill.three_d.losses import SelfScore
from distill.three_d.papers.headartist import HeadArtist
from distill.three_d.trajectories import DirectedView


def context():
    return Context(Roles({"teacher": Role("teacher", toys.ring(True))}), Rng(0))


def test_the_difference_to_sds_is_that_of_the_teachers_own_noise():
    assert headartist.gap(0) < 1e-5


def test_with_equal_texts_and_no_guidance_nothing_is_pulled():
    event = Event(torch.randn(6, 2), {"label": torch.arange(6)}, noise=torch.randn(6, 2))
    assert float(SelfScore(guidance=1).gradient(event, context(), 1.0).abs().max()) == 0


def test_the_reference_hears_the_plain_text():
    event = Event(torch.randn(6, 2), {"label": torch.arange(6)}, noise=torch.randn(6, 2))
    same = Event(event.x, {"label": torch.zeros(6, dtype=torch.long)}, noise=event.noise)
    t = torch.full((6,), 0.4)
    x_t = toys.ring(True).path.noised(event.x, event.noise, t)
    plain = SelfScore(plain={"label": 0}).own(event, context(), x_t, t)
    assert torch.equal(plain, SelfScore().own(same, context(), x_t, t))


def test_a_plain_text_for_a_condition_that_views_lack_is_refused():
    event = Event(torch.randn(2, 2), {"label": torch.arange(2)}, noise=torch.randn(2, 2))
    with pytest.raises(RecipeError, match="text"):
        SelfScore(plain={"text": 0}).gradient(event, context(), 1.0)


def test_inner_landmarks_turn_away_and_the_contour_stays():
    front, back = Landmarks(dot=0.03).drawn(Orbit(elevation=(0, 0), azimuth=(0, 360)).even(2, 32, 32))
    _, alone = Landmarks(dot=0.03, contour=0).drawn(Orbit(elevation=(0, 0), azimuth=(0, 360)).even(2, 32, 32))
    assert front.sum() > 1.5 * back.sum() > 0
    assert alone.sum() < 0.1 * front.sum()
    assert len(JAW) == 17


def test_a_landmark_lies_where_the_camera_sees_its_point(tmp_path):
    import numpy

    numpy.save(tmp_path / "point.npy", numpy.array([[0.0, 0.0, 0.5]]))
    cameras = Orbit(elevation=(0, 0), azimuth=(0, 0)).even(1, 33, 33)
    (picture,) = Landmarks(path=tmp_path / "point.npy", contour=0).drawn(cameras)
    assert int(picture.argmax()) == 16 * 33 + 16 and float(picture.max()) > 0.99


def test_directions_are_named_and_told():
    cameras = Orbit(elevation=(0, 0), azimuth=(0, 360)).even(4, 8, 8)
    words = Directions(front={"label": 1}, side={"label": 2}, back={"label": 3})
    assert words.named(cameras) == ["front", "side", "back", "side"]
    assert words.told(cameras)["label"].tolist() == [1, 2, 3, 2]
    assert Directions().told(cameras) == {}


def test_a_view_brings_its_words_and_its_landmarks():
    views = DirectedView(directions=headartist.TEXTS, landmarks=headartist.MARKS)
    method = HeadArtist(views=views, score=SelfScore(guidance=2, plain={"label": 0}), steps=2, optimiser=toys.QUICK)
    assert torch.isfinite(toys.painted(method, toys.Heads(), 0, label=False)).all()


def test_landmarks_tell_an_exact_teacher_the_side():
    teacher, seen = toys.Heads(), Landmarks(size=0.7, dot=0.06).drawn(toys.cameras())
    noise, t = torch.zeros(8, 3, toys.SIDE, toys.SIDE), torch.full((8,), 0.999)
    told = teacher.predict(noise, t, {"label": torch.zeros(8, dtype=torch.long), "landmarks": seen}).x0
    gaps = torch.cdist(told.flatten(1), teacher.means[:8].flatten(1))
    assert gaps.argmin(1)[[0, 1, 7]].tolist() == [0, 1, 7]
