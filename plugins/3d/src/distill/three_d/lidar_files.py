"""Scans in files: PLY, PCD, KITTI's .bin and NumPy's .npy in, PLY out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core.errors import DataError

AT_SENSOR = 0.01
"""Returns nearer than this, in metres, are rays that came back from nothing: sensors write them as (0, 0, 0)."""


def read_scan(path: Path, *, columns: int = 4, drop_invalid: bool = False) -> Tensor:
    """The points of a file [N, 3] in metres, around the sensor; returns at the sensor itself are left out.

    Args:
        columns: numbers per point of a .bin file: 4 in KITTI, 5 in nuScenes.
        drop_invalid: leave out points that are no numbers, instead of refusing the file.

    Raises:
        DataError: the file cannot be read, has no points, or some that are no numbers.
    """
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path} is no scan: the suffixes that are read are {', '.join(sorted(READERS))}")
    try:
        table = np.asarray(READERS[path.suffix.lower()](path, columns), dtype=np.float32)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
        raise DataError(f"{path} cannot be read as a scan: {error}. Mend or remove it.") from error
    return checked(torch.from_numpy(table[:, :3].copy()), str(path), drop_invalid=drop_invalid)


def checked(points: Tensor, name: str, *, drop_invalid: bool = False) -> Tensor:
    """Points [N, 3] that can be worked with: finite, and away from the sensor.

    Raises:
        DataError: none are left, or some are no numbers.
    """
    good = points.isfinite().all(1)
    if not drop_invalid and not good.all():
        raise DataError(
            f"{name} has {int((~good).sum())} points of {len(points)} that are no numbers: clean it, or leave them out "
            "with drop_invalid: true"
        )
    points = points[good]
    kept = points[points.norm(dim=1) > AT_SENSOR]
    if not len(kept):
        raise DataError(f"{name} is empty: of {len(good)} points none lies away from the sensor. Remove it.")
    return kept


def _ply(path: Path, columns: int) -> Any:
    import trimesh

    with path.open("rb") as file:
        read: Any = trimesh.load(file, file_type="ply", process=False)
    return read.vertices


def _npy(path: Path, columns: int) -> Any:
    table = np.load(path, allow_pickle=False)
    if table.ndim != 2 or table.shape[1] < 3:
        raise ValueError(f"its table is {list(table.shape)}, and points are [N, 3 or more]")
    return table


def _bin(path: Path, columns: int) -> Any:
    values = np.fromfile(path, dtype="<f4")
    if len(values) % columns:
        raise ValueError(f"{len(values)} numbers are no rows of {columns} (4 in KITTI, 5 in nuScenes)")
    return values.reshape(-1, columns)


def _pcd(path: Path, columns: int) -> Any:
    """Fields x, y and z of a PCD file, ASCII or binary."""
    content = path.read_bytes()
    end = content.index(b"\n", content.index(b"DATA")) + 1
    lines = [line.split() for line in content[:end].decode("ascii", "replace").splitlines() if line[:1] != "#"]
    head = {line[0]: line[1:] for line in lines if line}
    codes = [f"<{kind.lower()}{size}" for kind, size in zip(head["TYPE"], head["SIZE"], strict=True)]
    counts = [int(count) for count in head.get("COUNT", ["1"] * len(codes))]
    number, form = int(head["POINTS"][0]), head["DATA"][0]
    if form not in PCD:
        raise ValueError(f"DATA {form} is not read: save it as {' or '.join(PCD)}")
    kind = np.dtype([(name, code, (n,)) for name, code, n in zip(head["FIELDS"], codes, counts, strict=True)])
    table = PCD[form](content[end:], kind, number)
    return np.concatenate([table[axis].reshape(number, -1)[:, :1].astype(np.float32) for axis in "xyz"], 1)


def _ascii(body: bytes, kind: Any, number: int) -> Any:
    width = sum(int(np.prod(kind[name].shape)) for name in kind.names)
    values = np.array(body.split(), dtype=np.float64).reshape(number, width)
    ends = np.cumsum([int(np.prod(kind[name].shape)) for name in kind.names])[:-1]
    return dict(zip(kind.names, np.split(values, ends, 1), strict=True))


def _binary(body: bytes, kind: Any, number: int) -> Any:
    return np.frombuffer(body, kind, number)


PCD: dict[str, Callable[[bytes, Any, int], Any]] = {"ascii": _ascii, "binary": _binary}
READERS: dict[str, Callable[[Path, int], Any]] = {".ply": _ply, ".npy": _npy, ".bin": _bin, ".pcd": _pcd}


def write_points(points: Tensor, path: Path) -> Path:
    """Points [N, 3] as a binary PLY file."""
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    head += [*(f"property float {axis}" for axis in "xyz"), "end_header", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(head).encode() + points.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return path
