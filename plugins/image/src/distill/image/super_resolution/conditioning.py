"""A low-resolution picture for networks that know none: an adapter beside the network, of ControlNet's type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from distill.core import Denoiser, DistillError, Roles, Transform
from distill.methods.networks import enclose, switched_on


class Encoder(nn.Module):
    """Pictures [B, C, H, W] to maps [B, width, H/4, W/4], and of those what is added at each site: 0 at first."""

    def __init__(self, channels: int, width: int, sites: Mapping[str, int]) -> None:
        super().__init__()
        self.inlet = nn.Conv2d(channels, width, 5, stride=2, padding=2)
        self.reduce = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in sites)
        self.outlets = nn.ModuleList(nn.Conv2d(width, channels, 1) for channels in sites.values())
        self.names = list(sites)
        for outlet in self.outlets:
            nn.init.zeros_(outlet.weight)  # type: ignore[arg-type]
            nn.init.zeros_(outlet.bias)  # type: ignore[arg-type]

    def forward(self, low: Tensor) -> dict[str, Tensor]:
        h, found = silu(self.reduce(silu(self.inlet(low)))), {}
        for name, layer, outlet in zip(self.names, self.layers, self.outlets, strict=True):
            h = h + silu(layer(h))
            found[name] = outlet(h)
        return found


def added(feature: Tensor, extra: Tensor) -> Tensor:
    """A feature, maps [B, C, h, w] or tokens [B, h·w, C] of a picture's proportions, and maps of another size."""
    if feature.ndim == 4:
        return feature + interpolate(extra, feature.shape[2:], mode="bilinear", antialias=True)
    height = round((feature.shape[1] * extra.shape[2] / extra.shape[3]) ** 0.5)
    if not height or feature.shape[1] % height:
        raise DistillError(f"{feature.shape[1]} tokens are no picture of {extra.shape[3]}:{extra.shape[2]}")
    sized = interpolate(extra, (height, feature.shape[1] // height), mode="bilinear", antialias=True)
    return feature + sized.flatten(2).transpose(1, 2)


class Adapted(nn.Module):
    """A network whose features at some sites are moved by what an encoder makes of a condition, while that is on."""

    def __init__(self, inner: nn.Module, encoder: Encoder, condition: str) -> None:
        super().__init__()
        self.inner, self.encoder, self.condition, self.on = inner, encoder, condition, False

    def forward(self, x: Any, t: Any, cond: Mapping[str, Any], **options: Any) -> Any:
        rest = {name: value for name, value in cond.items() if name != self.condition}
        if not self.on or self.condition not in cond:
            return self.inner(x, t, rest, **options)
        low = cond[self.condition].to(x.dtype)
        extras = self.encoder(low.expand(len(x), -1, *x.shape[2:]) if low.shape[2:] == (1, 1) else low)
        handles = [
            self.inner.get_submodule(site).register_forward_hook(_adding(extra)) for site, extra in extras.items()
        ]
        try:
            return self.inner(x, t, rest, **options)
        finally:
            for handle in handles:
                handle.remove()


def _adding(extra: Tensor) -> Any:
    def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (added(output[0], extra), *output[1:])
        return added(output, extra)

    return hook


class LowAdapter(Transform):
    """Give a network a low-resolution picture by zero convolutions at some of its sites (ControlNet: Zhang et al. 2023,
    arXiv:2302.05543), with a small encoder where ControlNet copies half the network.

    The role owns the adapter alone; other roles that hold the module answer as before, bit for bit.
    """

    conformance: ClassVar[dict[str, str]] = {"toy/transform": "the toy's states are no pictures"}
    sites: tuple[str, ...] = ()
    """Parts of the network whose outputs, maps or tokens, are moved; its taps if empty."""
    width: PositiveInt = 48
    """Channels of the encoder."""
    channels: PositiveInt = 3
    """Channels of the condition."""
    condition: str = "low"
    """Its name."""

    def apply(self, roles: Roles, name: str) -> None:
        role = roles[name]
        denoiser = role.denoiser
        sites = self.sites or denoiser.taps
        if not sites:
            raise DistillError(f"role '{name}' has no taps: name 'sites' whose outputs the adapter moves")
        adapted = Adapted(
            denoiser.network, Encoder(self.channels, self.width, self._widths(denoiser, sites)), self.condition
        )
        adapted.to(next(denoiser.parameters()).device)
        enclose(denoiser, adapted)
        denoiser.null = {**denoiser.null, self.condition: torch.zeros(self.channels, 1, 1)}
        role.scope, role.own = partial(switched_on, adapted, role.scope), dict(adapted.encoder.named_parameters())

    @torch.no_grad()
    def _widths(self, denoiser: Denoiser, sites: tuple[str, ...]) -> dict[str, int]:
        x, t, cond = denoiser.example()
        found = denoiser.predict(x, t, cond, taps=sites).features
        return {site: value.shape[1] if value.ndim == 4 else value.shape[2] for site, value in found.items()}
