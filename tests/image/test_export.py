"""Students as others load them: the same pictures, a card, and nothing half-written."""

from __future__ import annotations

import json

import diffusers
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from distill.core import DistillError, RoleSpec, Sampler
from distill.core.cli import app
from distill.core.contracts import Outcome
from distill.core.errors import RecipeError
from distill.core.paths import Discrete
from distill.core.roles import Role
from distill.core.sampling import DDIM, DPM, Consistency
from distill.core.setup import Frozen, assemble
from distill.image import schedulers, toys
from distill.image.export import card
from distill.image.trial import PROMPTS, Trial
from distill.methods.transforms import LoRA

SD, SD3 = "StableDiffusionPipeline", "StableDiffusion3Pipeline"

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # diffusers under NumPy 2
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    return {name: toys.save(name, root / name) for name in (SD, SD3)}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "conditions"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def adapted(trial):
    """A LoRA student with an adapter that says something."""
    roles = assemble(
        Frozen(),
        {"teacher": Role("teacher", trial.denoiser)},
        {"student": RoleSpec(shares="teacher", transforms=(LoRA(rank=2, alpha=6),))},
    )
    for parameter in roles["student"].parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return roles["student"]


@pytest.mark.parametrize("times", [(1.0, 0.7, 0.2), (0.9, 0.4)])
def test_trained_times_go_with_the_call(times, saved, tmp_path):
    for name in (SD, SD3):
        trial = Trial.of(saved[name])
        trial.export(tmp_path / name, times=times, steps=len(times))
        assert trial.difference(tmp_path / name) < 1e-4


@pytest.mark.parametrize("name", [SD, SD3])
def test_a_student_that_renoises_draws_the_same_pictures_from_the_same_noises(name, saved, tmp_path, monkeypatch):
    trial = Trial.of(saved[name])
    trial.export(tmp_path / "out", times=(1.0, 0.6, 0.3), steps=3, solver=Consistency())
    noises = iter([torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (1, 2, 1, 2, 3, 4)])
    monkeypatch.setattr("distill.core.rng.Rng.normal_like", lambda *_, **__: next(noises))
    ours = trial.ours()
    noises = iter([torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (1, 2, 3)])
    for module in ("scheduling_lcm", "scheduling_flow_match_euler_discrete"):
        monkeypatch.setattr(f"diffusers.schedulers.{module}.randn_tensor", lambda *_, **__: next(noises), raising=False)
    monkeypatch.setattr("torch.randn_like", lambda *_, **__: next(noises))
    theirs = trial.theirs(trial.reload(tmp_path / "out"), json.loads((tmp_path / "out" / "sampler.json").read_text()))
    assert (ours - theirs).abs().max() < 1e-4


def test_a_student_by_angles_is_exported_on_the_pipelines_own_path(saved, tmp_path):
    trial = Trial.of(saved[SD3], path="trigonometric")
    trial.export(tmp_path / "out", times=(1.5707, 0.6), steps=2)
    assert trial.difference(tmp_path / "out") < 1e-4
    assert json.loads((tmp_path / "out" / "sampler.json").read_text())["call"]["sigmas"][0] > 0.999


