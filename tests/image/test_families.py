"""Every family of pipelines, at toy size: what is read from its folder, and what its network is asked."""

from __future__ import annotations

import importlib.util
import inspect
import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch

from distill.core import DistillError, Rng, Role, Sampler, cfg
from distill.core.errors import DataError, RecipeError
from distill.core.paths import Discrete, Flow, Trigonometric
from distill.core.recipe import Recipe, Resolver, Source
from distill.core.registry import default_registry
from distill.core.run import prepare
from distill.image import prompts, refused, schedulers, toys
from distill.image.datasets_captioned import Prompts
from distill.image.families import FAMILIES, Family, pack, unpack
from distill.image.pipeline import Decode, LatentImage, Pipeline
from distill.image.trial import PROMPTS, Trial

FLOWS = {"StableDiffusion3Pipeline": 3.0, "SanaPipeline": 3.0, "ZImagePipeline": 3.0, "AuraFlowPipeline": 1.73}

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # diffusers under NumPy 2
]


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Toy pipelines by family, each saved once."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def save(name):
        if name not in made:
            made[name] = toys.save(name, root / name)
        return made[name]

    return save


@pytest.fixture(scope="session")
def conditions(tmp_path_factory):
    return tmp_path_factory.mktemp("conditions")


@pytest.fixture(autouse=True)
def offline(conditions, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(conditions))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def copied(saved, tmp_path):
    """A Stable Diffusion folder to spoil."""
    return shutil.copytree(saved("StableDiffusionPipeline"), tmp_path / "spoilt")


def page():
    """docs/families.py as a module."""
    path = Path(__file__).parents[2] / "docs" / "families.py"
    spec = importlib.util.spec_from_file_location("families_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


UNTOLD = ("BriaPipeline", "Kandinsky5T2IPipeline")
"""Pipelines of flows whose call cannot be told at which times to sample."""


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_loaded_sampled_exported_and_draws_the_same_picture(name, saved, tmp_path):
    trial = Trial.of(saved(name))
    several = 2 if name in toys.SIZES else 4
    for steps, guidance in ((1, 1.0), (several, trial.guidance))[: 1 if name in UNTOLD else 2]:
        trial.export(tmp_path / str(steps), steps=steps, guidance=guidance)
        assert trial.difference(tmp_path / str(steps)) < 1e-4


@pytest.mark.parametrize("name", UNTOLD)
def test_a_pipeline_that_cannot_be_told_the_times_says_so(name, saved, tmp_path):
    with pytest.raises(DistillError, match="cannot be told at which times to sample"):
        Trial.of(saved(name)).export(tmp_path / "out", steps=4)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["FluxPipeline", "QwenImagePipeline"])
def test_a_pipeline_with_two_weights_is_told_what_to_guide_away_from(name, saved, tmp_path):
    trial = Trial.of(saved(name))
    trial.export(tmp_path / "plain", steps=2)
    plain = trial.ours()
    trial.export(tmp_path / "guided", steps=2, guidance=3.0)
    assert trial.difference(tmp_path / "guided") < 1e-4 and (trial.ours() - plain).abs().max() > 1e-3


def test_guidance_restores_what_the_pipelines_own_rule_restores(saved):
    trial = Trial.of(saved("QwenImagePipeline"))
    role, cond = Role("teacher", trial.denoiser), trial.builder.encode(PROMPTS)
    plain, guided = (role.ask(trial.noise(), 0.6, cond, guidance=cfg(w)).value for w in (1.0, 4.0))
    torch.testing.assert_close(pack(guided).norm(dim=-1), pack(plain).norm(dim=-1))
    assert not torch.allclose(guided, plain, atol=1e-3)


def test_gradient_reaches_every_expert_that_is_asked(saved):
    trial = Trial.of(saved("HiDreamImagePipeline"), size=8)
    trial.denoiser.predict(trial.noise(), 0.5, trial.builder.encode(PROMPTS)).value.square().sum().backward()
    experts = [p for name, p in trial.denoiser.named_parameters() if ".experts." in name]
    assert experts and all(p.grad is not None and p.grad.any() for p in experts)


