"""Meshes are read, drawn as they are, and refused with one clear message; scenes start on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from distill.core import Rng
from distill.core.errors import DataError
from distill.three_d.cameras import Orbit
from distill.three_d.meshes import SHAPES, load_mesh, load_points, surface, views
from distill.three_d.starts import FLAT, Noise, Points, Saved, Surface, from_points, spacing


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_the_unit_ball(shape):
    mesh = load_mesh(shape)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1) and len(mesh.faces) > 50


def test_a_ball_looks_like_a_ball(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=4)
    ball.visual.face_colors = [255, 0, 0, 255]
    ball.export(tmp_path / "ball.ply")
    pictures, depth = views(load_mesh(tmp_path / "ball.ply"), Orbit(elevation=(0, 0)).even(2, 33, 33))
    there = depth[0, 0] > 0
    assert there.float().mean() == pytest.approx(torch.pi / (4 * 1.0295**2), abs=0.03)
    assert float(depth[0, 0, 16, 16]) == pytest.approx(2.0, abs=0.01)
    assert (
        (pictures[0][:, ~there] == 1).all() and (pictures[0][0][there] > 0.4).all() and not pictures[0][1][there].any()
    )


def test_points_of_the_surface_lie_on_it_in_its_colours():
    mesh = load_mesh("tower")
    points, colours = surface(mesh, 500, Rng(0))
    others = torch.from_numpy(mesh.sample(20_000, seed=0)).to(points)
    assert torch.cdist(points, others).min(1).values.max() < 0.05
    assert len(colours.unique(dim=0)) > 4
    again, _ = surface(mesh, 500, Rng(0))
    assert torch.equal(points, again)


def test_gaussians_are_as_wide_as_their_neighbours_are_far():
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])
    torch.testing.assert_close(spacing(line)[0], torch.tensor((1 + 4 + 9) / 3.0).sqrt().double())
    scene = from_points(line, torch.full((4, 3), 0.25), degree=2, opacity=0.2)
    torch.testing.assert_close(scene["opacities"].sigmoid(), torch.full((4,), 0.2))
    torch.testing.assert_close(0.5 + FLAT * scene["sh0"], torch.full((4, 1, 3), 0.25))
    assert scene["shN"].shape == (4, 8, 3) and len(from_points(line[:1])["means"]) == 1


@pytest.mark.parametrize("start", [Noise(count=50), Noise(count=50, form="cube", size=0.1), Surface(count=50)])
def test_starts_follow_the_seed(start):
    first, again, other = (start.scene(1, Rng(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[part], again[part]) for part in first)
    assert first["means"].shape == (50, 3) and not torch.equal(first["means"], other["means"])
    assert first["means"].abs().max() <= 1.01


def test_points_are_read_from_clouds_and_tables(tmp_path, scene):
    cloud = trimesh.PointCloud([[0, 0, 0], [1, 0, 0], [0, 1, 0]], colors=[[255, 0, 0, 255]] * 3)
    cloud.export(tmp_path / "cloud.ply")
    points, colours = load_points(tmp_path / "cloud.ply")
    assert points.shape == (3, 3) and colours.tolist() == [[1, 0, 0]] * 3
    np.save(tmp_path / "table.npy", np.eye(3, dtype="f4"))
    assert Points(path=tmp_path / "table.npy").scene(0, Rng(0))["means"].shape == (3, 3)
    np.save(tmp_path / "odd.npy", np.eye(4))
    with pytest.raises(DataError, match=r"points are \[N, 3\], or \[N, 6\] with colours"):
        load_points(tmp_path / "odd.npy")


def test_a_saved_scene_is_a_start(tmp_path, scene):
    from distill.three_d.files import write_ply

    write_ply(scene(6), tmp_path / "a.ply")
    assert torch.equal(Saved(path=tmp_path / "a.ply").scene(0, Rng(0))["quats"], scene(6)["quats"])


def without_a_face(path):
    box = trimesh.creation.box()
    box.update_faces(np.arange(12) > 0)
    box.export(path)


BAD = [
    (lambda p: trimesh.PointCloud(np.eye(3)).export(p), "has no faces, but 3 points: .*'points'"),
    (without_a_face, r"not watertight \(11 faces leave holes\).*fill_holes"),
    (lambda p: p.write_text("hello"), "cannot be read as a mesh"),
    (lambda p: None, "there is no file .* shapes are snowman, rings, tower"),
]


@pytest.mark.parametrize(("write", "message"), BAD)
def test_a_mesh_of_no_use_is_refused_with_the_reason(tmp_path, write, message):
    write(tmp_path / "mesh.ply")
    with pytest.raises(DataError, match=message):
        load_mesh(tmp_path / "mesh.ply", solid=True)


def test_numbers_that_are_none_are_counted(tmp_path):
    points = torch.zeros(5, 3)
    points[1, 2], points[4] = torch.nan, torch.inf
    with pytest.raises(DataError, match="2 of 5 points have coordinates that are no numbers"):
        from_points(points)
    with pytest.raises(DataError, match=r"these are \[0, 3\]"):
        from_points(torch.zeros(0, 3))
    with pytest.raises(DataError, match="camera 0 .* stands inside the object"):
        views(load_mesh("snowman"), Orbit(radius=(0.2, 0.2)).even(1, 4, 4))
