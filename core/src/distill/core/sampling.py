"""From noise to data: time grids, solvers, and the roll-out that both training and sampling use."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field

from distill.core.cache import Cache
from distill.core.errors import RecipeError
from distill.core.guidance import Guidance, cfg
from distill.core.options import Options
from distill.core.paths import TINY, GaussianPath, Joint, per_key
from distill.core.prediction import Prediction
from distill.core.rng import Rng
from distill.core.roles import Role
from distill.core.tree import State, batch_size, combine, detach, leaves, tree_map

# ---------------------------------------------------------------- grids


def _uniform(path: GaussianPath, u: torch.Tensor, rho: float) -> torch.Tensor:
    return path.t_max + u * (path.t_min - path.t_max)


def _karras(path: GaussianPath, u: torch.Tensor, rho: float) -> torch.Tensor:
    high, low = path.t_max ** (1 / rho), path.t_min ** (1 / rho)
    root: torch.Tensor = high + u * (low - high)
    return root**rho


def _logsnr(path: GaussianPath, u: torch.Tensor, rho: float) -> torch.Tensor:
    ends = torch.tensor([path.t_max - 1e-4, max(path.t_min, 1e-4)], dtype=torch.float64)
    first, last = path.logsnr(ends)
    level = first + u * (last - first)
    high, low = (end.expand_as(u) for end in ends)
    for _ in range(60):  # bisection: λ falls with t on every path
        middle = (low + high) / 2
        clean = path.logsnr(middle) > level
        low, high = torch.where(clean, middle, low), torch.where(clean, high, middle)
    return torch.lerp(low, high, 0.5)


SPACINGS: dict[str, Callable[[GaussianPath, torch.Tensor, float], torch.Tensor]] = {
    "uniform": _uniform, "karras": _karras, "logsnr": _logsnr,
}  # fmt: skip


class Grid(Options):
    """A descending list of times, made for a number of steps."""

    spacing: Literal["uniform", "karras", "logsnr"] = "uniform"
    """Even in t, in t^(1/ρ) (Karras et al. 2022, eq. 5), or in ln(α/σ)."""
    rho: float = 7.0
    """Exponent of the Karras spacing."""
    shift: float = 1.0
    """Timestep shift t ← s t / (1 + (s−1) t) of flow models; 1 is none."""
    low: float | None = None
    """Lower end of the spacing; the path's t_min if None."""
    end: float | None = None
    """Last time; the path's t_min if None. Karras grids of diffusers append 0."""

    def times(self, path: GaussianPath, steps: int) -> tuple[Any, ...]:
        """`steps` + 1 times from the path's t_max down; where modalities have paths of their own, one time
        for each."""
        if steps < 1:
            raise RecipeError(f"a sampler needs at least one step, not {steps}")
        if isinstance(path, Joint):
            grids = [self.times(member, steps) for member in path.paths.values()]
            return tuple(dict(zip(path.paths, row, strict=True)) for row in zip(*grids, strict=True))
        path = path if self.low is None else path.model_copy(update={"t_min": self.low})
        points = steps if self.end is not None else steps + 1
        u = torch.linspace(0, 1, points, dtype=torch.float64)
        t = SPACINGS[self.spacing](path, u, self.rho)
        t = self.shift * t / (1 + (self.shift - 1) * t) if self.shift != 1 else t
        return tuple(t.tolist()) + (() if self.end is None else (self.end,))


# ---------------------------------------------------------------- solvers


@dataclass(frozen=True)
class Weights:
    """One solver step: `x_s = keep · x + Σ pulls_j · x0_{n−j} + fresh · noise + offset`, newest prediction first."""

    keep: float
    pulls: tuple[float, ...]
    fresh: float = 0.0
    offset: float = 0.0


class Level:
    """α, σ and λ of one time of a grid, as Python floats in double precision."""

    def __init__(self, path: GaussianPath, t: float) -> None:
        time = torch.tensor(t, dtype=torch.float64)
        self.alpha, self.sigma = float(path.alpha(time)), float(path.sigma(time))
        self.lam = math.log(max(self.alpha, TINY)) - math.log(max(self.sigma, TINY))