@pytest.mark.parametrize("name", ["Kandinsky3Pipeline", "Kandinsky5T2IPipeline"])
def test_a_text_says_the_same_beside_a_longer_one(name, saved):
    trial = Trial.of(saved(name), size=64)
    both = trial.builder.encode(["a red cat", "a red cat on a green mat"])
    with torch.no_grad():
        together = trial.denoiser.predict(trial.noise(), 0.5, both).value
        alone = trial.denoiser.predict(trial.noise()[:1], 0.5, {key: value[:1] for key, value in both.items()}).value
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-3)


def text_to_image():
    """Every pipeline of the installed diffusers whose call reads a prompt, and neither pictures nor films nor sound."""
    for name in dir(diffusers):
        kind = getattr(diffusers, name) if name.endswith("Pipeline") and "Modular" not in name else None
        calls = inspect.signature(kind.__call__).parameters if isinstance(kind, type) else {}
        if "prompt" in calls and not set(calls) & {*refused.PICTURES, *refused.ELSEWHERE}:
            yield name


def test_every_text_to_image_pipeline_of_diffusers_is_a_family_or_says_why_not():
    unknown = [name for name in text_to_image() if name not in FAMILIES and refused.why(name) is None]
    assert not unknown


def test_no_family_is_refused():
    assert not set(refused.others()) & set(FAMILIES) and set(refused.SAMPLERS.values()) <= set(FAMILIES)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("WuerstchenCombinedPipeline", "it is a chain of two diffusion models"),
        ("StableDiffusionPAGPipeline", "write that name under '_class_name'"),
        ("WanPipeline", "what it makes is no picture"),
        ("FluxFillPipeline", "it reads pictures beside the text"),
    ],
)
def test_a_pipeline_that_is_no_family_is_refused_with_its_reason(name, reason, copied):
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(index | {"_class_name": name}))
    with pytest.raises(DistillError, match=rf"holds a {name}, which cannot be a teacher: .*{reason}") as caught:
        Pipeline.reads(str(copied))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_hears_every_condition_and_the_time(name, saved):
    trial = Trial.of(saved(name), size=64)
    x, cond = trial.noise(), trial.builder.encode(PROMPTS)
    assert set(cond) == set(trial.denoiser.null)
    with torch.no_grad():
        said = trial.denoiser.predict(x, 0.6, cond).value
        null = trial.denoiser.predict(x, 0.6, trial.denoiser.drop(cond, frozenset("*"), x)).value
        later = trial.denoiser.predict(x, 0.3, cond).value
        features = trial.denoiser.predict(x, 0.6, cond, taps=trial.denoiser.taps).features
    assert said.shape == x.shape and said.isfinite().all()
    assert not torch.equal(said, null) and not torch.equal(said, later)
    assert all(len(feature) == 2 for feature in features.values()) and len(features) == len(trial.denoiser.taps) > 0


