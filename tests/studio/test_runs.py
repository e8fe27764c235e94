"""Runs as their folders tell them."""

from __future__ import annotations

import os
import time

from distill.studio import runs


def test_a_run_says_where_it_stands(tmp_path, small_run):
    small_run(tmp_path / "a")
    (stand,) = runs.runs(tmp_path)
    assert (stand.name, stand.method, stand.teacher, stand.step, stand.of) == ("a", "dmd2", "digits-teacher", 50, 50)
    assert not stand.training and [path.name for path in runs.previews(stand.folder)] == ["step-50.png"]


def test_curves_grow_and_a_half_written_line_waits(tmp_path, small_run):
    folder = small_run(tmp_path / "a")
    assert runs.curves(folder)["loss"][-1] == (50, 1 / 50)
    journal = folder / "metrics.jsonl"
    with journal.open("a") as file:
        file.write('{"step": 51, "loss": 2.0}\n{"step": 52, "lo')
    os.utime(journal, (time.time() + 1,) * 2)
    assert runs.curves(folder)["loss"][-1] == (51, 2.0) and runs.runs(tmp_path)[0].step == 51


def test_what_is_no_number_is_no_point(tmp_path, small_run):
    folder = small_run(tmp_path / "a")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": 3.0, "note": "x"}\n')
    assert runs.curves(folder) == {"loss": [(2, 3.0)]}


def test_a_damaged_recipe_is_listed_all_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "recipe.yaml").write_text("{")
    assert [stand.name for stand in runs.runs(tmp_path)] == ["a"]
