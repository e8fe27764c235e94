"""What a stranger gives us by mistake, and the one sentence that the command line answers with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import trimesh

from distill.core import commands
from distill.core.cli import main
from distill.three_d.files import write_ply

FIT = """
method: {name: gaussian-splatting, steps: 2, scene: {start: START, densify: {start: 5, every: 5}}}
data: DATA
lens: {name: render, size: [8, 8]}
batch_size: 2
"""
SCANS = """
method: {name: denoising, steps: 2}
student: {name: point-transformer, width: 4, depth: 1, near: 2, points: 16}
data: {name: lidar, folder: FOLDER, count: 4}
batch_size: 2
"""
VIEWS, NOISE = "{name: mesh-views, count: 2, size: [8, 8], smooth: 1}", "{name: noise, count: 20}"


@pytest.fixture
def told(tmp_path, capsys):
    """Trains from a recipe as a stranger does; gives what was said on the error channel."""

    def run(recipe, *more):
        (tmp_path / "recipe.yaml").write_text(recipe)
        with pytest.raises(SystemExit) as left:
            main(["train", str(tmp_path / "recipe.yaml"), *more, "-o", str(tmp_path / "run")])
        said = capsys.readouterr().err
        assert left.value.code == 2, said
        return said

    return run


def fit(start=NOISE, data=VIEWS):
    return FIT.replace("START", start).replace("DATA", data)


def opened(path):
    box = trimesh.creation.box()
    box.update_faces(np.arange(12) > 0)
    box.export(path)


def points(path, bad=0):
    table = torch.rand(8, 3)
    table[:bad] = torch.nan
    trimesh.PointCloud(table.numpy()).export(path)


def empty(path):
    path.write_text("ply\nformat ascii 1.0\nelement vertex 0\n" + "".join(f"property float {c}\n" for c in "xyz"))
    path.write_text(path.read_text() + "end_header\n")


MESHES = [
    (opened, "surface, solid: true, mesh: FILE", "is not watertight (11 faces leave holes): fill them"),
    (points, "surface, mesh: FILE", "has no faces, but 8 points: a mesh is needed here; for points take start"),
    (lambda path: points(path, 3), "points, path: FILE", "3 of 8 points have coordinates that are no numbers"),
    (empty, "points, path: FILE", "points are [N, 3] with at least one of them, and these are [0, 3]"),
    (points, "saved, path: FILE", "is no scene of Gaussians: it lacks f_dc_0"),
]


@pytest.mark.parametrize(("write", "start", "message"), MESHES)
def test_a_file_that_no_scene_can_begin_as(told, tmp_path, write, start, message):
    write(tmp_path / "file.ply")
    said = told(fit(f"{{name: {start.replace('FILE', str(tmp_path / 'file.ply'))}}}"))
    assert said.count("\n") == 1 and said.startswith("error: ") and "file.ply" in said and message in said


def test_a_mesh_without_faces_has_no_views(told, tmp_path):
    points(tmp_path / "cloud.ply")
    said = told(fit(data=VIEWS.replace("count", f"mesh: {tmp_path / 'cloud.ply'}, count")))
    assert "cloud.ply has no faces, but 8 points: a mesh is needed here" in said and said.count("\n") == 1


def test_an_open_mesh_has_views_like_any_other(tmp_path):
    opened(tmp_path / "open.ply")
    (tmp_path / "recipe.yaml").write_text(fit(data=VIEWS.replace("count", f"mesh: {tmp_path / 'open.ply'}, count")))
    commands.train(tmp_path / "recipe.yaml", out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_cameras_within_the_object(told):
    said = told(fit(data=VIEWS.replace("count", "cameras: {name: orbit, radius: [0.2, 0.2]}, count")))
    assert "stands inside the object, which would hide all else: choose a larger radius" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [(np.zeros((0, 3)), "is empty"), (np.full((9, 3), np.nan), "9 points of 9 that are no numbers")],
)
def test_a_scan_that_holds_nothing(told, tmp_path, rows, message):
    (tmp_path / "scans").mkdir()
    np.save(tmp_path / "scans" / "one.npy", rows.astype(np.float32))
    said = told(SCANS.replace("FOLDER", str(tmp_path / "scans")))
    assert "one.npy" in said and message in said and said.count("\n") == 1


def test_a_folder_of_scenes_one_of_which_lacks_fields(told, tmp_path, scene):
    path = write_ply(scene(5, harmonics=0), tmp_path / "scenes" / "a.ply")
    path.write_bytes(path.read_bytes().replace(b"opacity", b"opaque1"))
    said = told(fit(data=f"{{name: splat-folder, folder: {tmp_path / 'scenes'}}}"))
    assert "a.ply is no scene of Gaussians: it lacks opacity" in said and said.count("\n") == 1


def test_a_run_whose_scene_collapses_keeps_a_checkpoint_that_is_sampled(told, tmp_path):
    recipe = fit().replace("densify: {start: 5, every: 5}", "densify: {start: 6, every: 6, faint: 0.99}")
    said = told(recipe.replace("steps: 2", "steps: 20"), "checkpoint_every=4")
    assert "training stopped at step 5: the scene has collapsed: all" in said and said.count("\n") == 1
    assert "step-4" in said and "smaller 'faint'" in said
    commands.sample(str(tmp_path / "run"), n=1, out=tmp_path / "out")
    assert (tmp_path / "out" / "sample-0000.ply").is_file()
