"""Clips as files: what is written can be read back, and a preview moves."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from distill.core import commands
from distill.core.errors import DataError
from distill.video.datasets import MovingDigits, decoded
from distill.video.modality import Video, spread

CLIPS = MovingDigits(count=20).open().__getitems__(range(20))["x"]


def test_clips_are_written_one_by_one_and_read_back(tmp_path):
    paths = Video(scale=1).write(CLIPS[:2], tmp_path, "digit")
    assert [path.name for path in paths] == ["digit-0000.mp4", "digit-0001.mp4"]
    back = decoded(paths[1], 16, 16, mode="gray").float() / 127.5 - 1
    assert back.shape == (12, 1, 16, 16) and float((back - CLIPS[1]).abs().mean()) < 0.1


def test_a_preview_is_a_sheet_and_the_clips_in_motion_beside_it(tmp_path):
    path = Video(scale=1).preview(CLIPS, tmp_path / "step-1.png")
    with Image.open(path) as sheet, Image.open(tmp_path / "step-1.gif") as moving:
        assert sheet.size == (8 * 17 + 1, 16 * 17 + 1) and moving.size == (4 * 17 + 1, 4 * 17 + 1)
        assert moving.n_frames == 12
    assert (tmp_path / "step-1.mp4").stat().st_size > 0


def test_teacher_and_student_side_by_side(tmp_path):
    paths = Video(scale=1).beside({"teacher": CLIPS[:3], "student": CLIPS[3:6]}, tmp_path / "both")
    assert [path.suffix for path in paths] == [".mp4", ".gif"]
    with Image.open(paths[1]) as moving:
        assert moving.size == (3 * 17 + 1, 2 * 17 + 1)


RECIPE = """
method: {name: causvid, steps: 1, routes: 0, critic_updates: 1, times: [1.0, 0.5], reach: {chunk: 2}}
teacher: {name: video-dit, size: [8, 8], frames: 6, width: 24, depth: 1, heads: 2, classes: 10, steps: 3}
data: {name: moving-digits, size: 8, frames: 6, count: 16}
batch_size: 2
metrics: [causality]
"""


def test_the_report_of_a_run_shows_both_in_motion_and_how_long_one_waits(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    commands.train(tmp_path / "recipe.yaml", out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/gif;base64," in page and "data:image/svg+xml;base64," in page
    assert "from top to bottom: teacher, 3 steps; student, 2 steps, from the same noises" in page
    assert "teacher, 3 steps: first frame after" in page and "causality" in page
    with Image.open(tmp_path / "run" / "previews" / "beside.gif") as moving:
        assert moving.n_frames == 6 and moving.size == (6 * 65 + 1, 2 * 65 + 1)
    assert {path.name for path in (tmp_path / "run" / "previews").iterdir()} >= {"beside.mp4", "step-1.png"}


def test_colour_is_kept(tmp_path):
    red = torch.tensor([1.0, -1, -1]).view(1, 1, 3, 1, 1).expand(1, 4, 3, 32, 32)
    (path,) = Video(scale=1).write(red, tmp_path)
    assert (decoded(path, 32, 32).float().mean((0, 2, 3)) - torch.tensor([255.0, 0, 0])).abs().max() < 8


def test_few_are_all_shown_and_many_evenly():
    assert spread(torch.arange(5), 8).tolist() == [0, 1, 2, 3, 4]
    assert spread(torch.arange(12), 4).tolist() == [0, 4, 7, 11]


def test_latents_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"clips are \[B, F, 1 or 3, H, W\], and these samples \[2, 4, 16, 4, 4\]"):
        Video().write(torch.zeros(2, 4, 16, 4, 4), tmp_path)
