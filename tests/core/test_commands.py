"""The commands that train, sample, measure and export, as a person uses them."""

from __future__ import annotations

import io
import json
import re
import shutil

import pytest
import torch
from PIL import Image
from rich.console import Console

from distill.core import commands
from distill.core.engine import Engine
from distill.core.recipe import load_recipe
from distill.core.registry import default_registry
from distill.core.run import prepare

ONE = "method.steps=1"


def test_training_leaves_a_run_and_says_where(cli, recipe, tmp_path):
    code, out, err = cli("train", recipe, "preview_every=2", "trackers=[tensorboard]")
    run = tmp_path / "runs" / "tiny"
    assert code == 0 and "student, 4 steps" in out and "run: runs/tiny   report: runs/tiny/report.html" in out
    assert {path.name for path in run.iterdir()} >= {
        "recipe.yaml", "versions.json", "metrics.jsonl", "metrics.json", "report.html", "checkpoints", "previews"
    }  # fmt: skip
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and "denoise_critic" in lines[0]
    assert [path.stem for path in commands._previews(run)] == ["step-2", "step-4"]
    assert (
        list(run.glob("tiny/events.*")) and list(json.loads((run / "metrics.json").read_text()))[0] == "student, 1 step"
    )


def test_a_dry_run_shows_plan_and_cost_and_writes_nothing(cli, recipe, tmp_path):
    code, out, _ = cli("train", recipe, "--dry-run")
    assert code == 0 and not (tmp_path / "runs").exists()
    assert "ScoreDifference" in out and "discriminator" in out and max(map(len, out.splitlines())) <= 80
    teacher, student = (re.search(rf"(?m)^{name} +([\d,]+) .* (yes|no) ", out) for name in ("teacher", "student"))
    assert teacher and student and teacher[1] == student[1] and (teacher[2], student[2]) == ("no", "yes")


def test_what_a_dry_run_says_of_memory_is_what_a_step_then_holds(recipe):
    """Weights, gradients and optimiser states, role by role."""
    shared = "roles.critic={shares: teacher, transforms: [{name: lora, rank: 2}]}"
    run = prepare(
        *load_recipe(recipe, ["method.generator.weight=0", "method.steps=10", "checkpoint_every=0", shared]),
        default_registry(),
    )
    expected, engine, held = commands.costs(run), run.engine(None).run(2), {}
    names = {id(parameter): name for name, role in run.roles.items() for parameter in role.parameters()}

    def count(optimiser, *_):
        moved = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        states = [tensor for p in moved for tensor in (p.grad, *optimiser.state[p].values())]
        held[names[id(moved[0])]] = sum(tensor.nbytes for tensor in states)

    for optimiser in engine.optimisers.values():
        optimiser.optimizer.register_step_pre_hook(count)
    engine.run(2)
    assert set(held) == {"student", "critic"} and expected["critic"].weights == 0
    assert all(held[name] == pytest.approx(expected[name].training, rel=0.15) for name in held)


def test_a_run_is_not_overwritten(cli, recipe, trained):
    code, _, err = cli("train", recipe, "--out", trained)
    assert code == 2 and "holds a run already: go on with --resume" in err


def test_a_run_goes_on_from_any_checkpoint_to_the_same_weights(cli, recipe, trained, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    whole = (run / "checkpoints/step-4/role-student.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints/step-4")
    with (run / "metrics.jsonl").open("a") as journal:
        journal.write('{"step": 9, "to')
    assert cli("train", recipe, "metrics=[]", "--out", run, "--resume").code == 0
    assert (run / "checkpoints/step-4/role-student.safetensors").read_bytes() == whole
    assert cli("train", recipe, "metrics=[]", "--out", run, "--resume-from", "step-2").code == 0
    assert (run / "checkpoints/step-4/role-student.safetensors").read_bytes() == whole
    assert [line["step"] for line in commands.metrics_of(run)] == [1, 2, 3, 4]


def test_a_run_that_never_reached_a_checkpoint_starts_again_and_says_so(cli, recipe):
    out = cli("train", recipe, ONE, "metrics=[]", "--resume").out
    assert out.startswith("runs/tiny has no checkpoint yet") and "run: runs/tiny" in out


def test_a_run_goes_on_with_its_own_recipe_only(cli, recipe, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    again = ("train", recipe, "metrics=[]", "--out", tmp_path / "copy", "seed=1")
    code, out, err = cli(*again, "--resume")
    assert code == 2 and "written by another run: recipe" in err and out == ""
    assert cli(*again, "--resume-from", "step-3").err.endswith("it has step-2, step-4\n")
    assert cli(*again, "--resume-from", "step-2", "--resume-anyway").code == 0


BAD = {
    "data.typo=3": "unknown key 'data.typo'",
    "method.times=[1000]": "lies beyond 1",
    "method.times=[0.5,0.75]": "times that descend",
    "data={name: picture-folder, folder: nowhere}": "nowhere is no folder",
    "data={name: picture-folder, folder: empty}": "empty holds no pictures",
    "data={name: picture-folder, folder: pictures, size: 16}": "and the data are [3, 16, 16]",
    "data={name: picture-folder, folder: unreadable, size: 8, mode: L}": "b.png is not a readable picture",
    "data={name: picture-folder, folder: classes, size: 8, mode: L}": "index out of range",
    "data=null": "it wants the condition 'label'",
}


@pytest.mark.parametrize("override", BAD)
def test_a_mistake_is_one_message_and_leaves_nothing(cli, recipe, tmp_path, override):
    files = {
        "pictures": ["a"],
        "unreadable": ["a", "b"],
        "classes": [f"{n:02d}/a" for n in range(13)],
        "empty": [],
    }
    for folder, names in files.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).parent.mkdir(exist_ok=True)
            Image.new("L", (9, 9), 128).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "unreadable" / "b.png").write_text("hello")
    code, out, err = cli("train", recipe, override)
    assert code == 2 and BAD[override] in err and err.startswith("error: ") and err.count("\n") == 1
    assert out == "" and not (tmp_path / "runs").exists()


