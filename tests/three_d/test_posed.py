"""Teachers of pictures that are told from where they are seen, and what they were shown."""

from __future__ import annotations

import pytest
import torch

from distill.core import Rng
from distill.core.errors import RecipeError
from distill.three_d.cameras import Orbit
from distill.three_d.datasets import CameraData, ObjectViews
from distill.three_d.losses import psnr
from distill.three_d.meshes import load_mesh, views
from distill.three_d.objects import NAMES, OBJECTS
from distill.three_d.posed import PosedPictures, ViewsTeacher, ray_features

TINY = PosedPictures(**PosedPictures.example)


def test_rays_are_direction_and_moment_and_their_waves():
    cameras = Orbit().even(3, 4, 6)
    along, moment = ray_features(cameras, 0).split(3, 1)
    assert ray_features(cameras, 2).shape == (3, 6 * 5, 4, 6)
    assert (along * moment).sum(1).abs().max() < 1e-5  # a moment is at right angles to its ray
    torch.testing.assert_close(torch.linalg.cross(cameras.rays()[0], cameras.rays()[1]), moment.permute(0, 2, 3, 1))


def test_the_camera_changes_what_is_said_and_none_is_a_camera_of_zeros():
    denoiser, x, label = TINY.build(), torch.randn(2, 3, 8, 8), {"label": torch.zeros(2, dtype=torch.long)}
    for part in denoiser.parameters():
        torch.nn.init.normal_(part, std=0.2)
    same = {name: value.expand(2, -1, -1) for name, value in Orbit().even(1, 8, 8).fields().items()}
    other = Orbit().even(2, 8, 8).fields()
    said = [denoiser.predict(x, 0.5, {**label, **cond}).x0.detach() for cond in ({}, same, other)]
    assert torch.equal(said[1][0], said[2][0]) and not torch.allclose(said[1][1], said[2][1])
    assert not torch.allclose(said[0], said[1]) and said[0].shape == x.shape


def test_guidance_leaves_the_camera_alone():
    assert set(TINY.build().null) == {"label"}


def test_names_are_labels():
    assert ViewsTeacher().encode(["house", "ant"])["label"].tolist() == [NAMES.index("house"), NAMES.index("ant")]
    with pytest.raises(RecipeError, match="nothing is called 'whale' here; names are airplane"):
        ViewsTeacher().encode(["whale"])


def test_the_shipped_teacher_knows_which_object_is_seen_from_where():
    cameras = Orbit().draw(4, 32, 32, Rng(5))
    true = 2 * torch.nn.functional.avg_pool2d(views(load_mesh("house"), cameras.resized(64, 64))[0], 2) - 1
    denoiser, other = ViewsTeacher().build(), cameras[torch.tensor([1, 2, 3, 0])]
    noised = denoiser.path.noised(true, Rng(0).normal_like(true), torch.tensor(0.9))

    def heard(name: str, seen) -> float:
        cond = {**seen.fields(), "label": torch.full((4,), NAMES.index(name))}
        with torch.no_grad():
            return float(psnr(denoiser.predict(noised, 0.9, cond).x0, true).mean())

    assert heard("house", cameras) > max(heard("house", other), heard("tree", cameras)) + 3


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_fill_the_ball_and_have_colours(name):
    mesh = load_mesh(name)
    pictures, depth = views(mesh, Orbit().even(2, 16, 16))
    assert abs((mesh.vertices**2).sum(1).max() - 1) < 1e-6 and (depth > 0).float().mean() > 0.03
    assert len(pictures.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0)) > 5


def test_views_of_several_meshes_say_which_and_cameras_what_they_are_told():
    data = ObjectViews(meshes=("tree", "nut"), count=3, size=(8, 8))
    made, held = data.open(), data.open("test")
    assert [int(made[row]["label"]) for row in range(len(made))] == [0, 0, 0, 1, 1, 1]
    assert not torch.equal(made[0]["x"], held[0]["x"]) and made[0]["x"].shape == (3, 8, 8)
    assert int(CameraData(count=2, told={"label": 4}).open()[1]["label"]) == 4
