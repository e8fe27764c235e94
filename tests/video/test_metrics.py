"""Metrics tell appearance from motion, see drift and flicker, and find a network that looks ahead."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.core import Denoiser, Role
from distill.core.errors import DataError, RecipeError
from distill.core.paths import Flow
from distill.video import metrics
from distill.video.attention import Reach
from distill.video.datasets import MovingDigits
from distill.video.metrics import AppearanceFrechet, Causality, Drift, Flicker, MotionFrechet


@pytest.fixture(scope="module")
def clips():
    """Two sets of 400 clips."""
    return [MovingDigits(seed=seed).open().__getitems__(range(400))["x"] for seed in (0, 1)]


def test_axes_span_what_they_were_fitted_to():
    points = torch.randn(200, 2, dtype=torch.float64) @ torch.randn(2, 6, dtype=torch.float64)
    axes = metrics.Pca.of(points, 2)
    assert torch.allclose(axes(points) @ axes.axes.T + axes.mean, points, atol=1e-9)


def test_equal_clips_have_no_distance_and_two_sets_of_one_law_little(clips):
    a, b = clips
    for metric in (AppearanceFrechet(), MotionFrechet()):
        assert metric.measure(a, a) == pytest.approx(0, abs=1e-9) and 0 < metric.measure(b, a) < 0.5


def test_motion_is_told_from_appearance(clips):
    a, b = clips
    still, soft = b[:, :1].expand_as(b), MovingDigits(seed=1, blur=True).open().__getitems__(range(400))["x"]
    assert metrics.motion(still, a) > 50 * metrics.motion(b, a)
    assert metrics.appearance(still, a) < 5 * metrics.appearance(b, a)
    assert metrics.appearance(soft, a) > 10 * metrics.appearance(b, a)


def test_drift_grows_with_a_fading_clip_and_not_with_a_steady_one(clips):
    a = clips[0]
    fade = a * torch.linspace(1, 0.3, 12).view(1, -1, 1, 1, 1)
    parts = metrics.drift(fade, a)
    assert len(parts) == 8 and parts[0] == 0 and parts[7] > parts[3] > parts[1]
    assert Drift().measure(fade, a) > 5 * Drift().measure(a, a)


def test_flicker_is_one_for_the_data_and_none_for_what_moves_in_a_line(clips):
    a = clips[0]
    line = torch.linspace(-1, 1, 12).view(1, -1, 1, 1, 1).expand_as(a)
    assert Flicker().measure(a, a) == 1 and Flicker().measure(line, a) < 1e-9
    assert Flicker().measure(a + 0.2 * (-1) ** torch.arange(12).view(1, -1, 1, 1, 1), a) > 1.5


class Sums(nn.Module):
    """Running sums over frames (causal), or the mean over all (not)."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, x, t, cond):
        return x.cumsum(1) if self.causal else x.mean(1, keepdim=True).expand_as(x)


def test_a_network_that_looks_ahead_is_found():
    x, t = torch.randn(2, 6, 1, 4, 4), torch.full((2, 6), 0.5)
    assert metrics.lookahead(Denoiser(Sums(causal=True), Flow(), "x0"), x, t, 2) == 0
    assert metrics.lookahead(Denoiser(Sums(causal=False), Flow(), "x0"), x, t, 2) > 0.1


def test_causality_asks_the_student_whose_samples_are_measured(spoken):
    denoiser, (x, _, cond) = spoken("video-dit"), spoken("video-dit").example(2)
    found = []
    for reach in (Reach(chunk=2), Reach()):
        denoiser.network.reach = reach
        found.append(Causality().asking(Role("student", denoiser)).measure(x, None, {**cond, "prompt": ["a", "b"]}))
    assert found[0] == 0 < 0.01 < found[1]
    with pytest.raises(RecipeError, match="causality asks a network"):
        Causality().measure(x, None)


def test_what_is_no_clip_is_said(clips):
    with pytest.raises(DataError, match=r"compares clips \[B, F, C, H, W\], and was given \[400, 1, 16, 16\]"):
        AppearanceFrechet().measure(clips[0][:, 0], clips[0])
    with pytest.raises(DataError, match="needs clips of 8 frames"):
        Drift().measure(clips[0][:, :4], clips[0])
