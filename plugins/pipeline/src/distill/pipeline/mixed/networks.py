"""A network of several modalities in one trunk."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from distill.core import Builder, Denoiser, Modality
from distill.core.paths import PATHS, Joint
from distill.methods.networks import TimeEmbedding
from distill.pipeline.mixed.exact import PathName, film_of


class Trunk(nn.Module):
    """A residual perceptron on all modalities, and on the time of each: states {name: [B, *shape]}."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], spans: Mapping[str, float], options: JointMLP) -> None:
        super().__init__()
        width, sizes = options.width, {name: prod(shape) for name, shape in shapes.items()}
        self.inlets = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})
        self.times = nn.ModuleDict({name: TimeEmbedding(width, 2 / span) for name, span in spans.items()})
        self.label = nn.Embedding(options.classes + 1, width) if options.classes else None
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(options.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.outlets = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})

    def forward(self, x: Mapping[str, Tensor], t: Mapping[str, Tensor], cond: Mapping[str, Any]) -> dict[str, Tensor]:
        h = torch.stack([inlet(x[name].flatten(1)) for name, inlet in self.inlets.items()]).sum(0)
        h = h + torch.stack([embed(t[name]) for name, embed in self.times.items()]).sum(0)
        h = h if self.label is None else h + self.label(cond["label"])
        for layer in self.hidden:
            h = h + layer(h)
        h = self.norm(h)
        return {name: outlet(h).view_as(x[name]) for name, outlet in self.outlets.items()}


class JointMLP(Builder):
    """A perceptron denoiser of joint states: one trunk, and a path and a time of its own for each modality."""

    example: ClassVar[dict[str, Any]] = {"shapes": {"video": (2, 1, 2, 2), "audio": (1, 8)}, "width": 16, "classes": 3}
    shapes: dict[str, tuple[PositiveInt, ...]]
    """Shape of a sample of each modality."""
    paths: dict[str, PathName] = {}
    """Forward process of each modality; flow for those that are left out."""
    width: PositiveInt = 192
    """Units of a layer."""
    depth: PositiveInt = 3
    """Residual layers."""
    classes: NonNegativeInt = 0
    """Class labels; 0 is none. The label `classes` itself is the null condition."""
    kind: Literal["x0", "eps", "v", "velocity"] = "x0"
    """What the network says."""

    def build(self) -> Denoiser:
        path = Joint(paths={name: PATHS[self.paths.get(name, "flow")]() for name in self.shapes})
        spans = {
            name: abs(float(each.native(torch.tensor(each.t_max)) - each.native(torch.tensor(each.t_min))))
            for name, each in path.paths.items()
        }
        null = {"label": self.classes} if self.classes else None
        taps = tuple(f"hidden.{index}" for index in range(self.depth))
        return Denoiser(Trunk(self.shapes, spans, self), path, self.kind, shape=self.shapes, null=null, taps=taps)

    def modality(self) -> Modality | None:
        return film_of(set(self.shapes))
