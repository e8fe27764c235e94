"""`distill new-plugin`: what it makes, what it refuses, and what a newer template does to a plugin that is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill.core import scaffold

LONG = "night-sky-of-many-stars1"


@pytest.fixture
def made(cli, tmp_path):
    """Makes a plugin in a folder."""

    def make(name="waves", *more):
        return cli("new-plugin", name, "-o", tmp_path / name, *more), tmp_path / name

    return make


@pytest.mark.parametrize("name", ["x", LONG])
def test_a_new_plugin_says_its_name_everywhere_and_is_tidy(made, name):
    result, folder = made(name)
    assert result.code == 0 and "sprout" not in result.out
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert not any("sprout" in text for text in texts) and f'name = "distill-{name}"' in "".join(texts)
    assert (folder / "src" / f"distill_{name.replace('-', '_')}" / "py.typed").exists()
    for tool in ("check", "format --check"):
        done = subprocess.run([sys.executable, "-m", "ruff", *tool.split(), "."], cwd=folder, capture_output=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["X", "a_b", "a--b", "1a", "", "n" * 25, "../up", "sprout/x"])
def test_a_name_that_cannot_be_is_refused(cli, name):
    result = cli("new-plugin", name)
    assert result.code == 2 and "small letters" in result.err


@pytest.mark.parametrize("name", ["core", "image", "text"])
def test_a_name_that_is_taken_is_refused(cli, name):
    result = cli("new-plugin", name)
    assert result.code == 2 and "choose another one" in result.err


def test_a_folder_that_is_not_empty_is_left_alone(made, tmp_path):
    (tmp_path / "waves").mkdir()
    (tmp_path / "waves" / "mine.txt").touch()
    result, folder = made()
    assert result.code == 2 and "--update" in result.err and len(list(folder.iterdir())) == 1


def newer(monkeypatch, change):
    """A template of which some files have changed."""
    before = scaffold.rendered

    def rendered(name):
        return change(before(name))

    monkeypatch.setattr(scaffold, "rendered", rendered)


def test_an_update_replaces_what_nobody_touched_and_nothing_else(made, monkeypatch):
    _, folder = made()
    for path in ("README.md", ".gitignore"):
        (folder / path).write_text("mine")
    (folder / "recipes/student.yaml").unlink()
    (folder / "src/distill_waves/data.py").write_text("mine too")
    change = {"README.md": "new", "pyproject.toml": "new", "recipes/student.yaml": "new", "more.md": "new"}
    newer(monkeypatch, lambda files: files | change)
    result, _ = made("waves", "--update")
    said = {Path(line.split()[1]).name: line.split()[0] for line in result.out.splitlines()[:-1]}
    assert said == {
        "README.md": "beside", "pyproject.toml": "updated", "more.md": "made", ".gitignore": "kept", "data.py": "kept"
    }  # fmt: skip
    assert (folder / "README.md").read_text() == "mine" and (folder / "README.md.new").read_text() == "new"
    assert (folder / "pyproject.toml").read_text() == "new" and not (folder / "recipes/student.yaml").exists()


def test_a_second_update_changes_nothing(made, monkeypatch):
    _, folder = made()
    newer(monkeypatch, lambda files: files | {"pyproject.toml": "new"})
    made("waves", "--update")
    record = (folder / scaffold.RECORD).read_text()
    result, _ = made("waves", "--update")
    assert len(result.out.splitlines()) == 1 and (folder / scaffold.RECORD).read_text() == record
    assert json.loads(record)["template"] == scaffold.version()


@pytest.mark.parametrize("damage", ["", "[]", '{"name": "other", "files": {}}'])
def test_an_update_of_something_else_is_refused(made, damage):
    _, folder = made()
    (folder / scaffold.RECORD).write_text(damage)
    result, _ = made("waves", "--update")
    assert result.code == 2 and ("damaged" in result.err or "plugin 'other'" in result.err)


def test_the_templates_bounds_are_those_of_our_packages():
    root = Path(__file__).parents[2]
    text = (root / "plugins/methods/pyproject.toml").read_text()
    bound = next(line.strip(' ",') for line in text.splitlines() if "distill-core>" in line)
    assert f'"{bound}"' in scaffold.rendered("x")["pyproject.toml"]
