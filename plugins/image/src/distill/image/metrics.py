"""What sets of pictures are measured by, in the features of a network that is named beside every number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from distill.core import Metric, Rng, State
from distill.core.errors import DataError
from distill.image.features import FeatureName, Features, called, features, suited

Conditions = Mapping[str, Any]
PORTION = 256
"""Pictures that a network is asked about at a time."""


class _OnFeatures(Metric):
    features: FeatureName = ""
    """Network in whose features pictures are compared; the one that ships for such pictures if empty."""
    weights: str = ""
    """File of Inception's weights, or folder of a CLIP; where these libraries keep them if empty."""
    least: ClassVar[int] = 2

    def network(self, samples: State) -> str:
        return called(self.features or suited(_pictures(samples)), self.weights)

    def of(self, pictures: State, least: int | None = None) -> Tensor:
        """Features [N, D] in double precision, of at least so many pictures."""
        network, pictures = self.fitting(pictures)
        if len(pictures) < (least or self.least):
            raise DataError(
                f"{type(self).__name__} needs at least {least or self.least} pictures on either side, not "
                f"{len(pictures)}"
            )
        with torch.no_grad():
            return torch.cat([network(part).double() for part in pictures.split(PORTION)])

    def fitting(self, samples: State) -> tuple[Features, Tensor]:
        """The network, and the pictures, if it is made for them."""
        pictures = _pictures(samples)
        name = self.features or suited(pictures)
        network = features(name, self.weights)
        if not network.fits(pictures):
            raise DataError(
                f"the features '{name}' are made for pictures of {network.takes}, not {list(pictures.shape[1:])}"
            )
        return network, pictures


