"""From a recipe to roles, plan and data; and back from a run's folder."""

from __future__ import annotations

import shutil
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from distill.core.commands import export, fit
from distill.core.contracts import Batch, Context
from distill.core.data import Samples
from distill.core.discovery import discover
from distill.core.errors import CheckpointError, DataError, DistillError, RecipeError
from distill.core.plan import EMA
from distill.core.recipe import Recipe as RecipeOptions
from distill.core.recipe import Source, parse, validate
from distill.core.registry import Registry, default_registry
from distill.core.rng import Rng
from distill.core.run import Run, metrics_of, open_run, prepare

TOY = """
teacher: {name: mlp, classes: 2, kind: velocity}
method: {name: dmd2, steps: 2}
batch_size: 4
"""
LABELLED = Samples(x=torch.zeros(5, 2), label=torch.tensor([0, 1, 2, 1, 0]))


def made(text: str = TOY, **changes: Any) -> Run:
    values, source = parse(text, "r.yaml")
    return prepare(validate(RecipeOptions, values | changes, source), source, default_registry())


def with_data(data: Samples, text: str = TOY, **changes: Any) -> Run:
    run = made(text, **changes)
    run.dataset = data
    return run


def test_a_recipe_becomes_roles_and_a_plan():
    run = made()
    assert set(run.roles) == {"teacher", "student", "critic", "discriminator"}
    assert run.plan.steps == 2 and run.result is run.roles["student"] and run.shape == (2,)
    assert run.modality is None and "distill-core" in run.versions


def test_what_a_recipe_says_of_a_role_leaves_the_rest_to_the_method():
    run = made(roles={"critic": {"guidance": 2.5}, "spare": {"copy_of": "critic", "frozen": True}})
    assert run.roles["critic"].guidance.calls == 2 and run.roles["spare"].frozen
    assert run.roles["critic"].module is not run.roles["teacher"].module


def test_adapters_on_one_copy_of_the_weights():
    lora = {"shares": "teacher", "transforms": ["lora"]}
    run = made(roles={"student": lora, "critic": lora})
    student, critic, teacher = (run.roles[name] for name in ("student", "critic", "teacher"))
    assert student.module is teacher.module is critic.module
    assert not {id(p) for p in student.parameters()} & {id(p) for p in critic.parameters()}


def test_a_copy_of_an_adapter_is_another_adapter_that_can_average_it():
    run = made(roles={"student": {"shares": "teacher", "transforms": ["lora"]}, "mean": {"copy_of": "student"}})
    student, mean = run.roles["student"], run.roles["mean"]
    assert mean.module is run.roles["teacher"].module and mean.tensors().keys() == student.tensors().keys()
    assert all(torch.equal(mean.tensors()[name], value) for name, value in student.tensors().items())
    for parameter in student.parameters():
        nn.init.normal_(parameter.data)
    ctx = Context(run.roles, Rng(0))
    ctx.step = 1_000_000
    EMA(target="mean", decay=0.25).apply(ctx)
    x, cond = torch.randn(3, 2), {"label": torch.tensor([0, 1, 2])}
    gap = mean.ask(x, 0.5, cond).value - run.roles["teacher"].ask(x, 0.5, cond).value
    assert float(gap.abs().max()) > 0.01


def test_an_adapter_is_folded_into_a_copy_that_says_the_same():
    run = made(roles={"student": {"shares": "teacher", "transforms": ["lora"]}})
    student, x, cond = run.roles["student"], torch.randn(3, 2), {"label": torch.tensor([0, 1, 2])}
    for parameter in student.parameters():
        nn.init.normal_(parameter.data)
    before = run.roles["teacher"].ask(x, 0.5, cond).value
    alone = student.alone()
    assert torch.allclose(alone.predict(x, 0.5, cond).value, student.ask(x, 0.5, cond).value, atol=1e-5)
    assert torch.equal(run.roles["teacher"].ask(x, 0.5, cond).value, before)
    assert not any("lora" in name for name in alone.state_dict())


