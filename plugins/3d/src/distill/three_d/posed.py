"""Networks of pictures that are told from where they are seen, and the one that ships with this package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from distill.core import Builder, Denoiser, Sampler, checkpoint
from distill.core.errors import RecipeError
from distill.three_d.cameras import Cameras
from distill.three_d.objects import NAMES


def ray_features(cameras: Cameras, bands: int) -> Tensor:
    """Plücker coordinates of the pixels' rays, direction and moment, and their Fourier features [V, 6 (1 + 2n), H, W].

    Light Field Networks (Sitzmann et al. 2021, arXiv:2106.02634, section 3).
    """
    origins, along = cameras.rays()
    rays = torch.cat([along, torch.linalg.cross(origins, along)], -1).permute(0, 3, 1, 2)
    waves = [wave(math.pi * 2**n * rays) for n in range(bands) for wave in (torch.sin, torch.cos)]
    return torch.cat([rays, *waves], 1)


class Posed(nn.Module):
    """A network that gets the rays of its pixels as further channels; without a camera they are zeros.

    Args:
        inner: called as `inner(x, native_time, cond)` with pictures of C + 6 (1 + 2 bands) channels.
        bands: frequencies of the rays' Fourier features.
    """

    def __init__(self, inner: nn.Module, bands: int) -> None:
        super().__init__()
        self.inner, self.bands = inner, bands

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        cameras, channels = Cameras.of(cond, *x.shape[-2:]), 6 * (1 + 2 * self.bands)
        rays = x.new_zeros(len(x), channels, *x.shape[-2:]) if cameras is None else ray_features(cameras, self.bands)
        said: Tensor = self.inner(torch.cat([x, rays.to(x)], 1), t, cond)
        return said[:, : x.shape[1]]


class PosedPictures(Builder):
    """Any denoiser of pictures by label that knows `config`, told the camera of each picture by the rays of its pixels.

    Conditions: `label`, `world_to_camera` and `intrinsics`. Guidance is over the label; the camera is never dropped.
    """

    example: ClassVar[dict[str, Any]] = {
        "config": {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "patch_size": 4},
        "size": (8, 8), "names": ("a", "b"), "bands": 1,
    }  # fmt: skip
    network: str = "dit"
    """The denoiser's name."""
    config: dict[str, Any] = {}
    """Its config; channels, size and number of labels are filled in."""
    size: tuple[PositiveInt, PositiveInt] = (32, 32)
    """Height and width in pixels; they are equal."""
    names: tuple[str, ...] = NAMES
    """What the labels mean."""
    bands: NonNegativeInt = 2
    """Frequencies of the rays' Fourier features."""
    kind: Literal["velocity", "v", "x0", "eps"] = "x0"
    """What the network says."""
    weights: str = ""
    """A safetensors file of weights."""
    steps: PositiveInt = 32
    """Steps of its own sampler."""
    guidance: float = 1.0
    """w of its own sampler."""

    def build(self) -> Denoiser:
        from distill.core.registry import default_registry

        made: Any = default_registry().load("denoiser", self.network)
        inner = made(config={**self.config, **self._channels()}, kind=self.kind, path="flow").build()
        network = Posed(inner.network, self.bands)
        if self.weights:
            checkpoint.fill(network, Path(self.weights), "network.")
        return Denoiser(
            network, inner.path, inner.kind, shape=(3, *self.size), null={"label": len(self.names)},
            taps=tuple(f"inner.{tap}" for tap in inner.taps),
            scalar_sites=tuple(f"inner.{site}" for site in inner.scalar_sites),
        )  # fmt: skip

    def _channels(self) -> dict[str, Any]:
        inward = 3 + 6 * (1 + 2 * self.bands)
        return {
            "in_channels": inward, "out_channels": 3, "sample_size": self.size[0], "norm_num_groups": 1,
            "num_embeds_ada_norm": len(self.names),
        }  # fmt: skip

    def sampler(self) -> Sampler:
        return Sampler(steps=self.steps, guidance=self.guidance)

    def encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Labels of names."""
        if unknown := [prompt for prompt in prompts if prompt not in self.names]:
            raise RecipeError(f"nothing is called '{unknown[0]}' here; names are {', '.join(self.names)}")
        return {"label": torch.tensor([self.names.index(prompt) for prompt in prompts])}


class ViewsTeacher(PosedPictures):
    """A DiT of 2.1 M parameters that draws 32×32 views of eight objects from any side; flow matching, made by
    `recipes/views-teacher.yaml`.
    """

    example: ClassVar[dict[str, Any]] = {}
    config: dict[str, Any] = {"num_attention_heads": 5, "attention_head_dim": 32, "num_layers": 4, "patch_size": 4}
    """Its config; channels, size and number of labels are filled in."""
    guidance: float = 1.5
    """w of its own sampler."""

    def build(self) -> Denoiser:
        weights = self.weights or str(files("distill.three_d") / "weights" / "views-teacher.safetensors")
        return PosedPictures(**self.model_dump(exclude={"weights"}), weights=weights).build()
