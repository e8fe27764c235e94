"""Solvers whose times and weights are learnt, with gradient through a network that stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distill.core import Batch, Context, Event, Fit, GaussianPath, HeadBuilder, Role, Roles, Sampler, Trajectory, tree
from distill.core.errors import RecipeError
from distill.core.paths import Joint
from distill.core.sampling import Grid, Tabulated, Weights, multistep
from distill.methods.losses import guidance_of
from distill.methods.pairs import recall


@dataclass(frozen=True)
class Level:
    """α, σ and λ of one time, with gradient."""

    alpha: Tensor
    sigma: Tensor
    lam: Tensor


class SolverParameters(nn.Module):
    """A few dozen numbers (GAS: arXiv:2510.17699): times, weights of the state and of all predictions, moments.

    Times break a stick, `t_n = δ + (T − δ) Π_{j≤n} sigmoid(θ_j)`; weights are those of DPM-Solver++(3M) at the times
    as they are now, plus corrections that start at 0; a moment is the time that the network is told, `t_n + ξ_n`.
    """

    def __init__(self, path: GaussianPath, times: tuple[float, ...], theory: bool) -> None:
        super().__init__()
        steps, (first, last) = len(times) - 1, (times[0], times[-1])
        left = (torch.tensor(times[:-1], dtype=torch.float64) - last) / (first - last)
        self.path, self.first, self.last, self.theory = path, first, last, theory
        self.theta = nn.Parameter(torch.logit(left[1:] / left[:-1]).float())
        self.keeps = nn.Parameter(torch.zeros(steps))
        self.pulls = nn.Parameter(torch.zeros(steps, steps))
        self.shifts = nn.Parameter(torch.zeros(steps))

    def times(self) -> Tensor:
        """All times, the last included, in double precision: [N + 1]."""
        inner = (self.last + (self.first - self.last) * self.theta.double().sigmoid().cumprod(0)).unbind()
        ends = (self.theta.new_tensor(end, dtype=torch.float64) for end in (self.first, self.last))
        return torch.stack([next(ends), *inner, *ends])

    def table(self) -> list[tuple[Weights, Tensor]]:
        """Weights and moment of every step, as tensors."""
        times = self.times()
        rows = zip(self.path.alpha(times), self.path.sigma(times), self.path.logsnr(times), strict=True)
        levels = [Level(*row) for row in rows]
        moments = (times[:-1] + self.shifts).clamp(self.path.t_min, self.path.t_max)
        return [(self._weights(levels, n), moment) for n, moment in enumerate(moments)]

    def _weights(self, levels: list[Level], n: int) -> Weights:
        order = 1 if float(levels[n + 1].sigma.detach()) < 1e-8 else 3
        base = multistep(levels[max(0, n - 2) : n + 2], order) if self.theory else Weights(0.0, ())
        known = (*base.pulls, *(0.0,) * (n + 1 - len(base.pulls)))
        pulls = tuple(pull + more for pull, more in zip(known, self.pulls[n, : n + 1], strict=True))
        keep: Any = base.keep + self.keeps[n]
        return Weights(keep, pulls)


class LearnedSolver(HeadBuilder):
    """Parameters of a solver for a number of steps."""

    features: str = "student"
    """Role that the solver asks."""
    moves: int = 4
    """Steps."""
    grid: Grid = Grid()
    """Times from which it starts."""
    theory: bool = True
    """Start from DPM-Solver++(3M); from weights of 0 otherwise."""

    def build(self, roles: Roles) -> nn.Module:
        path = roles[self.features].denoiser.path
        if isinstance(path, Joint):
            raise RecipeError("a solver is learnt for one path, and these modalities have one each")
        return SolverParameters(path, self.grid.times(path, self.moves), self.theory)


def travel(solver: SolverParameters, role: Role, noise: Any, cond: Any, w: float = 1.0, sparing: bool = False) -> Any:
    """The end of the solver's route from standard normal noise, all steps in one graph.

    With `sparing`, what the network computed within a step is computed again on the way back, not kept.
    """
    x = role.denoiser.path.prior(noise, solver.first)
    said: list[Any] = []
    ask = partial(_x0, role, cond, w)
    for weights, moment in solver.table():
        x0 = checkpoint(ask, x, moment, use_reentrant=False) if sparing else ask(x, moment)
        said.insert(0, x0)
        x = tree.combine((weights.keep, x), *zip(weights.pulls, said, strict=True))
    return x


def _x0(role: Role, cond: Any, w: float, x: Any, moment: Tensor) -> Any:
    return role.predict(x, moment, cond, guidance=guidance_of(w)).x0


class SolverRoute(Trajectory):
    """Ends of a learnt solver's routes from stored noises, beside the teacher's (`targets["end"]`, also `real`).

    `targets["fake"]` are its ends from fresh noises with the same conditions, for a discriminator.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "a phase before must have stored pairs"}
    role: str = "student"
    """Who is asked."""
    solver: str = "solver"
    """Role of the solver's parameters."""
    guidance: float = 1.0
    """w of the route."""
    fresh: bool = False
    """Add the ends from fresh noises."""
    sparing: bool = True
    """Recompute what the network did in a step instead of keeping it."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.solver,)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role, solver = ctx.roles[self.role], ctx.roles[self.solver].module
        assert isinstance(solver, SolverParameters)
        noise, end, cond = recall(batch.size, ctx)
        targets = {"end": end, "real": end}
        with torch.set_grad_enabled(attached):
            x = travel(solver, role, noise, cond, self.guidance, self.sparing and attached)
        if self.fresh:
            other = Batch(batch.size, shape=role.denoiser.shape).noise(ctx.rng, "solver/fresh")
            with torch.no_grad():
                targets["fake"] = travel(solver, role, other, cond, self.guidance)
        yield Event(x, cond, noise=noise, targets=targets)


class WriteDown(Fit):
    """The learnt parameters as a solver of the sampler."""

    solver: str = "solver"
    """Role of the parameters."""

    @torch.no_grad()
    def fit(self, batch: Batch, ctx: Context, sampler: Sampler) -> Sampler:
        """The sampler with the learnt times and weights."""
        module = ctx.roles[self.solver].module
        assert isinstance(module, SolverParameters)
        times, table = tuple(module.times().tolist()), module.table()
        solver = Tabulated(
            keeps=tuple(float(weights.keep) for weights, _ in table),
            pulls=tuple(tuple(float(pull) for pull in weights.pulls) for weights, _ in table),
            moments=tuple(float(moment) for _, moment in table),
        )
        given: dict[str, Any] = {"times": times[:-1], "end": times[-1], "steps": len(table), "solver": solver}
        return sampler.model_copy(update=given | {"free_first": False})
