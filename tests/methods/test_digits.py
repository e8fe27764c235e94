"""Digits-8: the data, the judge, and the measures on its features."""

from __future__ import annotations

import pytest
import torch

from distill.core import Rng
from distill.methods import digits


def test_digits_are_scaled_and_labelled() -> None:
    x, label = digits.load()
    assert x.shape == (1797, 64) and (float(x.min()), float(x.max())) == (-1.0, 1.0)
    assert label.unique().tolist() == list(range(10))


def test_judge_knows_digits_that_it_has_not_seen() -> None:
    judge = digits.classifier(0, steps=120)
    assert digits.accuracy(*digits.held_out(), judge) >= 0.9


def test_the_judge_leaves_global_randomness_alone() -> None:
    before = torch.get_rng_state()
    digits.classifier(7, steps=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_frechet_distance_of_known_gaussians() -> None:
    a = Rng(0).normal(20000, 3)
    assert digits.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert digits.frechet(a, 2 * a + 1) == pytest.approx(3 * (1 + 1), rel=0.05)


def test_recall_sees_a_missing_half() -> None:
    a = Rng(0).normal(600, 2)
    assert digits.recall(a, a) == 1
    assert digits.recall(a, a[a[:, 0] > 0]) < 0.7


def test_detail_is_that_of_the_finest_pattern() -> None:
    board = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))
    assert digits.detail(board.view(1, 64)) == pytest.approx(64)
    assert digits.detail(torch.ones(1, 64)) == 0