def _pictures(samples: State) -> Tensor:
    if not isinstance(samples, Tensor) or samples.ndim != 4:
        given = list(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
        raise DataError(f"pictures are [N, C, H, W], and these samples {given}")
    return samples.float()


# ---------------------------------------------------------------- distances


class Frechet(_OnFeatures):
    """Fréchet distance of Gaussians fitted to features (Heusel et al. 2017, arXiv:1706.08500, eq. 6); 0 is best."""

    def measure(self, samples: State, reference: State, cond: Conditions | None = None) -> float:
        a, b = self.of(samples), self.of(reference)
        return frechet(a, b)


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of two feature sets [N, D]: `|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)`."""
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0).sqrt().sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * root)


class Kernel(_OnFeatures):
    """Kernel distance: unbiased squared MMD of random subsets under the kernel `(xᵀy/D + 1)³`, their mean and standard
    deviation (Bińkowski et al. 2018, arXiv:1801.01401, section 4); 0 is best, and it may fall below.
    """

    subsets: PositiveInt = 100
    """Subsets, drawn without replacement from either side."""
    size: int = Field(1000, ge=2)
    """Pictures of a subset; the smaller side's number where that is less."""

    def measure(self, samples: State, reference: State, cond: Conditions | None = None) -> float:
        return self.numbers(samples, reference, cond)[""]

    def numbers(self, samples: State, reference: State, cond: Conditions | None = None) -> dict[str, float]:
        a, b, rng = self.of(samples), self.of(reference), Rng(0)
        size = min(self.size, len(a), len(b))
        drawn = torch.tensor([mmd(_subset(a, size, rng), _subset(b, size, rng)) for _ in range(self.subsets)])
        return {"": float(drawn.mean()), "std": float(drawn.std(correction=0))}


def _subset(rows: Tensor, size: int, rng: Rng) -> Tensor:
    return rows[rng.uniform(len(rows), stream="kernel/subset").argsort()[:size]]


def mmd(a: Tensor, b: Tensor) -> float:
    """Unbiased squared MMD of feature sets [N, D] and [M, D] under the cubic polynomial kernel."""
    within = [(_cubic(x, x).sum() - _cubic(x, x).diagonal().sum()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(within[0] + within[1] - 2 * _cubic(a, b).mean())


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


class ReferenceDistance(_OnFeatures):
    """Mean distance of a sample's features to the nearest real picture's; 0 is a copy."""

    per_prompt: ClassVar[bool] = True
    least: ClassVar[int] = 1

    def measure(self, samples: State, reference: State, cond: Conditions | None = None) -> float:
        return float(torch.cdist(self.of(samples), self.of(reference)).min(1).values.mean())


# ---------------------------------------------------------------- manifolds


class _OnNeighbours(_OnFeatures):
    higher_is_better: ClassVar[bool] = True
    neighbours: PositiveInt = 3
    """k of the k-nearest-neighbour balls."""

    def balls(self, pictures: State) -> Tensor:
        """Features of pictures whose k-nearest-neighbour balls are a manifold."""
        return self.of(pictures, self.neighbours + 1)


class Recall(_OnNeighbours):
    """Share of the real pictures that lie within the samples' manifold (Kynkäänniemi et al. 2019, arXiv:1904.06991)."""

    def measure(self, samples: State, reference: State, cond: Conditions | None = None) -> float:
        return float(inside(self.of(reference), self.balls(samples), self.neighbours).any(1).double().mean())


class Precision(_OnNeighbours):
    """Share of the samples that lie within the real pictures' manifold (Kynkäänniemi et al. 2019, arXiv:1904.06991)."""

    def measure(self, samples: State, reference: State, cond: Conditions | None = None) -> float:
        return float(inside(self.of(samples), self.balls(reference), self.neighbours).any(1).double().mean())


class Density(_OnNeighbours):
    """Mean number of real pictures' balls that a sample lies in, over k: precision that single outliers do not sway;
    1 for the data themselves (Naeem et al. 2020, arXiv:2002.09797, eq. 3).
    """

    def measure(self, samples: State, reference: State, cond: Conditions | None = None) -> float:
        found = inside(self.of(samples), self.balls(reference), self.neighbours)
        return float(found.double().sum(1).mean() / self.neighbours)


class Coverage(_OnNeighbours):
    """Share of the real pictures whose ball holds a sample (Naeem et al. 2020, arXiv:2002.09797, eq. 4)."""

    def measure(self, samples: State, reference: State, cond: Conditions | None = None) -> float:
        return float(inside(self.of(samples), self.balls(reference), self.neighbours).any(0).double().mean())


def inside(points: Tensor, manifold: Tensor, neighbours: int) -> Tensor:
    """Whether points [N, D] lie in the k-nearest-neighbour ball of each point of a manifold [M, D]: [N, M]."""
    radius = torch.cdist(manifold, manifold).kthvalue(neighbours + 1, dim=1).values
    return torch.cdist(points, manifold) <= radius


# ---------------------------------------------------------------- what pictures show


class Diversity(_OnFeatures):
    """Mean distance of the features of two samples, over all pairs; within one prompt in tables of prompts.

    As LPIPS diversity, with one layer of the named network for LPIPS's weighted five.
    """

    higher_is_better: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = False
    per_prompt: ClassVar[bool] = True
    conformance: ClassVar[dict[str, str]] = {"measure": "it tells how different samples are, and noise is different"}

    def measure(self, samples: State, reference: Any = None, cond: Conditions | None = None) -> float:
        return float(torch.pdist(self.of(samples)).mean())


class Agreement(_OnFeatures):
    """How well samples show what they were asked for: the mean cosine of picture and prompt by a network that knows
    both, as CLIPScore does (Hessel et al. 2021, arXiv:2104.08718), and the share of right labels with `digits`.
    """

    higher_is_better: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = False
    per_prompt: ClassVar[bool] = True

    def measure(self, samples: State, reference: Any = None, cond: Conditions | None = None) -> float:
        network, pictures = self.fitting(samples)
        wish = network.wanted(cond or {})
        with torch.no_grad():
            parts = zip(pictures.split(PORTION), wish.split(PORTION), strict=True)
            return float(torch.cat([network.agree(*part) for part in parts]).double().mean())


class LabelAccuracy(Agreement):
    """Share of the samples that the feature network's own classifier gives the label that was asked for."""

    features: FeatureName = "digits"
    """Network that tells labels."""