LARGE = ("HiDreamImagePipeline", "Kandinsky5T2IPipeline")
"""Families whose smallest networks take half a minute to go the whole way."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long if n in LARGE else ()) for n in FAMILIES])
def test_the_whole_way_with_every_method(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    made = page().row(name, tmp_path)
    assert made[1:-2] == ["yes"] * 7 and all(float(cell) < 1e-4 for cell in made[-2:] if cell[0].isdigit())


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "FluxPipeline"])
@pytest.mark.parametrize("method", ["dmd2", "tbcm"])
def test_a_method_trains_a_family(name, method, saved):
    page().step(saved(name), method)


def test_what_is_read_from_a_folder_of_stable_diffusion(saved):
    trial = Trial.of(saved("StableDiffusionPipeline"))
    assert isinstance(trial.denoiser.path, Discrete) and trial.denoiser.kind == "eps"
    theirs = diffusers.DDIMScheduler(**toys.LINEAR).alphas_cumprod
    assert torch.allclose(torch.tensor(trial.denoiser.path.alphas_cumprod), theirs, atol=1e-6)
    assert (trial.builder.sampler().steps, trial.builder.sampler().guidance) == (50, 7.5)


@pytest.mark.parametrize(("name", "shift"), FLOWS.items())
def test_the_shift_of_a_flow_pipeline_is_part_of_its_sampler(name, shift, saved):
    trial = Trial.of(saved(name))
    assert isinstance(trial.denoiser.path, Flow) and trial.builder.sampler().grid.shift == shift


def test_a_shift_that_grows_with_the_picture_is_diffusers_own():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(4, sigmas=[1.0, 0.75, 0.5, 0.25], mu=0.5 + 0.65 * (1024 - 256) / (4096 - 256))
    shift = schedulers.shift(dict(scheduler.config) | {"_class_name": type(scheduler).__name__}, 1024)
    ours = [shift * t / (1 + (shift - 1) * t) for t in (1.0, 0.75, 0.5, 0.25)]
    assert scheduler.sigmas[:-1].tolist() == pytest.approx(ours, abs=1e-6)


def test_guidance_that_a_network_is_fed_is_no_guidance_of_the_sampler(saved):
    folder = saved("FluxPipeline")
    fed, other = Trial.of(folder), Trial.of(folder, guidance=7.0)
    assert fed.builder.sampler().guidance == 1.0 and fed.denoiser.network.setting.guidance == 3.5
    cond = fed.builder.encode(PROMPTS)
    with torch.no_grad():
        one, two = (trial.denoiser.predict(fed.noise(), 0.5, cond).value for trial in (fed, other))
    assert not torch.equal(one, two)


def test_packing_is_undone():
    x = torch.randn(2, 4, 6, 8)
    theirs = diffusers.FluxPipeline._pack_latents(x, 2, 4, 6, 8)
    assert torch.equal(pack(x), theirs) and torch.equal(unpack(pack(x), x), x)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusion3Pipeline"])
def test_the_same_network_by_angles_says_the_same(name, saved):
    """x0 at an angle is that of the pipeline's own path at the time of equal signal-to-noise ratio."""
    own, angles = Trial.of(saved(name)), Trial.of(saved(name), path="trigonometric")
    t, cond = torch.tensor([0.3, 1.2]), own.builder.encode(PROMPTS)
    s = angles.denoiser.network.time(t)
    assert isinstance(angles.denoiser.path, Trigonometric)
    assert torch.allclose(own.denoiser.path.logsnr(s), angles.denoiser.path.logsnr(t), atol=1e-4)
    x0, eps = own.noise(), Rng(5).normal_like(own.noise())
    with torch.no_grad():
        ours = own.denoiser.predict(own.denoiser.path.noised(x0, eps, s), s, cond)
        theirs = angles.denoiser.predict(angles.denoiser.path.noised(x0, eps, t), t, cond)
    assert torch.allclose(ours.x0, theirs.x0, atol=1e-3) and torch.allclose(ours.eps, theirs.eps, atol=1e-3)


def test_pictures_become_latents_and_latents_pictures(saved):
    folder = str(saved("QwenImagePipeline"))
    modality, pictures = LatentImage(model=folder), torch.rand(2, 3, 64, 64) * 2 - 1
    latents = modality.code(pictures)
    assert latents.shape == (2, 4, 8, 8) and modality.decode(latents).shape == pictures.shape
    latents.requires_grad_()
    Decode(model=folder)(latents).sum().backward()
    assert latents.grad.abs().sum() > 0


# ---------------------------------------------------------------- prompts


def test_the_null_condition_is_encoded_once_and_kept(saved, monkeypatch):
    first = Pipeline(model=str(saved("StableDiffusionPipeline"))).encoder().null
    monkeypatch.setattr(prompts.Encoder, "_encode", lambda *_: pytest.fail("asked again"))
    again = Pipeline(model=str(saved("StableDiffusionPipeline"))).encoder().null
    assert torch.equal(first["text"], again["text"])


def test_other_encoders_get_a_cache_of_their_own(saved, copied):
    before = Pipeline(model=str(saved("StableDiffusionPipeline"))).encoder().fingerprint
    assert Pipeline(model=str(copied)).encoder().fingerprint == before
    weights = copied / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert Pipeline(model=str(copied)).encoder().fingerprint != before


