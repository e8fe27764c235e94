"""Clouds of points as states: the point-local path, neighbours, a denoiser, and sampling that starts at a scan.

A cloud is `Ragged` with rows [Σ n, 3], or a tensor [B, N, 3] where all have the same number of points; everything here
takes both and answers in kind. A scan whose points all lie at the origin is an absent one: the null condition.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from distill.core import Builder, Denoiser, Ragged, Rng, Role, Sampler, State, tree
from distill.core.errors import DataError, RecipeError
from distill.core.paths import GaussianPath
from distill.core.sampling import ALONE, DPM, Move, Solver
from distill.methods.networks import TimeEmbedding

# ---------------------------------------------------------------- clouds


def packed(cloud: State) -> Ragged:
    """A cloud's points one after the other.

    Raises:
        DataError: it is no cloud of points.
    """
    if isinstance(cloud, Ragged) and cloud.values.ndim == 2 and cloud.values.shape[1] == 3:
        return cloud
    if isinstance(cloud, Tensor) and cloud.ndim == 3 and cloud.shape[2] == 3:
        return Ragged(cloud.flatten(0, 1), torch.full((len(cloud),), cloud.shape[1], device=cloud.device))
    given = f"{type(cloud).__name__} {list(tree.leaves(cloud)[0].shape)}"
    raise DataError(f"clouds are ragged rows [n, 3] or [B, N, 3], and these are {given}")


def in_kind(rows: Tensor, cloud: State) -> Any:
    """Rows [Σ n, 3] in the structure of a cloud."""
    return rows.view_as(cloud) if isinstance(cloud, Tensor) else tree.tree_map(lambda _: rows, cloud)


def repeated(cloud: Ragged, times: int) -> Ragged:
    """Every cloud so many times over: lengths grow by that factor."""
    return Ragged(torch.cat([part.repeat(times, 1) for part in cloud.split()]), cloud.lengths * times)


def anchors(scan: State, like: State) -> Any:
    """The points of each scan over and over, as many as the cloud `like` has, and in its structure."""
    mine, wanted = packed(scan), packed(like)
    parts = [
        part[torch.arange(number, device=part.device) % len(part)]
        for part, number in zip(mine.split(), wanted.lengths.tolist(), strict=True)
    ]
    return in_kind(torch.cat(parts), like)


def centres(cloud: Ragged) -> Tensor:
    """Mean of each cloud [B, 3]."""
    total = cloud.values.new_zeros(len(cloud.lengths), 3).index_add(0, cloud.owner, cloud.values)
    return total / cloud.lengths[:, None]


# ---------------------------------------------------------------- neighbours


def _tree_nearest(queries: Tensor, points: Tensor, k: int) -> Tensor:
    from scipy.spatial import cKDTree

    _, found = cKDTree(points.numpy()).query(queries.numpy(), k=k)
    return torch.from_numpy(found).view(len(queries), k)


def _brute_nearest(queries: Tensor, points: Tensor, k: int, rows: int = 4096) -> Tensor:
    gaps = (torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist") for part in queries.split(rows))
    return torch.cat([gap.topk(k, largest=False).indices for gap in gaps])


def nearest(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """The k nearest of points [M, 3] to each query [N, 3], nearest first: [N, k]; of fewer points some stand twice."""
    most = min(k, len(points))
    search: Callable[..., Tensor] = _tree_nearest if queries.device.type == "cpu" else _brute_nearest
    found = search(queries.detach().float(), points.detach().float(), most)
    return found[:, torch.arange(k, device=found.device) % most]


def neighbours(queries: Ragged, points: Ragged, k: int) -> Tensor:
    """The k nearest points of its own sample to each query, as rows of `points.values`: [Σ n, k]."""
    starts = (points.lengths.cumsum(0) - points.lengths).tolist()
    pairs = zip(queries.split(), points.split(), starts, strict=True)
    return torch.cat([nearest(mine, theirs, k) + start for mine, theirs, start in pairs])


# ---------------------------------------------------------------- the path


class LocalPath(GaussianPath):
    """Noise around points that stay where they are, `x_t = x0 + σ_t ε` with `σ_t = s √(1 − ᾱ_t)` (LiDiff: Nunes et al.
    2024, arXiv:2403.13470). ᾱ is that of a linear β, continued between its steps."""

    beta_start: PositiveFloat = 3.5e-5
    """β of the first step."""
    beta_end: PositiveFloat = 0.007
    """β of the last."""
    beta_steps: PositiveInt = 1000
    """Steps between them."""
    spread: PositiveFloat = 1.0
    """s, the noise's standard deviation far from data, in metres."""

    def _log_alpha_bar(self, t: Tensor) -> Tensor:
        return -self.beta_steps * (self.beta_start * t + (self.beta_end - self.beta_start) * t**2 / 2)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.spread * (-torch.expm1(self._log_alpha_bar(t))).clamp_min(0).sqrt()

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rate = self.beta_steps * (self.beta_start + (self.beta_end - self.beta_start) * t)
        slope = self.spread**2 * rate * self._log_alpha_bar(t).exp() / (2 * self.sigma(t).clamp_min(1e-6))
        return torch.zeros_like(t), slope


# ---------------------------------------------------------------- the network


