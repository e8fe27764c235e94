"""States that grow from step to step: resizing along named axes, the sampler that does it, and the data to learn it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from distill.core import Batch, Context, Event, Role, Sampler, State, Trajectory, tree
from distill.core.errors import RecipeError
from distill.core.prediction import Prediction
from distill.core.rng import Rng
from distill.core.sampling import ALONE, Consistency, Move, Solver

Sizes = tuple[tuple[int, ...], ...]
SIZES: Sizes = ((64, 64), (80, 80), (96, 96), (128, 128))
TIMES = (1.0, 0.896, 0.737, 0.602)


@lru_cache(maxsize=64)
def _triangle(old: int, new: int) -> Tensor:
    """Weights [new, old] of a triangular filter, as wide as the coarser of both grids."""
    centre = (torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5
    gap = (centre[:, None] - torch.arange(old)).abs() / max(1, old / new)
    weights = (1 - gap).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def resized(state: State, sizes: tuple[int, ...]) -> Any:
    """The state with its last axes at other sizes, interpolated linearly axis by axis and smoothed where it shrinks."""

    def along(x: Tensor) -> Tensor:
        for axis, size in enumerate(sizes, start=-len(sizes)):
            if x.shape[axis] != size:
                weights = _triangle(x.shape[axis], size).to(x)
                x = (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)
        return x

    return tree.tree_map(along, state)


def corner(state: State, sizes: tuple[int, ...]) -> Any:
    """The first entries of the last axes: white noise stays white."""

    def along(x: Tensor) -> Tensor:
        for axis, size in enumerate(sizes, start=-len(sizes)):
            x = x.narrow(axis, 0, size)
        return x

    return tree.tree_map(along, state)


class Growing(Sampler):
    """Each step's x0 is resized to the next step's sizes, and noised there (SwD: arXiv:2503.16397, section 3)."""

    sizes: Sizes = SIZES
    """Sizes of the state's last axes at each of the times."""
    times: tuple[float, ...] | None = TIMES
    """The times that the student was trained at, descending, without the final one."""
    solver: Solver = Consistency()
    """Fresh noise at each step; a solver that keeps some of the state cannot change its size."""

    def with_steps(self, steps: int | None) -> Sampler:
        if steps not in (None, len(self.sizes)):
            raise RecipeError(
                f"the student was trained at {len(self.sizes)} sizes, one a step: it takes no other steps"
            )
        return self

    def start(self, role: Role, noise: State) -> Any:
        return super().start(role, corner(noise, self.sizes[0]))

    def walk(
        self, role: Role, noise: State, cond: Any = None, rng: Rng | None = None, roles: Mapping[str, Role] = ALONE
    ) -> Generator[Move, Any, Any]:
        times = self.grid_for(role.denoiser.path)
        return self.descend(role, self.start(role, noise), times, cond, rng, revise=self._grown)

    def _grown(self, n: int, said: Prediction) -> Prediction:
        return said.replace_x0(resized(said.x0, self.sizes[min(n + 1, len(self.sizes) - 1)]))


class GrowingData(Trajectory):
    """The student's x0 at one of its times and sizes, drawn for the batch, from data that came from the size before.

    Data are shrunk to the size before and enlarged again, so that the student meets the blur that it meets when it is
    sampled; `targets["real"]` are the data at the step's own size. At the first time the state is noise alone (SwD:
    Starodubcev et al. 2025, arXiv:2503.16397, section 3).
    """

    example: ClassVar[dict[str, Any]] = {"sizes": ((1,), (2,)), "times": (1.0, 0.5)}
    sizes: Sizes = SIZES
    """Sizes of the state's last axes at each of the times."""
    times: tuple[float, ...] = TIMES
    """The student's times, descending."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role = ctx.roles["student"]
        k = ctx.rng.choice(len(self.times), stream="scale/step")
        real = resized(batch.data, self.sizes[k])
        noise = ctx.rng.normal_like(real, stream="scale/noise")
        t = role.denoiser.times(self.times[k], real)
        blurred = resized(resized(batch.data, self.sizes[max(k - 1, 0)]), self.sizes[k])
        x_t = role.denoiser.path.noised(blurred, noise, t) if k else role.denoiser.path.prior(noise, self.times[0])
        with torch.set_grad_enabled(attached):
            said = role.predict(x_t, t, batch.cond)
        yield Event(said.x0, batch.cond, t, x_t, noise, said, targets={"real": real}, meta={"step": k})
