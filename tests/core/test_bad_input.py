"""A user's mistake ends in one message that says what, where and how to mend it, exit code 2, and nothing
lost."""

from __future__ import annotations

import shutil

import pytest

from distill.core import checkpoint


def refused(result, *parts):
    """One message on stderr with these parts, exit code 2, and no traceback."""
    assert result.code == 2, result
    assert result.err.startswith("error: ") and "Traceback" not in result.err + result.out
    assert all(part in result.err for part in parts), result.err


@pytest.mark.parametrize("override, parts", [
    ("batchsize=3", ("unknown key 'batchsize'", "did you mean 'batch_size'")),
    ("batch_size=many", ("batch_size", "integer")),
    ("method.name=swiftbrus", ("no method 'swiftbrus'", "mean 'swiftbrush'")),
    ("method.stepz=3", ("unknown key 'method.stepz'", "did you mean 'steps'")),
    ("data=digit", ("no dataset 'digit'", "'digits'")),
    ("method.times=[0.5, 1.0]", ("descend",)),
    ("method.times=[]", ("times",)),
    ("method.times=[80.0]", ("beyond", "path")),
    ("accumulate=3", ("batch_size",)),
    ("teacher=null", ("teacher",)),
    ("roles.critic.copy_of=nobody", ("no role 'nobody'",)),
    ("roles.student.guidance=high", ("roles.student.guidance",)),
])  # fmt: skip
def test_a_recipe_that_cannot_work_is_refused_before_anything_is_written(cli, recipe, tmp_path, override, parts):
    refused(cli("train", recipe, override, "--out", tmp_path / "run"), *parts)
    assert not (tmp_path / "run").exists()


def test_a_method_that_needs_a_teacher_says_so(cli, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "student: {name: mlp, shape: [1, 8, 8], classes: 10}\nmethod: {name: dmd2, steps: 2}\ndata: digits\n"
    )
    refused(cli("train", path, "--out", tmp_path / "run"), "teacher")


@pytest.mark.parametrize(
    "command", [("train", "no.yaml"), ("sample", "nowhere"), ("eval", "nowhere"), ("export", "nowhere")]
)
def test_a_missing_file_or_run_is_named(cli, command):
    refused(cli(*command), command[1])


@pytest.mark.parametrize("files, parts", [
    ({}, ("empty", "no pictures")), ({"a.png": b"\x89PNG nonsense"}, ("a.png", "not a readable picture")),
], ids=["none", "broken"])  # fmt: skip
def test_a_folder_of_bad_pictures_is_refused(cli, recipe, tmp_path, files, parts):
    folder = tmp_path / "empty"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    result = cli("train", recipe, f"data={{name: picture-folder, folder: {folder}, size: 8, mode: L}}", "metrics=[]")
    refused(result, str(folder))
    assert any(part in result.err for part in parts)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a finished run, to be spoilt."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["role-student.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize(
    "damage", [spoil, lambda path: path.write_bytes(path.read_bytes()[:40])], ids=["flipped", "cut"]
)
def test_a_damaged_checkpoint_is_named(cli, recipe, run, file, damage):
    last = run / "checkpoints" / f"step-{checkpoint.steps(run / 'checkpoints')[-1]}"
    damage(last / file)
    before = {path: path.read_bytes() for path in last.iterdir()}
    for command in (("train", recipe, "--out", run, "--resume"), ("sample", run, "--n", 1)):
        refused(cli(*command), f"{last.name}/", file, "is missing or damaged", "--resume-from")
    assert before == {path: path.read_bytes() for path in last.iterdir()}


def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(cli, recipe, run):
    first, *_, last = checkpoint.steps(run / "checkpoints")
    whole = (run / "checkpoints" / f"step-{last}" / "role-student.safetensors").read_bytes()
    (run / "checkpoints" / f"step-{last}" / "role-student.safetensors").write_bytes(whole[:99])
    assert cli("train", recipe, "metrics=[]", "--out", run, "--resume-from", f"step-{first}").code == 0
    assert (run / "checkpoints" / f"step-{last}" / "role-student.safetensors").read_bytes() == whole


def test_a_run_is_not_resumed_with_another_recipe(cli, recipe, run):
    refused(
        cli("train", recipe, "seed=7", "--out", run, "--resume"),
        "another run: recipe differ",
        "--resume-anyway",
    )
    refused(cli("train", recipe, "--out", run), "holds a run already", "--resume")


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_checkpoint(cli, recipe, tmp_path):
    wild = (
        "method.steps=40",
        "method.student_optimiser={lr: 1.0e+30, warmup: 0}",
        "checkpoint_every=1",
        "metrics=[]",
    )
    result = cli("train", recipe, *wild, "--out", tmp_path / "run")
    refused(result, "training stopped at step", "became", "smaller learning rate", "the last good checkpoint is")
    kept = checkpoint.steps(tmp_path / "run" / "checkpoints")
    assert kept
    for step in kept:
        files, _ = checkpoint.read(tmp_path / "run" / "checkpoints" / f"step-{step}")
        assert all(value.isfinite().all() for name in files if "role" in name for value in files[name].values())
