"""Scenes in files: PLY as other tools for Gaussians have it, and .splat as viewers in browsers have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core.errors import DataError
from distill.three_d.render import PARTS, Scene, checked, rotations
from distill.three_d.starts import FLAT

PLACE, NORMAL, DIFFUSE = ("x", "y", "z"), ("nx", "ny", "nz"), ("f_dc_0", "f_dc_1", "f_dc_2")
SCALE, TURN = ("scale_0", "scale_1", "scale_2"), ("rot_0", "rot_1", "rot_2", "rot_3")
NEEDED = (*PLACE, *DIFFUSE, "opacity", *SCALE, *TURN)
TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}


def write_ply(scene: Scene, path: Path) -> Path:
    """Write a scene as graphdeco-inria/gaussian-splatting does: binary, one vertex a Gaussian, raw parameters.

    Colours beyond the constant one stand in `f_rest_*`, all of red first, then green, then blue.
    """
    parts = {name: value.detach().cpu().float() for name, value in checked(scene).items() if name in PARTS}
    rest = parts["shN"].transpose(1, 2).flatten(1)
    names = (*PLACE, *NORMAL, *DIFFUSE, *(f"f_rest_{n}" for n in range(rest.shape[1])), "opacity", *SCALE, *TURN)
    columns = [
        parts["means"], torch.zeros_like(parts["means"]), parts["sh0"][:, 0], rest, parts["opacities"][:, None],
        parts["scales"], parts["quats"],
    ]  # fmt: skip
    table = torch.cat(columns, 1).contiguous().numpy().astype("<f4")
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    head += [*(f"property float {name}" for name in names), "end_header", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(head).encode() + table.tobytes())
    return path


def read_ply(path: Path) -> dict[str, Tensor]:
    """The scene of a PLY file of this layout, whatever the order of its fields.

    Raises:
        DataError: it is no such file, is cut short, lacks fields, or holds values that are no numbers.
    """
    table = _vertices(path)
    known = table.dtype.names or ()
    if missing := [name for name in NEEDED if name not in known]:
        kind = "points or a mesh" if set(PLACE) <= set(known) else "something else"
        raise DataError(
            f"{path} is no scene of Gaussians: it lacks {', '.join(missing)} and looks like {kind}. Start from it with "
            "'points' or 'surface', or export it again with all fields"
        )
    rest = sorted((name for name in known if name.startswith("f_rest_")), key=lambda name: int(name[7:]))
    degree = round((len(rest) / 3 + 1) ** 0.5) - 1
    if len(rest) != 3 * ((degree + 1) ** 2 - 1):
        raise DataError(f"{path} has {len(rest)} fields f_rest_*: spherical harmonics have 0, 9, 24 or 45")
    scene = {
        "means": _columns(table, PLACE), "quats": _columns(table, TURN), "scales": _columns(table, SCALE),
        "opacities": _columns(table, ("opacity",))[:, 0], "sh0": _columns(table, DIFFUSE)[:, None],
        "shN": _columns(table, rest).view(len(table), 3, -1).transpose(1, 2).contiguous() if rest else
        torch.zeros(len(table), 0, 3),
    }  # fmt: skip
    try:
        checked(scene)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return scene


def _columns(table: Any, names: Any) -> Tensor:
    return torch.from_numpy(np.stack([table[name].astype(np.float32) for name in names], 1))


def _vertices(path: Path) -> Any:
    """The vertices of a PLY file as a table with named columns."""
    content = path.read_bytes() if path.is_file() else b""
    head, mark, body = content.partition(b"end_header\n")
    if not mark or not head.startswith(b"ply"):
        raise DataError(f"{path} is {'no PLY file' if path.is_file() else 'not there'}")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    form = next((line[1] for line in lines if line[:1] == ["format"]), "")
    first = next((place for place, line in enumerate(lines) if line[:1] == ["element"]), len(lines))
    if lines[first : first + 1] == [] or lines[first][1] != "vertex":
        raise DataError(f"{path} does not begin with vertices, as a scene of Gaussians does")
    count, fields = int(lines[first][2]), []
    for line in lines[first + 1 :]:
        if line[:1] == ["element"]:
            break
        if line[:1] == ["property"]:
            if line[1] not in TYPES:
                raise DataError(f"{path} has vertices with '{' '.join(line)}': a scene of Gaussians has plain numbers")
            fields.append((line[2], TYPES[line[1]]))
    return _table(path, form, count, fields, body)


def _table(path: Path, form: str, count: int, fields: list[tuple[str, str]], body: bytes) -> Any:
    kind = np.dtype([(name, ORDERS.get(form, "<") + code) for name, code in fields])
    if form == "ascii":
        values = np.array(body.split()[: count * len(fields)], dtype="f8")
        kind, body = np.dtype([(name, "f8") for name, _ in fields]), values.tobytes()
    if len(body) < count * kind.itemsize:
        raise DataError(f"{path} is cut short: its header promises {count} Gaussians")
    return np.frombuffer(body, kind, count)


def write_splat(scene: Scene, path: Path) -> Path:
    """Write a scene as antimatter15/splat reads it: 32 bytes a Gaussian, the largest and most opaque first.

    Place and standard deviations as floats, colour and opacity as bytes, the rotation as bytes around 128; colours that
    change with the direction are lost.
    """
    parts = {name: value.detach().cpu().float() for name, value in checked(scene).items() if name in PARTS}
    sizes, opacity = parts["scales"].exp(), parts["opacities"].sigmoid()
    order = (-sizes.prod(1) * opacity).argsort()
    colour = torch.cat([0.5 + FLAT * parts["sh0"][:, 0], opacity[:, None]], 1)
    turn = torch.nn.functional.normalize(parts["quats"], dim=1)
    table = np.zeros(
        len(order), dtype=[("place", "<f4", 3), ("size", "<f4", 3), ("colour", "u1", 4), ("turn", "u1", 4)]
    )
    table["place"], table["size"] = parts["means"][order].numpy(), sizes[order].numpy()
    table["colour"] = (colour[order] * 255).round().clamp(0, 255).byte().numpy()
    table["turn"] = (turn[order] * 128 + 128).round().clamp(0, 255).byte().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(table.tobytes())
    return path


def covariances(scene: Scene) -> Tensor:
    """Covariances of a scene's Gaussians [N, 3, 3], as viewers take them."""
    axes = rotations(scene["quats"]) * scene["scales"].exp()[:, None]
    return axes @ axes.transpose(1, 2)
