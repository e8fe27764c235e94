"""What a view tells a teacher about where it is seen from: words of a direction, and landmarks that are drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor
from torch.nn.functional import normalize

from distill.core.options import Options
from distill.three_d.cameras import Cameras

JAW = tuple(
    (math.sin(a), -0.45 - 0.35 * math.cos(a), math.cos(a)) for a in (math.radians(10 * n - 80) for n in range(17))
)
BROWS = tuple((side * x, 0.35, 1.0) for side in (-1, 1) for x in (0.2, 0.35, 0.5))
EYES = tuple((side * x, 0.18, 1.0) for side in (-1, 1) for x in (0.25, 0.45))
NOSE = ((0.0, 0.15, 1.0), (0.0, 0.0, 1.05), (-0.1, -0.1, 1.0), (0.1, -0.1, 1.0))
MOUTH = tuple((x, -0.35, 1.0) for x in (-0.25, -0.1, 0.1, 0.25))
FACE = (*JAW, *BROWS, *EYES, *NOSE, *MOUTH)
"""Directions from a head's middle to its landmarks, the jaw first: a plain face of ours that looks along z."""


class Directions(Options):
    """Conditions of views from the front, a side, the back and from above: numbers, or texts as they are encoded."""

    front: dict[str, Any] = {}
    """Of views from azimuths within `width` of the world's z axis."""
    side: dict[str, Any] = {}
    """Of those between."""
    back: dict[str, Any] = {}
    """Of views within `width` of the opposite."""
    above: dict[str, Any] = {}
    """Of views from higher than `height`; those of the azimuth if there are none."""
    width: PositiveFloat = 45.0
    """Degrees to each side."""
    height: PositiveFloat = 60.0
    """Degrees above the horizon."""

    def named(self, cameras: Cameras) -> list[str]:
        """The direction of each camera."""
        places = normalize(cameras.places, dim=-1)
        high = places[:, 1].asin().rad2deg() > self.height
        away = torch.atan2(places[:, 0], places[:, 2]).rad2deg().abs()
        around = ["front" if a <= self.width else "back" if a >= 180 - self.width else "side" for a in away.tolist()]
        return ["above" if up and self.above else name for up, name in zip(high.tolist(), around, strict=True)]

    def told(self, cameras: Cameras) -> dict[str, Tensor]:
        """The conditions of each camera [V, ...]; every direction that is met has to have them."""
        each = [getattr(self, name) for name in self.named(cameras)]
        names = each[0].keys() if each else ()
        return {name: torch.stack([torch.as_tensor(said[name]) for said in each]) for name in names}


class Landmarks(Options):
    """Landmarks on a subject's surface, drawn as dots: a contour that is always seen, and points that turn away."""

    path: Path | None = None
    """File of points that trimesh or numpy reads, the contour first, as in the 68 points of faces; ours if None."""
    contour: NonNegativeInt = len(JAW)
    """How many of them are the contour."""
    size: PositiveFloat = 0.6
    """Radius of the subject, for the points that are ours."""
    dot: PositiveFloat = 0.02
    """Standard deviation of a dot, as a share of a picture's height."""
    condition: str = "landmarks"
    """Name of the condition."""

    def points(self) -> Tensor:
        """Places [K, 3]."""
        if self.path is None:
            return self.size * normalize(torch.tensor(FACE), dim=-1)
        from distill.three_d.meshes import load_points

        return load_points(self.path)[0]

    def drawn(self, cameras: Cameras) -> Tensor:
        """The dots that each camera sees, from 0 to 1: [V, 1, H, W]."""
        points = self.points().to(cameras.places)
        eye = torch.einsum("vij,kj->vki", cameras.world_to_camera[:, :3, :3], points)
        screen = torch.einsum("vij,vkj->vki", cameras.intrinsics, eye + cameras.world_to_camera[:, None, :3, 3])
        towards = ((cameras.places[:, None] - points) * normalize(points, dim=-1)).sum(-1) > 0
        seen = towards | (torch.arange(len(points), device=points.device) < self.contour)
        pixels = _centres(cameras)
        gap = (screen[..., :2] / screen[..., 2:])[:, :, None, None] - pixels
        dots = torch.exp(-gap.square().sum(-1) / (2 * (self.dot * cameras.height) ** 2))
        return (dots * seen[:, :, None, None]).amax(1, keepdim=True)


def _centres(cameras: Cameras) -> Tensor:
    """Centres of pixels (x, y): [H, W, 2]."""
    y, x = torch.meshgrid(torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij")
    return torch.stack([x, y], -1).to(cameras.intrinsics)