def _line(t: Any, s: Any) -> Weights:
    keep = s.sigma / max(t.sigma, TINY)
    return Weights(keep, (s.alpha - t.alpha * keep,))


def _renoised(t: Level, low: Level, s: Level) -> Weights:
    """The straight move to a level below s, then fresh noise up to s."""
    line, scale = _line(t, low), s.alpha / low.alpha
    fresh = max(0.0, s.sigma**2 - (scale * low.sigma) ** 2) ** 0.5
    return Weights(scale * line.keep, (scale * line.pulls[0],), fresh)


class Stepper(Options):
    """What all solvers share: the weights of their steps, and when and how often they ask the network."""

    evaluations: ClassVar[int] = 1

    @property
    def history(self) -> int:
        """How many predictions a step looks at, the newest included."""
        return 3

    @abstractmethod
    def weights(self, path: GaussianPath, times: tuple[float, ...], n: int) -> Weights:
        """Of step n, from times[n] to times[n + 1]."""

    def asked(self, times: tuple[Any, ...], n: int) -> Any:
        """The time at which the network is asked in step n."""
        return times[n]


def _belongs(fitted: int, times: tuple[float, ...]) -> None:
    if len(times) - 1 != fitted:
        raise RecipeError(f"this solver was fitted for {fitted} steps, not {len(times) - 1}: fit it again")


class DDIM(Stepper):
    """The straight move of a predicted x0 (Song et al. 2021); on EDM and flow paths it is Euler's method."""

    name: Literal["ddim"] = "ddim"
    eta: float = 0.0
    """Share of the noise that is replaced; 1 is ancestral sampling."""

    def weights(self, path: GaussianPath, times: tuple[float, ...], n: int) -> Weights:
        t, s = Level(path, times[n]), Level(path, times[n + 1])
        if not self.eta:
            return _line(t, s)
        ratio = (t.alpha * s.sigma / max(t.sigma * s.alpha, TINY)) ** 2
        fresh = self.eta * s.sigma * max(0.0, 1 - ratio) ** 0.5
        keep = max(0.0, s.sigma**2 - fresh**2) ** 0.5 / max(t.sigma, TINY)
        return Weights(keep, (s.alpha - t.alpha * keep,), fresh)


class Consistency(Stepper):
    """Predict x0, add fresh noise of the next level (Song et al. 2023, algorithm 1)."""

    name: Literal["consistency"] = "consistency"
    gamma: float = 1.0
    """Jump to (1−γ) of the next time, then re-noise to it: 1 is the consistency sampler, 0 is DDIM (Kim et
    al. 2024)."""

    def weights(self, path: GaussianPath, times: tuple[float, ...], n: int) -> Weights:
        t, s = Level(path, times[n]), Level(path, times[n + 1])
        low = Level(path, max((1 - self.gamma) * times[n + 1], path.t_min)) if self.gamma < 1 else None
        if low is None:
            return Weights(0.0, (s.alpha,), s.sigma)
        return _renoised(t, low, s)


class Overshoot(Stepper):
    """Jump two steps of the grid down and re-noise one up: the N-step stochastic sampler of a student of N/2
    jumps.

    Meng et al. 2023, arXiv:2210.03142, section 3.3; the last step is an ordinary jump.
    """

    name: Literal["overshoot"] = "overshoot"

    def weights(self, path: GaussianPath, times: tuple[float, ...], n: int) -> Weights:
        t, s = Level(path, times[n]), Level(path, times[n + 1])
        return _renoised(t, Level(path, times[n + 2]), s) if n + 2 < len(times) else _line(t, s)


