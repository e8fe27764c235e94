"""Exact worlds in which claims are measured: mixtures with known denoisers, and distances between point clouds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from distill.core import (
    Batch,
    Builder,
    Denoiser,
    Engine,
    Lens,
    Method,
    Mixture,
    Optimiser,
    Plan,
    Rng,
    Role,
    Roles,
    RoleSpec,
    Sampler,
    Samples,
    Update,
    assemble,
    batches,
    tree,
)  # fmt: skip
from distill.core.paths import GaussianPath
from distill.core.plan import one_phase
from distill.core.sampling import ALONE
from distill.methods.losses import Denoise
from distill.methods.networks import MLPDenoiser
from distill.methods.times import Times, UniformTimes
from distill.methods.trajectories import Data


def ring(path: GaussianPath, *, radius: float = 1.0, std: float = 0.1, weights: Tensor | None = None) -> Mixture:
    """Eight Gaussians on a circle. `weights` [C, 8] gives each class its modes; the last row is the null class."""
    angle = torch.arange(8) * (math.pi / 4)
    return Mixture(radius * torch.stack([angle.cos(), angle.sin()], 1), std, path, weights)


def class_weights(*groups: tuple[int, ...], shares: tuple[float, ...] = (1.0,) * 8) -> Tensor:
    """Weights [C + 1, 8]: one row a group of modes, then the null class with all of them."""
    everything = torch.tensor(shares)
    rows = [torch.zeros(8).index_put((torch.tensor(group),), everything[list(group)]) for group in groups]
    return torch.stack([*rows, everything])


class Fitted(Method):
    """A network fitted to the data of a known law: the common start of students and critics in the toys."""

    network: Builder = MLPDenoiser()
    """What is fitted."""
    times: Times = UniformTimes()
    """Noise levels."""
    level: str = "one"
    """Weight of a noise level."""
    sigma_data: float = 0.5
    """Standard deviation of the data."""
    lr: float = 2e-3
    """Learning rate, falling to 0 along a cosine."""
    drop: float = 0.0
    """Share of samples without conditions."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(build=self.network)}

    def plan(self, teacher: Any = None) -> Plan:
        loss = Denoise(
            role="student",
            view="x0",
            times=self.times,
            level=self.level,
            sigma_data=self.sigma_data,
            drop=self.drop,
        )
        optimisers = {"student": Optimiser(lr=self.lr, schedule="cosine")}
        return Plan(phases=one_phase([Update(trajectory=Data(), loss=loss)], self.steps, optimisers))


def train(
    method: Method,
    fixed: Mapping[str, Denoiser] | Roles,
    *,
    data: Samples | None = None,
    size: int = 256,
    seed: int = 0,
    lens: Lens | None = None,
    steps: int | None = None,
) -> Engine:
    """Run a method in memory, to its end or for so many iterations. `fixed` are the networks that it starts from."""
    torch.manual_seed(seed)
    roles = assemble(method, {k: v if isinstance(v, Role) else Role(k, v) for k, v in fixed.items()})
    shape = next((role.module.shape for role in roles.values() if isinstance(role.module, Denoiser)), None)
    source = partial(_source, data, size, seed, shape)
    return Engine(roles, method.plan(Sampler()), source, seed=seed, lens=lens).run(steps)


def _source(data: Samples | None, size: int, seed: int, shape: Any, start: int) -> Iterator[Batch]:
    return batches(data, size, seed=seed, start=start, shape=shape)


def draw(
    role: Role, sampler: Sampler, size: int, seed: int, cond: Any = None, roles: Mapping[str, Role] = ALONE
) -> Tensor:
    """Samples of a role for the noises of a seed, the same for every role and sampler: [size, ...]."""
    shape = role.denoiser.shape
    rng = Rng(seed)
    x: Tensor = sampler.sample(role, Batch(size, shape=shape).noise(rng, "sample/start"), cond, rng, roles)
    return x


# ---------------------------------------------------------------- distances between point clouds [N, D]


def energy_distance(a: Tensor, b: Tensor) -> float:
    """`2 E|a−b| − E|a−a'| − E|b−b'|`; 0 for equal laws (Székely & Rizzo 2013)."""
    within = [torch.cdist(c, c).sum() / (len(c) * (len(c) - 1)) for c in (a, b)]
    return float(2 * torch.cdist(a, b).mean() - within[0] - within[1])


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 128) -> float:
    """Root mean squared 1-D Wasserstein-2 distance over random directions; both clouds have N points."""
    axes = torch.nn.functional.normalize(Rng(0).normal(directions, a.shape[1]), dim=1)
    gap = (a @ axes.T).sort(0).values - (b @ axes.T).sort(0).values
    return float((gap**2).mean().sqrt())


def rmse(a: Tensor, b: Tensor) -> float:
    """Root mean squared Euclidean distance between paired points."""
    return float(tree.per_sample((a - b) ** 2)[0].mean().sqrt())


def mode_shares(x: Tensor, teacher: Mixture) -> Tensor:
    """Share of the points whose nearest mean is each mode: [K]."""
    nearest = torch.cdist(x.flatten(1), teacher.means.flatten(1)).argmin(1)
    return torch.bincount(nearest, minlength=len(teacher.means)) / len(x)


def modes_covered(x: Tensor, teacher: Mixture) -> int:
    """Modes that hold at least half of their true weight."""
    return int((mode_shares(x, teacher) >= 0.5 * teacher.weights[-1]).sum())


def total_variation(x: Tensor, teacher: Mixture) -> float:
    """Half the L1 distance between mode shares and true weights."""
    return float((mode_shares(x, teacher) - teacher.weights[-1]).abs().sum() / 2)
