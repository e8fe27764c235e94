"""LiDAR scans in windows: the complete cloud of a sector, and what a sparse scan sees of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource, Ragged
from distill.core.errors import DataError
from distill.three_d.lidar_files import READERS, read_scan

SHIPPED = Path(__file__).parent / "data" / "scans.safetensors"
UNIT = 0.005
"""Metres per step of the shipped coordinates."""
TRIES = 500
"""Draws of a window before a source gives up."""


@dataclass(frozen=True)
class Scan:
    """A cloud [N, 3] around the sensor, and which of its points the sensor itself saw from there [N]."""

    points: Tensor
    own: Tensor

    def azimuth(self) -> Tensor:
        """Direction of each point in degrees [N]."""
        return torch.rad2deg(torch.atan2(self.points[:, 1], self.points[:, 0]))

    def beams(self, count: int) -> Tensor:
        """Which of so many evenly spaced beams each point belongs to, by its elevation: [N], the lowest 0."""
        level = torch.atan2(self.points[:, 2], self.points[:, :2].norm(dim=1))
        low, high = level[self.own].aminmax()
        return ((level - low) / (high - low).clamp_min(1e-6) * (count - 1)).round().long()


@cache
def shipped() -> Scan:
    """Two scans of one place by a sensor of 32 beams, in the frame of the first, thinned to 10 cm within 40 m.

    They are those of small_gicp (Koide 2024, MIT licence; the notice stands beside the file).
    """
    from safetensors.torch import load_file

    parts = load_file(SHIPPED)
    first, second = (parts[name].float() * UNIT for name in ("first", "second"))
    return Scan(torch.cat([first, second]), torch.arange(len(first) + len(second)) < len(first))


def thinned(points: Tensor, voxel: float) -> Tensor:
    """The first point in each cube of this side; all of them for 0."""
    if not voxel:
        return points
    cells, place = torch.unique(torch.floor(points / voxel).long(), dim=0, return_inverse=True)
    first = torch.full((len(cells),), len(points)).scatter_reduce(0, place, torch.arange(len(points)), "amin")
    return points[first.sort().values]


class Windows(Dataset[dict[str, Any]]):
    """Windows of scans, made when they are asked for; record k depends on the options, the seed and k alone."""

    def __init__(self, source: Lidar, scans: list[Scan], split: str) -> None:
        self.source, self.scans, self.split = source, scans, split
        self.azimuths = [scan.azimuth() for scan in scans]
        self.ranges = [scan.points[:, :2].norm(dim=1) for scan in scans]
        self.sparse = [scan.own & (scan.beams(source.beams) % source.every == 0) for scan in scans]

    def __len__(self) -> int:
        return self.source.count

    def __getitem__(self, k: int) -> dict[str, Any]:
        draw = torch.Generator().manual_seed((self.source.seed * 0x9E3779B1 + int(k)) % 2**63)
        for number, middle, start in self._places(draw):
            inside = self._inside(number, middle, start)
            whole = thinned(self.scans[number].points[inside], self.source.voxel)
            seen = self.scans[number].points[inside & self.sparse[number]]
            if len(whole) >= self.source.least and len(seen) >= self.source.least // 4:
                return self._record(whole, seen, middle, draw)
        raise DataError(
            f"no window of {self.source.least} points was found in {TRIES} draws of split '{self.split}': "
            "widen 'sector' or 'depth', or lower 'least'"
        )

    def _places(self, draw: torch.Generator) -> Iterator[tuple[int, float, float]]:
        """Scan, azimuth of the middle and nearest range of windows, within the split's part of the circle."""
        source, (low, high) = self.source, self.source.held_out
        if self.split == "train":
            low, high = high, low + 360
        for _ in range(TRIES):
            u = torch.rand(3, generator=draw, dtype=torch.float64).tolist()
            middle = low + source.sector / 2 + u[1] * (high - low - source.sector)
            start = source.near + u[2] * max(0.0, source.far - source.near - source.depth)
            yield int(u[0] * len(self.scans)), middle, start

    def _inside(self, number: int, middle: float, start: float) -> Tensor:
        apart = ((self.azimuths[number] - middle + 180) % 360 - 180).abs()
        away = self.ranges[number]
        return (apart < self.source.sector / 2) & (away >= start) & (away < start + self.source.depth)

    def _record(self, whole: Tensor, seen: Tensor, middle: float, draw: torch.Generator) -> dict[str, Any]:
        """The window turned so that its middle lies ahead, as ragged samples of one."""
        turn = math.radians(middle)
        cos, sin = math.cos(turn), math.sin(turn)
        ahead = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        parts = []
        for points, most in ((whole, self.source.points), (seen, self.source.scan_points)):
            kept = torch.randperm(len(points), generator=draw)[:most]
            turned = points[kept.sort().values] @ ahead
            parts.append(Ragged(turned, torch.tensor([len(turned)])))
        return {"x": parts[0], "scan": parts[1], "truth": parts[0]}


class Lidar(DataSource):
    """Windows of LiDAR scans, ragged: a sector of the circle between two ranges, turned to lie ahead on the x axis.

    The state is the complete cloud [n, 3] in metres around the sensor; the condition `scan` is what every n-th beam
    sees of it, and `truth` the complete cloud again, which metrics of completions compare with. Without a folder these
    are two scans of one place that ship with this package, taken together; of a folder (.ply, .pcd, .bin, .npy) each
    file is a complete cloud. One part of the circle belongs to the test split.
    """

    folder: Path | None = None
    """Where the scans are, one a file; None takes those that ship with this package."""
    columns: PositiveInt = 4
    """Numbers per point of .bin files: 4 in KITTI, 5 in nuScenes."""
    drop_invalid: bool = False
    """Leave out points that are no numbers, instead of refusing their file."""
    sector: float = Field(24.0, gt=0, le=180)
    """Width of a window in degrees."""
    depth: PositiveFloat = 5.0
    """Length of a window in metres, away from the sensor."""
    near: NonNegativeFloat = 3.0
    """Nearest range."""
    far: PositiveFloat = 20.0
    """Farthest range."""
    beams: PositiveInt = 32
    """Beams of the sensor, evenly spaced in elevation."""
    every: PositiveInt = 4
    """The scan keeps each n-th beam."""
    voxel: NonNegativeFloat = 0.2
    """Complete clouds keep one point in each cube of this side, in metres; 0 keeps all."""
    least: PositiveInt = 48
    """Fewest points of a complete cloud; its scan has a quarter of that at least."""
    points: PositiveInt = 512
    """Most points of a complete cloud; of more, some are drawn."""
    scan_points: PositiveInt = 128
    """Most points of a scan."""
    held_out: tuple[float, float] = (-90.0, 0.0)
    """The part of the circle, in degrees, that belongs to the test split."""
    count: PositiveInt = 1024
    """Windows, all of them different."""
    seed: int = 0
    """Window k depends on this and on k alone."""

    def open(self, split: str = "train") -> Dataset[Any]:
        return Windows(self, [shipped()] if self.folder is None else self._read(self.folder), split)

    def _read(self, folder: Path) -> list[Scan]:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder: give the folder that holds the scans")
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in READERS)
        if not files:
            raise DataError(f"{folder} holds no scans ({', '.join(sorted(READERS))})")
        clouds = [read_scan(path, columns=self.columns, drop_invalid=self.drop_invalid) for path in files]
        return [Scan(points, torch.ones(len(points), dtype=torch.bool)) for points in clouds]
