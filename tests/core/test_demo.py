"""`distill demo`, quickly: the whole main job, and a report that stands alone."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image


def test_the_quick_demo_makes_a_table_pictures_and_a_report(cli, tmp_path):
    code, out, err = cli("demo", "--quick", "-o", "demo")
    assert code == 0 and err == "" and "teacher, 64 steps" in out and "student, 1 step" in out
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out.split("report:")[1]
    rows = json.loads((tmp_path / "demo/metrics.json").read_text())
    assert {"frechet", "recall", "calls", "ms per sample", "speed-up"} <= set(rows["student, 1 step"])
    assert rows["teacher, 64 steps"]["calls"] == 64 and rows["student, 1 step"]["speed-up"] > 10
    page = (tmp_path / "demo/report.html").read_text()
    assert page.count("data:image/png") == len(rows) + 1 and page.count("<svg") >= 3 and "student, 1 step" in page
    assert not re.search(r"https?:|src=\"(?!data:)|<script|<link", page)
    with Image.open(tmp_path / "demo/previews/teacher-64-steps.png") as picture:
        assert picture.width > 400 and len(picture.getcolors(1_000_000)) > 50


@pytest.mark.parametrize("made", ["folder/keep.txt", "folder"])
def test_a_demo_deletes_nobody_elses_folder(cli, tmp_path, made):
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).write_text("mine")
    code, _, err = cli("demo", "--quick", "-o", "folder")
    assert code == 2 and "no demo made it" in err and (tmp_path / made).read_text() == "mine"


def test_a_modality_without_a_demo(cli):
    assert "there is no modality 'smell'" in cli("demo", "--modality", "smell").err


def test_an_earlier_demo_makes_room(tmp_path):
    from distill.core.demo import MARK, _make_room

    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / MARK).touch()
    _make_room(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
    _make_room(tmp_path / "demo")
