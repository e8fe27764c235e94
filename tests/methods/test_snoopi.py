"""SNOOPI: one random w for both scores, and negative prompts inside cross-attention, ours and diffusers'."""

from __future__ import annotations

import copy

import diffusers
import pytest
import torch

from distill.core import Context, Denoiser, DistillError, Event, Guidance, Rng, Role, Roles, Sampler, Samples
from distill.core.paths import Discrete
from distill.methods import toys
from distill.methods.claims.snoopi import NASA, PromptedDigits
from distill.methods.negative import NegativeAttention
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.snoopi import SNOOPI, RandomlyGuided

NETWORK = MLPDenoiser(width=16, depth=2, classes=3, path="cosine", path_options={"t_max": 0.95}, kind="eps")
PROMPT, NEGATIVE = torch.full((4, 2), 10), torch.tensor([[3, 10]] * 4)


class UNet(torch.nn.Module):
    """A small diffusers network, called as a denoiser calls it."""

    def __init__(self):
        super().__init__()
        self.net = diffusers.UNet2DConditionModel(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=12, attention_head_dim=4, norm_num_groups=4,
        )  # fmt: skip

    def forward(self, x, t, cond):
        return self.net(x, t, cond["text"]).sample


@pytest.fixture(scope="module")
def unet() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(UNet(), Discrete.scaled_linear(), "eps", shape=(1, 8, 8))


def steered(denoiser: Denoiser, transform: NegativeAttention) -> Denoiser:
    roles = Roles({"student": Role("student", copy.deepcopy(denoiser))})
    transform.apply(roles, "student")
    return roles["student"].denoiser


def inputs(length: int = 5):
    rng = Rng(0)
    return rng.normal(2, 1, 8, 8), {"text": rng.normal(2, 5, 12), "negative": rng.normal(2, length, 12)}


@torch.no_grad()
def test_nothing_changes_without_a_negative_or_without_alpha(unet) -> None:
    x, cond = inputs()
    plain = unet.predict(x, 0.9, {"text": cond["text"]}).value
    assert torch.equal(steered(unet, NegativeAttention()).predict(x, 0.9, {"text": cond["text"]}).value, plain)
    assert torch.equal(steered(unet, NegativeAttention(alpha=0)).predict(x, 0.9, cond).value, plain)
    assert not torch.equal(steered(unet, NegativeAttention()).predict(x, 0.9, cond).value, plain)


@torch.no_grad()
def test_each_layer_gives_the_difference_of_attended_values(unet) -> None:
    """With its own queries; the output projection and its bias come after."""
    x, cond = inputs(length=3)
    changed, seen = steered(unet, NegativeAttention(alpha=0.4)), []
    layers = [part for key, part in changed.network.named_modules() if key.endswith("attn2")]
    for layer in layers:
        layer.register_forward_hook(lambda part, args, kw, out: seen.append((part, args[0], kw, out)), with_kwargs=True)
    changed.predict(x, 0.9, cond)
    assert len(seen) == len(layers) > 1
    for part, hidden, given, out in seen:
        parts = []
        for text in (given["encoder_hidden_states"], cond["negative"]):
            q, k, v = part.to_q(hidden), part.to_k(text), part.to_v(text)
            q, k, v = (y.unflatten(2, (part.heads, -1)).transpose(1, 2) for y in (q, k, v))
            parts.append(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(out, part.to_out[0](parts[0] - 0.4 * parts[1]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_one_layer_is_affine_in_alpha(unet) -> None:
    (x, cond), site = inputs(), ("up_blocks.1.attentions.1.transformer_blocks.0.attn2",)
    outs = []
    for alpha in (0.0, 0.5, 1.0):
        changed = steered(unet, NegativeAttention(alpha=alpha, sites=site))
        changed.network.get_submodule(f"net.{site[0]}").register_forward_hook(lambda m, a, out: outs.append(out))
        changed.predict(x, 0.9, cond)
    torch.testing.assert_close(outs[1], (outs[0] + outs[2]) / 2, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_copies_are_steered_and_calls_leave_nothing_behind(unet) -> None:
    x, cond = inputs()
    changed = steered(unet, NegativeAttention())
    twin, first = copy.deepcopy(changed), changed.predict(x, 0.9, cond).value
    assert torch.equal(twin.predict(x, 0.9, cond).value, first)
    plain = unet.predict(x, 0.9, {"text": cond["text"]}).value
    assert torch.equal(changed.predict(x, 0.9, {"text": cond["text"]}).value, plain)


@torch.no_grad()
def test_a_negative_goes_through_the_networks_own_embedding() -> None:
    torch.manual_seed(0)
    plain = PromptedDigits().build()
    changed, x = steered(plain, NASA), Rng(0).normal(4, 64)
    said = plain.predict(x, 0.9, {"prompt": PROMPT}).value
    assert torch.equal(changed.predict(x, 0.9, {"prompt": PROMPT}).value, said)
    assert not torch.allclose(changed.predict(x, 0.9, {"prompt": PROMPT, "negative": NEGATIVE}).value, said)


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(DistillError, match="attn2"):
        steered(NETWORK.build(), NegativeAttention())


def test_w_is_drawn_anew_and_is_one_for_both_scores(monkeypatch) -> None:
    seen: dict[str, list[Guidance]] = {"teacher": [], "critic": []}
    plain = Role.predict

    def watch(self, *args, guidance=None, **options):
        seen[self.name].append(guidance)
        return plain(self, *args, guidance=guidance, **options)

    monkeypatch.setattr(Role, "predict", watch)
    ctx = Context(Roles({name: Role(name, NETWORK.build()) for name in seen}), Rng(0))
    event = Event(torch.zeros(6, 2, requires_grad=True), {"label": torch.arange(6) % 3})
    for _ in range(20):
        RandomlyGuided(weights=(2.0, 5.0), units="eps").terms(event, ctx)
    drawn = [guidance.terms[0][0] for guidance in seen["teacher"]]
    assert seen["teacher"] == seen["critic"] and len(set(drawn)) == 20
    assert 2 <= min(drawn) < 3 and 4 < max(drawn) <= 5


def test_it_trains_as_swiftbrush_does() -> None:
    samples = Samples(label=torch.arange(30) % 3)
    run = toys.train(SNOOPI(time=0.95, steps=3), {"teacher": NETWORK.build()}, data=samples, size=6)
    assert run.step == 3 and run.roles["critic"].module is run.roles["teacher"].module


def test_a_student_with_negatives_is_trained_without_and_sampled_with_them() -> None:
    torch.manual_seed(0)
    samples = Samples(prompt=PROMPT.repeat(4, 1))
    run = toys.train(SNOOPI(time=0.99, steps=1, nasa=NASA), {"teacher": PromptedDigits().build()}, data=samples, size=4)
    role, noise = run.roles["student"], Rng(0).normal(4, 64)
    both = [run.sampler.sample(role, noise, {"prompt": PROMPT, **more}) for more in ({}, {"negative": NEGATIVE})]
    assert isinstance(run.sampler, Sampler) and not torch.allclose(*both)