class DPM(Stepper):
    """DPM-Solver++ multistep in data prediction (Lu et al. 2022, arXiv:2211.01095); order 1 is DDIM.

    Order 3 is what diffusers calls so: its coefficients and its first-order start, hence second order in the limit.
    """

    name: Literal["dpm"] = "dpm"
    order: Literal[1, 2, 3] = 2

    def weights(self, path: GaussianPath, times: tuple[float, ...], n: int) -> Weights:
        levels = [Level(path, t) for t in times[max(0, n - 2) : n + 2]]
        return multistep(levels, 1 if levels[-1].sigma < 1e-8 else self.order)


def multistep(levels: Sequence[Any], order: int) -> Weights:
    """Weights of DPM-Solver++ between the last two levels; those before belong to past predictions.

    A level has α, σ and λ as `alpha`, `sigma`, `lam`: numbers, or tensors where a gradient is wanted.
    """
    s, t, past = levels[-1], levels[-2], levels[-3::-1]
    order = min(order, 1 + len(past))
    if order == 1:
        return _line(t, s)
    h, keep = s.lam - t.lam, s.sigma / t.sigma
    phi = s.alpha - t.alpha * keep
    r0 = (t.lam - past[0].lam) / h
    if order == 2:
        return Weights(keep, (phi + phi / (2 * r0), -phi / (2 * r0)))
    r1 = (past[0].lam - past[1].lam) / h
    slope, bend = s.alpha - phi / h, phi / h**2 - s.alpha / h + s.alpha / 2
    # D1 = d0 + r0/(r0+r1) (d0 − d1), D2 = (d0 − d1)/(r0+r1), with d0 = (m0 − m1)/r0 and d1 = (m1 − m2)/r1
    first = slope * (1 + r0 / (r0 + r1)) + bend / (r0 + r1)
    second = -slope * r0 / (r0 + r1) - bend / (r0 + r1)
    return Weights(keep, (phi + first / r0, -first / r0 + second / r1, -second / r1))


class Heun(Stepper):
    """Second-order Runge-Kutta on dx/dt (Karras et al. 2022, algorithm 1 without churn): two calls a step,
    the last one."""

    name: Literal["heun"] = "heun"
    evaluations: ClassVar[int] = 2

    def weights(self, path: GaussianPath, times: tuple[float, ...], n: int) -> Weights:
        return _line(Level(path, times[n]), Level(path, times[n + 1]))


class Corrected(Stepper):
    """Any of the above with each prediction extrapolated along its last change: `D_k + λ_k (D_k − D_{k−1})`.

    The λ are fitted to a teacher's roll-out (D-ODE: Kim et al. 2023, arXiv:2309.16421) and belong to one
    grid.
    """

    name: Literal["corrected"] = "corrected"
    base: DDIM | DPM = DDIM()
    factors: tuple[float, ...]
    """λ_k, one per step; the first has nothing to extrapolate from and is 0."""

    def weights(self, path: GaussianPath, times: tuple[float, ...], n: int) -> Weights:
        _belongs(len(self.factors), times)
        base = self.base.weights(path, times, n)
        shift = self.factors[n] * base.pulls[0]
        pulls = (*base.pulls, 0.0) if len(base.pulls) == 1 else base.pulls
        return Weights(base.keep, (pulls[0] + shift, pulls[1] - shift, *pulls[2:]), base.fresh)


class Calibrated(Stepper):
    """Any of the above with an affine map of the state after each step: `scale · x + offset`.

    It gives states of a coarse route the amplitudes of a fine one (OSS: Pei et al. 2025, arXiv:2503.21774), or
    clean data's amplitude to a state whose last time keeps some noise.
    """

    name: Literal["calibrated"] = "calibrated"
    base: DDIM | DPM = DDIM()
    scales: tuple[float, ...]
    """Factor after each step."""
    offsets: tuple[float, ...]
    """What is added then."""

    def weights(self, path: GaussianPath, times: tuple[float, ...], n: int) -> Weights:
        _belongs(len(self.scales), times)
        base, scale = self.base.weights(path, times, n), self.scales[n]
        return Weights(
            scale * base.keep, tuple(scale * pull for pull in base.pulls), scale * base.fresh, self.offsets[n]
        )


