"""What is said at inference time, as a stranger with a folder says it: guidance, negatives, helpers, oracles."""

from __future__ import annotations

import json

import pytest
import torch

from distill.core import commands, measuring
from distill.core.errors import DataError, RecipeError
from distill.core.registry import default_registry
from distill.core.run import open_run
from distill.image import toys
from distill.image.features import features
from distill.image.oracles import AgreementOracle, Judge

STUDENT = """
teacher: {model: PIPE}
method: {name: dmd2, steps: 1, times: [1.0, 0.5], generator: {weight: 0}, score: {guidance: 4.5}}
data: {name: prompts, prompts: [a cat, a dog], encoder: PIPE}
roles: {student: {transforms: [{name: lora, rank: 4}]}}
batch_size: 2
"""
HELPED = """
teacher: {model: PIPE}
student: {name: run, folder: RUN}
data: {name: prompts, prompts: [a cat, a dog], encoder: PIPE}
batch_size: 4
"""
ORACLE = "roles.oracle.build={name: agreement-oracle, latents: PIPE}"

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, NumPy 2


class Wish:
    """Stands for the text encoder behind the oracle, whose package is not on every machine."""

    def __call__(self, prompts):
        rows = [torch.randn(384, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in prompts]
        return {"pooled": torch.stack(rows)}


@pytest.fixture(autouse=True)
def offline(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path_factory.getbasetemp() / "inference-cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("distill.image.features.encoder", Wish)
    default_registry.cache_clear()


@pytest.fixture(scope="module")
def pipe(request, tmp_path_factory):
    name = getattr(request, "param", "StableDiffusionPipeline")
    return toys.save(name, tmp_path_factory.mktemp("inference") / name)


@pytest.fixture(scope="module")
def run(pipe):
    """A run with an adapter as its student; its folder."""
    return trained(pipe, STUDENT, pipe.parent / "student")


def trained(pipe, recipe, folder, *overrides):
    path = folder.with_suffix(".yaml")
    path.write_text(recipe.replace("PIPE", str(pipe)).replace("RUN", str(pipe.parent / "student")))
    commands.train(path, [each.replace("PIPE", str(pipe)) for each in overrides], folder)
    return folder


@pytest.fixture
def drawn(monkeypatch, tmp_path, capsys):
    """Samples of the command, and what it says."""

    def draw(source, *overrides, **options):
        found = []
        with monkeypatch.context() as patch:
            patch.setattr("distill.image.pipeline.LatentImage.write", lambda self, x, *_: found.append(x) or [1])
            commands.sample(str(source), n=2, out=tmp_path, prompts=["a cat"], overrides=overrides, **options)
        return found[0], capsys.readouterr().out

    return draw


@pytest.mark.parametrize("pipe", ["StableDiffusion3Pipeline", "StableDiffusionPipeline"], indirect=True)
def test_a_negative_prompt_leads_guidance_and_attention_away(pipe, run, drawn):
    for source, options in ((pipe, {"steps": 2}), (run, {"steps": 1})):
        plain, away, other = (drawn(source, negative=text, **options)[0] for text in ("", "blurry", "a dog"))
        assert not torch.allclose(plain, away) and not torch.allclose(away, other) and away.isfinite().all()


def test_what_is_said_of_the_sampler_leaves_the_rest_of_it(pipe, drawn):
    run = commands._open(str(pipe), ["method.sampler={guidance: 4, interval: [0.2, 0.8], rescale: 0.7, steps: 4}"])
    own = commands._open(str(pipe)).sampler
    assert (run.sampler.guidance, run.sampler.interval, run.sampler.rescale) == (4, (0.2, 0.8), 0.7)
    assert run.sampler.grid == own.grid and run.sampler.solver == own.solver and own.steps != 4
    assert "6 calls" in drawn(pipe, "method.sampler.steps=3")[1]


def test_a_run_is_sampled_otherwise_with_its_adapter(run, drawn):
    """As the teacher of a recipe the outcome is the student, not the network that its adapter sits on."""
    assert torch.allclose(drawn(run)[0], drawn(run, "method=frozen")[0], atol=1e-5)
    assert "3 calls" in drawn(run, "method.sampler.steps=3")[1]


def test_the_teacher_begins_under_guidance_that_the_recipe_says(pipe, run, tmp_path, drawn):
    base = "method={name: diversity-control, base: {guidance: 4, interval: [0.2, 0.9], rescale: 0.5, steps: 4}}"
    folder = trained(pipe, HELPED, tmp_path / "helped", base)
    sampler = open_run(folder, default_registry()).sampler
    assert (sampler.base.guidance, sampler.base.rescale, sampler.base.steps) == (4, 0.5, 4)
    assert sampler.times == (1.0, 0.5) and sampler.base.grid == commands._open(str(pipe)).sampler.grid
    assert not torch.allclose(drawn(folder)[0], drawn(folder, negative="a dog")[0])


def test_an_oracle_decides_what_the_teacher_refines(pipe, run, tmp_path, drawn):
    method = "method={name: adaptive-collaboration, base: {steps: 4}, until: 0.5, count: 8}"
    folder = trained(pipe, HELPED, tmp_path / "helped", method, ORACLE)
    opened = open_run(folder, default_registry())
    assert -1 < opened.sampler.threshold < 1 and "wanted" in opened.conditions(2) and "wanted" in opened.encode(["x"])
    assert drawn(folder)[0].isfinite().all()
    commands.evaluate(folder, "diversity,agreement", 8, per_prompt=2)
    rows = measuring.read_table(folder / "prompts.csv")
    chosen = commands._metrics(opened, "agreement")
    shares = [row["agreement (emoji)"] for row in measuring.by_prompt(opened, chosen, 2, 8).values()]
    assert set(rows) == {"a cat", "a dog"} and shares == sorted(shares)
    assert "diversity (emoji)" in json.loads((folder / "metrics.json").read_text())["student, 2 steps"]


def test_seeds_are_pruned_on_the_command_line(pipe, run, drawn):
    oracle = ORACLE.replace("PIPE", str(pipe))
    pruning = ["method=seed-pruning", "method.candidates=3", "method.student={steps: 3, guidance: 1}", oracle]
    best, said = drawn(pipe, *pruning)
    one = drawn(pipe, *pruning, "method.candidates=1")[0]
    assert "9 calls" in said and "5 calls" in drawn(pipe, *pruning, "method.at=[1]", "method.keep=[0.34]")[1]
    judge = AgreementOracle(latents=str(pipe)).build().network
    cond = {"wanted": Wish()(["a cat", "a cat"])["pooled"]}
    assert (judge(best, None, cond) > judge(one, None, cond) - 1e-4).all() and not torch.equal(best, one)
    assert drawn(run, "method=seed-pruning", "method.candidates=2", oracle)[0].isfinite().all()


def test_judges_learn_from_the_oracle_of_a_recipe(pipe, run, tmp_path, drawn):
    method = "method={name: ttsnap, at: [1], keep: [0.5], routes: 4, steps: 2, budget: 60, student: {steps: 2}}"
    folder = trained(pipe, HELPED, tmp_path / "snap", method, ORACLE)
    opened = open_run(folder, default_registry())
    assert opened.sampler.candidates > 1 and {"oracle", "oracle-1"} <= set(opened.roles)
    assert drawn(folder)[0].isfinite().all()


def test_what_cannot_be_sampled_so_is_one_message(pipe, run):
    with pytest.raises(RecipeError, match="DMD2 has to be trained"):
        commands._open(str(pipe), ["method=dmd2"])
    with pytest.raises(RecipeError, match="needs the role oracle"):
        commands._open(str(pipe), ["method=seed-pruning"])
    with pytest.raises(RecipeError, match="unknown key 'method.sampler.guidence'; did you mean 'guidance'"):
        commands._open(str(run), ["method.sampler.guidence=3"])


def test_prompts_alone_refuse_metrics_that_need_pictures(pipe, tmp_path):
    with pytest.raises(RecipeError, match=r"metrics.1: 'frechet' compares with real samples"):
        trained(pipe, STUDENT, tmp_path / "run", "metrics=[diversity, frechet]")
    assert not (tmp_path / "run").exists()


def test_an_oracle_learns_as_a_judge_and_the_shipped_network_stays():
    import copy

    judge = copy.deepcopy(AgreementOracle().build()).requires_grad_(True)
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    judge.predict(x, None, {"wanted": torch.randn(2, 384)}).logits.sum().backward()
    assert x.grad.abs().sum() > 0 and judge.network.net.outlet.weight.grad is not None
    assert features("emoji").outlet.weight.grad is None
    with pytest.raises(DataError, match="agreement needs data with captions, or the condition 'wanted'"):
        judge.predict(x, None, {"label": torch.zeros(2)})


def test_the_oracle_of_digits_prefers_the_label():
    from distill.image.datasets import Digits

    data, judge = Digits().open().tensors, Judge(features("digits"), None)
    x, label = data["x"][:200], data["label"][:200]
    right, wrong = (judge(x, None, {"label": each}) for each in (label, (label + 1) % 10))
    assert (right > wrong).double().mean() > 0.97 and not AgreementOracle(features="digits").adds_conditions
