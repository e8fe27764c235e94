"""Oracles of pictures: what a sampler asks that keeps or improves samples by how well they show what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from distill.core import Builder, Denoiser
from distill.core.paths import Flow
from distill.image.features import Features, features
from distill.image.pipeline import Decode


class Judge(nn.Module):
    """Scores [B] of clean states, pictures or latents, by how well they show what their conditions ask for."""

    def __init__(self, net: Features, decode: Decode | None) -> None:
        super().__init__()
        self.net, self.decode = net, decode

    def forward(self, x: Tensor, t: Any, cond: Mapping[str, Any]) -> Tensor:
        pictures = x if self.decode is None else self.decode(x).to(x.dtype)
        return self.net.score(pictures, self.net.wanted(cond))


class AgreementOracle(Builder):
    """The network behind the metric `agreement` as a role that scores samples, for samplers that ask an oracle.

    Prompts are also encoded for it, as the condition `wanted`; `digits` looks at the condition `label` instead.
    """

    conformance: ClassVar[dict[str, str]] = {
        name: "it scores pictures and denoises none"
        for name in ("shape", "times", "permutation", "randomness", "serialisation", "taps")
    }
    features: Literal["emoji", "digits", "clip"] = "emoji"
    """Which network; pictures are scaled to its size."""
    weights: str = ""
    """Folder of the CLIP; the hub's cache if empty."""
    latents: str = ""
    """Folder of a pipeline whose decoder turns latents into pictures; samples are pictures if empty."""

    @property
    def adds_conditions(self) -> bool:
        return self.features != "digits"

    def build(self) -> Denoiser:
        decode = Decode(model=self.latents) if self.latents else None
        return Denoiser(Judge(features(self.features, self.weights), decode), Flow(), "logits")

    def encode(self, prompts: Sequence[str]) -> dict[str, Any]:
        return {"wanted": features(self.features, self.weights).embed(prompts)}
