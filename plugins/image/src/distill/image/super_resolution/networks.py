"""A compact network for super-resolution in pixels, of any size, that is given the low-resolution picture beside x."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, pixel_shuffle, pixel_unshuffle, silu

from distill.core import Builder, Denoiser, Modality, Roles, Sampler, State, checkpoint
from distill.core.cache import Cache
from distill.core.paths import PATHS, TINY, GaussianPath
from distill.core.tree import combine
from distill.image.super_resolution.paths import ResidualShift
from distill.methods.networks import FeatureHeads, TimeEmbedding


class Block(nn.Module):
    """Depthwise convolution and a perceptron in each place, scaled, shifted and gated by the time: [B, C, h, w].

    Which channels are spoken of depends on no other place, so that a picture may be cut into tiles.
    """

    def __init__(self, width: int, kernel: int, expand: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.inlet = nn.Conv2d(width, expand * width, 1)
        self.outlet = nn.Conv2d(expand * width, width, 1)
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, moment: Tensor) -> Tensor:
        scale, shift, gate = self.modulation(moment)[:, :, None, None].chunk(3, 1)
        inner = self.spatial(h)
        inner = inner * torch.rsqrt(inner.square().mean(1, keepdim=True) + 1e-6)
        inner = inner * (1 + scale) + shift
        out: Tensor = h + (1 + gate) * self.outlet(silu(self.inlet(inner)))
        return out


class Restorer(nn.Module):
    """States [B, C, H, W] and the condition `low` [B, C, H, W] → [B, C, H, W]; H and W are any numbers.

    Args:
        channels: of the state.
        given: of the condition, 0 for a network that knows none.
        factor: pixels a side of one place; a place is all that the blocks look at.
    """

    def __init__(
        self, channels: int, given: int, factor: int, width: int, blocks: int, kernel: int, expand: int,
        time_scale: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.given, self.factor = given, factor
        self.time_embedding = TimeEmbedding(width, time_scale)
        self.inlet = nn.Conv2d((channels + given) * factor**2, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, kernel, expand) for _ in range(blocks))
        self.outlet = nn.Conv2d(width, channels * factor**2, 3, padding=1)
        for block in self.blocks:
            nn.init.normal_(block.outlet.weight, std=0.02 / blocks**0.5)  # type: ignore[arg-type, union-attr]
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        height, width = x.shape[2:]
        h = self.enter(x, cond.get("low"))
        moment = silu(self.time_embedding(t))
        for block in self.blocks:
            h = block(h, moment)
        return pixel_shuffle(self.outlet(h), self.factor)[:, :, :height, :width]

    def enter(self, x: Tensor, low: Tensor | None) -> Tensor:
        """What the first block gets."""
        parts = [x]
        if self.given:
            low = x.new_zeros(len(x), self.given, *x.shape[2:]) if low is None else low
            parts.append(low.to(x.dtype).expand(len(x), -1, *x.shape[2:]))
        joined = torch.cat(parts, 1)
        odd = [-side % self.factor for side in joined.shape[2:]]
        joined = pad(joined, (0, odd[1], 0, odd[0]), mode="replicate") if any(odd) else joined
        out: Tensor = self.inlet(pixel_unshuffle(joined, self.factor))
        return out


class Scaled(Denoiser):
    """A denoiser whose network gets and says values of variance 1: EDM's preconditioning (Karras et al. 2022, table 1)
    on a path with any α, `x0 = α σ_d² n² x + σ σ_d n F(n x)` with `n² = 1 / (α² σ_d² + σ²)`.
    """

    def __init__(self, network: nn.Module, path: GaussianPath, kind: str, spread: float, **options: Any) -> None:
        super().__init__(network, path, kind, **options)
        self.spread = spread

    def _call(self, x: State, t: Any, cond: dict[str, Any], cache: Cache | None) -> tuple[Any, Cache | None]:
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        norm = ((alpha * self.spread) ** 2 + sigma**2).clamp_min(TINY).rsqrt()
        said = self.network(combine((norm, x)), self.path.native(t), cond)
        keep, out = alpha * self.spread**2 * norm**2, sigma * self.spread * norm
        return combine((keep, x), (out, said)), None


class RestorerDenoiser(Builder):
    """A trunk of depthwise blocks on places of 4×4 pixels, given the state beside the low-resolution picture."""

    example: ClassVar[dict[str, Any]] = {"width": 8, "blocks": 2, "size": 8}
    channels: PositiveInt = 3
    """Channels of the state."""
    given: int = 3
    """Channels of the condition `low`; 0 makes a network that knows none (adapters give it one)."""
    size: PositiveInt = 48
    """Side of a state where nothing else is said; the network takes any."""
    factor: PositiveInt = 4
    """Pixels a side of one place; 1 for latents."""
    width: PositiveInt = 80
    """Channels of the trunk."""
    blocks: PositiveInt = 8
    """Blocks of the trunk."""
    kernel: PositiveInt = 3
    """Side of the depthwise kernels, odd."""
    expand: PositiveInt = 2
    """Units of the perceptrons, in widths."""
    sigma_data: float = 0.12
    """Standard deviation of the states; residuals of photographs at ratio 4 have 0.12."""
    path: Literal["residual-shift", "flow", "cosine", "karras"] = "residual-shift"
    """Forward process."""
    path_options: dict[str, float] = {}
    """Options of the path, such as kappa."""
    weights: str = ""
    """A safetensors file of weights."""
    steps: PositiveInt = 15
    """Steps of its own sampler."""

    def build(self) -> Denoiser:
        path = self._path()
        span = float(path.native(torch.tensor(path.t_max)) - path.native(torch.tensor(path.t_min)))
        network = Restorer(
            self.channels, self.given, self.factor, self.width, self.blocks, self.kernel, self.expand,
            2 / span,
        )  # fmt: skip
        if self.weights:
            checkpoint.fill(network, Path(self.weights), "network.")
        return Scaled(
            network, path, "x0", self.sigma_data, shape=(self.channels, self.size, self.size),
            null={"low": torch.zeros(self.given, 1, 1)} if self.given else None,
            taps=tuple(f"blocks.{n}" for n in (self.blocks // 3, 2 * self.blocks // 3, self.blocks - 1)),
            scalar_sites=("time_embedding",),
        )  # fmt: skip

    def _path(self) -> GaussianPath:
        return SHIFTING[self.path](**self.path_options)

    def sampler(self) -> Sampler:
        return Sampler(steps=self.steps)

    def modality(self) -> Modality | None:
        from distill.image.super_resolution.modality import Restored

        return Restored() if (self.channels, self.given) == (3, 3) else None


SHIFTING: dict[str, type[GaussianPath]] = {"residual-shift": ResidualShift, **PATHS}


class Layers(nn.Module):
    """Maps of tapped layers, each by a 1×1 convolution, in the size and the channels of the last one, and that one."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        *self.names, self.last = widths
        self.layers = nn.ModuleList(nn.Conv2d(widths[name], widths[self.last], 1) for name in self.names)

    def forward(self, features: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        last = features[self.last]
        maps = [layer(features[name]) for name, layer in zip(self.names, self.layers, strict=True)]
        return [each if each.shape == last.shape else interpolate(each, last.shape[2:]) for each in maps], last


class LayerHeads(FeatureHeads):
    """A 1×1 convolution for each layer that another role taps, to the channels of the last one; features are maps."""

    features: str = "student"
    """Role whose layers are looked at."""

    def build(self, roles: Roles) -> nn.Module:
        return Layers(self.widths(roles))
