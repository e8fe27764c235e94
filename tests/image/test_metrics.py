"""Metrics against closed forms and a second implementation."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from distill.core.errors import DataError
from distill.image.datasets import Digits
from distill.image.features import digit_features
from distill.image.metrics import Frechet, LabelAccuracy, Precision, Recall, coverage, frechet

CLOUD = torch.randn(400, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_frechet_of_a_shift_and_of_a_scale():
    shift = torch.tensor([3.0, 0, 0, 4.0, 0], dtype=torch.float64)
    assert frechet(CLOUD, CLOUD + shift) == pytest.approx(25, rel=1e-9)
    centred = CLOUD - CLOUD.mean(0)
    assert frechet(centred, 3 * centred) == pytest.approx(4 * float(torch.cov(CLOUD.T).trace()), rel=1e-6)
    assert frechet(CLOUD, CLOUD) == pytest.approx(0, abs=1e-9)


def test_frechet_is_that_of_torchmetrics():
    other = CLOUD @ torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.3
    theirs = _compute_fid(CLOUD.mean(0), torch.cov(CLOUD.T), other.mean(0), torch.cov(other.T))
    assert frechet(CLOUD, other) == pytest.approx(float(theirs), rel=1e-6)


def test_coverage_of_equal_of_far_and_of_half():
    assert coverage(CLOUD, CLOUD, 3) == 1 and coverage(CLOUD + 100, CLOUD, 3) == 0
    line = torch.arange(4.0)[:, None]
    assert coverage(torch.tensor([[0.5], [3.9], [5.0], [-1.0]]), line, 1) == 0.75


def test_real_digits_are_good_digits():
    data = Digits().open().tensors
    x, cond = data["x"], {"label": data["label"]}
    assert Frechet().measure(x, x) == pytest.approx(0, abs=1e-4)
    assert Recall().measure(x, x) == Precision().measure(x, x) == 1
    assert LabelAccuracy().measure(x, x, cond) > 0.97
    noise = torch.rand(200, 1, 8, 8) * 2 - 1
    assert Frechet().measure(noise, x) > 1 and Recall().measure(noise, x) < 0.5


def test_recall_sees_missing_modes_and_precision_does_not():
    data = Digits().open().tensors
    ones = data["x"][data["label"] == 1]
    assert Recall().measure(ones, data["x"]) < 0.3 and Precision().measure(ones, data["x"]) == 1


def test_features_have_about_unit_variance():
    features = digit_features()(Digits().open().tensors["x"])
    assert features.shape == (1797, 32) and 0.7 < float(features.std(0).mean()) < 1.1


@pytest.mark.parametrize(
    ("metric", "samples", "said"),
    [
        (Frechet(), torch.zeros(1, 1, 8, 8), "at least 2 pictures on either side, not 1"),
        (Precision(), torch.zeros(3, 1, 8, 8), "at least 4 pictures on either side, not 3"),
        (Recall(), torch.zeros(5, 3, 8, 8), r"pictures of shape \[1, 8, 8\], not \[3, 8, 8\]"),
        (LabelAccuracy(), torch.zeros(5, 1, 8, 8), "needs data with the condition 'label'; they have text"),
    ],
)
def test_what_cannot_be_measured_is_said(metric, samples, said):
    with pytest.raises(DataError, match=said):
        metric.measure(samples, samples, {"text": 1})
