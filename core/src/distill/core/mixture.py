"""A teacher with a known optimum: the exact denoiser of a mixture of Gaussians, in any shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distill.core.contracts import Builder
from distill.core.denoiser import Denoiser
from distill.core.paths import GaussianPath
from distill.core.rng import Rng
from distill.core.tree import State, expand


class Mixture(Denoiser):
    """Posterior mean of `Σ_k w_k N(m_k, s² I)` on any Gaussian path, per class or over all.

    Args:
        means: component means [K, ...] in the shape of a sample.
        std: standard deviation s of every component.
        path: forward process.
        weights: weights of the components per class [C, K]; the last row is the null class. One row if None.
    """

    means: Tensor
    weights: Tensor

    def __init__(self, means: Tensor, std: float, path: GaussianPath, weights: Tensor | None = None) -> None:
        rows = torch.ones(1, len(means)) if weights is None else weights
        null = {} if len(rows) == 1 else {"label": len(rows) - 1}
        super().__init__(nn.Identity(), path, "x0", shape=tuple(means.shape[1:]), null=null)
        self.std = std
        self.register_buffer("means", means)
        self.register_buffer("weights", rows / rows.sum(1, keepdim=True))

    def _call(self, x: State, t: Any, cond: Mapping[str, Any], cache: Any) -> tuple[Any, Any]:
        assert isinstance(x, Tensor)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        spread = (alpha * self.std) ** 2 + sigma**2
        flat, means = x.reshape(len(x), 1, -1), self.means.reshape(len(self.means), -1)
        gap = flat - expand(alpha, flat) * means
        prior = self._prior(cond, len(x)).log()
        share = (prior - gap.pow(2).sum(-1) / (2 * spread[:, None])).softmax(1)
        mean = (share @ means).view_as(x)
        pull = expand(alpha * self.std**2 / spread, x)
        return pull * x + expand(sigma**2 / spread, x) * mean, None

    def _prior(self, cond: Mapping[str, Any], size: int) -> Tensor:
        if "label" in cond:
            return self.weights[cond["label"]]
        return self.weights[-1:].expand(size, -1)

    def data(self, size: int, rng: Rng, label: Tensor | None = None, stream: str = "data") -> Tensor:
        """Samples of the mixture itself [size, ...], of given classes or of all."""
        rows = self._prior({} if label is None else {"label": label}, size)
        uniform = rng.uniform(size, stream=f"{stream}/component")
        component = (rows.cumsum(1) < uniform[:, None]).sum(1).clamp_max(len(self.means) - 1)
        means = self.means[component]
        return means + self.std * rng.normal(*means.shape, stream=stream)


class MixtureTeacher(Builder):
    """Options of the exact mixture denoiser."""

    example: ClassVar[dict[str, Any]] = {"means": [[1.0, 0.0], [-1.0, 0.0]]}
    means: Sequence[Sequence[float]]
    """Means of the components, flattened."""
    shape: tuple[int, ...] | None = None
    """Shape of a sample; flat if None."""
    std: float = 0.1
    """Standard deviation of every component."""
    weights: Sequence[Sequence[float]] | None = None
    """Weights of the components, one row a class, the last row for no class."""
    path: Literal["flow", "cosine", "karras", "trigonometric"] = "flow"
    """Forward process."""

    def build(self) -> Denoiser:
        """The denoiser; it has no parameters."""
        from distill.core.paths import PATHS

        means = torch.tensor(self.means)
        means = means.view(len(means), *(means.shape[1:] if self.shape is None else self.shape))
        weights = None if self.weights is None else torch.tensor(self.weights)
        return Mixture(means, self.std, PATHS[self.path](), weights)
