"""Claim of SNOOPI: a negative prompt inside cross-attention removes a digit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from distill.core import Builder, Claim, Denoiser, Rng, Role, Roles, Row, Sampler, Samples
from distill.core.paths import Flow
from distill.methods import digits, toys
from distill.methods.negative import NegativeAttention
from distill.methods.networks import TimeEmbedding

ANY, UNWANTED, ALPHA, POINTS = digits.CLASSES, 3, 0.3, 1000
NASA = NegativeAttention(alpha=ALPHA, sites=("text.0", "text.1", "text.2"), text="prompt")


class Attention(nn.Module):
    """Cross-attention with four heads: hidden [B, N, C] to text [B, L, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, hidden: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        asked = ((self.to_q, hidden), (self.to_k, encoder_hidden_states), (self.to_v, encoder_hidden_states))
        q, k, v = (layer(x).unflatten(2, (4, -1)).transpose(1, 2) for layer, x in asked)
        out: Tensor = self.to_out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Prompted(nn.Module):
    """A perceptron on digits [B, 64] whose units, as four tokens, read a prompt of two labels [B, 2]."""

    def __init__(self, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.words, self.time_embedding = nn.Embedding(ANY + 1, width // 4), TimeEmbedding(width, 2e-3)
        self.inlet = nn.Linear(64, width)
        self.text = nn.ModuleList(Attention(width // 4) for _ in range(depth))
        self.mix = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(width, width)) for _ in range(depth))
        self.outlet = nn.Sequential(nn.SiLU(), nn.Linear(width, 64))

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        h, words = self.inlet(x) + self.time_embedding(t), self.words(cond["prompt"])
        for text, mix in zip(self.text, self.mix, strict=True):
            read = text(h.unflatten(1, (4, -1)), encoder_hidden_states=words)
            h = mix(h + read.flatten(1))
        out: Tensor = self.outlet(h)
        return out


class PromptedDigits(Builder):
    """Options of the network above."""

    def build(self) -> Denoiser:
        return Denoiser(Prompted(), Flow(), "velocity", shape=digits.SHAPE, null={"prompt": [ANY, ANY]})


@cache
def teacher(seed: int, steps: int = 1000) -> Denoiser:
    """Fitted to digits with prompts: the label and `any` in either order, or `any` twice."""
    (x, label), rng = digits.load(), Rng(seed)
    copies, anything = 4, torch.tensor(ANY)
    label = label.repeat(copies)
    kind = rng.integers(4, len(label), stream="prompt")
    first, second = (torch.where((kind == 0) | (kind == k), label, anything) for k in (1, 2))
    data = Samples(x=x.repeat(copies, 1), prompt=torch.stack([first, second], 1))
    fit = toys.Fitted(network=PromptedDigits(), steps=steps, lr=2e-3)
    return toys.train(fit, {}, data=data, size=128, seed=seed).roles["student"].denoiser


def drawn(denoiser: Denoiser, seed: int, **cond: Tensor) -> Tensor:
    """Digits for the prompt `any any`, in eight steps."""
    prompt = torch.full((POINTS, 2), ANY)
    return toys.draw(Role("teacher", denoiser), Sampler(steps=8), POINTS, seed + 300, {"prompt": prompt} | cond)


def removal(seed: int) -> dict[str, float]:
    """Share of the unwanted digit, and Fréchet distance to the digits, without and with the negative prompt."""
    judge, (x, _) = digits.classifier(), digits.load()
    plain, unwanted = teacher(seed), torch.full((POINTS, 2), UNWANTED)
    away, nearer = (steered(plain, alpha) for alpha in (ALPHA, -ALPHA))
    sets = {
        "plain": drawn(plain, seed),
        "nasa": drawn(away, seed, negative=unwanted),
        "flipped": drawn(nearer, seed, negative=unwanted),
    }
    found = {"off": float((drawn(away, seed) - sets["plain"]).abs().max())}
    for name, y in sets.items():
        found[f"{name} share"] = float((judge.network(y).argmax(1) == UNWANTED).float().mean())
        found[f"{name} dfid"] = digits.frechet(digits.features(x, judge), digits.features(y, judge))
    return found


def steered(plain: Denoiser, alpha: float) -> Denoiser:
    """A copy that knows negative prompts."""
    roles = Roles({"student": Role("student", copy.deepcopy(plain))})
    NASA.model_copy(update={"alpha": alpha}).apply(roles, "student")
    return roles["student"].denoiser


def claim(seed: int) -> Claim:
    """Draw digits for `any any`, with the negative prompt `3 3`, and without."""
    found = removal(seed)
    share, dfid = found["plain share"], found["plain dfid"]
    return Claim(
        "snoopi",
        "A negative prompt that is subtracted inside cross-attention removes what it names, without training.",
        (
            Row("share of threes, with a negative / without", found["nasa share"] / share, "<=", 0.4, f"{share:.3f}"),
            Row("dFID, with a negative / without", found["nasa dfid"] / dfid, "<=", 1.15, f"{dfid:.1f}"),
            Row("share of threes with the sign flipped / without", found["flipped share"] / share, ">=", 1.0, "broken"),
            Row("change where no negative is given", found["off"], "<=", 0.0, "bit for bit"),
        ),
        broken=BROKEN,
        open=OPEN,
        settings={"data": "digits of 8 x 8, prompts of two labels", "seed": seed, "alpha": ALPHA, "steps": 8}
        | {"network": "perceptron 3 x 256 with cross-attention, fitted for 1000 steps"},
    )


BROKEN = "The sign of α flipped is measured in each run: the digit is then drawn more often, not less."
OPEN = (
    "The network is asked in 8 steps; a one-step student was not trained for it. Taking the word's embedding from the "
    "prompt's removes as much here (share 0.017 against 0.017 on seed 0): with one word a token there is no text "
    "encoder that would make a difference. A random w in training is not settled: on Ring-8 with classes, 900 steps at "
    "constant rates, the standard deviation of the energy distance over the last third was 0.21 against 0.13 with w = "
    "5 on seed 0, and 0.32 against 0.91 on seed 1."
)
