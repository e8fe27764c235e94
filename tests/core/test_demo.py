"""`distill demo`, quickly: the whole main job, and a report that stands alone."""

from __future__ import annotations

import json
import re

import pytest
import torch
from PIL import Image as Pillow

from distill.image.modality import Image
from distill.image.teachers import DigitsTeacher


def test_the_quick_demo_makes_a_table_pictures_and_a_report(cli, tmp_path):
    code, out, err = cli("demo", "--quick", "-o", "demo")
    assert code == 0 and err == "" and "teacher, 64 steps" in out and "student, 1 step" in out
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out.split("report:")[1]
    rows = json.loads((tmp_path / "demo/metrics.json").read_text())
    assert {"frechet (digits)", "recall (digits)", "calls", "ms per sample", "speed-up"} <= set(rows["student, 1 step"])
    assert rows["teacher, 64 steps"]["calls"] == 64 and rows["student, 1 step"]["speed-up"] > 10
    page = (tmp_path / "demo/report.html").read_text()
    assert page.count("data:image/png") == len(rows) + 1 and page.count("<svg") >= 3 and "student, 1 step" in page
    assert not re.search(r"https?:|src=\"(?!data:)|<script|<link", page)
    with Pillow.open(tmp_path / "demo/previews/teacher-64-steps.png") as picture:
        assert picture.width > 400 and len(picture.getcolors(1_000_000)) > 50


@pytest.mark.parametrize("made", ["folder/keep.txt", "folder"])
def test_a_demo_deletes_nobody_elses_folder(cli, tmp_path, made):
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).write_text("mine")
    code, _, err = cli("demo", "--quick", "-o", "folder")
    assert code == 2 and "no demo made it" in err and (tmp_path / made).read_text() == "mine"


def test_a_modality_without_a_demo(cli):
    assert "there is no modality 'smell'" in cli("demo", "smell").err


def test_an_earlier_demo_makes_room(tmp_path):
    from distill.core.demo import MARK, _make_room

    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / MARK).touch()
    _make_room(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
    _make_room(tmp_path / "demo")


@pytest.fixture
def reads_numbers(monkeypatch):
    """The digits teacher reads prompts, and stands for a shipped pair."""
    monkeypatch.setattr(DigitsTeacher, "encode", lambda self, prompts: {"label": torch.tensor([int(prompts[0])])})
    monkeypatch.setattr(Image, "pair", ("digits-teacher", "digits-teacher"))


def test_a_prompt_is_shown_by_the_shipped_pair(cli, tmp_path, reads_numbers):
    code, out, err = cli("demo", "--prompt", "3", "-o", "demo")
    assert code == 0 and err == "" and "from top to bottom: teacher, 64 steps; student, 1 step" in out
    with Pillow.open(tmp_path / "demo/prompt.png") as sheet:
        assert sheet.size == ((10 * 9 + 1) * 8, (2 * 9 + 1) * 8)


def test_a_prompt_is_shown_by_the_teacher_and_the_student_of_a_run(cli, tmp_path, reads_numbers):
    recipe = "teacher: digits-teacher\nmethod: {name: dmd2, steps: 1, times: [1.0, 0.75, 0.5, 0.25]}\ndata: digits\n"
    (tmp_path / "r.yaml").write_text(recipe)
    assert cli("train", "r.yaml", "-o", "run").code == 0
    code, out, _ = cli("demo", "--prompt", "3", "--run", "run", "-o", "demo")
    assert code == 0 and "student, 1 step; student, 2 steps; student, 4 steps" in out
    table = [line.split() for line in out.splitlines() if line.startswith(("teacher", "student"))]
    assert [row[3] for row in table[:4]] == ["64", "1", "2", "4"]


def test_what_cannot_show_a_prompt_says_so(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "pair", ("digits-teacher", "digits-teacher"))
    assert "DigitsTeacher reads no prompts" in cli("demo", "--prompt", "3").err
    monkeypatch.setattr(Image, "pair", None)
    assert "no installed plugin has such a demo" in cli("demo", "image", "--prompt", "3").err
    assert not (tmp_path / "runs").exists()
