"""Forward processes: how data becomes noise, and the moves between two times.

Gaussian paths noise a state as `x_t = α_t x0 + σ_t ε`; times grow with noise. A time has the shape of the
path's
units: one per sample [B], per frame [B, F], ... Categorical paths act on integer tokens and refuse score
views.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from distill.core.options import Options
from distill.core.tree import State, combine, where

TINY = 1e-12


class GaussianPath(Options):
    """`x_t = α_t x0 + σ_t ε` with times in [`t_min`, `t_max`]. Subclasses give α, σ and their derivatives."""

    t_min: float = 0.0
    """Smallest time; α = 1, σ ≈ 0 there."""
    t_max: float = 1.0
    """Largest time, where sampling starts."""

    @abstractmethod
    def alpha(self, t: Any) -> Any:
        """Signal coefficient α_t, in the shape of t."""

    @abstractmethod
    def sigma(self, t: Any) -> Any:
        """Noise coefficient σ_t, in the shape of t."""

    @abstractmethod
    def slopes(self, t: Any) -> tuple[Any, Any]:
        """(dα/dt, dσ/dt), in the shape of t."""

    def native(self, t: Any) -> Any:
        """The time that the network is fed: thousandths by default, as diffusers' networks expect."""
        return 1000 * t

    def logsnr(self, t: Tensor) -> Tensor:
        """λ_t = ln(α_t / σ_t)."""
        level: Tensor = self.alpha(t).clamp_min(TINY).log() - self.sigma(t).clamp_min(TINY).log()
        return level

    def noised(self, x0: State, noise: State, t: Any) -> Any:
        """x_t for given data and noise."""
        return combine((self.alpha(t), x0), (self.sigma(t), noise))

    def prior(self, noise: State, t: Any = None) -> Any:
        """The state where sampling starts: σ · noise at t_max, or at another time."""
        return combine((float(self.sigma(torch.tensor(self.t_max if t is None else t))), noise))

    def jump(self, x: State, x0: State, t: Any, s: Any) -> Any:
        """Deterministic move t → s along the straight DDIM line of a predicted x0; s may lie above or below
        t.

        At s = t the state is copied, bit for bit.
        """
        keep = per_key(lambda st, ss: ss / st.clamp_min(TINY), self.sigma(t), self.sigma(s))
        pull = per_key(lambda a_s, a_t, r: a_s - a_t * r, self.alpha(s), self.alpha(t), keep)
        return where(per_key(torch.eq, t, s), x, combine((keep, x), (pull, x0)))

    def inverse_jump(self, x: State, x_s: State, t: Any, s: Any) -> Any:
        """The x0 for which `jump(x, x0, t, s)` is `x_s` (s ≠ t)."""
        keep = per_key(lambda st, ss: ss / st.clamp_min(TINY), self.sigma(t), self.sigma(s))
        scale = per_key(lambda a_s, a_t, r: 1 / (a_s - a_t * r), self.alpha(s), self.alpha(t), keep)
        return combine((scale, x_s), (per_key(lambda k, c: -k * c, keep, scale), x))

    def renoise(self, x_s: State, noise: State, s: Any, t: Any) -> Any:
        """Forward move s → t > s with fresh noise, exact in law."""
        keep = per_key(lambda a_t, a_s: a_t / a_s.clamp_min(TINY), self.alpha(t), self.alpha(s))
        fresh = per_key(
            lambda st, k, ss: (st**2 - (k * ss) ** 2).clamp_min(0).sqrt(), self.sigma(t), keep, self.sigma(s)
        )
        return combine((keep, x_s), (fresh, noise))

    def stochastic_jump(self, x: State, x0: State, noise: State, t: Any, s: Any, eta: float) -> Any:
        """Move t → s < t that replaces a share of the predicted noise; η = 1 is ancestral, η = 0 is
        `jump`."""

        def churn(a_s: Tensor, s_s: Tensor, a_t: Tensor, s_t: Tensor) -> Tensor:
            ratio = (a_t * s_s / (s_t * a_s).clamp_min(TINY)) ** 2
            return eta * s_s * (1 - ratio).clamp_min(0).sqrt()

        fresh = per_key(churn, self.alpha(s), self.sigma(s), self.alpha(t), self.sigma(t))
        keep = per_key(
            lambda s_s, c, s_t: (s_s**2 - c**2).clamp_min(0).sqrt() / s_t.clamp_min(TINY),
            self.sigma(s), fresh, self.sigma(t),
        )  # fmt: skip
        pull = per_key(lambda a_s, a_t, k: a_s - a_t * k, self.alpha(s), self.alpha(t), keep)
        return combine((keep, x), (pull, x0), (fresh, noise))


