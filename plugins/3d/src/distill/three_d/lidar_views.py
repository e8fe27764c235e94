"""Clouds as pictures: range images and bird's-eye views, as lenses and as previews, and the modality of scans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from distill.core import Lens, Modality, Ragged, State
from distill.three_d.lidar_files import write_points
from distill.three_d.points import packed

BORDER = 64
"""Brightness of the line between two pictures."""


# ---------------------------------------------------------------- pictures of clouds


def range_image(
    clouds: State, size: tuple[int, int], elevation: tuple[float, float], azimuth: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Distance of the nearest point in each direction [B, H, W], 0 where there is none, and where there is one.

    Args:
        clouds: points around the sensor, in metres; gradient runs to the nearest of each direction.
        size: rows, the highest elevation first, and columns, the largest azimuth (the left) first.
        elevation: lowest and highest, in degrees.
        azimuth: from and to, in degrees.
    """
    cloud = packed(clouds)
    place, away = cloud.values.detach(), cloud.values.norm(dim=1)
    up = torch.rad2deg(torch.atan2(place[:, 2], place[:, :2].norm(dim=1)))
    round_ = torch.rad2deg(torch.atan2(place[:, 1], place[:, 0]))
    spans = zip((up, round_), (elevation, azimuth), size, strict=True)
    cells = [((high - value) / (high - low) * number).floor().long() for value, (low, high), number in spans]
    inside = (cells[0] >= 0) & (cells[0] < size[0]) & (cells[1] >= 0) & (cells[1] < size[1])
    pixel = ((cloud.owner * size[0] + cells[0]) * size[1] + cells[1])[inside]
    far = away.new_full((len(cloud.lengths) * size[0] * size[1],), math.inf)
    nearest = far.scatter_reduce(0, pixel, away[inside], "amin").view(-1, *size)
    seen = nearest.isfinite()
    return torch.where(seen, nearest, 0.0), seen


def birds_eye(clouds: State, cells: int, side: float, middle: tuple[float, float] | None = None) -> Tensor:
    """Points in each cell of a square seen from above [B, N, N]: x grows upwards, y to the left.

    Each point is shared among the four nearest cells, so that gradient runs to where it lies.

    Args:
        clouds: points in metres.
        cells: N, of a side.
        side: length of the square in metres.
        middle: x and y of the square's middle; None is that of each cloud's own bounding box.
    """
    cloud = packed(clouds)
    flat = cloud.values[:, :2]
    centre = _middles(cloud) if middle is None else flat.new_tensor(middle).expand(len(cloud.lengths), 2)
    place = (0.5 - (flat - centre[cloud.owner]) / side) * cells - 0.5
    low = place.detach().floor()
    picture = flat.new_zeros(len(cloud.lengths) * cells * cells)
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cell = low + flat.new_tensor(corner)
        share = (1 - (place - cell).abs()).clamp_min(0).prod(1)
        inside = ((cell >= 0) & (cell < cells)).all(1)
        pixel = ((cloud.owner * cells + cell[:, 0].long()) * cells + cell[:, 1].long())[inside]
        picture = picture.index_add(0, pixel, share[inside])
    return picture.view(-1, cells, cells)


def _middles(cloud: Ragged) -> Tensor:
    """Middle of each cloud's box [B, 2]."""
    flat = cloud.values.detach()[:, :2]
    place = cloud.owner[:, None].expand_as(flat)
    empty = flat.new_zeros(len(cloud.lengths), 2)
    ends = [empty.scatter_reduce(0, place, flat, way, include_self=False) for way in ("amin", "amax")]
    return (ends[0] + ends[1]) / 2


# ---------------------------------------------------------------- lenses