def test_a_student_of_its_own_with_an_extra_input():
    run = made(student={"name": "mlp", "width": 16}, roles={"student": {"transforms": ["scalar-input"]}})
    assert run.builder.width == 16 and "w" in run.roles["student"].denoiser.scalars


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": None}, "name a 'teacher:'"),
        ({"teacher": None, "student": "mlp"}, "no role 'teacher'"),
        ({"student": {"name": "mlp", "shape": [3]}}, r"student makes \(3,\) and the teacher knows \(2,\)"),
        ({"roles": {"critc": {"guidance": 2}}}, "no role 'critc'; did you mean 'critic'"),
        ({"roles": {"critic": {"copy_of": "nobody"}}}, "no role 'nobody'"),
        ({"roles": {"a": {"copy_of": "b"}, "b": {"copy_of": "a"}}}, "wait for each other"),
        ({"method": {"name": "dmd2", "times": [0.5, 0.8]}}, "times that descend"),
        ({"method": {"name": "dmd2", "times": []}}, "times that descend"),
        ({"method": {"name": "dmd2", "times": [1.0, 0.0]}}, "end above 0"),
        ({"method": {"name": "dmd2", "times": [80.0]}}, "80.0 lies beyond 1, the last of its Flow path"),
        ({"method": {"name": "dmd2", "steps": 0}}, "greater than 0"),
        ({"trackers": ["wandb"]}, "pip install wandb"),
    ],
)
def test_what_does_not_fit_is_said_before_training(changes, said, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.core.run.get_available_trackers", list)
    with pytest.raises(RecipeError, match=said):
        made(**changes).engine(tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Samples(x=torch.zeros(0, 2)), "no samples"),
        (Samples(x=torch.zeros(3, 5)), r"the student takes samples of shape \[2\], and the data are \[5\]"),
        (Samples(x=torch.zeros(3, 2)), "wants the condition 'label'"),
        (Samples(x=torch.zeros(3, 2), label=torch.tensor([0, 7, 1])), r"\[0, 7, 1\]"),
        (Samples(label=torch.tensor([0, 7])), r"\[0, 7\]"),
    ],
)
def test_data_that_do_not_fit_are_refused(data, said):
    with pytest.raises(DataError, match=said):
        with_data(data).probe()


def test_data_that_fit_and_networks_without_data():
    with_data(LABELLED).probe()
    with_data(Samples(label=torch.tensor([0, 1]))).probe()
    made(teacher={"name": "mlp"}).probe()
    with pytest.raises(DataError, match="wants the condition 'label'"):
        made().probe()


HALVING = """
import torch
from distill.core.contracts import Lens
from distill.core.hookspecs import Component, hookimpl
DISTILL_SPEC = 1

class Halving(Lens):
    def __call__(self, state):
        return torch.nn.functional.avg_pool1d(state[:, None], 2)[:, 0]

@hookimpl
def distill_lenses():
    return [Component(name="halving", summary="Every two become one", target="halving:Halving")]
"""


def test_a_method_that_compares_with_data_asks_for_them(tmp_path):
    with pytest.raises(RecipeError, match="name a dataset under 'data:'"):
        fit(made(teacher={"name": "mlp"}), tmp_path)


def test_a_lens_lets_a_teacher_of_another_shape_teach(tmp_path, monkeypatch):
    module = ModuleType("halving")
    exec(HALVING, module.__dict__)
    monkeypatch.setitem(sys.modules, "halving", module)
    student, teacher = {"name": "mlp", "shape": [4]}, {"name": "mlp"}
    with pytest.raises(RecipeError, match=r"choose equal shapes, or add a 'lens:'"):
        made(student=student, teacher=teacher)
    alone = {"name": "dmd2", "steps": 2, "generator": {"weight": 0.0}}
    recipe = RecipeOptions(method=alone, student=student, teacher=teacher, lens="halving", batch_size=4)
    run = prepare(recipe, Source("r.yaml"), Registry([*discover(), module]))
    fit(run, tmp_path / "run")
    assert run.draw(run.result, run.sampler, 3).shape == (3, 4)
    run.dataset = Samples(x=torch.zeros(3, 2))
    with pytest.raises(DataError, match=r"the student takes samples of shape \[4\], and the data are \[2\]"):
        run.probe()