def per_key(fn: Any, first: Any, *others: Any) -> Any:
    """Apply a function of coefficients to tensors, or key by key to mappings of them."""
    if isinstance(first, Mapping):
        return {key: per_key(fn, first[key], *(other[key] for other in others)) for key in first}
    return fn(first, *others)


class Flow(GaussianPath):
    """Flow matching, `x_t = (1−t) x0 + t ε`, velocity `u = ε − x0` (Lipman et al. 2023, arXiv:2210.02747)."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)


class Cosine(GaussianPath):
    """Variance preserving, `α = cos(πt/2), σ = sin(πt/2)` (Salimans & Ho 2022, arXiv:2202.00512)."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(t * (math.pi / 2))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(t * (math.pi / 2))

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -self.sigma(t) * (math.pi / 2), self.alpha(t) * (math.pi / 2)


class Trigonometric(GaussianPath):
    """TrigFlow, `x_t = cos(t) x0 + sin(t) σ_d ε`, t in [0, π/2] (Lu & Song 2024, arXiv:2410.11081)."""

    t_max: float = math.pi / 2
    sigma_data: float = 1.0
    """Standard deviation of the data, σ_d."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_data * torch.sin(t)

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.sin(t), self.sigma_data * torch.cos(t)

    def native(self, t: Tensor) -> Tensor:
        return t


class Karras(GaussianPath):
    """Variance exploding, `α = 1, σ = t` (EDM: Karras et al. 2022, arXiv:2206.00364)."""

    t_min: float = 0.002
    t_max: float = 80.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.ones_like(t)

    def native(self, t: Tensor) -> Tensor:
        return t.clamp_min(TINY).log() / 4


@lru_cache(maxsize=16)
def _log_alphas(alphas_cumprod: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor((1.0, *alphas_cumprod), dtype=torch.float64, device=device).log() / 2


class Discrete(GaussianPath):
    """Variance preserving with a table of ᾱ, as diffusers' DDPM-type schedulers keep it.

    Time (i+1)/T is the table's entry i, so that time 0 is clean data; in between ᾱ is interpolated in ln ᾱ.
    """

    alphas_cumprod: tuple[float, ...]
    """ᾱ_0 … ᾱ_{T−1}."""

    def _log_alpha(self, t: Tensor) -> Tensor:
        table = _log_alphas(self.alphas_cumprod, t.device)
        place = (t.double() * (len(table) - 1)).clamp(0, len(table) - 1)
        low = place.floor().long().clamp_max(len(table) - 2)
        return torch.lerp(table[low], table[low + 1], place - low).to(t.dtype)

    def alpha(self, t: Tensor) -> Tensor:
        return self._log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self._log_alpha(t))).clamp_min(0).sqrt()

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        step = 0.5 / len(self.alphas_cumprod)
        low, high = (t - step).clamp_min(0), (t + step).clamp_max(1)
        rate = (self._log_alpha(high) - self._log_alpha(low)) / (high - low)
        alpha = self.alpha(t)
        return alpha * rate, -(alpha**2) * rate / self.sigma(t).clamp_min(TINY)

    def native(self, t: Tensor) -> Tensor:
        return t * len(self.alphas_cumprod) - 1

    @classmethod
    def scaled_linear(cls, start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> Discrete:
        """Stable Diffusion's table: √β linear from √start to √end."""
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        return cls(alphas_cumprod=tuple((1 - betas).cumprod(0).tolist()))


