"""diffusers' networks as denoisers: built, tapped, loaded again and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from distill.core import Builder, Denoiser, DistillError, Sampler
from distill.core.paths import Cosine, Discrete, Flow
from distill.core.roles import Role
from distill.core.sampling import DDIM, Consistency, Grid
from distill.image.networks import DiffusersNetwork, DiT, MMDiT, UNet2D, UNet2DCondition, attention_maps
from distill.image.teachers import DigitsTeacher

BLOCKS: dict[str, Any] = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "block_out_channels": [16, 16],
    "norm_num_groups": 8,
}  # fmt: skip
TINY: dict[type[DiffusersNetwork], dict[str, Any]] = {
    UNet2D: BLOCKS | {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
                      "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "num_class_embeds": 4},
    UNet2DCondition: BLOCKS | {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
                               "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "cross_attention_dim": 8,
                               "attention_head_dim": 8},
    DiT: {"sample_size": 8, "in_channels": 1, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8,
          "patch_size": 4, "num_embeds_ada_norm": 3, "norm_num_groups": 1},
    MMDiT: {"sample_size": 8, "in_channels": 1, "out_channels": 1, "patch_size": 2, "num_layers": 1,
            "num_attention_heads": 2, "attention_head_dim": 8, "joint_attention_dim": 8, "caption_projection_dim": 16,
            "pooled_projection_dim": 8, "pos_embed_max_size": 8},
}  # fmt: skip
ATTENTION = {
    UNet2D: "net.mid_block.attentions.0",
    UNet2DCondition: "net.mid_block.attentions.0.transformer_blocks.0.attn1",
    DiT: "net.transformer_blocks.1.attn1",
}


def built(network: type[DiffusersNetwork], **options: Any) -> Denoiser:
    torch.manual_seed(0)
    return network(config=TINY[network], **options).build().eval()


def asked(denoiser: Denoiser, **options: Any) -> Any:
    """A prediction for two states of noise and null conditions."""
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return denoiser.predict(x, 0.6, denoiser.example(2)[2], **options)


@pytest.mark.parametrize("kind", TINY)
def test_a_network_predicts_states_of_its_shape(kind):
    denoiser = built(kind)
    assert denoiser.shape == (1, 8, 8) and denoiser.kind == "velocity" and isinstance(denoiser.path, Flow)
    said = asked(denoiser)
    assert said.x0.shape == (2, 1, 8, 8) and said.x0.isfinite().all()


@pytest.mark.parametrize("kind", TINY)
def test_default_taps_are_features_with_a_sample_axis(kind):
    denoiser = built(kind)
    features = asked(denoiser, taps=denoiser.taps).features
    assert set(features) == set(denoiser.taps) != set() and all(len(feature) == 2 for feature in features.values())


@pytest.mark.parametrize("kind", ATTENTION)
def test_attention_maps_are_diffusers_own(kind):
    denoiser, name = built(kind), ATTENTION[kind]
    layer: Any = denoiser.submodule(name)
    seen: list[torch.Tensor] = []
    handle = layer.to_q.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    features = asked(denoiser, taps=(f"{name}.to_q", f"{name}.to_k")).features
    handle.remove()
    with torch.no_grad():
        query, key = (layer.head_to_batch_dim(project(seen[0])) for project in (layer.to_q, layer.to_k))
        theirs = layer.get_attention_scores(query, key).unflatten(0, (2, layer.heads))
    maps = attention_maps(features, name, layer.heads)
    assert torch.allclose(maps, theirs, atol=1e-6) and torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("kind", [UNet2D, UNet2DCondition, MMDiT])
def test_an_extra_input_changes_nothing_until_it_is_trained(kind):
    denoiser = built(kind)
    before = asked(denoiser).value
    denoiser.add_scalar("w")
    assert torch.equal(asked(denoiser, w=torch.ones(2)).value, before)
    torch.nn.init.ones_(denoiser.scalars["w"].out.weight)
    assert not torch.equal(asked(denoiser, w=torch.ones(2)).value, before)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("nested", [True, False])
def test_a_saved_network_is_loaded_with_its_scheduler(kind, nested, tmp_path):
    denoiser = built(kind)
    denoiser.network.net.save_pretrained(tmp_path / kind.subfolder if nested else tmp_path)
    diffusers.DDIMScheduler(prediction_type="v_prediction").save_pretrained(tmp_path / "scheduler")
    again = kind(model=str(tmp_path)).build().eval()
    assert again.kind == "v" and isinstance(again.path, Discrete)
    flow = kind(model=str(tmp_path), path="flow", kind="velocity").build().eval()
    assert torch.equal(asked(flow).value, asked(denoiser).value)


def test_the_shift_of_a_flow_scheduler_is_part_of_the_sampler(tmp_path):
    built(DiT).network.net.save_pretrained(tmp_path / "transformer")
    diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(tmp_path / "scheduler")
    assert DiT(model=str(tmp_path), steps=7).sampler() == Sampler(steps=7, grid=Grid(shift=3.0))
    assert DiT(config=TINY[DiT]).sampler().grid.shift == 1.0


def test_paths_and_kinds_can_be_said():
    assert isinstance(built(DiT, path="cosine", kind="v").path, Cosine)
    stable = built(UNet2D, path="discrete", kind="eps")
    theirs = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert torch.allclose(torch.tensor(stable.path.alphas_cumprod), theirs.alphas_cumprod, atol=1e-6)


def test_pickles_are_not_read(tmp_path):
    built(UNet2D).network.net.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(DistillError, match="could not be loaded"):
        UNet2D(model=str(tmp_path)).build()


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        (DiT(config={"nonsense": 1}), "DiTTransformer2DModel cannot be built from this config"),
        (UNet2D(config={"block_out_channels": [7]}), "UNet2DModel cannot be built from this config"),
        (DiT(config=TINY[DiT], weights="no/such.safetensors"), "no/such.safetensors cannot be read"),
        (DigitsTeacher(config=TINY[DiT]), "do not fit the network's config"),
        (DiT(model="no/such/folder"), "could not be loaded from 'no/such/folder'"),
    ],
)
def test_what_cannot_be_built_says_why(builder: Builder, said):
    with pytest.raises(DistillError, match=said):
        builder.build()


def test_labels_are_not_dropped_behind_anybodys_back():
    denoiser = built(DiT).train()
    cond = {"label": torch.tensor([0, 1])}
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(denoiser.predict(x, 0.5, cond).value, denoiser.predict(x, 0.5, cond).value)


def exported(denoiser: Denoiser, builder: DiffusersNetwork, sampler: Sampler, folder: Path) -> Any:
    builder.export(denoiser, sampler, "diffusers", folder)
    assert json.loads((folder / "sampler.json").read_text())["steps"] == sampler.steps
    return type(denoiser.network.net).from_pretrained(folder / builder.subfolder).eval()


def test_an_exported_flow_model_draws_the_same_picture_step_by_step(tmp_path):
    teacher = DigitsTeacher()
    denoiser, noise, label = teacher.build().eval(), torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    sampler = Sampler(steps=6, grid=Grid(shift=2.0))
    net = exported(denoiser, teacher, sampler, tmp_path)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "scheduler")
    scheduler.set_timesteps(sigmas=[1 - n / 6 for n in range(6)])
    x = noise
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(net(x, timestep=t.expand(3), class_labels=label).sample, t, x).prev_sample
    ours = sampler.sample(Role("teacher", denoiser), noise, {"label": label})
    assert (ours - x).abs().max() < 1e-5


def test_an_exported_discrete_model_draws_the_same_picture_step_by_step(tmp_path):
    builder = UNet2D(config=TINY[UNet2D], path="discrete", kind="v")
    denoiser, noise, label = (
        built(UNet2D, path="discrete", kind="v"),
        torch.randn(2, 1, 8, 8),
        torch.tensor([0, 1]),
    )
    sampler = Sampler(times=(1.0, 0.75, 0.5, 0.25), steps=4, solver=DDIM())
    net = exported(denoiser, builder, sampler, tmp_path)
    scheduler = diffusers.DDIMScheduler.from_pretrained(
        tmp_path / "scheduler", clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True
    )
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]
    x = denoiser.path.prior(noise)
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(net(x, t, class_labels=label).sample, t, x).prev_sample
    assert (sampler.sample(Role("student", denoiser), noise, {"label": label}) - x).abs().max() < 1e-4


def test_what_diffusers_cannot_hold_is_not_exported(tmp_path):
    with_input = built(UNet2D)
    with_input.add_scalar("w")
    for denoiser, said in [
        (with_input, "no place for the inputs w"),
        (built(UNet2D, path="cosine"), "Cosine"),
    ]:
        with pytest.raises(DistillError, match=said):
            UNet2D(config=TINY[UNet2D]).export(denoiser, Sampler(solver=Consistency()), "diffusers", tmp_path)
        assert not list(tmp_path.iterdir())


def test_the_teacher_that_ships_draws_the_digits_that_are_asked_for():
    from distill.image.metrics import LabelAccuracy

    denoiser, label = DigitsTeacher().build().eval(), torch.arange(100) % 10
    noise = torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = Sampler(steps=16).sample(Role("teacher", denoiser), noise, {"label": label})
    assert DigitsTeacher().sampler().steps == 64 and LabelAccuracy().measure(drawn, drawn, {"label": label}) > 0.9
