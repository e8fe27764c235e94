"""Scenes as files, turntables and contact sheets."""

from __future__ import annotations

import av
import pytest
import torch
from PIL import Image

from distill.core import Role
from distill.core.contracts import Outcome, Way
from distill.core.demo import demo
from distill.core.errors import DataError
from distill.three_d.files import read_ply
from distill.three_d.gaussians import Gaussians, GaussianScene
from distill.three_d.modality import ThreeD

SMALL = ThreeD(size=17, frames=5, columns=3)


def batch(*scenes):
    return {part: torch.stack([each[part] for each in scenes]) for part in scenes[0]}


def test_scenes_are_written_one_by_one_with_a_turn_around_each(scene, tmp_path):
    paths = ThreeD(size=17, frames=5, splats=True).write(batch(scene(9), scene(9, seed=1)), tmp_path, "thing")
    assert [path.name for path in paths[:3]] == ["thing-0000.ply", "thing-0000.splat", "thing-0000.mp4"]
    assert torch.equal(read_ply(paths[3])["means"], scene(9, seed=1)["means"])
    with av.open(str(paths[2])) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 5 and frames[0].shape == (16, 16, 3)


def test_a_contact_sheet_has_a_row_a_scene_and_one_of_distances(scene, tmp_path):
    path = SMALL.preview(batch(scene(9), scene(9), scene(9, seed=1)), tmp_path / "a.png")
    with Image.open(path) as sheet:
        assert sheet.size == (3 * 18 + 1, 3 * 18 + 1)  # two unequal scenes, and distances


def test_what_is_no_scene_is_refused(tmp_path):
    with pytest.raises(DataError, match="a batch of scenes"):
        SMALL.write(torch.zeros(2, 3, 8, 8), tmp_path)


@pytest.mark.parametrize("kind", ["ply", "splat", "mp4", "safetensors"])
def test_a_scene_is_exported(scene, tmp_path, kind):
    builder, subject = GaussianScene(), Gaussians(scene(9))
    paths = builder.export_outcome(Outcome(Role("student", subject), builder.sampler()), kind, tmp_path)
    assert all(path.stat().st_size for path in paths) and any(path.suffix == f".{kind}" for path in paths)


def test_a_turn_for_reports_shows_every_way_beside_the_others(scene, tmp_path):
    ways = {name: Way(None, None, lambda n, seed=n: batch(scene(9, seed=seed)), dict) for n, name in enumerate("ab")}
    said = SMALL.side_by_side(ways, tmp_path)
    assert said == {"turn.gif": "one turn, from left to right: a; b"}
    with Image.open(tmp_path / "turn.gif") as turn:
        assert turn.n_frames == 5 and turn.size == (2 * 18 + 1, 18 + 1)


def test_the_quick_demo_makes_a_scene_its_files_and_a_report(tmp_path):
    demo("3d", tmp_path / "demo", quick=True)
    assert len(read_ply(tmp_path / "demo/samples/sample-0000.ply")["means"]) > 100
    assert (tmp_path / "demo/samples/sample-0000.mp4").stat().st_size
    page = (tmp_path / "demo/report.html").read_text()
    assert "data:image/gif" in page and "one turn" in page and "what was made" in page