class Joint(GaussianPath):
    """Several modalities in one state, each with a path of its own; a time is one tensor for all or one a
    modality."""

    paths: dict[str, GaussianPath]
    """Path of each key of the state."""

    def member_times(self, times: Sequence[Any], key: str) -> tuple[float, ...]:
        """One modality's times in a list that holds a number for all, or one a modality."""
        return tuple(t[key] if isinstance(t, Mapping) else t for t in times)

    def _each(self, method: str, t: Any) -> dict[str, Any]:
        times = t if isinstance(t, Mapping) else dict.fromkeys(self.paths, t)
        return {key: getattr(path, method)(times[key]) for key, path in self.paths.items()}

    def alpha(self, t: Any) -> dict[str, Any]:
        return self._each("alpha", t)

    def sigma(self, t: Any) -> dict[str, Any]:
        return self._each("sigma", t)

    def slopes(self, t: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        both = self._each("slopes", t)
        return {k: v[0] for k, v in both.items()}, {k: v[1] for k, v in both.items()}

    def native(self, t: Any) -> dict[str, Any]:
        return self._each("native", t)

    def prior(self, noise: State, t: Any = None) -> Any:
        times = t if isinstance(t, Mapping) else dict.fromkeys(self.paths, t)
        return {k: p.prior(noise[k], times[k]) for k, p in self.paths.items()}  # type: ignore[index]

    def jump(self, x: State, x0: State, t: Any, s: Any) -> Any:
        times, ends = (u if isinstance(u, Mapping) else dict.fromkeys(self.paths, u) for u in (t, s))
        here: Any = x
        clean: Any = x0
        return {k: p.jump(here[k], clean[k], times[k], ends[k]) for k, p in self.paths.items()}


class Bridge(Options):
    """Brownian bridge between data and a given end point: `x_t = (1−t) x0 + t x_T + κ √(t(1−t)) ε`, t in [0,
    1]."""

    kappa: float = 1.0
    """Standard deviation of the bridge, up to the factor √(t(1−t))."""

    def noised(self, x0: State, noise: State, t: Tensor, end: State) -> Any:
        """x_t between data and end point."""
        return combine((1 - t, x0), (t, end), (self.kappa * (t * (1 - t)).sqrt(), noise))

    def posterior(self, x: State, x0: State, noise: State, t: Tensor, s: Tensor) -> Any:
        """A draw of x_s given x_t and x0, s ≤ t."""
        ratio = s / t.clamp_min(TINY)
        fresh = self.kappa * (s * (1 - ratio)).clamp_min(0).sqrt()
        return combine((ratio, x), (1 - ratio, x0), (fresh, noise))


class CategoricalPath(Options):
    """Tokens lose their identity with time: kept with probability α_t = 1 − t, else redrawn from the path's
    noise law."""

    vocabulary: int
    """How many tokens there are (a mask token, if any, included)."""
    t_min: float = 0.0
    """Smallest time: every token is itself."""
    t_max: float = 1.0
    """Largest time: every token is lost."""

    def native(self, t: Tensor) -> Tensor:
        """The time that the network is fed."""
        return t

    @abstractmethod
    def noise_law(self, like: Tensor) -> Tensor:
        """Probability of each token when identity is lost: [V]."""

    def noised(self, tokens: Tensor, uniform: Tensor, t: Tensor) -> Tensor:
        """Tokens at time t. `uniform` has one number in [0, 1) per token."""
        keep = (1 - t).reshape(t.shape + (1,) * (tokens.ndim - t.ndim))
        law = self.noise_law(uniform.double()).cumsum(0)
        place = ((uniform.double() - keep) / (1 - keep).clamp_min(TINY)).clamp(0, 1)
        lost = torch.searchsorted(law, place, right=True).clamp_max(self.vocabulary - 1)
        return torch.where(uniform < keep, tokens, lost)

    def posterior(self, log_x0: Tensor, tokens: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Probabilities of the tokens at s < t given those at t and log p(x0): [..., V] (Austin et al. 2021,
        eq. 3)."""
        shape = t.shape + (1,) * (log_x0.ndim - t.ndim)
        a_t, a_s = (1 - t).reshape(shape), (1 - s).reshape(shape)
        step = a_t / a_s.clamp_min(TINY)
        law = self.noise_law(log_x0)
        now = torch.nn.functional.one_hot(tokens, self.vocabulary).to(log_x0)
        reach = step * now + (1 - step) * law[tokens].unsqueeze(-1)
        seen = a_t * now + (1 - a_t) * law[tokens].unsqueeze(-1)
        joint = log_x0.exp().clamp_min(1e-30) / seen.clamp_min(TINY)
        mass = reach * (a_s * joint + (1 - a_s) * law * joint.sum(-1, keepdim=True))
        return mass / mass.sum(-1, keepdim=True)


class Absorbing(CategoricalPath):
    """Lost tokens become the mask, the last of the vocabulary."""

    def noise_law(self, like: Tensor) -> Tensor:
        law = torch.zeros(self.vocabulary, dtype=like.dtype, device=like.device)
        law[-1] = 1
        return law


class UniformTokens(CategoricalPath):
    """Lost tokens become any token with equal probability."""

    def noise_law(self, like: Tensor) -> Tensor:
        return torch.full((self.vocabulary,), 1 / self.vocabulary, dtype=like.dtype, device=like.device)


PATHS: dict[str, type[GaussianPath]] = {
    "flow": Flow, "cosine": Cosine, "trigonometric": Trigonometric, "karras": Karras, "discrete": Discrete,
}  # fmt: skip