class Tabulated(Stepper):
    """Weights written down one by one: a solver that was learnt for one grid (GAS: arXiv:2510.17699)."""

    name: Literal["tabulated"] = "tabulated"
    keeps: tuple[float, ...]
    """Share of the state in each step."""
    pulls: tuple[tuple[float, ...], ...]
    """Shares of the predictions so far in each step, the newest first."""
    moments: tuple[float, ...]
    """The time that the network is told in each step."""

    @property
    def history(self) -> int:
        return len(self.keeps)

    def weights(self, path: GaussianPath, times: tuple[float, ...], n: int) -> Weights:
        _belongs(len(self.keeps), times)
        return Weights(self.keeps[n], self.pulls[n])

    def asked(self, times: tuple[Any, ...], n: int) -> Any:
        return self.moments[n]


Solver = Annotated[
    DDIM | Consistency | Overshoot | DPM | Heun | Corrected | Calibrated | Tabulated, Field(discriminator="name")
]


# ---------------------------------------------------------------- roll-outs


@dataclass(frozen=True)
class Move:
    """One step of a roll-out: state x at time t, what the network said, and the state at s that follows."""

    n: int
    t: float
    s: float
    x: Any
    prediction: Prediction
    next: Any
    cache: Cache | None = None
    """What the state attended to; where something was deferred, it is written here."""


def rollout(
    role: Role,
    x: State,
    times: tuple[float, ...],
    *,
    solver: Any = None,
    cond: Mapping[str, Any] | None = None,
    rng: Rng | None = None,
    stream: str = "rollout",
    attach: Collection[int] = (),
    guidance: Guidance | None = None,
    free_first: bool = False,
    scalars: Mapping[str, Any] | None = None,
    cache: Cache | None = None,
    revise: Callable[[int, Prediction], Prediction] | None = None,
) -> Generator[Move, Any, Any]:
    """Walk a state down a grid; each step is yielded, and what is sent back replaces the next state.

    Args:
        role: who predicts.
        x: state at `times[0]`.
        times: descending times, shared by the batch.
        solver: how predictions move the state; DDIM if None.
        attach: steps that carry gradient; the others run without, and the state that enters an attached step
            is detached unless the step before is attached too.
        free_first: take the first step along x/√(α²+σ²), without a call (analytical first step, Dockhorn et
            al. 2022).
        scalars: extra inputs of the network.
        cache: what every step attends to; a step's own entries come back in its prediction, and only there. What it
            defers is written by the first step.
        revise: what is made of each step's prediction before the state moves by it: mixed with that of another role,
            clipped. Gets the number of the step.
    """
    solver, path = solver or DDIM(), role.denoiser.path
    said: list[Any] = []
    ask = {"cond": cond, "guidance": guidance, **(scalars or {})}
    for n, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        with torch.set_grad_enabled(n in attach and torch.is_grad_enabled()):
            if not {n - 1, n} <= set(attach):
                x, said = detach(x), [detach(x0) for x0 in said]
            free = free_first and n == 0
            prediction = _analytic(role, x, t) if free else role.predict(x, solver.asked(times, n), cache=cache, **ask)
            if cache is not None and cache.pending is not None and prediction.cache is not None:
                cache = prediction.cache.context()
            prediction = prediction if revise is None else revise(n, prediction)
            said = [prediction.x0, *said[: solver.history - 1]]
            following = _advance(solver, path, times, n, x, said, rng, stream)
            if solver.evaluations == 2 and n < len(times) - 2 and not free:
                again, half = role.predict(following, s, cache=cache, **ask), per_key(lambda a, b: (b - a) / 2, t, s)
                following = combine((1.0, x), (half, prediction.velocity), (half, again.velocity))
        replaced = yield Move(n, t, s, x, prediction, following, cache)
        x = following if replaced is None else replaced
    return x


