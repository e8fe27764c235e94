"""Cameras: where they stand, what they see, and samplers that put them around or before a scene.

A camera looks along its z axis, x to the right and y down, as in OpenCV; the world's y axis points up.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn.functional import normalize

from distill.core import Rng
from distill.core.errors import DataError
from distill.core.options import Options

Range = tuple[float, float]
VIEW, LENS = "world_to_camera", "intrinsics"
"""Names of a camera's tensors among the fields of states and conditions."""


@dataclass(frozen=True)
class Cameras:
    """V cameras with pictures of one size.

    Attributes:
        world_to_camera: rigid motions [V, 4, 4].
        intrinsics: focal lengths and centre in pixels [V, 3, 3].
        height: pixels from top to bottom.
        width: pixels from left to right.
    """

    world_to_camera: Tensor
    intrinsics: Tensor
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.world_to_camera)

    def __getitem__(self, rows: Any) -> Cameras:
        return Cameras(self.world_to_camera[rows], self.intrinsics[rows], self.height, self.width)

    @property
    def places(self) -> Tensor:
        """Centres in the world [V, 3]."""
        rotation, shift = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3]
        return -(rotation.transpose(1, 2) @ shift[..., None])[..., 0]

    def to(self, device: Any) -> Cameras:
        """The cameras on a device, or in a dtype."""
        return Cameras(self.world_to_camera.to(device), self.intrinsics.to(device), self.height, self.width)

    def resized(self, height: int, width: int) -> Cameras:
        """The same views in pictures of another size."""
        scale = self.intrinsics.new_tensor([[width / self.width], [height / self.height], [1.0]])
        return Cameras(self.world_to_camera, self.intrinsics * scale, height, width)

    def fields(self) -> dict[str, Tensor]:
        """The cameras as fields of a state or of conditions: intrinsics are those of pictures of one by one."""
        return {VIEW: self.world_to_camera, LENS: self.resized(1, 1).intrinsics}

    @classmethod
    def of(cls, fields: Mapping[str, Any], height: int, width: int) -> Cameras | None:
        """The cameras of such fields, for pictures of this size; None where there are none."""
        if VIEW not in fields or LENS not in fields:
            return None
        return cls(fields[VIEW], fields[LENS], 1, 1).resized(height, width)

    def rays(self) -> tuple[Tensor, Tensor]:
        """Origins and unit directions [V, H, W, 3] through the centres of pixels."""
        y, x = torch.meshgrid(
            torch.arange(self.height).to(self.intrinsics) + 0.5, torch.arange(self.width).to(self.intrinsics) + 0.5,
            indexing="ij",
        )  # fmt: skip
        pixels = torch.stack([x, y, torch.ones_like(x)], -1)
        within = torch.einsum("vij,hwj->vhwi", self.intrinsics.inverse(), pixels)
        along = normalize(torch.einsum("vji,vhwj->vhwi", self.world_to_camera[:, :3, :3], within), dim=-1)
        return self.places[:, None, None].expand_as(along), along

    def outside(self, low: Tensor, high: Tensor, what: str) -> Cameras:
        """Themselves, if none stands within a box.

        Raises:
            DataError: one does.
        """
        inside = ((self.places > low) & (self.places < high)).all(1)
        if bool(inside.any()):
            place = ", ".join(f"{value:.2f}" for value in self.places[inside][0].tolist())
            raise DataError(
                f"camera {int(inside.nonzero()[0])} at ({place}) stands inside {what}, which would hide all else: "
                "choose a larger radius"
            )
        return self


def look_at(places: Tensor, targets: Tensor, up: Tensor | None = None) -> Tensor:
    """Rigid motions [V, 4, 4] of cameras at places [V, 3] that look at targets [V, 3]."""
    up = places.new_tensor([0.0, 1.0, 0.0]) if up is None else up
    forward = normalize(targets - places, dim=-1)
    sideways = torch.linalg.cross(forward, up.expand_as(forward))
    level = sideways.norm(dim=-1, keepdim=True) < 1e-6  # it looks straight up or down
    right = normalize(torch.where(level, places.new_tensor([1.0, 0.0, 0.0]).expand_as(sideways), sideways), dim=-1)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward], 1)
    motion = torch.eye(4).to(places).repeat(len(places), 1, 1)
    motion[:, :3, :3] = rotation
    motion[:, :3, 3] = -(rotation @ places[..., None])[..., 0]
    return motion


