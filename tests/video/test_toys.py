"""AR1-VIDEO: its denoisers are exact, its causal form is the conditioned one, and a cache changes nothing."""

from __future__ import annotations

import pytest
import torch

from distill.core import Cache, Rng, Role, Sampler
from distill.video import metrics, toys
from distill.video.toys import AR1


def noisy(size=4000, seed=0):
    x0, rng = AR1().data(size, Rng(seed)), Rng(seed + 1)
    t = rng.uniform(1, 12).expand(size, 12)
    return x0, AR1().path.noised(x0, rng.normal(*x0.shape), t), t


def test_the_data_have_the_law():
    x = AR1().data(4000, Rng(0))
    assert x.shape == (4000, 12, 8, 1, 1)
    assert (toys.variances(x) - 1).abs().max() < 0.03 and (toys.correlations(x) - 0.9).abs().max() < 0.01


@pytest.mark.parametrize(("chunk", "seen"), [(0, 12), (3, 6)])
def test_the_prediction_is_the_best_linear_one(chunk, seen):
    """Least squares of frames 4 to 6 on the frames that may be seen gives the same."""
    x0, x_t, t = noisy()
    wanted, given = x0[:, 3:6, :, 0, 0].transpose(1, 2).flatten(0, 1), x_t[:, :seen, :, 0, 0]
    design = given.transpose(1, 2).flatten(0, 1)
    best = design @ torch.linalg.lstsq(design, wanted).solution
    said = AR1(chunk).predict(x_t, t).x0[:, 3:6, :, 0, 0].transpose(1, 2).flatten(0, 1)
    assert (said - best).square().mean() < 3e-3 * wanted.square().mean()


def test_the_causal_one_does_not_look_ahead_and_the_other_does():
    _, x_t, t = noisy(8)
    assert metrics.lookahead(AR1(chunk=3), x_t, t, 3) == 0 < metrics.lookahead(AR1(), x_t, t, 3)


def test_chunk_by_chunk_equals_one_pass():
    _, x_t, t = noisy(8)
    cache, said = Cache(), []
    for part, when in zip(x_t.split(3, 1), t.split(3, 1), strict=True):
        prediction = AR1(chunk=3).predict(part, when, cache=cache)
        cache = prediction.cache
        said.append(prediction.x0)
    torch.testing.assert_close(torch.cat(said, 1), AR1(chunk=3).predict(x_t, t).x0, atol=1e-5, rtol=1e-5)


def test_sampling_it_gives_the_data():
    clips = Sampler(steps=40).sample(Role("t", AR1()), Rng(0).normal(2000, 12, 8, 1, 1))
    assert (toys.variances(clips) - 1).abs().max() < 0.1 and (toys.correlations(clips) - 0.9).abs().max() < 0.02


def test_points_circle_evenly_and_directions_do_not_see_the_radius():
    good, poor = toys.circling(False, 0, 500), toys.circling(True, 0, 500)
    angle = torch.atan2(good[:, :, 1, 0, 0], good[:, :, 0, 0, 0])
    turn = angle.diff(dim=1).remainder(6.2831853)
    assert good.shape == (500, toys.ROLL, 2, 1, 1) and torch.allclose(turn, turn[:, :1].expand_as(turn), atol=1e-4)
    assert 0.25 <= float(turn.min()) and float(turn.max()) <= 0.75
    assert abs(float(good.norm(dim=2).mean()) - 1) < 0.01 and abs(float(poor.norm(dim=2).mean()) - 0.5) < 0.02
    torch.testing.assert_close(toys.directions(3 * good), toys.directions(good))
