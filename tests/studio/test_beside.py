"""A teacher beside its student."""

from __future__ import annotations

import pytest
import yaml

from distill.core.commands import train
from distill.core.errors import RecipeError
from distill.core.registry import default_registry
from distill.studio import beside
from distill.studio.beside import Asked

RECIPE = {
    "teacher": {"name": "digits-teacher", "steps": 4}, "data": "digits", "batch_size": 4,
    "method": {"name": "dmd2", "steps": 1, "times": [1.0, 0.5]},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with one run."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "recipe.txt").write_text(yaml.safe_dump(RECIPE))
    train(folder / "recipe.txt", out=folder / "digits")
    return folder


def test_what_ships_and_what_was_distilled(root):
    found = beside.pairs(root, default_registry())
    shipped = {"emoji-teacher:emoji-student", "moving-teacher:moving-student", "music-teacher:music-student",
               "sr-teacher:sr-student"}  # fmt: skip
    assert shipped <= found.keys() and found[str(root / "digits")] == "run digits"
    assert {"image", "3d"} <= set(beside.demos(default_registry()))


def test_any_number_of_steps_from_one_seed_and_answered_once(root, tmp_path):
    asked = Asked(str(root / "digits"), seed=3, teacher=2, students=(1, 2), hurried=True, cond=("label=3",))
    folder, answer = beside.shown(asked, tmp_path)
    assert [(way, row["calls"]) for way, row in answer.rows.items()] == [
        ("teacher, 2 steps", 2), ("teacher, 1 step", 1), ("student, 1 step", 1), ("student, 2 steps", 2)
    ]  # fmt: skip
    assert list(answer.pictures.values()) == list(answer.rows)
    assert all((folder / name).is_file() for name in answer.pictures)
    assert beside.shown(asked, tmp_path) == (folder, answer)


def test_a_pair_says_what_it_can_be_asked(root):
    pair = beside.opened(str(root / "digits"))
    assert pair.steps == [1, 2] and pair.usual == [1, 2] and not pair.reads and "label" in pair.conditions


@pytest.mark.parametrize("change", [{"students": (3,)}, {"cond": ("colour=3",)}, {"prompt": "a"}])
def test_what_it_cannot_do_is_told(root, tmp_path, change):
    with pytest.raises(RecipeError):
        beside.shown(Asked(str(root / "digits"), teacher=1, **change), tmp_path)
    assert not list(tmp_path.glob("*/answer.json"))
