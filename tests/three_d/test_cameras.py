"""Cameras stand where samplers say, look where they should, and see the same scene in pictures of any size."""

from __future__ import annotations

import pytest
import torch

from distill.core import Rng
from distill.core.errors import DataError
from distill.three_d.cameras import Cameras, Forward, Orbit, look_at, on_sphere, pinholes


def pixel(cameras, point):
    """Where a point of the world is seen [V, 2]."""
    within = cameras.world_to_camera[:, :3, :3] @ point + cameras.world_to_camera[:, :3, 3]
    flat = (cameras.intrinsics @ within[..., None])[..., 0]
    return flat[:, :2] / flat[:, 2:]


def test_an_orbit_looks_at_the_origin_from_its_distance():
    seen = Orbit(radius=(2.0, 3.0), elevation=(-30.0, 60.0)).draw(200, 20, 30, Rng(0))
    torch.testing.assert_close(pixel(seen, torch.zeros(3)), torch.tensor([15.0, 10.0]).expand(200, 2))
    away = seen.places.norm(dim=1)
    assert away.min() >= 2 and away.max() <= 3 and len(seen) == 200
    up = (seen.places[:, 1] / away).asin().rad2deg()
    assert up.min() >= -30.1 and up.max() <= 60.1 and up.std() > 15


def test_up_is_up_and_right_is_right():
    seen = pinholes(look_at(torch.tensor([[0.0, 0, 3]]), torch.zeros(1, 3)), 40.0, 20, 20)
    assert pixel(seen, torch.tensor([0.0, 0.5, 0]))[0, 1] < 10 < pixel(seen, torch.tensor([0.5, 0, 0]))[0, 0]


def test_rays_go_through_the_points_that_are_seen():
    seen = Orbit().draw(3, 8, 10, Rng(1))
    origins, along = seen.rays()
    for row, point in enumerate((origins + 2 * along)[:, 5, 7]):
        torch.testing.assert_close(pixel(seen[[row]], point)[0], torch.tensor([7.5, 5.5]))


def test_fields_bring_the_same_cameras_back_in_any_size():
    seen = Orbit().draw(4, 32, 48, Rng(0))
    again = Cameras.of(seen.fields(), 64, 96)
    point = torch.tensor([0.2, 0.1, -0.3])
    torch.testing.assert_close(pixel(again, point), 2 * pixel(seen, point))
    assert Cameras.of({}, 8, 8) is None


def test_forward_cameras_stand_in_one_plane():
    seen = Forward(distance=4.0, focus=4.0).draw(50, 8, 8, Rng(0))
    torch.testing.assert_close(seen.places[:, 2], torch.full((50,), 4.0))
    torch.testing.assert_close(pixel(seen, torch.zeros(3)), torch.full((50, 2), 4.0))


@pytest.mark.parametrize("sampler", [Orbit(), Forward()])
def test_draws_follow_the_seed_and_even_ones_are_apart(sampler):
    first, again, other = (sampler.draw(5, 8, 8, Rng(seed)).places for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    even = sampler.even(6, 8, 8).places
    assert torch.cdist(even, even).add(torch.eye(6) * 9).min() > 0.2


def test_straight_down_is_a_direction_too():
    motion = look_at(on_sphere(torch.zeros(1), torch.tensor([90.0]), torch.ones(1)), torch.zeros(1, 3))
    assert torch.isfinite(motion).all() and float(motion[0, :3, :3].det()) == pytest.approx(1, abs=1e-5)


def test_a_camera_inside_the_object_is_named():
    seen = Orbit(radius=(0.3, 0.3)).even(3, 8, 8)
    with pytest.raises(DataError, match=r"camera 0 at .* stands inside the object.*larger radius"):
        seen.outside(torch.full((3,), -1.0), torch.ones(3), "the object")
