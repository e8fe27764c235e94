"""What a denoiser said, and its views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from distill.core.errors import DistillError
from distill.core.paths import TINY, GaussianPath, per_key
from distill.core.tree import State, combine

if TYPE_CHECKING:
    from distill.core.cache import Cache


def _from_eps(path: GaussianPath, t: Any) -> tuple[Any, Any]:
    inverse = per_key(lambda a: 1 / a.clamp_min(TINY), path.alpha(t))
    return inverse, per_key(lambda i, s: -i * s, inverse, path.sigma(t))


def _from_v(path: GaussianPath, t: Any) -> tuple[Any, Any]:
    alpha, sigma = path.alpha(t), path.sigma(t)
    norm = per_key(lambda a, s: a**2 + s**2, alpha, sigma)
    return per_key(lambda a, n: a / n, alpha, norm), per_key(lambda s, n: -s / n, sigma, norm)


def _from_velocity(path: GaussianPath, t: Any) -> tuple[Any, Any]:
    alpha, sigma, (d_alpha, d_sigma) = path.alpha(t), path.sigma(t), path.slopes(t)
    turn = per_key(lambda a, s, da, ds: 1 / (ds * a - s * da), alpha, sigma, d_alpha, d_sigma)
    return per_key(lambda ds, w: ds * w, d_sigma, turn), per_key(lambda s, w: -s * w, sigma, turn)


# x0 = a · x + b · value for each kind that a network may be trained to say
TO_X0: dict[str, Callable[[GaussianPath, Any], tuple[Any, Any]]] = {
    "eps": _from_eps,
    "v": _from_v,
    "velocity": _from_velocity,
}
KINDS = ("x0", *TO_X0, "logits")


@dataclass(frozen=True)
class Prediction:
    """A network's output at (x, t) with lazy views in every parameterisation.

    `v` is `α ε − σ x0` (Salimans & Ho), `velocity` is dx/dt along the path, `score` is ∇ log p. Tokens and
    classes have `logits`, in the network's own shape, and none of the other views.
    """

    kind: str
    value: State
    x: State
    t: Any
    path: GaussianPath
    features: Mapping[str, Any] = field(default_factory=dict)
    cache: Cache | None = None

    @cached_property
    def x0(self) -> Any:
        """The clean state that the network expects."""
        if self.kind == "x0":
            return self.value
        if self.kind not in TO_X0:
            raise DistillError(
                f"a prediction of kind '{self.kind}' has no x0, eps, velocity or score: "
                "use .logits, or a loss made for tokens"
            )
        a, b = TO_X0[self.kind](self.path, self.t)
        return combine((a, self.x), (b, self.value))

    @cached_property
    def eps(self) -> Any:
        """The noise in x, in units of its standard deviation."""
        if self.kind == "eps":
            return self.value
        x0 = self.x0  # first, because it knows how to refuse
        inverse = per_key(lambda s: 1 / s.clamp_min(TINY), self.path.sigma(self.t))
        share = per_key(lambda i, a: -i * a, inverse, self.path.alpha(self.t))
        return combine((inverse, self.x), (share, x0))

    @cached_property
    def v(self) -> Any:
        """α ε − σ x0."""
        if self.kind == "v":
            return self.value
        x0, eps = self.x0, self.eps
        return combine((self.path.alpha(self.t), eps), (per_key(Tensor.neg, self.path.sigma(self.t)), x0))

    @cached_property
    def velocity(self) -> Any:
        """dx/dt of the probability-flow ODE."""
        if self.kind == "velocity":
            return self.value
        x0, eps = self.x0, self.eps
        d_alpha, d_sigma = self.path.slopes(self.t)
        return combine((d_alpha, x0), (d_sigma, eps))

    @cached_property
    def score(self) -> Any:
        """∇ log p_t(x) = −ε / σ."""
        eps = self.eps
        return combine((per_key(lambda s: -1 / s.clamp_min(TINY), self.path.sigma(self.t)), eps))

    @property
    def logits(self) -> Tensor:
        """Unnormalised log-probabilities of a token network or a classifier."""
        if self.kind != "logits" or not isinstance(self.value, Tensor):
            raise DistillError(f"a prediction of kind '{self.kind}' has no logits")
        return self.value

    def replace_x0(self, x0: State) -> Prediction:
        """The same prediction with another x0 (clipped, corrected, guided); eps and the rest follow from
        it."""
        return replace(self, kind="x0", value=x0)
