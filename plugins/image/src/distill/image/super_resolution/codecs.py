"""Latents of pictures, and decoders of them that denoise: an encoder, what trains both, and a codec of the two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity, interpolate, pixel_unshuffle, silu

from distill.core import (
    Batch,
    Context,
    Event,
    HeadBuilder,
    Loss,
    Prediction,
    Rng,
    Role,
    Roles,
    Sampler,
    Terms,
    checkpoint,
)  # fmt: skip
from distill.image.super_resolution.features import layers, perceptual
from distill.image.super_resolution.trajectories import TeacherEnds
from distill.methods.losses import distance
from distill.methods.networks import FeatureHeads
from distill.methods.trajectories import NoisedData


class Encoder(nn.Module):
    """Pictures [B, C, H, W] to mean and log variance of latents [B, c, H/f, W/f]."""

    def __init__(self, channels: int, latent: int, factor: int, width: int) -> None:
        super().__init__()
        self.factor = factor
        self.inlet = nn.Conv2d(channels * factor**2, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.outlet = nn.Conv2d(width, 2 * latent, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        h = silu(self.inlet(pixel_unshuffle(pictures, self.factor)))
        mean, spread = self.outlet(h + silu(self.middle(h))).chunk(2, 1)
        return mean, spread.clamp(-12, 4)


class LatentEncoder(HeadBuilder):
    """A small convolutional encoder of pictures, with a mean and a variance for each latent."""

    channels: PositiveInt = 3
    """Channels of pictures."""
    latent: PositiveInt = 4
    """Channels of latents; decoders are given as many."""
    factor: PositiveInt = 4
    """Pixels a side of one latent."""
    width: PositiveInt = 64
    """Channels between."""
    weights: str = ""
    """A safetensors file of weights."""

    def build(self, roles: Roles) -> nn.Module:
        encoder = Encoder(self.channels, self.latent, self.factor, self.width)
        if self.weights:
            checkpoint.fill(encoder, Path(self.weights), "encoder.")
        return encoder


def told(latents: Tensor, like: Tensor) -> dict[str, Tensor]:
    """The condition of a decoder: latents in the size of the pictures [B, c, H, W]."""
    return {"low": interpolate(latents, like.shape[2:])}


class EncodedData(NoisedData):
    """Noised pictures for a decoder that is told latents of the clean ones, drawn from what the encoder says.

    `meta["kl"]` is the divergence of the latents' law from a standard normal one, per latent [B].
    """

    encoder: str = "encoder"
    """Role of the encoder, through which gradient runs too."""
    tapped: bool = True
    """Keep the features at the taps that the network names."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role, self.encoder)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        with torch.set_grad_enabled(attached):
            mean, spread = ctx.roles[self.encoder](batch.data)
            z = mean + (spread / 2).exp() * ctx.rng.normal_like(mean, stream="encoded/latent")
            kl = ((mean.square() + spread.exp() - 1 - spread) / 2).mean((1, 2, 3))
            cond = {**batch.cond, **told(z, batch.data)}
        for event in super().events(replace(batch, cond=cond), ctx, attached=attached):
            yield replace(event, meta={**event.meta, "kl": kl})


class EncodedEnds(TeacherEnds):
    """`TeacherEnds` of decoders: both are told the mean latents of the batch's pictures."""

    encoder: str = "encoder"
    """Role of the encoder."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        with torch.no_grad():
            cond = {**batch.cond, **told(ctx.roles[self.encoder](batch.data)[0], batch.data)}
        yield from super().events(replace(batch, cond=cond), ctx, attached=attached)


DEPTH = 2
"""Which of the feature network's layers is predicted: one of 40 channels, 8 pixels a place."""


class RepresentationHead(FeatureHeads):
    """Two 1×1 convolutions from the first layer that a role taps to EfficientNet-lite0's features."""

    features: str = "student"
    """Role whose first tap is looked at."""

    def build(self, roles: Roles) -> nn.Module:
        wanted = layers("efficientnet-lite0").layers(torch.zeros(1, 3, 32, 32))[DEPTH].shape[1]
        first = next(iter(self.widths(roles).values()))
        return nn.Sequential(nn.Conv2d(first, self.hidden, 1), nn.SiLU(), nn.Conv2d(self.hidden, wanted, 1))


def alignment(role: Role, feature: Tensor, pictures: Tensor) -> Tensor:
    """1 − cosine of what a head makes of a map and a frozen network's features of pictures, over places: [B]."""
    with torch.no_grad():
        wanted = layers("efficientnet-lite0").layers(pictures)[DEPTH]
    said = adaptive_avg_pool2d(role(feature), (wanted.shape[2], wanted.shape[3]))
    return 1 - cosine_similarity(said, wanted, dim=1).mean((1, 2))


class Decoding(Loss):
    """`‖v − v*‖² + λ LPIPS(x*, x̂0) + μ (1 − cos) + ν KL` (SSDD: arXiv:2510.04961), with v = ε − x0, the negative of the
    paper's.

    The cosine is REPA's (arXiv:2410.06940): of an early layer, through a head, and a frozen network's features of the
    true picture, whatever the target is.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "its states are pictures, and its prediction is tapped"}
    target: str = "real"
    """x*, among the event's targets."""
    perceptual: float = 0.5
    """λ."""
    representation: float = 0.25
    """μ."""
    kl: float = 1e-6
    """ν, where the encoder learns."""
    heads: str = "projector"
    """Role of the head."""
    encoder: str = ""
    """Role of the encoder, if it learns."""

    @property
    def moves(self) -> tuple[str, ...]:
        return ("student", *([self.heads] if self.representation else []), *([self.encoder] if self.encoder else []))

    def terms(self, event: Event, ctx: Context) -> Terms:
        said, target = event.prediction, event.targets[self.target]
        assert said is not None
        truth = Prediction("x0", target, said.x, said.t, said.path)
        found = {"velocity": distance("l2", said.velocity, truth.velocity)}
        if self.perceptual:
            found["perceptual"] = self.perceptual * perceptual(said.x0, target)
        if self.representation:
            feature = next(iter(said.features.values()))
            found["representation"] = self.representation * alignment(ctx.roles[self.heads], feature, event.real)
        return found | ({"kl": self.kl * event.meta["kl"]} if self.encoder else {})


@dataclass(frozen=True)
class Codec:
    """An encoder and a decoder that denoises, in the place of any other codec.

    Attributes:
        encoder: role of the encoder.
        decoder: role of the decoder.
        sampler: how it is sampled where no number of steps is asked for.
    """

    encoder: Role
    decoder: Role
    sampler: Sampler

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Latents [B, c, H/f, W/f] of pictures [B, 3, H, W] in [−1, 1]: the means."""
        mean: Tensor = self.encoder(pictures)[0]
        return mean

    def decode(self, latents: Tensor, steps: int = 1, noise: Tensor | None = None, rng: Rng | None = None) -> Tensor:
        """Pictures of latents; the same for the same noise, which has the shape of the pictures."""
        factor = self.encoder.module.factor
        side = [int(length) * int(factor) for length in latents.shape[2:]]  # type: ignore[arg-type]
        if noise is None:
            noise = (rng or Rng(0)).normal(len(latents), 3, *side, stream="decode/noise").to(latents)
        sampler: Any = self.sampler if steps == 1 else Sampler(steps=steps)
        made: Tensor = sampler.sample(self.decoder, noise, told(latents, noise), rng)
        return made.clamp(-1, 1)
