"""Clouds as pictures: each point where it belongs, with gradient, and files that others read."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from distill.core import Ragged
from distill.three_d.lidar import Lidar
from distill.three_d.lidar_files import read_scan
from distill.three_d.lidar_views import BirdsEye, PointClouds, RangeImage, birds_eye, range_image

AROUND = {"size": (4, 8), "elevation": (-20.0, 20.0), "azimuth": (-180.0, 180.0)}


def test_the_nearest_point_of_each_direction_is_seen():
    points = torch.tensor([[[2.0, 0.01, 0.1], [5.0, 0.02, 0.2], [0.5, 3.0, -0.5], [0.0, 0.0, 9.0]]])
    away, seen = range_image(points, **AROUND)
    assert seen.sum() == 2 and float(away[0, 1, 3]) == pytest.approx(2.0, abs=0.01)
    assert float(away[0, 2, 2]) == pytest.approx(3.08, abs=0.01), "the left comes first, and below is below"


def test_clouds_of_a_batch_have_pictures_of_their_own():
    cloud = Ragged(torch.tensor([[2.0, 0.1, 0.0], [0.1, 4.0, 0.0], [0.1, 5.0, 0.0]]), torch.tensor([1, 2]))
    away, seen = range_image(cloud, **AROUND)
    assert seen.flatten(1).sum(1).tolist() == [1, 1] and float(away[1].max()) == pytest.approx(4.0, abs=0.01)
    assert birds_eye(cloud, 8, 20.0, (0.0, 0.0)).flatten(1).sum(1).tolist() == pytest.approx([1.0, 2.0])


def test_ahead_is_up_and_left_is_left_from_above():
    picture = birds_eye(torch.tensor([[[3.0, 2.0, 7.0]]]), 10, 10.0, (0.0, 0.0))[0]
    rows, columns = picture.nonzero().T
    assert rows.max() <= 2 and columns.max() <= 3 and float(picture.sum()) == pytest.approx(1.0)
    assert not birds_eye(torch.tensor([[[30.0, 2.0, 7.0]]]), 10, 10.0, (0.0, 0.0)).any()


@pytest.mark.parametrize("lens", [RangeImage(rows=8, columns=16), BirdsEye(cells=12, side=6.0, middle=(0.0, 0.0))])
def test_lenses_lead_gradient_to_the_points(lens):
    x = (torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    picture = lens(x)
    assert picture.shape[:2] == (2, 1) and picture.min() == -1 and picture.max() <= 1
    assert torch.autograd.grad(picture.sum(), x)[0].abs().sum() > 0


def test_nearer_is_brighter():
    lens = RangeImage(rows=4, columns=8)
    near, far = (lens(torch.tensor([[[d, 0.0, 0.0]]])).max() for d in (2.0, 20.0))
    assert 0 < far < near < 1


def test_clouds_are_written_as_ply_and_shown_as_png(tmp_path):
    source = Lidar(points=100, count=4).open()
    x = Ragged(
        torch.cat([source[n]["x"].values for n in range(3)]), torch.cat([source[n]["x"].lengths for n in range(3)])
    )
    paths = PointClouds().write(x, tmp_path / "out")
    torch.testing.assert_close(read_scan(paths[1]), x.split()[1])
    picture = Image.open(PointClouds(size=60).preview(x, tmp_path / "look.png"))
    assert picture.size == (3 * 60 + 2, 60 + 1 + 20) and len(picture.getcolors()) > 5
