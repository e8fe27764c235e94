"""The meshes that distill-3d ships: airplane, ant and nut of pyvista (MIT), brought upright and painted here.

pip install pyvista trimesh safetensors && python meshes.py OUT.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyvista.examples
import trimesh
from safetensors.numpy import save_file

Colour = tuple[int, int, int]


def airplane(at: np.ndarray) -> list[tuple[Any, Colour]]:
    """Silver, with red wings and a blue tail; it flies along z."""
    high, aside, along = at[:, 1], np.abs(at[:, 0]), at[:, 2]
    wings, tail, nose = aside > 0.1, along < -0.45, along > 0.62
    return [(wings, (205, 55, 50)), (tail & (high > -0.02), (45, 80, 190)), (nose, (70, 70, 85))]


def ant(at: np.ndarray) -> list[tuple[Any, Colour]]:
    """Brown, with dark legs, a red head and an ochre back."""
    head, back, legs = at[:, 2] > 0.18, at[:, 2] < -0.22, np.abs(at[:, 0]) > 0.16
    return [(head, (190, 60, 40)), (back, (225, 165, 60)), (legs, (50, 40, 45))]


def nut(at: np.ndarray) -> list[tuple[Any, Colour]]:
    """Brass, its hole dark, one side blue."""
    aside = np.hypot(at[:, 0], at[:, 2])
    return [(at[:, 0] > 0.5, (60, 110, 190)), (aside < 0.42, (95, 70, 40))]


PAINTED: dict[str, tuple[Any, Colour, list[int], list[int]]] = {
    "airplane": (airplane, (215, 220, 230), [0, 2, 1], [1, 1, -1]),
    "ant": (ant, (130, 75, 45), [0, 1, 2], [1, 1, 1]),
    "nut": (nut, (215, 175, 75), [0, 1, 2], [1, 1, 1]),
}
"""Paint, ground colour, and which axes become x, y and z with which signs."""


def made(name: str, folder: Path) -> dict[str, np.ndarray]:
    """One mesh within the ball of radius 1."""
    paint, ground, axes, signs = PAINTED[name]
    mesh = trimesh.load(folder / f"{name}.ply", process=False)
    vertices = mesh.vertices[:, axes] * signs
    vertices = vertices - (vertices.max(0) + vertices.min(0)) / 2
    vertices = vertices / np.linalg.norm(vertices, axis=1).max()
    colours = np.tile(np.array(ground, np.uint8), (len(mesh.faces), 1))
    for where, colour in paint(vertices[mesh.faces].mean(1)):
        colours[where] = colour
    parts = {"vertices": vertices.astype(np.float16), "faces": mesh.faces.astype(np.int16), "colours": colours}
    return {part: np.ascontiguousarray(value) for part, value in parts.items()}


if __name__ == "__main__":
    source = Path(pyvista.examples.__file__).parent
    save_file({f"{name}.{part}": value for name in PAINTED for part, value in made(name, source).items()}, sys.argv[1])
