"""A pipeline's network as the core calls it, on its own path or as a TrigFlow network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill.core import Denoiser, DistillError, GaussianPath
from distill.core.paths import Discrete, Flow, Trigonometric
from distill.core.prediction import Prediction
from distill.core.tree import combine


@dataclass(frozen=True)
class Setting:
    """What a family's network is told besides state, time and conditions.

    Attributes:
        guidance: the weight that a guidance-distilled network takes as an input.
        factor: pixels per side of a latent.
    """

    guidance: float = 1.0
    factor: int = 8


class Asked(nn.Module):
    """A family's network called as `(x, native_time, cond)`; `net` is the network itself, so taps read naturally."""

    def __init__(self, net: nn.Module, family: Callable[..., Tensor], setting: Setting) -> None:
        super().__init__()
        self.net, self.family, self.setting = net, family, setting

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        return self.family(self.net, x, t, cond, self.setting)


class Retimed(Asked):
    """The same network on a TrigFlow path, by an exact change of time and scale (Lu & Song 2024, arXiv:2410.11081).

    A state at angle t is the source's state at the time of equal α/σ, but for a factor; the output is dx/dt.
    """

    def __init__(self, asked: Asked, source: GaussianPath, kind: str, path: Trigonometric) -> None:
        super().__init__(asked.net, asked.family, asked.setting)
        self.source, self.kind, self.path = source, kind, path

    def time(self, t: Tensor) -> Tensor:
        """The source's time at angle t."""
        return TIMES[type(self.source)](self.source, self.path.alpha(t), self.path.sigma(t))

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        s = self.time(t)
        ours, theirs = (
            path.alpha(u).square() + path.sigma(u).square() for path, u in ((self.path, t), (self.source, s))
        )
        x_s = combine(((theirs / ours).sqrt(), x))
        said = Prediction(self.kind, super().forward(x_s, self.source.native(s), cond), x_s, s, self.source)
        d_alpha, d_sigma = self.path.slopes(t)
        velocity: Tensor = combine((d_alpha, said.x0), (d_sigma, said.eps))
        return velocity


def _flow_time(path: Any, alpha: Tensor, sigma: Tensor) -> Tensor:
    return sigma / (alpha + sigma)


def _discrete_time(path: Discrete, alpha: Tensor, sigma: Tensor) -> Tensor:
    level = (alpha.square() / (alpha.square() + sigma.square())).clamp_min(1e-30).log() / 2
    table = torch.tensor((1.0, *path.alphas_cumprod), dtype=level.dtype, device=level.device).log() / 2
    last = len(table) - 1
    low = (torch.searchsorted(-table, -level.detach(), right=True) - 1).clamp(0, last - 1)
    place = low + (level - table[low]) / (table[low + 1] - table[low])
    return place.clamp(0, last) / last


TIMES: dict[type, Callable[..., Tensor]] = {Flow: _flow_time, Discrete: _discrete_time}


def retimed(denoiser: Denoiser, path: Trigonometric) -> Denoiser:
    """A denoiser of a pipeline's network on a TrigFlow path; its null conditions, taps and sites are kept."""
    if type(denoiser.path) not in TIMES or not isinstance(denoiser.network, Asked):
        raise DistillError(f"a network on a path of {type(denoiser.path).__name__} cannot be asked by angles")
    network = Retimed(denoiser.network, denoiser.path, denoiser.kind, path)
    return Denoiser(
        network, path, "velocity", shape=denoiser.shape, null=denoiser.null, taps=denoiser.taps,
        scalar_sites=denoiser.scalar_sites,
    )  # fmt: skip
