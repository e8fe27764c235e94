"""Meshes and points: reading them, with a clear message where they are of no use; shapes of ours; true views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core import Rng
from distill.core.errors import DataError
from distill.three_d.cameras import Cameras
from distill.three_d.objects import OBJECTS

Mesh = Any
"""trimesh.Trimesh, which has no types."""
AMBIENT = 0.45
"""Brightness of a surface that turns away from the light."""


def formed(kind: str, colour: tuple[int, int, int], at: tuple[float, float, float] = (0, 0, 0), **sizes: Any) -> Mesh:
    """One of trimesh's solids, standing on y, in a colour and a place."""
    import trimesh

    mesh = getattr(trimesh.creation, kind)(**sizes)
    turned = trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])  # trimesh's solids stand on z
    mesh.apply_transform(turned)
    mesh.apply_translation(at)
    mesh.visual.face_colors = (*colour, 255)
    return mesh


def _snowman() -> list[Mesh]:
    balls = [((0, -0.55, 0), 0.45), ((0, 0.1, 0), 0.32), ((0, 0.58, 0), 0.22)]
    body = [formed("icosphere", (235, 238, 245), at, subdivisions=3, radius=radius) for at, radius in balls]
    hat = [
        formed("cylinder", (40, 40, 60), (0, 0.76, 0), radius=0.28, height=0.05),
        formed("cylinder", (40, 40, 60), (0, 0.92, 0), radius=0.16, height=0.28),
    ]
    buttons = [formed("icosphere", (200, 40, 40), (0, y, z), subdivisions=2, radius=0.05) for y, z in (
        (0.02, 0.31), (0.2, 0.3), (-0.4, 0.43),
    )]  # fmt: skip
    nose = formed("box", (240, 130, 30), (0, 0.58, 0.27), extents=(0.06, 0.2, 0.06))
    return [*body, *hat, *buttons, nose]


def _rings() -> list[Mesh]:
    import trimesh

    rings = []
    for n, colour in enumerate([(220, 60, 50), (50, 150, 80), (60, 90, 210)]):
        ring = formed("torus", colour, major_radius=0.62, minor_radius=0.1)
        turn = trimesh.transformations.rotation_matrix(n * np.pi / 3, [1, 0, 0.6])
        rings.append(ring.apply_transform(turn))
    return rings


def _tower() -> list[Mesh]:
    sizes = [(0.9, (180, 60, 60)), (0.7, (220, 160, 60)), (0.5, (80, 160, 90)), (0.3, (70, 110, 200))]
    boxes = [
        formed("box", colour, (0, -0.6 + 0.4 * n, 0), extents=(side, side, 0.4))
        for n, (side, colour) in enumerate(sizes)
    ]
    return [*boxes, formed("icosphere", (240, 220, 90), (0, 0.95, 0), subdivisions=3, radius=0.16)]


SHAPES: dict[str, Callable[[], list[Mesh]]] = {"snowman": _snowman, "rings": _rings, "tower": _tower}
"""Shapes of ours, put together of solids."""


def load_mesh(name: str | Path, *, solid: bool = False) -> Mesh:
    """A mesh of a file or a shape of ours, moved and scaled to fit the ball of radius 1 around the origin.

    Raises:
        DataError: it cannot be read, has no faces, or, where it has to be `solid`, is not watertight.
    """
    import trimesh

    known = {**SHAPES, **OBJECTS}.get(str(name))
    mesh: Mesh = _read(Path(name)) if known is None else trimesh.util.concatenate(known())
    faces = getattr(mesh, "faces", None)
    if faces is None or not len(faces):
        found = len(getattr(mesh, "vertices", ()))
        raise DataError(
            f"{name} has no faces, but {found} points: a mesh is needed here; for points take start 'points'"
        )
    if not np.isfinite(mesh.vertices).all():
        raise DataError(f"{name} has vertices whose coordinates are no numbers: repair it first")
    if solid and not mesh.is_watertight:
        raise DataError(
            f"{name} is not watertight ({len(faces)} faces leave holes): fill them (trimesh.repair.fill_holes), or do "
            "without 'solid'"
        )
    if mesh.extents is None or not float(mesh.extents.max()):
        raise DataError(f"{name} has no extent: all of its vertices coincide")
    mesh.apply_translation(-mesh.bounds.mean(0))
    mesh.apply_scale(1 / np.linalg.norm(mesh.vertices, axis=1).max())
    return mesh


