"""Schedules that are computed, not trained: searched for along a fine route, or cut from a longer one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from distill.core import Batch, Context, Fit, GaussianPath, Guidance, Role, Sampler, tree
from distill.core.errors import RecipeError
from distill.core.paths import Joint
from distill.core.sampling import DDIM, DPM, Calibrated

# ---------------------------------------------------------------- searched


def search(
    role: Role,
    route: Sequence[Any],
    times: Sequence[float],
    moves: int,
    cond: Any = None,
    guide: Guidance | None = None,
) -> Tensor:
    """Places on a fine grid where `moves` straight moves end up nearest to its route: [B, moves + 1].

    Cell (k, j) holds the best state that k moves reach at place j, `argmin_{i<j} ‖jump(z[k−1][i], t_i→t_j) −
    route[j]‖`; every kept state is asked for its x0 once (Pei et al. 2025, arXiv:2503.21774, algorithm 1).
    """
    path, last = role.denoiser.path, len(times) - 1
    reached: dict[int, Any] = {0: route[0]}
    origin = torch.zeros(moves, last + 1, tree.batch_size(route[0]), dtype=torch.long)
    for k in range(moves):
        said = {i: role.ask(x, times[i], cond, guidance=guide).x0 for i, x in reached.items() if i < last}
        best: dict[int, tuple[Any, Tensor]] = {}
        for j in [last] if k == moves - 1 else range(k + 1, last - moves + k + 2):
            for i in [place for place in said if place < j]:
                step = DDIM().weights(path, (times[i], times[j]), 0)
                x = tree.combine((step.keep, reached[i]), (step.pulls[0], said[i]))
                off = tree.mean(tree.tree_map(lambda a, b: (a - b) ** 2, x, route[j]))
                before, least = best.get(j, (x, torch.full_like(off, torch.inf)))
                nearer = off < least
                origin[k, j] = torch.where(nearer.cpu(), i, origin[k, j])
                best[j] = tree.where(nearer, x, before), torch.where(nearer, off, least)
        reached = {j: x for j, (x, _) in best.items()}
    places = [torch.full_like(origin[0, 0], last)]
    for k in reversed(range(moves)):
        places.insert(0, origin[k].gather(0, places[0][None])[0])
    return torch.stack(places, 1)


def agreed(places: Tensor) -> list[int]:
    """The median of schedules, position by position, moved apart where two positions agree."""
    last = int(places[0, -1])
    chosen = [round(float(column)) for column in places.double().median(0).values]
    for k in range(1, len(chosen)):
        chosen[k] = min(max(chosen[k], chosen[k - 1] + 1), last - (len(chosen) - 1 - k))
    return chosen


class SearchSteps(Fit):
    """The steps of a fine grid on which a coarse sampler follows its route best, agreed on by a batch."""

    moves: int = 5
    """Steps of the student."""
    calibrate: bool = False
    """Match the 5 % and 95 % quantiles of the states to the route's, after each step."""

    def fit(self, batch: Batch, ctx: Context, sampler: Sampler) -> Sampler:
        """The sampler on the chosen steps of its own grid."""
        role, noise = ctx.roles["student"], batch.noise(ctx.rng, "fit/noise")
        times = sampler.grid_for(role.denoiser.path)
        if not 1 <= self.moves < len(times) or isinstance(role.denoiser.path, Joint):
            raise RecipeError(f"oss chooses fewer steps than the sampler's {len(times) - 1}, and of one path")
        walk = list(sampler.walk(role, noise, batch.cond))
        route = [walk[0].x, *(move.next for move in walk)]
        places = agreed(search(role, route, times, self.moves, batch.cond, sampler.guide))
        chosen: Any = {"times": tuple(times[k] for k in places[:-1]), "end": times[-1], "steps": self.moves}
        plain = sampler.model_copy(update={**chosen, "solver": DDIM(), "free_first": False})
        return (
            self.amplified(plain, role, noise, batch.cond, [route[k] for k in places[1:]]) if self.calibrate else plain
        )

    def amplified(self, plain: Sampler, role: Role, noise: Any, cond: Any, route: Sequence[Any]) -> Sampler:
        """The sampler with each state's range mapped to the route's; every step goes on from a mapped state."""
        walk, state, maps = plain.walk(role, noise, cond), None, []
        for wanted in route:
            move = walk.send(state)
            (low, high), (to_low, to_high) = (quantiles(x) for x in (move.next, wanted))
            scale = (to_high - to_low) / max(high - low, 1e-12)
            maps.append((scale, to_low - scale * low))
            state = tree.tree_map(lambda x: maps[-1][0] * x + maps[-1][1], move.next)
        scales, offsets = zip(*maps, strict=True)
        return plain.model_copy(update={"solver": Calibrated(scales=scales, offsets=offsets)})


