"""Negative prompts in the networks of pipelines: across, jointly, and where there is no place for them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from distill.core import DistillError, Role, Roles
from distill.image import toys
from distill.image.trial import PROMPTS, Trial
from distill.methods.negative import NegativeAttention

ACROSS = ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "PixArtSigmaPipeline", "SanaPipeline",
          "HunyuanDiTPipeline"]  # fmt: skip
JOINT = ["StableDiffusion3Pipeline", "FluxPipeline", "QwenImagePipeline", "ChromaPipeline", "AuraFlowPipeline",
         "OvisImagePipeline", "Flux2KleinPipeline"]  # fmt: skip
NONE = ["ZImagePipeline", "Lumina2Pipeline", "CogView3PlusPipeline"]


@pytest.fixture(scope="session")
def trial(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("negative"), {}

    def of(name):
        if name not in made:
            made[name] = Trial.of(toys.save(name, root / name))
        return made[name]

    return of


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def said(trial, negative=None, alpha=0.5, apply=True):
    """What the network says of noise and two prompts; its hooks are taken off again."""
    network, cond = trial.denoiser.network, trial.builder.encode(PROMPTS)
    if apply:
        NegativeAttention(alpha=alpha).apply(Roles({"student": Role("student", trial.denoiser)}), "student")
    if negative is not None:
        cond["negative"] = trial.builder.encode([negative] * 2)
    try:
        with torch.no_grad():
            return trial.denoiser.predict(trial.noise(), 0.8, cond).value
    finally:
        for part in network.modules():
            part._forward_hooks.clear(), part._forward_pre_hooks.clear()
            part._forward_pre_hooks_with_kwargs.clear()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ACROSS + JOINT)
def test_a_family_hears_a_negative_prompt_and_is_itself_without(name, trial):
    plain = said(trial(name), apply=False)
    assert torch.equal(said(trial(name)), plain) and torch.equal(said(trial(name), "blue", alpha=0.0), plain)
    one, other = said(trial(name), "blue"), said(trial(name), "a small green house")
    assert not torch.equal(one, plain) and not torch.equal(one, other) and one.isfinite().all()


@pytest.mark.parametrize("name", NONE)
def test_a_family_of_one_stream_refuses(name, trial):
    with pytest.raises(DistillError, match="cannot hear a negative prompt: it has no layer"):
        said(trial(name), "blue")


@torch.no_grad()
def test_a_joint_layer_loses_the_negative_texts_share(trial):
    """The picture's values of SD3's first layer against their definition; the text's own stream is untouched."""
    made, seen = trial("StableDiffusion3Pipeline"), []
    layer = made.denoiser.network.net.transformer_blocks[0].attn
    NegativeAttention(alpha=0.4).apply(Roles({"student": Role("student", made.denoiser)}), "student")
    layer.register_forward_hook(lambda part, args, kw, out: seen.append((kw, out)), with_kwargs=True)
    cond = made.builder.encode(PROMPTS)
    made.denoiser.predict(made.noise(), 0.8, {**cond, "negative": made.builder.encode(["blue"] * 2)})
    (negative, _), (positive, out) = seen[0], seen[-1]
    hidden, results = positive["hidden_states"], []
    for text in (positive["encoder_hidden_states"], negative["encoder_hidden_states"]):
        q = layer.to_q(hidden)
        k = torch.cat([layer.to_k(hidden), layer.add_k_proj(text)], 1)
        v = torch.cat([layer.to_v(hidden), layer.add_v_proj(text)], 1)
        results.append([q, k, v])
    results[1][2][:, : hidden.shape[1]] = 0  # the picture's own values are not taken away
    plus, minus = (scaled_dot_product_attention(*(y.unflatten(2, (layer.heads, -1)).transpose(1, 2) for y in each))
                   .transpose(1, 2).flatten(2) for each in results)  # fmt: skip
    torch.testing.assert_close(out[0], layer.to_out[0](plus - 0.4 * minus), atol=1e-5, rtol=1e-5)
    said(made)  # takes the hooks off again