@pytest.mark.parametrize("name", [SD, SD3])
def test_a_lora_is_loaded_by_diffusers(name, saved, tmp_path):
    trial = Trial.of(saved[name])
    plain, student = trial.builder, adapted(trial)
    trial.export(tmp_path / "out", student, to="peft-lora", times=(1.0, 0.5), steps=2)
    pipe = trial.reload(saved[name])
    pipe.load_lora_weights(tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    kind = getattr(diffusers, facts["_class_name"])
    pipe.scheduler = kind.from_pretrained(tmp_path / "out", subfolder="scheduler")
    theirs = trial.theirs(pipe, json.loads((tmp_path / "out" / "sampler.json").read_text()))
    assert (trial.ours(student) - theirs).abs().max() < 1e-4 and plain is trial.builder
    assert (trial.ours() - theirs).abs().max() > 1e-3


def test_a_folded_lora_is_a_pipeline_too(saved, tmp_path):
    trial = Trial.of(saved[SD])
    student = adapted(trial)
    trial.export(tmp_path / "out", student, steps=1)
    theirs = trial.theirs(trial.reload(tmp_path / "out"), json.loads((tmp_path / "out" / "sampler.json").read_text()))
    assert (trial.ours(student) - theirs).abs().max() < 1e-4


def test_one_file_has_the_names_of_diffusers(saved, tmp_path):
    trial = Trial.of(saved[SD])
    trial.export(tmp_path / "out", to="safetensors", steps=1)
    net = diffusers.UNet2DConditionModel.from_config(diffusers.UNet2DConditionModel.load_config(tmp_path / "out"))
    net.load_state_dict(load_file(tmp_path / "out" / "unet.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(net.parameters(), trial.denoiser.network.net.parameters(), strict=True)
    )


def test_the_card_says_what_a_stranger_asks(saved, tmp_path):
    trial = Trial.of(saved[SD])
    (saved[SD] / "README.md").write_text("---\nlicense: openrail++\n---\n# A teacher\n")
    facts = {"method": {"name": "dmd2"}, "metrics": {"student, 2 steps": {"frechet": 1.25}},
             "versions": {"distill-image": "9.9"}, "recipe": "method: dmd2\n"}  # fmt: skip
    outcome = Outcome(Role("student", trial.denoiser), Sampler(times=(1.0, 0.5)), facts)
    trial.builder.export_outcome(outcome, "diffusers", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "openrail++" and head["base_model"] == SD and "dmd2" in head["tags"]
    for said in ("| Method | dmd2 |", "| Steps | 2 |", "| Guidance | 1 |", "1.25", "| distill-image | 9.9 |",
                 "timesteps=[999, 499]", "from_pretrained"):  # fmt: skip
        assert said in text
    assert "none were measured" in card(trial.builder, Outcome(outcome.role, outcome.sampler), "", 1)


def test_nothing_but_safetensors_is_copied(saved, tmp_path):
    (saved[SD] / "vae" / "old.bin").write_bytes(b"pickle")
    Trial.of(saved[SD]).export(tmp_path / "out", steps=1)
    assert not list((tmp_path / "out").rglob("*.bin")) and not list(tmp_path.glob(".out*"))


def test_what_cannot_be_said_in_diffusers_is_refused_and_nothing_is_written(saved, tmp_path):
    trial = Trial.of(saved[SD])
    for options, said in [
        ({"solver": DPM()}, "no scheduler for the solver dpm"),
        ({"interval": (0.2, 0.8)}, "cannot sample with interval"),
        ({"solver": DDIM(), "free_first": True}, "a free first step"),
    ]:
        with pytest.raises(DistillError, match=said):
            trial.export(tmp_path / "out", steps=4, **options)
    with pytest.raises(DistillError, match="is no LoRA student"):
        trial.export(tmp_path / "out", to="peft-lora", steps=1)
    with pytest.raises(RecipeError, match="choose one of diffusers, peft-lora, safetensors"):
        trial.export(tmp_path / "out", to="onnx", steps=1)
    trial.denoiser.add_scalar("w")
    with pytest.raises(DistillError, match="no place for the inputs w"):
        trial.export(tmp_path / "out", steps=1)
    assert not [path for path in tmp_path.iterdir() if path.name != "conditions"]


def test_a_folder_in_use_is_left_alone(saved, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds something already"):
        Trial.of(saved[SD]).export(tmp_path, steps=1)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("bar", [0.3, 1e-9])
def test_a_schedule_without_signal_at_its_end_gets_a_scheduler_that_can_hold_it(bar):
    path = Discrete(alphas_cumprod=(0.9, 0.6, bar))
    kind = type(schedulers.scheduler(path, "v", Sampler(steps=3))).__name__
    assert kind == ("EulerDiscreteScheduler" if bar > 0.1 else "DDIMScheduler")


def test_from_a_recipe_to_a_folder_on_the_command_line(saved, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    teacher = {"model": str(saved[SD])}
    data = {"name": "prompts", "prompts": list(PROMPTS), "encoder": teacher["model"]}
    method = {"name": "dmd2", "times": [1.0], "shares": [1.0], "generator": {"weight": 0}, "steps": 2}
    recipe.write_text(yaml.safe_dump({"teacher": teacher, "method": method, "data": data, "batch_size": 2}))
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    for command in (
        ["train", str(recipe), "-o", run],
        ["sample", run, "--prompt", "a cat", "-n", "1", "-o", str(tmp_path / "samples")],
        ["export", run, "--to", "diffusers", "-o", out],
        ["sample", out, "--steps", "1", "-n", "1", "-o", str(tmp_path / "more")],
    ):
        said = CliRunner().invoke(app, command)
        assert said.exit_code == 0, said.output
    assert "| Method | dmd2 |" in (tmp_path / "out" / "README.md").read_text()
