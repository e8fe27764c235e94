"""Digits-8: scikit-learn's handwritten digits of 8 x 8 pixels, and measures on a classifier's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from distill.core import Denoiser, Rng, Role, Sampler, Samples
from distill.core.paths import Flow
from distill.core.sampling import ALONE
from distill.methods import toys
from distill.methods.networks import MLPDenoiser

CLASSES = 10
SHAPE = (64,)


@cache
def load() -> tuple[Tensor, Tensor]:
    """All 1,797 digits: pixels in [-1, 1] as [N, 64], and labels [N], in a fixed shuffled order."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return (torch.tensor(pixels, dtype=torch.float32) / 8 - 1)[order], torch.tensor(labels)[order]


def samples() -> Samples:
    """The digits as a dataset with labels as conditions."""
    x, label = load()
    return Samples(x=x, label=label)


class Classifier(nn.Module):
    """Two convolutions and a hidden layer on [B, 64]; time and conditions are ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 24, 3, padding=1), nn.SiLU())
        self.middle = nn.Sequential(nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.SiLU())
        self.penultimate = nn.Sequential(nn.Flatten(), nn.Linear(48 * 16, 48), nn.SiLU())
        self.outlet = nn.Linear(48, CLASSES)

    def forward(self, x: Tensor, t: Any = None, cond: Mapping[str, Any] | None = None) -> Tensor:
        out: Tensor = self.outlet(self.penultimate(self.middle(self.low(x))))
        return out


@cache
def classifier(seed: int = 0, steps: int = 500) -> Denoiser:
    """A classifier trained on four fifths of the digits; its layers are features to tap."""
    x, label = load()
    rng, known = Rng(seed + 1000), len(x) * 4 // 5
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Classifier()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        rows = rng.integers(known, 128)
        seen = x[rows] + 0.1 * rng.normal(128, 64)
        loss = nn.functional.cross_entropy(network(seen), label[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval().requires_grad_(False)
    return Denoiser(network, Flow(), "logits", shape=SHAPE, taps=("middle", "penultimate"))


@torch.no_grad()
def accuracy(x: Tensor, label: Tensor, judge: Denoiser) -> float:
    """Share of the digits that the classifier gives their label."""
    return float((judge.network(x).argmax(1) == label).float().mean())


def held_out() -> tuple[Tensor, Tensor]:
    """The digits that the classifier was not trained on."""
    x, label = load()
    return x[len(x) * 4 // 5 :], label[len(x) * 4 // 5 :]


@torch.no_grad()
def features(x: Tensor, judge: Denoiser) -> Tensor:
    """Penultimate features of a classifier: [N, 48]."""
    network: Any = judge.network
    out: Tensor = network.penultimate(network.middle(network.low(x)))
    return out


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of Gaussians fitted to two clouds of features (arXiv:1706.08500)."""
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def recall(real: Tensor, fake: Tensor, k: int = 3) -> float:
    """Share of real points inside some sample's k-nearest-neighbour ball (arXiv:1904.06991)."""
    radius = torch.cdist(fake, fake).kthvalue(k + 1, dim=1).values
    return float((torch.cdist(real, fake) <= radius).any(1).float().mean())


def detail(x: Tensor) -> float:
    """Energy of the highest spatial frequencies: mean squared Laplacian of the images."""
    image = x.view(-1, 1, 8, 8)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)
    return float((nn.functional.conv2d(image, kernel) ** 2).mean())


@cache
def teacher(seed: int, steps: int = 3000, width: int = 256, depth: int = 4) -> Denoiser:
    """A flow-matching perceptron on the digits, labels as conditions, one in ten dropped."""
    network = MLPDenoiser(shape=SHAPE, width=width, depth=depth, classes=CLASSES, kind="velocity")
    method = toys.Fitted(network=network, steps=steps, level="one", drop=0.1)
    return toys.train(method, {}, data=samples(), size=128, seed=seed).roles["student"].denoiser


@dataclass(frozen=True)
class Scores:
    """What is measured of drawn digits: dFID, k-NN recall, accuracy of the labels, detail."""

    dfid: float
    recall: float
    accuracy: float
    detail: float


def measure(
    role: Role, sampler: Sampler, judge: Denoiser, seed: int, size: int = 1797, roles: Mapping[str, Role] = ALONE
) -> Scores:
    """Draw digits with the labels of the data and compare them with the data."""
    x, label = load()
    drawn = toys.draw(role, sampler, size, seed + 300, {"label": label[:size]}, roles)
    real, fake = features(x, judge), features(drawn, judge)
    return Scores(frechet(real, fake), recall(real, fake), accuracy(drawn, label[:size], judge), detail(drawn))
