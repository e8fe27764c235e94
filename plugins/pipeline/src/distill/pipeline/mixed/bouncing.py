"""Digits that fall, bounce once and rise again, each with the sound of its bounce; and how well the two agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource, Rng
from distill.methods.digits import load

FRAMES, TALL, WIDE = 8, 12, 8
"""Frames of a clip, and their pixels."""
FALL = 1.0
"""Pixels that a digit falls from frame to frame, and rises afterwards."""
EARLIEST, LATEST = 1.5, 5.5
"""When it bounces, in frames."""
HEARD = 16
"""Samples of sound a frame."""
WORLD = "scikit-learn's digits of 8 x 8 pixels that fall, bounce once with a thump and rise: 8 frames, 128 samples"


class Bouncing(Dataset[dict[str, Any]]):
    """Joint states in memory, {"video": [N, ...], "audio": [N, ...]} or one of them, with labels [N]."""

    def __init__(self, x: dict[str, Tensor], label: Tensor) -> None:
        self.x, self.label = x, label

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, k: int) -> dict[str, Any]:
        return {"x": {name: part[k] for name, part in self.x.items()}, "label": self.label[k]}

    def __getitems__(self, ks: Sequence[int]) -> Any:
        rows = torch.as_tensor(ks)
        return {"x": {name: part[rows] for name, part in self.x.items()}, "label": self.label[rows]}


class BouncingDigits(DataSource):
    """Digits that fall, bounce once and rise, as clips `video` [8, 1, 12, 8] and sounds `audio` [1, 128].

    The thump is heard at the moment of the bounce, between two frames as a rule, and is the higher the larger the
    digit's `label`, the condition.
    """

    parts: tuple[Literal["video", "audio"], ...] = ("video", "audio")
    """What samples consist of."""
    count: PositiveInt = 2048
    """How many there are."""
    seed: int = 0
    """Which digits, and when they bounce."""

    def open(self, split: str = "train") -> Dataset[Any]:
        pixels, labels = known(split)
        u = Rng(self.seed).uniform(self.count, 2, stream=f"bouncing/{split}")
        rows = (u[:, 0] * len(pixels)).long()
        bounce, label = EARLIEST + (LATEST - EARLIEST) * u[:, 1], labels[rows]
        made = {"video": lambda: clips(pixels[rows], bounce), "audio": lambda: thumps(bounce, label)}
        return Bouncing({name: made[name]() for name in self.parts}, label)


def known(split: str) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits of a split, a fifth of them for tests: pixels [N, 8, 8] in [−1, 1] and labels [N]."""
    pixels, labels = load()
    edge = len(pixels) * 4 // 5
    part = slice(edge) if split == "train" else slice(edge, None)
    return pixels[part].view(-1, 8, 8), labels[part]


def clips(digits: Tensor, bounce: Tensor) -> Tensor:
    """Digits [B, 8, 8] that touch the ground at given moments [B], in frames: [B, 8, 1, 12, 8]."""
    lift = (FALL * (torch.arange(FRAMES) - bounce[:, None]).abs()).clamp_max(TALL - 8)
    low, share = lift.floor().long(), lift.frac()
    frames = [(1 - share)[..., None, None] * _placed(digits, low), share[..., None, None] * _placed(digits, low + 1)]
    return (frames[0] + frames[1])[:, :, None]


def _placed(digits: Tensor, lift: Tensor) -> Tensor:
    """Digits at whole numbers of pixels above the ground [B, F]: [B, F, 12, 8]."""
    rows = torch.arange(TALL) - (TALL - 8 - lift[..., None])
    inside = (rows >= 0) & (rows < 8)
    place = torch.arange(len(digits))[:, None, None]
    return torch.where(inside[..., None], digits[place, rows.clamp(0, 7)], -1.0)


def thumps(bounce: Tensor, label: Tensor) -> Tensor:
    """Tones that begin at given moments [B], in frames, and fade: [B, 1, 128]."""
    since = torch.arange(FRAMES * HEARD) - HEARD * bounce[:, None]
    turn = 2 * torch.pi * (0.02 + 0.004 * label[:, None]) * since
    return torch.where(since >= 0, turn.cos() * (-since / 15).exp(), 0.0)[:, None]


# ---------------------------------------------------------------- when it bounces, and when it is heard

MOMENTS = torch.linspace(EARLIEST - 0.5, LATEST + 0.5, 101)


def seen(video: Tensor) -> Tensor:
    """When the digits of clips touch the ground, in frames: [B]."""
    ink = (video[:, :, 0] + 1).clamp_min(0)
    height = (ink.sum(-1) * torch.arange(TALL, 0, -1)).sum(-1) / ink.sum((-1, -2)).clamp_min(1e-3)
    wanted = (FALL * (torch.arange(FRAMES) - MOMENTS[:, None]).abs()).clamp_max(TALL - 8)
    return MOMENTS[_likeness(height, wanted).argmax(1)]


def heard(audio: Tensor) -> Tensor:
    """When the thumps of sounds begin, in frames: [B]."""
    loud = audio[:, 0].square()
    since = torch.arange(FRAMES * HEARD) - HEARD * MOMENTS[:, None]
    wanted = torch.where(since >= 0, (-since / 8).exp(), 0.0)
    return MOMENTS[_likeness(loud, wanted).argmax(1)]


def _likeness(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of each row of a [B, N] with each of b [M, N]: [B, M]."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T


def synchrony(video: Tensor, audio: Tensor) -> float:
    """Correlation of when a bounce is seen with when it is heard, over samples."""
    return float(torch.corrcoef(torch.stack([seen(video), heard(audio)]))[0, 1])