def pinholes(motions: Tensor, view: float, height: int, width: int) -> Cameras:
    """Cameras with square pixels that see `view` degrees from top to bottom."""
    focal = height / (2 * math.tan(math.radians(view) / 2))
    one = motions.new_tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Cameras(motions, one.expand(len(motions), 3, 3), height, width)


def on_sphere(azimuth: Tensor, elevation: Tensor, radius: Tensor) -> Tensor:
    """Places [V, 3] from angles in degrees; azimuth 0 is before the scene, on the world's z axis."""
    azimuth, elevation = azimuth.deg2rad(), elevation.deg2rad()
    flat = radius * elevation.cos()
    return torch.stack([flat * azimuth.sin(), radius * elevation.sin(), flat * azimuth.cos()], -1)


class CameraSampler(Options):
    """Where cameras stand."""

    view: PositiveFloat = 40.0
    """Degrees that a picture spans from top to bottom."""

    @abstractmethod
    def draw(self, count: int, height: int, width: int, rng: Rng, stream: str = "camera") -> Cameras:
        """Some cameras, drawn at random."""

    @abstractmethod
    def even(self, count: int, height: int, width: int) -> Cameras:
        """The same number, evenly spaced: for previews, and for views that are held out."""


class Orbit(CameraSampler):
    """Cameras on a sphere around the origin that look at it."""

    name: Literal["orbit"] = "orbit"
    radius: Range = (3.0, 3.0)
    """Distances between which cameras stand."""
    elevation: Range = (-10.0, 45.0)
    """Degrees above the horizon; drawn evenly over the sphere's surface."""
    azimuth: Range = (-180.0, 180.0)
    """Degrees to the right of the front."""
    jitter: float = 0.0
    """Standard deviation of the point that is looked at."""

    def draw(self, count: int, height: int, width: int, rng: Rng, stream: str = "camera") -> Cameras:
        u = rng.uniform(count, 3, stream=stream)
        low, high = (math.sin(math.radians(value)) for value in self.elevation)
        elevation = (low + (high - low) * u[:, 1]).clamp(-1, 1).asin().rad2deg()
        places = on_sphere(_within(self.azimuth, u[:, 0]), elevation, _within(self.radius, u[:, 2]))
        targets = self.jitter * rng.normal(count, 3, stream=f"{stream}/jitter") if self.jitter else 0 * places
        return pinholes(look_at(places, targets), self.view, height, width)

    def even(self, count: int, height: int, width: int) -> Cameras:
        share = torch.arange(count) / count
        middle = torch.full((count,), 0.5)
        places = on_sphere(_within(self.azimuth, share), _within(self.elevation, middle), _within(self.radius, middle))
        return pinholes(look_at(places, torch.zeros_like(places)), self.view, height, width)


class Forward(CameraSampler):
    """Cameras side by side before the scene that look at one plane: the views of a room, or of a portrait."""

    name: Literal["forward"] = "forward"
    distance: PositiveFloat = 3.0
    """How far before the origin they stand."""
    spread: tuple[float, float] = (0.5, 0.3)
    """Largest distances to the right and upwards."""
    focus: PositiveFloat = 3.0
    """How far away the point lies that all look at."""

    def draw(self, count: int, height: int, width: int, rng: Rng, stream: str = "camera") -> Cameras:
        return self._at(2 * rng.uniform(count, 2, stream=stream) - 1, height, width)

    def even(self, count: int, height: int, width: int) -> Cameras:
        turn = 2 * math.pi * torch.arange(count) / count
        return self._at(torch.stack([turn.sin(), turn.cos()], 1), height, width)

    def _at(self, share: Tensor, height: int, width: int) -> Cameras:
        places = torch.cat([share * share.new_tensor(self.spread), torch.full_like(share[:, :1], self.distance)], 1)
        targets = torch.zeros_like(places)
        targets[:, 2] = self.distance - self.focus
        return pinholes(look_at(places, targets), self.view, height, width)


Sampled = Annotated[Orbit | Forward, Field(discriminator="name")]
"""A sampler of cameras, by name."""


def _within(span: Range, share: Tensor) -> Tensor:
    return span[0] + (span[1] - span[0]) * share
