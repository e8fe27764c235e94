"""Distances between sets of pictures, in the features of a small network that this package ships."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from distill.core import Metric, State
from distill.core.errors import DataError
from distill.image.features import FEATURES


class _OnFeatures(Metric):
    features: Literal["digits"] = "digits"
    """Network whose features are compared; its name belongs beside every number."""

    def of(self, pictures: State, least: int = 2) -> Tensor:
        """Features [N, D] in double precision, of at least so many pictures."""
        network, pictures = FEATURES[self.features](), self.fitting(pictures)
        if len(pictures) < least:
            raise DataError(
                f"{type(self).__name__} needs at least {least} pictures on either side, not {len(pictures)}"
            )
        with torch.no_grad():
            return network(pictures).double()

    def fitting(self, pictures: State) -> Tensor:
        """The pictures, if they are what the network was made for."""
        shape = FEATURES[self.features]().shape
        if not isinstance(pictures, Tensor) or tuple(pictures.shape[1:]) != shape:
            given = list(pictures.shape[1:]) if isinstance(pictures, Tensor) else type(pictures).__name__
            raise DataError(f"the features '{self.features}' are made for pictures of shape {list(shape)}, not {given}")
        return pictures


class Frechet(_OnFeatures):
    """Fréchet distance of Gaussians fitted to features (Heusel et al. 2017, arXiv:1706.08500, eq. 6); 0 is best."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        a, b = self.of(samples), self.of(reference)
        return frechet(a, b)


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of two feature sets [N, D]: `|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)`."""
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0).sqrt().sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * root)


class Recall(_OnFeatures):
    """Share of the real pictures that lie within the samples' manifold (Kynkäänniemi et al. 2019, arXiv:1904.06991)."""

    higher_is_better: ClassVar[bool] = True
    neighbours: PositiveInt = 3
    """k of the k-nearest-neighbour balls."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        return coverage(self.of(reference), self.of(samples, self.neighbours + 1), self.neighbours)


class Precision(_OnFeatures):
    """Share of the samples that lie within the real pictures' manifold."""

    higher_is_better: ClassVar[bool] = True
    neighbours: PositiveInt = 3
    """k of the k-nearest-neighbour balls."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        return coverage(self.of(samples), self.of(reference, self.neighbours + 1), self.neighbours)


def coverage(points: Tensor, manifold: Tensor, neighbours: int) -> float:
    """Share of `points` [N, D] within the k-nearest-neighbour ball of some point of `manifold` [M, D]."""
    radius = torch.cdist(manifold, manifold).kthvalue(neighbours + 1, dim=1).values
    return float((torch.cdist(points, manifold) <= radius).any(1).double().mean())


class LabelAccuracy(_OnFeatures):
    """Share of the samples that the feature network's own classifier gives the label that was asked for."""

    higher_is_better: ClassVar[bool] = True

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        if cond is None or "label" not in cond:
            raise DataError(
                f"label accuracy needs data with the condition 'label'; they have {', '.join(cond or ()) or 'none'}"
            )
        with torch.no_grad():
            said = FEATURES[self.features]().classify(self.fitting(samples))
        return float((said.argmax(1) == cond["label"]).double().mean())