class RangeImage(Lens):
    """What the sensor sees: nearer directions brighter, [B, 1, H, W] in [-1, 1]; no point is -1.

    Brightness falls with the logarithm of the distance, from 1 at `near` to 0 at `far`.
    """

    takes: ClassVar[str] = "lidar"
    gives: ClassVar[str] = "image"
    rows: PositiveInt = 32
    """H, the highest elevation first."""
    columns: PositiveInt = 256
    """W, from left to right."""
    elevation: tuple[float, float] = (-31.0, 11.0)
    """Lowest and highest, in degrees."""
    azimuth: tuple[float, float] = (-180.0, 180.0)
    """From right to left, in degrees; ahead, along x, is 0."""
    near: PositiveFloat = 1.0
    """Metres that are white."""
    far: PositiveFloat = 80.0
    """Metres that are grey."""

    def __call__(self, state: State) -> Tensor:
        away, seen = range_image(state, (self.rows, self.columns), self.elevation, self.azimuth)
        level = torch.log(torch.where(seen, away, self.near) / self.near) / math.log(self.far / self.near)
        return torch.where(seen, 1 - level.clamp(0, 1), -1.0)[:, None]


class BirdsEye(Lens):
    """What lies where, from above: [B, 1, N, N] in [-1, 1]; no point is -1, `full` points or more are close to 1."""

    takes: ClassVar[str] = "lidar"
    gives: ClassVar[str] = "image"
    cells: PositiveInt = 64
    """N, of a side."""
    side: PositiveFloat = 12.0
    """Length of the square in metres."""
    middle: tuple[float, float] | None = None
    """x and y of its middle; None is that of each cloud."""
    full: PositiveFloat = 2.0
    """Points in a cell that make it bright."""

    def __call__(self, state: State) -> Tensor:
        return (2 * torch.tanh(birds_eye(state, self.cells, self.side, self.middle) / self.full) - 1)[:, None]


# ---------------------------------------------------------------- the modality


class PointClouds(Modality):
    """Clouds of points, ragged or [B, N, 3], in metres around the sensor; written as PLY, shown from above and as the
    sensor sees them."""

    suffix: ClassVar[str] = ".ply"
    most: PositiveInt = 16
    """Clouds on a preview."""
    size: PositiveInt = 96
    """Pixels of a cloud from above, and of its range image from side to side."""

    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        clouds = enumerate(packed(samples).split())
        return [write_points(points, folder / f"{stem}-{index:04d}.ply") for index, points in clouds]

    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        """A PNG with one column a cloud: from above, and below it the range image of its own directions."""
        clouds = packed(samples).split()[: self.most]
        columns = [torch.cat([self._above(cloud), self._line(self.size), self._seen(cloud)]) for cloud in clouds]
        line = torch.full((len(columns[0]), 1), BORDER, dtype=torch.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        _picture(torch.cat([part for column in columns for part in (column, line)][:-1], 1)).save(path)
        return path

    def _line(self, width: int) -> Tensor:
        return torch.full((1, width), BORDER, dtype=torch.uint8)

    def _above(self, cloud: Tensor) -> Tensor:
        flat = cloud[:, :2]
        side = float((flat.amax(0) - flat.amin(0)).max().clamp_min(1e-3)) * 1.05
        return _bytes(BirdsEye(cells=self.size, side=side, full=0.5)(_alone(cloud))[0, 0])

    def _seen(self, cloud: Tensor) -> Tensor:
        up = torch.rad2deg(torch.atan2(cloud[:, 2], cloud[:, :2].norm(dim=1)))
        round_ = torch.rad2deg(torch.atan2(cloud[:, 1], cloud[:, 0]))
        spans = [(float(each.min()) - 0.5, float(each.max()) + 0.5) for each in (up, round_)]
        away = cloud.norm(dim=1)
        near, far = float(away.min()), float(away.max()) * 1.1
        lens = RangeImage(
            rows=self.size // 3, columns=self.size // 2, elevation=spans[0], azimuth=spans[1], near=near, far=far
        )
        return _bytes(lens(_alone(cloud))[0, 0].repeat_interleave(2, 1))


def _alone(cloud: Tensor) -> Ragged:
    return Ragged(cloud, torch.tensor([len(cloud)], device=cloud.device))


def _bytes(picture: Tensor) -> Tensor:
    """[H, W] in [-1, 1] as bytes."""
    return ((picture.detach().clamp(-1, 1) + 1) * 127.5).round().byte().cpu()


def _picture(pixels: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(pixels.contiguous().numpy())
