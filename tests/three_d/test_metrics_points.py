"""Metrics of clouds against what can be said by hand."""

from __future__ import annotations

import math

import pytest
import torch

from distill.core import Ragged
from distill.core.errors import DataError
from distill.three_d.metrics_points import BevDivergence, Chamfer, VoxelIoU, bev_divergence, chamfer, voxel_iou


def ragged(*clouds):
    return Ragged(
        torch.tensor([p for cloud in clouds for p in cloud]).view(-1, 3), torch.tensor([len(c) for c in clouds])
    )


def test_chamfer_by_hand():
    a = ragged([[0.0, 0, 0], [1.0, 0, 0]], [[0.0, 0, 0]])
    b = ragged([[0.0, 0, 0]], [[3.0, 4, 0], [0.0, 0, 0]])
    torch.testing.assert_close(chamfer(a, b), torch.tensor([(0.5 + 0) / 2, (0 + 2.5) / 2]))


def test_chamfer_is_the_obvious_one_and_symmetric():
    a, b = torch.randn(2, 40, 3), torch.randn(2, 60, 3)
    away = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(chamfer(a, b), (away.amin(2).mean(1) + away.amin(1).mean(1)) / 2)
    torch.testing.assert_close(chamfer(a, b), chamfer(b, a))


def test_divergence_looks_from_above_and_is_in_bits():
    a = ragged([[0.1, 0.1, 0], [0.1, 0.1, 9]], [[0.1, 0.1, 0]], [[0.1, 0.1, 0], [2.1, 0.1, 0]])
    b = ragged([[0.1, 0.1, 5]], [[2.1, 0.1, 0]], [[0.1, 0.1, 0]])
    half = 0.5 * (0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25)) + 0.5 * math.log2(1 / 0.75)
    torch.testing.assert_close(bev_divergence(a, b), torch.tensor([0.0, 1.0, half], dtype=torch.float64))


def test_voxels_in_common():
    a = ragged([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [0.7, 0.1, 0.1]])
    b = ragged([[0.3, 0.1, 0.1], [5.0, 0.1, 0.1]])
    assert float(voxel_iou(a, b)) == pytest.approx(1 / 3)
    assert float(voxel_iou(a, b, 1.0)) == pytest.approx(1 / 2)


@pytest.mark.parametrize("metric", [Chamfer(), BevDivergence(), VoxelIoU()])
def test_completions_are_compared_with_the_truth_of_their_scan(metric):
    x, other = torch.randn(3, 50, 3), torch.randn(5, 50, 3) + 3
    best = {True: 1.0, False: 0.0}[metric.higher_is_better]
    assert metric.measure(x, other, {"truth": x}) == pytest.approx(best, abs=1e-6)
    with pytest.raises(DataError, match="3 clouds cannot be compared with 5"):
        metric.measure(x, other)
