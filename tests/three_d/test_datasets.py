"""Pictures come with the cameras that they were seen from."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from distill.core.errors import DataError
from distill.three_d.cameras import LENS, VIEW, Cameras, Orbit
from distill.three_d.datasets import CameraData, MeshViews, PosedPhotos, SplatFolder, SurfaceScenes
from distill.three_d.files import write_ply
from distill.three_d.meshes import load_mesh, views

FLIP = torch.diag(torch.tensor([1.0, -1, -1, 1]))


def test_views_of_a_mesh_are_those_of_their_cameras():
    data = MeshViews(mesh="tower", count=3, size=(12, 16), smooth=1).open()
    sample = data[1]
    seen = Cameras.of({name: sample[name][None] for name in (VIEW, LENS)}, 12, 16)
    pictures, _ = views(load_mesh("tower"), seen)
    torch.testing.assert_close(sample["x"], 2 * pictures[0] - 1)


def test_held_out_views_are_others():
    data = MeshViews(count=4, size=(8, 8))
    assert not torch.equal(data.open()[0][VIEW], data.open("test")[0][VIEW])
    assert torch.equal(data.open()[0][VIEW], MeshViews(count=4, size=(8, 8)).open()[0][VIEW])


def folder(path, cameras, **about):
    motions = (cameras.world_to_camera.inverse() @ FLIP).tolist()
    frames = [{"file_path": f"./{n}", "transform_matrix": motion} for n, motion in enumerate(motions)]
    for n in range(len(frames)):
        Image.new("RGBA", (20, 10), (255, 0, 0, 0 if n else 255)).save(path / f"{n}.png")
    (path / "transforms.json").write_text(json.dumps({"frames": frames, **about}))
    return PosedPhotos(folder=path, size=(5, 10))


def test_photos_are_read_with_their_cameras_over_white(tmp_path):
    seen = Orbit().even(2, 10, 20)
    data = folder(tmp_path, seen, fl_x=float(seen.intrinsics[0, 0, 0]), w=20, h=10).open()
    torch.testing.assert_close(data[0][VIEW], seen.world_to_camera[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(data[1][LENS], seen.fields()[LENS][1])
    assert data[0]["x"][:, 2, 2].tolist() == [1, -1, -1] and data[1]["x"].min() == 1


def test_a_folder_of_no_use_is_refused_with_the_reason(tmp_path, scene):
    with pytest.raises(DataError, match="holds neither"):
        PosedPhotos(folder=tmp_path).open()
    with pytest.raises(DataError, match="focal length is unknown"):
        folder(tmp_path, Orbit().even(1, 8, 8)).open()
    (tmp_path / "0.png").unlink()
    with pytest.raises(DataError, match="has no picture"):
        PosedPhotos(folder=tmp_path).open()
    with pytest.raises(DataError, match=r"no \.ply files"):
        SplatFolder(folder=tmp_path).open()
    for name, count in (("a", 3), ("b", 5)):
        write_ply(scene(count), tmp_path / f"{name}.ply")
    with pytest.raises(DataError, match="between 3 and 5 Gaussians"):
        SplatFolder(folder=tmp_path).open()


def test_cameras_alone_and_scenes_alone():
    assert set(CameraData(count=5).open()[0]) == {VIEW, LENS}
    scenes = SurfaceScenes(count=4, gaussians=20).open()
    assert scenes[3]["x"]["means"].shape == (20, 3) and not torch.equal(
        scenes[0]["x"]["means"], scenes[3]["x"]["means"]
    )
    assert torch.equal(scenes[2]["x"]["means"], SurfaceScenes(count=4, gaussians=20).open()[2]["x"]["means"])
