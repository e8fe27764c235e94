"""Perceptual distances: of LPIPS's form, in the features of a network that is named beside every number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from distill.core.errors import DataError
from distill.image.features import MEAN, STD, features

SMALLEST = 16
"""Pixels a side of the smallest pictures that every layer still has something to look at of."""


class Layers(nn.Module):
    """Distance of pictures [B, 3, H, W] in [−1, 1]: squared gaps of features of length one, by layer (LPIPS: Zhang et
    al. 2018, arXiv:1801.03924, eq. 1).
    """

    @abstractmethod
    def layers(self, pictures: Tensor) -> list[Tensor]:
        """Features of some layers, [B, C, h, w] each."""

    def weigh(self, gaps: list[Tensor]) -> Tensor:
        """Squared gaps of each layer, over channels and layers, [B]; the layers count alike."""
        return torch.stack([gap.sum(1).mean((1, 2)) for gap in gaps]).mean(0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self.layers(a), self.layers(b), strict=True)
        return self.weigh([(normalize(x, dim=1) - normalize(y, dim=1)).square() for x, y in pairs])


class LiteLayers(Layers):
    """Five depths of EfficientNet-lite0 (Tan & Le 2019, arXiv:1905.11946), at the pictures' own size.

    Its channels have no learnt weights: the numbers are LPIPS-type and no LPIPS.
    """

    ends = (0, 2, 4, 7, 10)

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def layers(self, pictures: Tensor) -> list[Tensor]:
        mean, std = (torch.tensor(value).to(pictures)[:, None, None] for value in (MEAN, STD))
        h = (pictures / 2 + 0.5 - mean) / std
        h, found = self.net._swish(self.net._bn0(self.net._conv_stem(h))), []
        for index, block in enumerate(self.net._blocks[: self.ends[-1] + 1]):
            h = block(h)
            found += [h] if index in self.ends else []
        return found


class AlexLayers(Layers):
    """LPIPS itself: AlexNet's five layers under the published linear heads, which torchmetrics ships."""

    ends = (1, 4, 7, 9, 11)

    def __init__(self, trunk: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        super().__init__()
        self.net = alexnet()
        self.net.load_state_dict({k.removeprefix("features."): v for k, v in trunk.items() if "features." in k})
        self.heads = [heads[f"lin{n}.model.1.weight"] for n in range(5)]

    def layers(self, pictures: Tensor) -> list[Tensor]:
        shift, scale = torch.tensor((-0.030, -0.088, -0.188)), torch.tensor((0.458, 0.448, 0.450))
        h, found = (pictures - shift.to(pictures)[:, None, None]) / scale.to(pictures)[:, None, None], []
        for index, layer in enumerate(self.net):
            h = layer(h)
            found += [h] if index in self.ends else []
        return found

    def weigh(self, gaps: list[Tensor]) -> Tensor:
        said = [(gap * head.to(gap)).sum(1).mean((1, 2)) for gap, head in zip(gaps, self.heads, strict=True)]
        return torch.stack(said).sum(0)


def alexnet() -> nn.Sequential:
    """AlexNet's convolutions as torchvision numbers them (Krizhevsky 2014, arXiv:1404.5997)."""
    sizes = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
    layers: list[nn.Module] = []
    for n, (inside, out, kernel, stride, reach) in enumerate(sizes):
        layers += [nn.Conv2d(inside, out, kernel, stride, reach), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if n in (0, 1) else []
    return nn.Sequential(*layers)


ALEXNET = "alexnet-owt-7be5be79.pth"


def _lite(weights: str) -> Layers:
    return LiteLayers(features("efficientnet-lite0").net)


def _alex(weights: str) -> Layers:
    path = Path(weights or Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET)
    metrics = find_spec("torchmetrics")
    if metrics is None or metrics.origin is None:
        raise DataError("LPIPS's linear heads come with torchmetrics, which is not installed: pip install torchmetrics")
    if not path.is_file():
        raise DataError(
            f"LPIPS needs AlexNet's weights, and {path} is not there: fetch https://download.pytorch.org/models/"
            f"{ALEXNET} and put it there, or name its place with 'weights'; efficientnet-lite0 needs no file"
        )
    heads = Path(metrics.origin).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    return AlexLayers(*(torch.load(file, map_location="cpu", weights_only=True) for file in (path, heads)))


LAYERS: dict[str, Callable[[str], Layers]] = {"efficientnet-lite0": _lite, "alexnet": _alex}


@cache
def layers(name: str, weights: str = "") -> Layers:
    """The network of that name, in use and frozen.

    Raises:
        DataError: its package or its weights are not there.
    """
    return LAYERS[name](weights).eval().requires_grad_(False)


def perceptual(a: Tensor, b: Tensor, name: str = "efficientnet-lite0", weights: str = "") -> Tensor:
    """Distance of two sets of pictures [B, 3, H, W] in [−1, 1] in the named network's features: [B].

    Raises:
        DataError: they are too small.
    """
    if min(a.shape[-2:]) < SMALLEST:
        size = " × ".join(map(str, a.shape[-2:]))
        raise DataError(f"features of {name} need pictures of {SMALLEST} pixels a side or more, and these are {size}")
    out: Tensor = layers(name, weights)(a, b)
    return out