def test_samples_follow_from_the_seed_and_training_goes_on_as_before():
    run = with_data(LABELLED)
    role = run.roles["student"]
    role.module.train()
    first, again, other = (run.draw(role, run.sampler.with_steps(2), 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert role.module.training


def test_samples_come_in_portions_of_one_noise(monkeypatch):
    run = made(teacher={"name": "mlp"})
    drawn: list[int] = []
    monkeypatch.setattr(Batch, "noise", lambda batch, *_: drawn.append(batch.size) or torch.zeros(batch.size, 2))
    assert len(run.draw(run.result, run.sampler.with_steps(1), 700)) == 700 and drawn == [500, 200]


def test_a_reference_needs_data():
    with pytest.raises(RecipeError, match="name a dataset"):
        made().reference()
    assert len(with_data(LABELLED).reference()) == 5


def test_a_run_is_opened_with_its_weights(trained):
    run = open_run(trained, default_registry())
    before = open_run(trained, default_registry(), "step-2")
    name = next(iter(run.result.tensors()))
    assert run.sampler.times == (1.0, 0.75, 0.5, 0.25) and type(run.modality).__name__ == "Image"
    assert not torch.equal(run.result.tensors()[name], before.result.tensors()[name])


def test_a_run_is_a_teacher(trained):
    run = made(teacher=str(trained), data="digits")
    assert run.shape == (1, 8, 8) and type(run.modality).__name__ == "Image" and len(run.sampler.times) == 4


def test_folders_that_are_no_runs(tmp_path, trained):
    with pytest.raises(CheckpointError, match="it has no recipe.yaml"):
        open_run(tmp_path, default_registry())
    with pytest.raises(CheckpointError, match="it has no recipe.yaml"):
        made(teacher=str(tmp_path))
    with pytest.raises(CheckpointError, match="no checkpoint 'step-3'; it has step-2, step-4"):
        open_run(trained, default_registry(), "step-3")
    shutil.copy(trained / "recipe.yaml", tmp_path)
    with pytest.raises(CheckpointError, match="no finished checkpoint: train it first"):
        open_run(tmp_path, default_registry())


def test_a_checkpoint_of_another_recipe_is_no_traceback(tmp_path, trained):
    shutil.copytree(trained, tmp_path / "run")
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    (tmp_path / "run" / "recipe.yaml").write_text(text.replace("teacher: digits-teacher", "teacher: mlp"))
    with pytest.raises(DistillError, match="does not fit"):
        open_run(tmp_path / "run", default_registry())


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path):
    assert metrics_of(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert metrics_of(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_the_place_of_a_component_is_in_its_message():
    with pytest.raises(DistillError, match="r.yaml:2: there is no denoiser 'mpl'. Did you mean 'mlp'"):
        made(TOY.replace("mlp", "mpl"))
    with pytest.raises(DistillError, match="here: there is no method"):
        prepare(RecipeOptions(method="nothing"), Source("here"), default_registry())


# ---------------------------------------------------------------- several roles in sampling


@pytest.fixture(scope="module")
def together(trained, tmp_path_factory):
    """The folder of a run in which the teacher takes the first of a trained student's steps."""
    method = {"name": "diversity-control", "base": {"steps": 8, "guidance": 2.0}}
    student = {"name": "run", "folder": str(trained)}
    folder = tmp_path_factory.mktemp("together") / "run"
    fit(made(method=method, student=student, teacher="digits-teacher", data="digits"), folder)
    return folder


def test_a_student_comes_from_a_run_with_its_sampler(trained, together):
    run, before = open_run(together, default_registry()), open_run(trained, default_registry())
    ours, theirs = run.result.tensors(), before.result.tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert run.sampler.times == before.sampler.times and type(run.modality).__name__ == "Image"


def test_a_run_of_several_roles_is_drawn_from_as_it_was_planned(together):
    run = open_run(together, default_registry())
    assert type(run.sampler).__name__ == "HandOver" and run.sampler.needs == ("teacher",)
    assert run.sampler.calls(run.result.denoiser.path) == 2 * 2 + 3
    x, label = run.draw(run.result, run.sampler, 4), run.conditions(4)
    noise, rng = Batch(4, shape=run.shape).noise(Rng(0), "sample/start"), Rng(0)
    torch.testing.assert_close(x, run.sampler.sample(run.result, noise, label, rng, run.roles), atol=1e-5, rtol=1e-4)


def test_what_takes_one_network_refuses_such_a_run(together):
    with pytest.raises(RecipeError, match=r"made by several roles \(student, teacher\): take the run"):
        made(teacher=str(together), data="digits")
    with pytest.raises(RecipeError, match="made by several roles"):
        export(together, "safetensors", together / "export")
    assert not (together / "export").exists()


def test_a_sampler_s_roles_must_be_there():
    with pytest.raises(RecipeError, match="the method needs the role oracle"):
        made(method="adaptive-collaboration")
