"""Short stretches of real music at a low rate, and their mel spectra as pictures."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource, Samples
from distill.pipeline.lenses import MelPicture

RATE, LENGTH = 4000, 1024
"""Samples a second and in a stretch."""
WORLD = "two quarters of a second from each of 340 chorales by Bach on six instruments, at 4 kHz"


class ShortMusic(DataSource):
    """Stretches of 0.256 s from the middle of Bach's chorales on six instruments, as loud as each other.

    Sounds [1, 1024] at 4 kHz, or pictures of their mel spectra [1, 9, 16]; the condition `label` is the instrument.
    """

    form: Literal["sound", "picture"] = "sound"
    """What samples are."""
    count: PositiveInt = 100_000
    """At most so many, spread over the pieces."""

    def open(self, split: str = "train") -> Dataset[Any]:
        from distill.audio.datasets import music

        places = stretches(split)
        rows = places[torch.linspace(0, len(places) - 1, min(self.count, len(places))).round().long()]
        sound = decoded(rows)
        return Samples(x=MelPicture()(sound) if self.form == "picture" else sound, label=music().label[rows[:, 0]])


def stretches(split: str) -> Tensor:
    """Where the stretches of a split are, two in each piece: its number and the first token [N, 2]."""
    from distill.audio.datasets import TRAINING, music

    pieces = torch.arange(len(music().latents))
    pieces = pieces[:TRAINING] if split == "train" else pieces[TRAINING:]
    return torch.cat([torch.stack([pieces, torch.full_like(pieces, first)], 1) for first in (60, 150)])


def decoded(places: Tensor) -> Tensor:
    """The sound from each place on, as loud as that of the others: [N, 1, 1024]."""
    from distill.audio.codecs import FromLatent
    from distill.audio.datasets import music
    from distill.audio.spectra import torchaudio

    latents = music().latents[places[:, :1], places[:, 1:] + torch.arange(4)]
    heard = torchaudio().resample(FromLatent(rounds=8)(latents), 16_000, RATE)[..., :LENGTH]
    sound: Tensor = 0.5 * heard / heard.abs().amax(-1, keepdim=True).clamp_min(1e-3)
    return sound
