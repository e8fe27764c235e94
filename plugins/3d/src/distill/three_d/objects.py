"""Objects with names: real meshes that ship with this package, and some put together of solids."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np

Mesh = Any
"""trimesh.Trimesh, which has no types."""


@cache
def _shipped() -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(str(files("distill.three_d") / "data" / "meshes.safetensors")))


def _stored(name: str) -> list[Mesh]:
    import trimesh

    vertices, faces, colours = (_shipped()[f"{name}.{part}"] for part in ("vertices", "faces", "colours"))
    mesh: Mesh = trimesh.Trimesh(vertices.astype(np.float64), faces.astype(np.int64), process=False)
    mesh.visual.face_colors = np.concatenate([colours, np.full((len(colours), 1), 255, np.uint8)], 1)
    return [mesh]


def _house() -> list[Mesh]:
    from distill.three_d.meshes import formed

    roof = formed("cone", (185, 60, 45), (0, 0.25, 0), radius=0.88, height=0.65, sections=4)
    walls = [
        formed("box", (235, 215, 165), (0, -0.2, 0), extents=(1.0, 1.0, 0.9)),
        formed("box", (95, 60, 40), (0, -0.35, 0.51), extents=(0.26, 0.04, 0.6)),
        formed("box", (120, 110, 110), (0.3, 0.6, -0.15), extents=(0.16, 0.16, 0.5)),
    ]
    panes = [((x, -0.1, z), size) for x, z, size in (
        (-0.32, 0.51, (0.22, 0.04, 0.28)), (0.32, 0.51, (0.22, 0.04, 0.28)), (0.51, 0.0, (0.04, 0.4, 0.3)),
        (-0.51, 0.0, (0.04, 0.4, 0.3)),
    )]  # fmt: skip
    return [roof, *walls, *(formed("box", (90, 150, 215), at, extents=size) for at, size in panes)]


def _tree() -> list[Mesh]:
    from distill.three_d.meshes import formed

    crowns = [((0, -0.45, 0), 0.62, 0.7), ((0, 0.0, 0), 0.5, 0.6), ((0, 0.4, 0), 0.36, 0.55)]
    greens = [(30, 110, 60), (45, 135, 70), (75, 165, 85)]
    trunk = formed("cylinder", (115, 75, 45), (0, -0.7, 0), radius=0.13, height=0.5)
    return [trunk, *(formed("cone", green, at, radius=radius, height=height)
                     for (at, radius, height), green in zip(crowns, greens, strict=True))]  # fmt: skip


def _mushroom() -> list[Mesh]:
    from distill.three_d.meshes import formed

    cap = formed("icosphere", (205, 40, 45), subdivisions=4, radius=0.72)
    cap.vertices[:, 1] = np.where(cap.vertices[:, 1] > 0, 0.8, 0.15) * cap.vertices[:, 1] + 0.2
    stem = formed("cylinder", (240, 230, 210), (0, -0.35, 0), radius=0.22, height=0.95)
    turns = [(0.15, 0.2), (1.25, 0.65), (2.4, 0.35), (3.6, 0.7), (4.6, 0.3), (5.6, 0.75)]
    dots = [
        formed("icosphere", (250, 245, 240), _on_cap(around, high), subdivisions=2, radius=0.13)
        for around, high in [*turns, (0.0, 1.45)]
    ]
    return [cap, stem, *dots]


def _on_cap(around: float, high: float) -> tuple[float, float, float]:
    flat = 0.68 * float(np.cos(high))
    return flat * float(np.sin(around)), 0.2 + 0.55 * float(np.sin(high)), flat * float(np.cos(around))


OBJECTS: dict[str, Callable[[], list[Mesh]]] = {
    **{name: partial(_stored, name) for name in ("airplane", "ant", "nut")},
    "house": _house, "mushroom": _mushroom, "tree": _tree,
}  # fmt: skip
"""Meshes by name: the first three are those of pyvista (MIT), painted by `recipes/meshes.py`."""
NAMES = ("airplane", "ant", "nut", "house", "mushroom", "tree", "snowman", "rings")
"""What `views-teacher` was shown, by label."""