@lru_cache(maxsize=256)
def _weights(solver: Any, path: GaussianPath, times: tuple[float, ...]) -> tuple[Weights, ...]:
    """The weights of every step; roll-outs down one grid share them."""
    return tuple(solver.weights(path, times, n) for n in range(len(times) - 1))


def _advance(
    solver: Any,
    path: GaussianPath,
    times: tuple[float, ...],
    n: int,
    x: Any,
    said: list[Any],
    rng: Any,
    stream: str,
) -> Any:
    if isinstance(path, Joint):
        moved = {}
        for key, member in path.paths.items():
            own, past = path.member_times(times, key), [x0[key] for x0 in said]
            moved[key] = _advance(solver, member, own, n, x[key], past, rng, f"{stream}/{key}")
        return moved
    weights = _weights(solver, path, tuple(times))[n]
    parts = [(pull, x0) for pull, x0 in zip(weights.pulls, said, strict=False) if pull]
    if weights.keep:
        parts.append((weights.keep, x))
    if weights.fresh:
        if rng is None:
            raise RecipeError(f"the solver '{solver.name}' draws noise: give the roll-out an rng")
        parts.append((weights.fresh, rng.normal_like(said[0], stream=stream)))  # x0 may have been resized
    moved = combine(*parts) if parts else combine((0.0, x))
    return tree_map(lambda value: value + weights.offset, moved) if weights.offset else moved


def _analytic(role: Role, x: State, t: float) -> Prediction:
    denoiser = role.denoiser
    time = denoiser.times(t, x)
    alpha, sigma = denoiser.path.alpha(time), denoiser.path.sigma(time)
    scale = per_key(lambda a, s: (a**2 + s**2).rsqrt(), alpha, sigma)
    return Prediction("eps", combine((scale, x)), x, time, denoiser.path)


def finish(walk: Generator[Move, Any, Any]) -> Any:
    """Run a roll-out to its end: the last state."""
    state = None
    for move in walk:
        state = move.next
    return state


ALONE: Mapping[str, Role] = {}


