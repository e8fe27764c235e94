"""Residual shifting as a path of the core.

A state is the residual `r = x − y` to the up-sampled low-resolution picture y (or its latent), which every network gets
as the condition `low`. ResShift's `x_t = x0 + η_t (y − x0) + κ √η_t ε` is then `r_t = (1 − η_t) r0 + κ √η_t ε`: a
Gaussian path with α = 1 − η and σ = κ √η, on which all trajectories, losses and solvers work as they are.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

import torch
from torch import Tensor

from distill.core import Rng, Role, Sampler, State, rollout
from distill.core.paths import TINY, GaussianPath
from distill.core.sampling import Level, Move, Stepper, Weights
from distill.core.tree import batch_size, combine, leaves


class ResidualShift(GaussianPath):
    """`r_t = (1 − η_t) r0 + κ √η_t ε` with √η exponential in a power of the step (ResShift: Yue et al. 2023,
    arXiv:2307.12348, eqs. 1 and 14).

    Time k/T is the paper's step k = 1 … T; time 0 is clean data, and below 1/T √η falls to 0 on a line.
    """

    kappa: float = 0.4
    """κ: the noise at the last time, in the units of the pictures."""
    count: int = 15
    """T of the schedule."""
    low: float = 0.04
    """√η of the first step."""
    high: float = 0.99
    """η of the last step."""
    power: float = 0.3
    """Exponent p of the step within the exponential."""

    def root(self, t: Tensor) -> Tensor:
        """√η_t in the shape of t."""
        return self._root(t)[0]

    def _root(self, t: Tensor) -> tuple[Tensor, Tensor]:
        place = ((t * self.count - 1) / (self.count - 1)).clamp_min(TINY)
        rate = torch.log(torch.as_tensor(self.high**0.5 / self.low, dtype=t.dtype, device=t.device))
        root = self.low * torch.exp(rate * place**self.power)
        slope = root * rate * self.power * place ** (self.power - 1) * self.count / (self.count - 1)
        first = t * self.count <= 1
        line = torch.full_like(t, self.low * self.count)
        return torch.where(first, line * t, root), torch.where(first, line, slope)

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - self.root(t) ** 2

    def sigma(self, t: Tensor) -> Tensor:
        return self.kappa * self.root(t)

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        root, slope = self._root(t)
        return -2 * root * slope, self.kappa * slope


class Shifting(Stepper):
    """A draw of the state at s from residual shifting's posterior given those at t and 0 (ResShift, eq. 7).

    `r_s = (η_s/η_t) r_t + (1 − η_s/η_t) r0 + κ √(η_s (1 − η_s/η_t)) ε`: unlike ancestral DDPM, the drift belongs to r0.
    """

    name: Literal["shifting"] = "shifting"

    def weights(self, path: GaussianPath, times: tuple[float, ...], n: int) -> Weights:
        t, s = Level(path, times[n]), Level(path, times[n + 1])
        keep = (s.sigma / max(t.sigma, TINY)) ** 2
        return Weights(keep, (s.alpha - t.alpha * keep,), s.sigma * max(0.0, 1 - keep) ** 0.5)


class ShiftSampler(Sampler):
    """ResShift's own sampler, which draws noise at each step; `Sampler` with DDIM is its deterministic sister (SinSR:
    Wang et al. 2023, arXiv:2311.14760, eq. 9).
    """

    steps: int = 15
    """Number of steps on the grid."""

    def descend(
        self, role: Role, x: State, times: tuple[Any, ...], cond: Any = None, rng: Rng | None = None, revise: Any = None
    ) -> Generator[Move, Any, Any]:
        ones = torch.ones(batch_size(x), device=leaves(x)[0].device)
        scalars = {name: value * ones for name, value in self.scalars.items()}
        return rollout(
            role, x, times, solver=Shifting(), cond=cond, rng=rng, stream="sample", guidance=self.guide,
            free_first=self._free(role.denoiser.path, times), scalars=scalars, revise=revise,
        )  # fmt: skip


class Tempered(Sampler):
    """Starts from less noise than the path has at its first time: the less, the less a network invents."""

    steps: int = 15
    """Number of steps on the grid."""
    temperature: float = 0.4
    """Factor of the noise."""

    def start(self, role: Role, noise: State) -> Any:
        return super().start(role, combine((self.temperature, noise)))


class FromLow(Sampler):
    """Starts from the noised low-resolution picture, `α_t y + σ_t ε` at the first time, for networks whose states are
    whole pictures (SDEdit: Meng et al. 2021, arXiv:2108.01073).

    On residuals the same is any sampler whose first time lies below the path's last: there y is the state 0.
    """

    strength: float = 0.7
    """First time, as a fraction of the path's range."""
    anchor: str = "low"
    """Condition that holds y."""

    def grid_for(self, path: GaussianPath) -> tuple[float, ...]:
        if self.times is not None:
            return super().grid_for(path)
        first = path.t_min + self.strength * (path.t_max - path.t_min)
        return self.grid.times(path.model_copy(update={"t_max": first}), self.steps)

    def walk(
        self, role: Role, noise: State, cond: Any = None, rng: Rng | None = None, roles: Any = None
    ) -> Generator[Move, Any, Any]:
        times = self.grid_for(role.denoiser.path)
        start = role.denoiser.path.noised(cond[self.anchor], noise, role.denoiser.times(times[0], noise))
        return self.descend(role, start, times, cond, rng)
