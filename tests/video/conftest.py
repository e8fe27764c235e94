"""Denoisers with something to say: what a network starts with at zero would hide what comes before it."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from distill.video.networks import VideoDiT
from distill.video.wrapped import LTX, CogVideoX, Wan

torch.set_num_threads(1)

KINDS = {"video-dit": VideoDiT, "wan": Wan, "ltx-video": LTX, "cogvideox": CogVideoX}


@cache
def _spoken(name):
    """The example of a denoiser, with weights drawn at random."""
    kind, draw = KINDS[name], torch.Generator().manual_seed(0)
    denoiser = kind(**kind.example).build().eval()
    with torch.no_grad():
        for weight in denoiser.parameters():
            scale = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.3
            weight.copy_(torch.randn(weight.shape, generator=draw) * scale)
    return denoiser


@pytest.fixture(scope="session")
def spoken():
    """Gets a denoiser by its name; whoever changes its reach changes it for all, and says which one it wants."""
    return _spoken


@pytest.fixture(params=KINDS)
def name(request):
    """Each denoiser in turn."""
    return request.param


class Clip:
    """States, times and conditions for a denoiser, and parts of them."""

    def __init__(self, denoiser, frames, size=2, seed=0):
        draw = torch.Generator().manual_seed(seed)
        self.x = torch.randn(size, frames, *denoiser.shape[1:], generator=draw)
        self.t = torch.rand(size, frames, generator=draw)
        null = denoiser.example(size)[2]
        self.cond = {k: v if k == "label" else torch.randn(v.shape, generator=draw) for k, v in null.items()}
        if "audio" in null:
            self.cond["audio"] = torch.randn(size, frames, null["audio"].shape[-1], generator=draw)

    def part(self, start, stop):
        """Of some frames."""
        heard = {"audio": self.cond["audio"][:, start:stop]} if "audio" in self.cond else {}
        return self.x[:, start:stop], self.t[:, start:stop], {**self.cond, **heard}


@pytest.fixture(scope="session")
def clip():
    """Makes clips."""
    return Clip