class Sampler(Options):
    """How a network is sampled. Part of what was trained: saved with a student, used by `sample` and
    `export`."""

    steps: int = 64
    """Number of steps on the grid (ignored where `times` is given)."""
    times: tuple[float, ...] | None = None
    """The times that the student was trained at, descending, without the final one."""
    end: float = 0.0
    """The final one."""
    grid: Grid = Grid()
    """Spacing of the times where none are given."""
    solver: Solver = DDIM()
    guidance: float | dict[str, float] = 1.0
    """w of p(∅) + w (p(c) − p(∅)); 1 is none. Of a joint state each modality may have its own."""
    interval: tuple[float, float] | None = None
    """Times between which guidance acts, low and high; all of them if None (arXiv:2404.07724)."""
    rescale: float = Field(0.0, ge=0, le=1)
    """φ: how far guided predictions get back the standard deviation of plain ones (arXiv:2305.08891, section 3.4)."""
    negative: dict[str, Any] = {}
    """Values that dropped conditions take instead of the network's null values: negative prompts, encoded."""
    free_first: bool = False
    """First step without a network call."""
    scalars: dict[str, float] = {}
    """Extra inputs of the network, by name."""

    def with_steps(self, steps: int | None) -> Sampler:
        """The same sampler with another number of steps; a trained list of times is thinned evenly."""
        if steps is None:
            return self
        if self.times is None:
            return self.model_copy(update={"steps": steps})
        known = len(self.times)
        if steps < 1 or known % steps:
            fit = [n for n in range(1, known + 1) if known % n == 0]
            raise RecipeError(f"the student was trained at {known} times: give it {fit} steps, not {steps}")
        return self.model_copy(update={"times": self.times[:: known // steps], "steps": steps})

    def but_for(self, given: Self | None) -> Self:
        """The same but for what another one says; a number of steps alone means the grid, and no list of times."""
        said = set() if given is None else given.model_fields_set
        other = super().but_for(given)
        return other.model_copy(update={"times": None}) if "steps" in said and "times" not in said else other

    def negated(self, values: Mapping[str, Any]) -> Sampler:
        """The same with other values of dropped conditions: a negative prompt, encoded."""
        return self.model_copy(update={"negative": dict(values)})

    def check(self, path: GaussianPath) -> None:
        """Raise RecipeError where the trained times do not descend, or leave the path's range."""
        if self.times is None:
            return
        times = [*self.times, self.end]
        if len(times) < 2 or any(a <= b for a, b in zip(times, times[1:], strict=False)):
            said = f"times that descend and end above {self.end:g}"
            raise RecipeError(f"the student needs {said}, not {list(self.times)}")
        if times[0] > 1.0001 * path.t_max:
            name = type(path).__name__
            raise RecipeError(
                f"the student's first time {times[0]} lies beyond {path.t_max:g}, the last of its {name} path"
            )

    def grid_for(self, path: GaussianPath) -> tuple[float, ...]:
        """The descending times, the final one included."""
        if self.times is not None:
            return (*self.times, self.end)
        return self.grid.times(path, self.steps)

    @property
    def needs(self) -> tuple[str, ...]:
        """Roles that are asked besides the one that is sampled; `sample` is then given them by name."""
        return ()

    @property
    def guide(self) -> Guidance:
        """The guidance as a value."""
        return cfg(self.guidance, interval=self.interval, rescale=self.rescale, null=self.negative)

    def descend(
        self, role: Role, x: State, times: tuple[Any, ...], cond: Any = None, rng: Rng | None = None,
        revise: Callable[[int, Prediction], Prediction] | None = None,
    ) -> Generator[Move, Any, Any]:  # fmt: skip
        """The roll-out of a state at times[0] down to the last of the times, step by step, without gradient."""
        ones = torch.ones(batch_size(x), device=leaves(x)[0].device)
        scalars = {name: value * ones for name, value in self.scalars.items()}
        return rollout(
            role, x, times, solver=self.solver, cond=cond, rng=rng, stream="sample", guidance=self.guide,
            free_first=self._free(role.denoiser.path, times), scalars=scalars, revise=revise,
        )  # fmt: skip

    def start(self, role: Role, noise: State) -> Any:
        """The state at the first time."""
        return role.denoiser.path.prior(noise, self.times[0] if self.times else None)

    def walk(
        self, role: Role, noise: State, cond: Any = None, rng: Rng | None = None, roles: Mapping[str, Role] = ALONE
    ) -> Generator[Move, Any, Any]:
        """The roll-out from noise, step by step, without gradient."""
        return self.descend(role, self.start(role, noise), self.grid_for(role.denoiser.path), cond, rng)

    @torch.no_grad()
    def sample(
        self, role: Role, noise: State, cond: Any = None, rng: Rng | None = None, roles: Mapping[str, Role] = ALONE
    ) -> Any:
        """Samples for standard normal noise; `roles` are those of the run, for a sampler that needs several."""
        return finish(self.walk(role, noise, cond, rng, roles))

    def calls(self, path: GaussianPath) -> float:
        """Network calls per sample, of all roles together."""
        return self.calls_on(path, self.grid_for(path))

    def calls_on(self, path: GaussianPath, times: tuple[Any, ...]) -> float:
        """Network calls per sample of a roll-out down the times."""
        guide, steps, total = self.guide, len(times) - 1, 0
        for n in range(int(self._free(path, times)), steps):
            total += guide.calls_at(self.solver.asked(times, n))
            total += guide.calls_at(times[n + 1]) if self.solver.evaluations == 2 and n < steps - 1 else 0
        return total

    def _free(self, path: GaussianPath, times: tuple[Any, ...]) -> bool:
        """Whether the first of the times costs no call: it is the sampler's own first, where the state is noise."""
        return self.free_first and times[0] == self.grid_for(path)[0]
