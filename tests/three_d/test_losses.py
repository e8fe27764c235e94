"""Distances of pictures."""

from __future__ import annotations

import pytest
import torch

from distill.core import Context, Event, Rng
from distill.three_d.losses import Photometric, psnr, ssim


def pictures(seed=0):
    return Rng(seed).uniform(3, 3, 16, 16, stream="x") * 2 - 1


def test_equal_pictures_are_alike_and_unequal_ones_are_not():
    torch.testing.assert_close(ssim(pictures(), pictures()), torch.ones(3))
    assert ssim(pictures(), pictures(1)).abs().max() < 0.2
    slight = ssim(pictures(), pictures() + 0.05 * Rng(2).normal(3, 3, 16, 16))
    assert slight.min() > 0.9 and slight.max() < 1


@pytest.mark.slow
def test_similarity_is_that_of_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is optional")
    x, y = pictures(), 0.7 * pictures() + 0.3 * pictures(1)
    mine = ssim(x, y)
    given = theirs.structural_similarity_index_measure(x, y, data_range=2.0, reduction="none")
    assert (mine - given).abs().max() < 0.03  # they leave the border out


def test_decibels():
    torch.testing.assert_close(psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.2)), torch.tensor([20.0]))


def test_the_terms_are_weighted_as_in_the_paper():
    event = Event(pictures(), targets={"real": pictures(1)})
    said = Photometric(structure=0.2).terms(event, Context({}, Rng(0)))
    torch.testing.assert_close(said["colour"], 0.8 * (pictures() - pictures(1)).abs().mean((1, 2, 3)))
    torch.testing.assert_close(said["structure"], 0.2 * (1 - ssim(pictures(), pictures(1))))