def quantiles(state: Any) -> tuple[float, float]:
    """The 5 % and the 95 % quantile of all values."""
    values = torch.cat([leaf.flatten() for leaf in tree.leaves(state)]).double().sort().values
    low, high = values[[int(0.05 * (len(values) - 1)), int(0.95 * (len(values) - 1))]].tolist()
    return low, high


# ---------------------------------------------------------------- cut


class CutSteps(Fit):
    """A Karras schedule of more steps, cut off above its small levels, and spread again (arXiv:2510.02390)."""

    moves: int = 5
    """Steps of the sampler."""
    rho: float = 5.0
    """Exponent of the longer schedule, in the levels σ/α."""
    points: int = 8
    """Its levels, from the path's last time to where the network counts 0."""
    cut: int = 6
    """Which of them is the last that is visited, from 0."""
    spread: float = 1.2
    """Exponent of the spacing of the network's times in between."""
    multistep: int = 7
    """Steps from which on the solver is DPM-Solver++ of order 2; DDIM below."""

    def fit(self, batch: Batch, ctx: Context, sampler: Sampler) -> Sampler:
        """The sampler on these times; its last state is brought to the amplitude of data."""
        path = ctx.roles["student"].denoiser.path
        times = self.times(path)
        end = torch.tensor(times[-1], dtype=torch.float64)
        scales = (*(1.0,) * (self.moves - 1), 1 / float(path.alpha(end)))
        base = DPM(order=2) if self.moves >= self.multistep else DDIM()
        solver = Calibrated(base=base, scales=scales, offsets=(0.0,) * self.moves)
        given: Any = {"times": times[:-1], "end": times[-1], "steps": self.moves, "solver": solver}
        return sampler.model_copy(update=given)

    def times(self, path: GaussianPath) -> tuple[float, ...]:
        """`moves` + 1 times, the last above 0."""

        def level(t: Tensor) -> float:
            return float(path.sigma(t) / path.alpha(t).clamp_min(1e-12))

        def native(t: Tensor) -> float:
            return float(path.native(t))

        ends = path.t_max, inverse(native, max(0.0, native(torch.tensor(path.t_min))), path)
        high, low = (level(torch.tensor(t, dtype=torch.float64)) for t in ends)
        if not 0 < self.cut < self.points or high > 1e6 or native(torch.tensor(path.t_min)) < -1:
            raise RecipeError(
                "a cut schedule ends between its first and its last point, and is made for paths that keep some of the "
                f"data at their end and count from 0: cut {self.cut} of {self.points}, {type(path).__name__}"
            )
        last = inverse(level, between(high, low, self.cut / (self.points - 1), self.rho), path)
        first, end = (native(torch.tensor(t, dtype=torch.float64)) for t in (path.t_max, last))
        inner = [between(first, end, k / self.moves, self.spread) for k in range(1, self.moves)]
        return (path.t_max, *(inverse(native, mark, path) for mark in inner), last)


def between(high: float, low: float, u: float, rho: float) -> float:
    """A share u of the way down from high to low, even in the 1/ρ-th power (Karras et al. 2022, eq. 5)."""
    return float((high ** (1 / rho) + u * (low ** (1 / rho) - high ** (1 / rho))) ** rho)


def inverse(fn: Callable[[Tensor], float], value: float, path: GaussianPath) -> float:
    """The time of a path at which a rising function of it has a value, by bisection."""
    low, high = path.t_min, path.t_max
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if fn(torch.tensor(middle, dtype=torch.float64)) < value else (low, middle)
    return high