def test_one_sample_is_enough_to_train_but_not_to_measure(cli, recipe, tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("L", (8, 8), 128).save(tmp_path / "one" / "a.png")
    code, _, err = cli("train", recipe, ONE, "data={name: picture-folder, folder: one, size: 8, mode: L}")
    assert code == 2 and err == "error: Frechet needs at least 2 pictures on either side, not 1\n"
    assert (tmp_path / "runs/tiny/checkpoints/step-1").is_dir()


def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(cli, recipe, tmp_path):
    lr = [f"method.{role}_optimiser={{lr: 1.0e+30, warmup: 0}}" for role in ("student", "critic")]
    code, _, err = cli("train", recipe, *lr, "checkpoint_every=1", "method.steps=9")
    assert code == 2 and re.search(r"the term '\w+' became (nan|inf)", err) and "Try a smaller learning rate" in err
    kept = re.search(r"last good checkpoint is (\S+)\.", err)
    assert kept and (tmp_path / kept[1] / "manifest.json").exists()


def test_a_file_in_the_way(cli, recipe, trained, tmp_path):
    (tmp_path / "file").touch()
    assert "a run needs a folder" in cli("train", recipe, "--out", "file").err
    code, _, err = cli("sample", trained, "--out", "file")
    assert code == 2 and err.startswith("error: file: File exists")


def test_samples_of_a_run(cli, trained, tmp_path):
    code, out, _ = cli("sample", trained, "-n", "3", "-o", "out", "--cond", "label=3")
    assert code == 0 and out == "3 samples in out, 4 calls each; all in one picture: out/grid.png\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "grid.png", "sample-0000.png", "sample-0001.png", "sample-0002.png"
    ]  # fmt: skip
    first = (tmp_path / "out/sample-0002.png").read_bytes()
    cli("sample", trained, "-n", "3", "-o", "out", "--cond", "label=3")
    assert (tmp_path / "out/sample-0002.png").read_bytes() == first
    cli("sample", trained, "-n", "3", "-o", "out", "--cond", "label=4")
    assert (tmp_path / "out/sample-0002.png").read_bytes() != first


def test_samples_of_a_bare_model(cli):
    assert "1 sample in samples, 2 calls each" in cli("sample", "digits-teacher", "-n", "1", "--steps", "2").out
    assert "1 sample in samples, 1 call each" in cli("sample", "image:digits-teacher", "-n", "1", "--steps", "1").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "3"], "trained at 4 times: give it [1, 2, 4] steps, not 3"),
        (["--cond", "label=99"], "does not know label=99: index out of range"),
        (["--cond", "lable=1"], "no condition 'lable'; known: label"),
        (["--cond", "label"], "write name=number, such as label=3"),
        (["-n", "0"], "greater than or equal to 1"),
    ],
)
def test_samples_that_cannot_be(cli, trained, arguments, said):
    code, _, err = cli("sample", trained, *arguments)
    assert code == 2 and said in err


def test_what_cannot_be_opened(cli, trained, tmp_path):
    assert "there is no denoiser 'digits-techer'. Did you mean 'digits-teacher'" in cli("sample", "digits-techer").err
    assert "has no modality" in cli("sample", "mlp").err
    for command in ("sample", "eval", "export", "compare"):
        code, _, err = cli(command, "some/where")
        assert code == 2 and "some/where is no run: it has no recipe.yaml" in err
    shutil.copytree(trained, tmp_path / "copy")
    weights = tmp_path / "copy/checkpoints/step-4/role-student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    for command in ("sample", "eval", "export"):
        code, _, err = cli(command, tmp_path / "copy")
        assert code == 2 and "role-student.safetensors is missing or damaged" in err


