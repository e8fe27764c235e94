"""Laws of noise levels. Every term of a loss draws its own times, from its own stream."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from distill.core import GaussianPath, Options, Rng
from distill.core.errors import RecipeError
from distill.core.paths import Joint


def time_of(path: GaussianPath, noise: Tensor) -> Tensor:
    """The times at which σ/α has these values, as near as the path's ends allow: the inverse of `path.logsnr`."""
    low, high = (torch.full_like(noise, end, dtype=torch.float64) for end in (path.t_min, path.t_max))
    level = -noise.double().log()
    for _ in range(50):  # bisection: λ falls with t on every path
        middle = (low + high) / 2
        clean = path.logsnr(middle) > level
        low, high = torch.where(clean, middle, low), torch.where(clean, high, middle)
    return high.to(noise.dtype)


class UniformTimes(Options):
    """Uniform between two fractions of the path's range."""

    name: Literal["uniform"] = "uniform"
    low: float = 0.0
    """Lower end, as a fraction of [t_min, t_max]."""
    high: float = 1.0
    """Upper end, as a fraction of [t_min, t_max]."""

    def draw(self, path: GaussianPath, size: int, rng: Rng, stream: str) -> Tensor:
        u = self.low + (self.high - self.low) * rng.uniform(size, stream=stream)
        return path.t_min + (path.t_max - path.t_min) * u


class LogNormalTimes(Options):
    """`ln t ~ N(mean, std²)`, the law of EDM's σ (Karras et al. 2022, table 1), clamped to the path's range.

    On a path whose time is not σ itself, `of: noise` draws σ/α so, and takes the time where the path has it.
    """

    name: Literal["lognormal"] = "lognormal"
    mean: float = -1.2
    """Mean of ln t."""
    std: float = 1.2
    """Standard deviation of ln t."""
    of: Literal["time", "noise"] = "time"
    """What has this law: t, or σ/α."""

    def draw(self, path: GaussianPath, size: int, rng: Rng, stream: str) -> Tensor:
        drawn = (self.mean + self.std * rng.normal(size, stream=stream)).exp()
        return time_of(path, drawn) if self.of == "noise" else drawn.clamp(path.t_min, path.t_max)


class LogitNormalTimes(Options):
    """`logit t ~ N(mean, std²)`, the law of flow models (Esser et al. 2024, eq. 19); mean > 0 favours noise."""

    name: Literal["logitnormal"] = "logitnormal"
    mean: float = 0.0
    """Mean of logit t."""
    std: float = 1.0
    """Standard deviation of logit t."""

    def draw(self, path: GaussianPath, size: int, rng: Rng, stream: str) -> Tensor:
        u = torch.sigmoid(self.mean + self.std * rng.normal(size, stream=stream))
        return path.t_min + (path.t_max - path.t_min) * u


class KarrasTimes(Options):
    """Uniform in t^(1/ρ) between two fractions, the level law of SiD's generator loss; 0 is t_min."""

    name: Literal["karras"] = "karras"
    rho: float = 7.0
    """Exponent ρ."""
    low: float = 0.0
    """Lower end of the uniform number."""
    high: float = 1.0
    """Upper end of the uniform number; 0.8 leaves out the noisiest fifth."""
    noise: tuple[float, float] | None = None
    """Draw σ/α so, between these two, in place of t between the path's ends."""

    def draw(self, path: GaussianPath, size: int, rng: Rng, stream: str) -> Tensor:
        u = self.low + (self.high - self.low) * rng.uniform(size, stream=stream)
        a, b = (end ** (1 / self.rho) for end in self.noise or (path.t_min, path.t_max))
        drawn = (a + u * (b - a)) ** self.rho
        return time_of(path, drawn) if self.noise else drawn


class ListedTimes(Options):
    """One of a few times, with probabilities."""

    name: Literal["listed"] = "listed"
    times: tuple[float, ...]
    """The times."""
    shares: tuple[float, ...] = ()
    """Their probabilities; equal if empty."""

    def draw(self, path: GaussianPath, size: int, rng: Rng, stream: str) -> Tensor:
        shares = torch.tensor(self.shares or (1.0,) * len(self.times), device=rng.device).cumsum(0)
        place = torch.searchsorted(shares / shares[-1], rng.uniform(size, stream=stream))
        return torch.tensor(self.times, device=rng.device)[place.clamp_max(len(self.times) - 1)]


Law = Annotated[
    UniformTimes | LogNormalTimes | LogitNormalTimes | KarrasTimes | ListedTimes, Field(discriminator="name")
]


class ApartTimes(Options):
    """A law for each modality of a joint state: its time is drawn apart from that of the others."""

    name: Literal["apart"] = "apart"
    example: ClassVar[dict[str, Any]] = {"laws": {"video": {"name": "uniform"}}}
    laws: dict[str, Law]
    """Law of each modality."""

    def draw(self, path: GaussianPath, size: int, rng: Rng, stream: str) -> Any:
        """Times [B] of each modality.

        Raises:
            RecipeError: the path has other modalities.
        """
        known = path.paths if isinstance(path, Joint) else {}
        if set(known) != set(self.laws):
            raise RecipeError(
                f"times are given for {', '.join(self.laws)}, and the state has "
                f"{', '.join(known) or 'one modality only'}: give one law for each"
            )
        return {key: law.draw(known[key], size, rng, f"{stream}/{key}") for key, law in self.laws.items()}


Times = Annotated[
    UniformTimes | LogNormalTimes | LogitNormalTimes | KarrasTimes | ListedTimes | ApartTimes,
    Field(discriminator="name"),
]
