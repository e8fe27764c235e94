"""What a scene of Gaussians begins as: noise, points, the surface of a mesh, a file."""

from __future__ import annotations

import math
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from distill.core import Rng
from distill.core.errors import DataError
from distill.core.options import Options

FLAT = 0.28209479177387814
"""The constant spherical harmonic."""


def from_points(
    points: Tensor, colours: Tensor | None = None, *, degree: int = 0, opacity: float = 0.1, size: float | None = None
) -> dict[str, Tensor]:
    """Round Gaussians at points [N, 3], as wide as the mean distance to the three nearest others (Kerbl et al. 2023).

    Args:
        points: places; rows that are no numbers are an error.
        colours: in [0, 1], [N, 3]; grey without.
        degree: of the spherical harmonics.
        opacity: of each.
        size: standard deviation, where it is known.

    Raises:
        DataError: there are no points, or some are no numbers.
    """
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise DataError(f"points are [N, 3] with at least one of them, and these are {list(points.shape)}")
    if bad := int((~torch.isfinite(points).all(1)).sum()):
        raise DataError(f"{bad} of {len(points)} points have coordinates that are no numbers: leave them out first")
    width = spacing(points) if size is None else torch.full((len(points),), size)
    colours = torch.full_like(points, 0.5) if colours is None else colours
    return {
        "means": points.clone(),
        "quats": points.new_tensor([1.0, 0, 0, 0]).repeat(len(points), 1),
        "scales": width.to(points).clamp_min(1e-6).log()[:, None].repeat(1, 3),
        "opacities": points.new_full((len(points),), math.log(opacity / (1 - opacity))),
        "sh0": ((colours.to(points) - 0.5) / FLAT)[:, None],
        "shN": points.new_zeros(len(points), (degree + 1) ** 2 - 1, 3),
    }


def spacing(points: Tensor, near: int = 3) -> Tensor:
    """Root mean square distance of each point to its nearest others [N]; 1 for a point that is alone."""
    from scipy.spatial import cKDTree

    if len(points) == 1:
        return torch.ones(1)
    near = min(near, len(points) - 1)
    places = points.detach().cpu().double().numpy()
    away, _ = cKDTree(places).query(places, k=near + 1)
    return torch.as_tensor(away[:, 1:]).square().mean(1).sqrt()


class Start(Options):
    """What a scene begins as."""

    @abstractmethod
    def scene(self, degree: int, rng: Rng) -> dict[str, Tensor]:
        """A scene whose colours have spherical harmonics of this degree."""


class Noise(Start):
    """Gaussians anywhere in a ball, denser towards its middle, or evenly in a cube."""

    name: Literal["noise"] = "noise"
    count: PositiveInt = 1000
    """How many."""
    radius: PositiveFloat = 0.8
    """Of the ball, or half the cube's side."""
    form: Literal["ball", "cube"] = "ball"
    """What they fill."""
    opacity: float = Field(0.1, gt=0, lt=1)
    """Of each."""
    size: PositiveFloat | None = None
    """Standard deviation of each; by the distance to the nearest others if None."""

    def scene(self, degree: int, rng: Rng) -> dict[str, Tensor]:
        places = {
            "ball": lambda: (
                torch.nn.functional.normalize(rng.normal(self.count, 3, stream="start/place"), dim=-1)
                * rng.uniform(self.count, 1, stream="start/radius")
            ),
            "cube": lambda: 2 * rng.uniform(self.count, 3, stream="start/place") - 1,
        }
        colours = 0.5 + 0.1 * (rng.uniform(self.count, 3, stream="start/colour") - 0.5)
        points = self.radius * places[self.form]()
        return from_points(points, colours, degree=degree, opacity=self.opacity, size=self.size)


class Surface(Start):
    """Gaussians on a mesh's surface, in its colours."""

    name: Literal["surface"] = "surface"
    mesh: str = "snowman"
    """A file, or the name of a shape of ours."""
    count: PositiveInt = 1000
    """How many."""
    opacity: float = Field(0.1, gt=0, lt=1)
    """Of each."""
    solid: bool = False
    """Refuse a mesh that is not watertight."""

    def scene(self, degree: int, rng: Rng) -> dict[str, Tensor]:
        from distill.three_d.meshes import load_mesh, surface

        points, colours = surface(load_mesh(self.mesh, solid=self.solid), self.count, rng)
        return from_points(points, colours, degree=degree, opacity=self.opacity)


class Points(Start):
    """Gaussians at the points of a file that trimesh reads, or of a table in numpy's .npy [N, 3] or [N, 6]."""

    name: Literal["points"] = "points"
    path: Path
    """The file."""
    opacity: float = Field(0.1, gt=0, lt=1)
    """Of each."""

    def scene(self, degree: int, rng: Rng) -> dict[str, Tensor]:
        from distill.three_d.meshes import load_points

        points, colours = load_points(self.path)
        try:
            return from_points(points, colours, degree=degree, opacity=self.opacity)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error


class Saved(Start):
    """A scene of a PLY file, of the degree that it has."""

    name: Literal["saved"] = "saved"
    path: Path
    """The file."""

    def scene(self, degree: int, rng: Rng) -> dict[str, Tensor]:
        from distill.three_d.files import read_ply

        return read_ply(self.path)


AnyStart = Annotated[Noise | Surface | Points | Saved, Field(discriminator="name")]
"""What a scene begins as, by name."""