def test_eval_and_compare(cli, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    code, out, _ = cli("eval", tmp_path / "copy", "-n", "20", "--metrics", "precision,frechet")
    assert code == 0 and "precision" in out and "student, 2 steps" in out
    shutil.copytree(tmp_path / "copy", tmp_path / "other")
    code, out, _ = cli("compare", "copy", "other", "-o", "deep/both.html")
    assert code == 0 and "copy: student, 1 step" in out and "other: student, 4 steps" in out
    page = (tmp_path / "deep/both.html").read_text()
    assert page.count("data:image/png") == 2 and "http" not in page


def test_eval_needs_metrics_that_exist(cli, trained):
    assert "Did you mean 'frechet'" in cli("eval", trained, "--metrics", "frechet,frechett").err


def test_export_for_diffusers_gives_the_same_picture(cli, trained, tmp_path):
    import diffusers

    from distill.core.contracts import Batch
    from distill.core.registry import default_registry
    from distill.core.rng import Rng
    from distill.core.run import open_run

    assert cli("export", trained, "-o", "out").code == 0
    net = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "out/transformer").eval()
    scheduler = diffusers.FlowMatchLCMScheduler.from_pretrained(tmp_path / "out/scheduler")
    run, label = open_run(trained, default_registry()), torch.tensor([1, 2])
    ours = run.draw(run.result, run.sampler.with_steps(1), 2, cond={"label": label})
    scheduler.set_timesteps(sigmas=[1.0])
    noise = Batch(2, shape=(1, 8, 8)).noise(Rng(0), "sample/start")
    with torch.no_grad():
        said = net(noise, timestep=scheduler.timesteps.expand(2), class_labels=label).sample
    theirs = scheduler.step(said, scheduler.timesteps[0], noise).prev_sample
    assert (ours - theirs).abs().max() < 1e-5
    assert json.loads((tmp_path / "out/sampler.json").read_text())["times"] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("to", ["safetensors", "safetensors-8bit"])
def test_export_as_safetensors_is_weights_for_a_recipe(cli, trained, tmp_path, to):
    assert cli("export", trained, "--to", to, "-o", "out").code == 0
    teacher = "{name: digits-teacher, weights: out/denoiser.safetensors}"
    (tmp_path / "again.yaml").write_text(f"method: frozen\nteacher: {teacher}\ndata: digits\n")
    assert cli("train", "again.yaml", "--dry-run").code == 0
    code, _, err = cli("export", trained, "--to", "onnx")
    assert code == 2 and "cannot be exported to 'onnx'; choose one of diffusers, safetensors, safetensors-8bit" in err


def test_an_adapter_is_exported_as_plain_weights(cli, recipe, tmp_path):
    lora = "roles={student: {shares: teacher, transforms: [lora]}}"
    assert cli("train", recipe, ONE, "metrics=[]", lora, "--out", "run").code == 0
    assert cli("export", "run", "-o", "out").code == 0
    import diffusers

    diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "out/transformer")


def test_the_schema_knows_every_key(cli):
    schema = json.loads(cli("schema").out)
    assert schema["required"] == ["method"] and not schema["additionalProperties"]
    assert set(schema["properties"]) == set(commands.Recipe.model_fields)
    assert all(field.get("description") for field in schema["properties"].values())


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_keeps_to_one_line_and_shows_losses_only(monkeypatch, width):
    screen = Console(file=io.StringIO(), width=width, force_terminal=True)
    monkeypatch.setattr(commands, "console", screen)
    losses = {f"a_loss_with_a_long_name_{n}": 0.1 for n in range(5)}
    with commands.progress_bar() as progress:
        told = "  ".join(f"{name} {value:.3g}" for name, value in losses.items())
        bar = progress.add_task("training", total=10_000, losses=told)
        progress.update(bar, completed=1234)
        lines = screen.render_lines(progress.make_tasks_table(progress.tasks))
    assert len(lines) == 1 and "1234/10000" in "".join(part.text for part in lines[0])


def test_the_journal_tells_losses_and_keeps_the_rest_for_the_file(tmp_path, trained):
    from distill.core.registry import default_registry
    from distill.core.run import open_run

    run, progress = open_run(trained, default_registry()), commands.progress_bar()
    journal = commands.Journal(run, tmp_path, progress)
    engine: Engine = run.engine(None)
    journal.begin(engine)
    journal(engine, {"score": 1.0, "student_grad_norm": 2.0})
    assert progress.tasks[0].fields["losses"] == "score 1"
    journal.end(engine)
    assert commands._series(tmp_path)[1] == {"student_grad_norm": [(0, 2.0)]}


def test_headings_wrap_at_words_and_rows_do_not(capsys):
    rows = {
        "student, 1 step": {
            "frechet": 0.5,
            "label-accuracy": 1.0,
            "ms per sample": 0.123456,
            "precision": 0.5,
        }
    }
    rows["teacher, 64 steps"] = {"frechet": 0.0256789, "calls": 64.0, "recall": 0.0123, "speed-up": 123.4}
    commands.console.print(commands.result_table(rows), width=80)
    out = capsys.readouterr().out
    assert (
        "…" not in out
        and "teacher, 64 steps" in out
        and "0.123" in out
        and " up" in out
        and max(map(len, out.splitlines())) <= 80
    )