def _read(path: Path) -> Mesh:
    import trimesh

    if not path.is_file():
        known = ", ".join([*SHAPES, *OBJECTS])
        raise DataError(f"there is no file {path}, and no shape of that name; shapes are {known}")
    try:
        read = trimesh.load(path)
        return read.to_mesh() if isinstance(read, trimesh.Scene) else read
    except Exception as error:  # each of trimesh's readers has its own ways to fail
        raise DataError(f"{path} cannot be read as a mesh: {type(error).__name__}: {error}") from error


def load_points(path: Path) -> tuple[Tensor, Tensor | None]:
    """Points [N, 3] of a file, and their colours in [0, 1] where it has any.

    Raises:
        DataError: it cannot be read, or holds no points.
    """
    if path.suffix == ".npy" and path.is_file():
        table = torch.as_tensor(np.load(path, allow_pickle=False)).float()
        if table.ndim != 2 or table.shape[1] not in (3, 6):
            raise DataError(f"{path} is a table {list(table.shape)}: points are [N, 3], or [N, 6] with colours")
        return table[:, :3], table[:, 3:] if table.shape[1] == 6 else None
    read = _read(path)
    colours = getattr(read, "colors", None)
    tinted = None if colours is None or not len(colours) else torch.as_tensor(np.array(colours))[:, :3].float() / 255
    return torch.as_tensor(np.array(read.vertices)).float(), tinted


def surface(mesh: Mesh, count: int, rng: Rng) -> tuple[Tensor, Tensor]:
    """Points drawn evenly from a mesh's surface [N, 3], and their colours in [0, 1] [N, 3]."""
    areas = torch.as_tensor(np.array(mesh.area_faces)).float()
    face = torch.multinomial(areas, count, True, generator=rng.generator("surface/face")).cpu()
    u = rng.uniform(count, 2, stream="surface/place").cpu()
    flip = u.sum(1, keepdim=True) > 1
    u = torch.where(flip, 1 - u, u)
    weight = torch.cat([1 - u.sum(1, keepdim=True), u], 1)
    corners = torch.as_tensor(np.array(mesh.triangles)).float()[face]
    return (weight[..., None] * corners).sum(1), _colours(mesh, face.numpy(), weight.numpy())


def _colours(mesh: Mesh, face: Any, weight: Any) -> Tensor:
    """Colours at places on faces [N, 3], from their barycentric weights [N, 3]."""
    visual = mesh.visual
    if visual.kind == "texture" and visual.uv is not None:
        places = (weight[..., None] * visual.uv[mesh.faces[face]]).sum(1)
        found = visual.material.to_color(places)
    elif visual.kind == "face":
        found = visual.face_colors[face]
    else:
        found = (weight[..., None] * visual.vertex_colors[mesh.faces[face]]).sum(1)
    return torch.as_tensor(np.array(found, dtype=np.float32))[:, :3] / 255


def views(mesh: Mesh, cameras: Cameras, light: tuple[float, float, float] = (0.4, 0.8, 0.6)) -> tuple[Tensor, Tensor]:
    """True pictures of a mesh over white, in [0, 1] [V, 3, H, W], and distances along the camera's axis [V, 1, H, W].

    One ray a pixel (Embree, through trimesh); a surface is as bright as its cosine to the light, on both of its sides.

    Raises:
        DataError: a camera stands inside the mesh's bounds.
    """
    low, high = (torch.as_tensor(np.array(bound)).float() for bound in mesh.bounds)
    cameras = cameras.to("cpu").outside(low, high, "the object")
    origins, along = (part.reshape(-1, 3) for part in cameras.rays())
    places, ray, face = mesh.ray.intersects_location(origins.numpy(), along.numpy(), multiple_hits=False)
    colour, depth = torch.ones(len(origins), 3), torch.zeros(len(origins))
    if len(ray):
        colour[ray], depth[ray] = _lit(mesh, places, face, light), _ahead(places, ray, origins, cameras)
    shape = (len(cameras), cameras.height, cameras.width)
    return colour.view(*shape, 3).permute(0, 3, 1, 2).contiguous(), depth.view(*shape)[:, None]


def _lit(mesh: Mesh, places: Any, face: Any, light: tuple[float, float, float]) -> Tensor:
    import trimesh

    weight = trimesh.triangles.points_to_barycentric(mesh.triangles[face], places)
    toward = np.asarray(light) / np.linalg.norm(light)
    cosine = torch.as_tensor(np.abs(mesh.face_normals[face] @ toward)).float()
    return _colours(mesh, face, weight) * (AMBIENT + (1 - AMBIENT) * cosine)[:, None]


def _ahead(places: Any, ray: Any, origins: Tensor, cameras: Cameras) -> Tensor:
    view = torch.as_tensor(ray) // (cameras.height * cameras.width)
    away = torch.as_tensor(places).float() - origins[ray]
    return (cameras.world_to_camera[view, 2, :3] * away).sum(1)