def test_prompts_are_data(saved, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n\n a dog \n")
    folder = str(saved("StableDiffusionXLPipeline"))
    found = Prompts(encoder=folder, prompts=("a bird",), file=tmp_path / "prompts.txt").open()
    assert len(found) == 3 and set(found[0]) == {"text", "pooled"}
    with pytest.raises(DataError, match="prompts is empty"):
        Prompts(encoder=folder).open()
    with pytest.raises(DataError, match="10,000 characters"):
        Prompts(encoder=folder, prompts=("x" * 10_000,)).open()


# ---------------------------------------------------------------- references and messages


def recipe(folder):
    return Recipe(method="frozen", teacher={"model": str(folder), "steps": 2, "size": 64})


def test_a_model_without_a_name_is_a_pipeline(saved):
    run = prepare(recipe(saved("StableDiffusionPipeline")), Source("test"), default_registry())
    assert run.recipe.teacher["name"] == "image:pipeline" and isinstance(run.modality, LatentImage)
    drawn = run.draw(run.result, run.sampler, 1)
    assert drawn.shape == (1, 4, 8, 8) and run.modality.decode(drawn).shape == (1, 3, 64, 64)


def test_a_plugin_adds_a_family(copied):
    class Mine(Pipeline):
        """Pipelines of a class of its own."""

        families = {"MyPipeline": Family(("text", "-text"), network="unet", taps=("mid_block",))}

    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(index | {"_class_name": "MyPipeline"}))
    assert Mine.reads(str(copied)) and Mine(model=str(copied)).network().config.sample_size == 8
    with pytest.raises(DistillError, match="MyPipeline, and the families that can be read are AuraFlowPipeline, .*"):
        Pipeline.reads(str(copied))


def without_index(folder):
    (folder / "model_index.json").unlink()


def broken_index(folder):
    (folder / "model_index.json").write_text("{")


def lying_header(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes((2**40).to_bytes(8, "little") + raw[8:])


def lying_offsets(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def lying_sizes(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    raw = weights.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    header["conv_in.bias"]["data_offsets"] = [0, 10**9]
    said = json.dumps(header).encode()
    weights.write_bytes(len(said).to_bytes(8, "little") + said + raw[end:])


def other_shapes(folder):
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"block_out_channels": [16, 16]}))


def no_scheduler(folder):
    shutil.rmtree(folder / "scheduler")


SPOILT = {
    without_index: "has no model_index.json, so it is no pipeline that diffusers saved",
    broken_index: "model_index.json cannot be read",
    lying_header: r"unet/diffusion_pytorch_model.safetensors cannot be loaded: .*header.*\. Fetch it again",
    lying_offsets: r"unet/diffusion_pytorch_model.safetensors cannot be loaded: .*\. Fetch it again",
    lying_sizes: r"unet/diffusion_pytorch_model.safetensors cannot be loaded: .*\. Fetch it again",
    other_shapes: "spoilt/unet cannot be loaded",
    no_scheduler: "scheduler_config.json cannot be read",
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_folder_that_is_spoilt_is_answered_with_one_message(spoil, copied):
    spoil(copied)
    with pytest.raises(DistillError, match=SPOILT[spoil]) as caught:
        prepare(recipe(copied), Source("test"), default_registry())
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_that_nobody_reads(tmp_path):
    resolve = Resolver(default_registry(), Source("recipe.yaml"))
    with pytest.raises(RecipeError, match="'no-such/model' is no folder here, and no pipeline of the hub"):
        resolve.named({"model": "no-such/model"}, "denoiser", "teacher")
    assert resolve.named({"name": "dit", "model": "x"}, "denoiser", "teacher") == {"name": "dit", "model": "x"}


def test_the_sampler_of_a_role_is_what_is_sampled(saved):
    trial = Trial.of(saved("ZImagePipeline"))
    drawn = Sampler(steps=1).sample(Role("teacher", trial.denoiser), trial.noise(), trial.builder.encode(PROMPTS))
    assert drawn.shape == trial.noise().shape
