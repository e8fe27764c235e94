"""How completions of scans are judged, cloud by cloud: Chamfer distance, divergence from above, voxels in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from distill.core import Metric, Ragged, State
from distill.core.errors import DataError
from distill.three_d.points import nearest, packed


@torch.no_grad()
def chamfer(samples: State, true: State) -> Tensor:
    """Mean distance to the nearest point of the other cloud, both ways, halved [B], in metres."""
    return _pairwise(samples, true, lambda a, b: (_apart(a, b) + _apart(b, a)) / 2)


@torch.no_grad()
def bev_divergence(samples: State, true: State, cell: float = 0.5) -> Tensor:
    """Jensen-Shannon divergence, in bits, of the clouds' shares of points in cells seen from above [B]: 0 to 1.

    The code of Distillation-DPO (arXiv:2504.11447) reports its square root, in natural units.
    """
    return _pairwise(samples, true, lambda a, b: _divergence(a[:, :2], b[:, :2], cell))


@torch.no_grad()
def voxel_iou(samples: State, true: State, voxel: float = 0.5) -> Tensor:
    """Voxels that hold points of both clouds, as a share of those that hold points of either [B]."""
    return _pairwise(samples, true, lambda a, b: _common(a, b, voxel))


def _pairwise(samples: State, true: State, measure: Any) -> Tensor:
    mine, theirs = packed(samples), packed(true)
    if len(mine.lengths) != len(theirs.lengths):
        raise DataError(
            f"{len(mine.lengths)} clouds cannot be compared with {len(theirs.lengths)}: each completion needs the "
            "complete cloud of its own scan, as the condition 'truth'"
        )
    return torch.stack([measure(a, b) for a, b in zip(mine.split(), theirs.split(), strict=True)])


def _apart(a: Tensor, b: Tensor) -> Tensor:
    return (a - b[nearest(a, b, 1)[:, 0]]).norm(dim=1).mean()


def _counts(a: Tensor, b: Tensor, cell: float) -> Tensor:
    """Points of both clouds in each cell that holds any: [2, cells]."""
    cells = torch.floor(torch.cat([a, b]) / cell).long()
    _, place = torch.unique(cells, dim=0, return_inverse=True)
    number = int(place.max()) + 1
    return torch.stack([torch.bincount(part, minlength=number) for part in (place[: len(a)], place[len(a) :])])


def _divergence(a: Tensor, b: Tensor, cell: float) -> Tensor:
    counts = _counts(a, b, cell).double()
    p, q = counts / counts.sum(1, keepdim=True)
    middle = (p + q) / 2
    return ((torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)).sum() / 2).div(
        torch.tensor(2.0).log()
    )


def _common(a: Tensor, b: Tensor, voxel: float) -> Tensor:
    held = _counts(a, b, voxel) > 0
    return (held.all(0).sum() / held.any(0).sum()).double()


class _OnClouds(Metric):
    """Compares each cloud with its complete one: the condition `truth` where the data give it, else the reference."""

    def pair(self, samples: State, reference: State, cond: Mapping[str, Any] | None) -> tuple[Ragged, Ragged]:
        """Both sides."""
        true = (cond or {}).get("truth", reference)
        return packed(samples), packed(true)


class Chamfer(_OnClouds):
    """Mean Chamfer distance of completions in metres; 0 is best."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        return float(chamfer(*self.pair(samples, reference, cond)).mean())


class BevDivergence(_OnClouds):
    """Mean Jensen-Shannon divergence of completions in bird's-eye view, in bits; 0 is best."""

    cell: PositiveFloat = 0.5
    """Side of a cell in metres."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        return float(bev_divergence(*self.pair(samples, reference, cond), self.cell).mean())


class VoxelIoU(_OnClouds):
    """Mean intersection over union of occupied voxels; 1 is best."""

    higher_is_better: ClassVar[bool] = True
    voxel: PositiveFloat = 0.5
    """Side of a voxel in metres; LiDiff reports 0.5, 0.2 and 0.1."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        return float(voxel_iou(*self.pair(samples, reference, cond), self.voxel).mean())