class Look(nn.Module):
    """Each row looks at k others, with a weight for each channel that depends on features and relative place (after the
    Point Transformer: Zhao et al. 2021, arXiv:2012.09164)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mine, self.theirs, self.place = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(3, width)
        self.weigh, self.outlet = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h: Tensor, seen: Tensor, found: Tensor, gap: Tensor) -> Tensor:
        """h [N, W] looks at rows `found` [N, k] of `seen` [M, W], which lie at `gap` [N, k, 3] from it."""
        edge = self.place(gap) + self.mine(self.norm(h))[:, None]
        edge = nn.functional.silu(edge + self.theirs(seen)[found])
        out: Tensor = h + self.outlet((self.weigh(edge).softmax(1) * edge).sum(1))
        return out


class Block(nn.Module):
    """Points look at the scan, at each other, and think."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scan, self.own = Look(width), Look(width)
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, h: Tensor, scan: tuple[Tensor, Tensor, Tensor], found: Tensor, gap: Tensor) -> Tensor:
        h = self.scan(h, *scan)
        h = self.own(h, h, found, gap)
        out: Tensor = h + self.think(h)
        return out


class PointTransformer(nn.Module):
    """Noise of each point from the k nearest points of the scan and of the cloud itself.

    Only relative places come in, in units of `unit` metres: a cloud that is moved with its scan is answered alike.
    """

    def __init__(self, width: int, depth: int, near: int, unit: float) -> None:
        super().__init__()
        self.near, self.unit = near, unit
        self.time_embedding = TimeEmbedding(width, 2 / 1000)
        self.point, self.absent = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.read = Look(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.outlet = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))
        nn.init.zeros_(self.outlet[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.outlet[1].bias)  # type: ignore[arg-type]

    def forward(self, x: Any, t: Tensor, cond: Mapping[str, Any]) -> Any:
        cloud = packed(x)
        h = self.time_embedding(t)[cloud.owner]
        scan = self._scan(cloud, packed(cond["scan"]) if "scan" in cond else _nothing(cloud))
        found = neighbours(cloud, cloud, self.near)
        gap = self._gap(cloud.values, cloud.values[found])
        for block in self.blocks:
            h = block(h, scan, found, gap)
        return in_kind(self.outlet(h), x)

    def _scan(self, cloud: Ragged, scan: Ragged) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the scan's points, which of them each point of the cloud looks at, and where those lie."""
        size = scan.values.new_zeros(len(scan.lengths)).index_add(0, scan.owner, scan.values.abs().sum(1))
        there = (size > 0).to(scan.values)
        among, found = neighbours(scan, scan, self.near), neighbours(cloud, scan, self.near)
        h = torch.where(there[scan.owner, None] > 0, self.point, self.absent)
        h = self.read(h, h, among, self._gap(scan.values, scan.values[among]))
        gap = self._gap(cloud.values, scan.values[found]) * there[cloud.owner, None, None]
        return h, found, gap

    def _gap(self, places: Tensor, seen: Tensor) -> Tensor:
        return (seen - places[:, None]) / self.unit


def _nothing(cloud: Ragged) -> Ragged:
    """The null scan: one point at the origin for each cloud."""
    return Ragged(cloud.values.new_zeros(len(cloud.lengths), 3), torch.ones_like(cloud.lengths))


# ---------------------------------------------------------------- sampling


class Completed(Sampler):
    """Sampling around the points of the condition `scan`, as many as the noise has (LiDiff: arXiv:2403.13470)."""

    def start(self, role: Role, noise: State) -> Any:
        raise RecipeError("a completion starts at a scan: give its points as the condition 'scan'")

    def around(self, role: Role, noise: State, scan: State) -> Any:
        """The state at the first time: the scan's points with the noise of that time."""
        first = self.grid_for(role.denoiser.path)[0]
        return tree.combine((1.0, anchors(scan, noise)), (1.0, role.denoiser.path.prior(noise, first)))

    def walk(
        self, role: Role, noise: State, cond: Any = None, rng: Rng | None = None, roles: Mapping[str, Role] = ALONE
    ) -> Generator[Move, Any, Any]:
        if not cond or "scan" not in cond:
            return self.start(role, noise)
        times = self.grid_for(role.denoiser.path)
        return self.descend(role, self.around(role, noise, cond["scan"]), times, cond, rng)


class PointDenoiser(Builder):
    """A compact point transformer that completes LiDAR scans; PyTorch and SciPy are all it needs, on any device.

    Neighbours are found by a k-d tree on a CPU and by distances elsewhere.
    """

    width: PositiveInt = 64
    """Features of a point."""
    depth: PositiveInt = 2
    """Blocks; each looks at the scan, then at the cloud."""
    near: PositiveInt = 8
    """k, neighbours that a point looks at."""
    unit: PositiveFloat = 0.5
    """Metres that make a distance of 1."""
    points: PositiveInt = 512
    """Points of a sample where the scan does not say how many."""
    path: LocalPath = LocalPath()
    """Noise around the points."""
    guidance: float = 1.0
    """w of the scan, when nothing else is said."""
    sample_steps: PositiveInt = 8
    """Steps, when nothing else is said."""
    solver: Solver = DPM()
    """How they are taken."""

    def build(self) -> Denoiser:
        network = PointTransformer(self.width, self.depth, self.near, self.unit)
        return Denoiser(
            network, self.path, "eps", shape=(self.points, 3), null={"scan": torch.zeros(1, 3)},
            scalar_sites=("time_embedding",),
        )  # fmt: skip

    def sampler(self) -> Completed:
        return Completed(steps=self.sample_steps, solver=self.solver, guidance=self.guidance)
