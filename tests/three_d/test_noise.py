"""Noise belongs to places of a scene: views that see the same place see the same noise, and each sees white noise."""

from __future__ import annotations

import pytest
import torch

from distill.core import Batch, Context, Rng, Role, Roles
from distill.core.errors import RecipeError
from distill.three_d.cameras import Orbit
from distill.three_d.gaussians import Gaussians
from distill.three_d.noise import refreshed, seen_noise, texels
from distill.three_d.render import Render, Rendered, render
from distill.three_d.starts import Surface
from distill.three_d.trajectories import KEPT, SceneView

SIDE = 24


@pytest.fixture(scope="module")
def ball():
    """Views of the unit ball, with its exact depth, from angles that are close."""
    seen = Orbit(elevation=(0, 0), azimuth=(0.0, 32.0), view=45.0).even(4, SIDE, SIDE)
    origins, along = seen.rays()
    middle = -(origins * along).sum(-1)
    room = 1 - (origins.square().sum(-1) - middle**2)
    ahead = torch.einsum("vj,vhwj->vhw", seen.world_to_camera[:, 2, :3], along)
    depth = torch.where(room > 0, (middle - room.clamp_min(0).sqrt()) * ahead, 0.0)[:, None]
    nothing = torch.zeros(4, 3, SIDE, SIDE)
    return Rendered(nothing, (depth > 0).float(), depth, nothing), seen


def transported(noise, depth, seen, source, target):
    """The noise of one view at the places that another sees, and where both see the same place."""
    origins, along = seen.rays()
    ahead = torch.einsum("j,hwj->hw", seen.world_to_camera[target, 2, :3], along[target])
    places = origins[target] + along[target] * (depth[target, 0] / ahead)[..., None]
    within = places @ seen.world_to_camera[source, :3, :3].T + seen.world_to_camera[source, :3, 3]
    flat = within @ seen.intrinsics[source].T
    grid = flat[..., :2] / flat[..., 2:] * 2 / SIDE - 1
    there = (depth[target, 0] > 0) & (within.norm(dim=-1) > 0)
    moved = torch.nn.functional.grid_sample(noise[[source]], grid[None], mode="nearest", align_corners=False)[0]
    again = torch.nn.functional.grid_sample(depth[[source]], grid[None], mode="nearest", align_corners=False)[0, 0]
    return moved, there & ((again - within[..., 2]).abs() < 0.05)


def test_every_view_sees_white_noise(ball):
    noise = torch.cat([seen_noise(texels(Rng(seed), 4), *ball).flatten(2) for seed in range(6)])
    assert float(noise.mean()) == pytest.approx(0, abs=0.02) and float(noise.var()) == pytest.approx(1, abs=0.03)
    rows = noise.view(-1, SIDE, SIDE)
    assert float((rows[:, :, 1:] * rows[:, :, :-1]).mean()) < 0.25


def test_views_of_one_place_see_the_same_noise(ball):
    drawn, seen = ball
    noise = seen_noise(texels(Rng(0), 32), drawn, seen)
    fresh = Rng(1).normal(*noise.shape)
    found = []
    for each in (noise, fresh):
        moved, both = transported(each, drawn.depth, seen, 0, 1)
        found.append(float((moved[:, both] * each[1][:, both]).mean()))
    assert int(both.sum()) > 150 and found[0] > 0.5 and abs(found[1]) < 0.05


def test_noise_changes_slowly_and_keeps_its_variance():
    noise, rng = texels(Rng(0), 2, 16), Rng(1)
    for _ in range(50):
        noise = refreshed(noise, 0.02, rng)
    kept = float((noise * texels(Rng(0), 2, 16)).mean())
    assert float(noise.var()) == pytest.approx(1, abs=0.05) and kept == pytest.approx(0.98**25, abs=0.05)


@pytest.fixture
def context():
    subject = Gaussians(Surface(count=200, opacity=0.9).scene(0, Rng(0)))
    return Context(Roles({"student": Role("student", subject)}), Rng(0), lens=Render(size=(16, 16)))


def event(trajectory, context, cameras):
    return next(trajectory.events(Batch(2, cond=cameras.fields()), context, attached=True))


@pytest.mark.parametrize("kind", ["surface", "seed"])
def test_a_scene_has_the_noise_of_its_seed_in_every_run(context, kind):
    seen = Orbit().even(2, 16, 16)
    first, again = (event(SceneView(noise=kind), context, seen).noise for _ in range(2))
    other = event(SceneView(noise=kind, seed=1), Context(context.roles, Rng(7), lens=context.lens), seen).noise
    assert first.shape == (2, 3, 16, 16) and torch.equal(first, again) and not torch.equal(first, other)
    assert set(context.state) == {KEPT}


def test_a_view_has_its_depth_and_gradient_and_says_where_it_was_seen_from(context):
    seen = Orbit().even(2, 16, 16)
    said = event(SceneView(noise="none"), context, seen)
    assert said.noise is None and said.x.requires_grad and said.meta["depth"].shape == (2, 1, 16, 16)
    torch.testing.assert_close(said.cond["world_to_camera"], seen.world_to_camera)
    drawn = render(context.roles["student"].module.scene, seen)
    torch.testing.assert_close(said.x, 2 * drawn.over(1.0) - 1)


def test_without_the_lens_it_says_what_is_missing(context):
    bare = Context(context.roles, Rng(0))
    with pytest.raises(RecipeError, match="lens: render"):
        event(SceneView(), bare, Orbit().even(2, 16, 16))
