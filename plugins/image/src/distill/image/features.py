"""Feature networks that ship with this package: what picture metrics compare in."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu


class DigitFeatures(nn.Module):
    """A small classifier of 8×8 digits; its 32 penultimate units, scaled to about unit variance, are the features."""

    shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(512, 32), nn.Linear(32, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [B, 32] of pictures [B, 1, 8, 8] in [−1, 1]."""
        hidden = relu(self.conv2(relu(self.conv1(pictures))))
        out: Tensor = self.fc1(max_pool2d(hidden, 2).flatten(1))
        return out

    def classify(self, pictures: Tensor) -> Tensor:
        """Logits [B, 10]."""
        out: Tensor = self.fc2(relu(self(pictures)))
        return out


@cache
def digit_features() -> DigitFeatures:
    """The classifier with its shipped weights."""
    with torch.device("meta"):  # no random number is drawn for weights that come from a file
        network = DigitFeatures()
    network.load_state_dict(load_file(shipped("digits-classifier.safetensors")), assign=True)
    return network.eval().requires_grad_(False)


def shipped(name: str) -> str:
    """Path of a weights file of this package."""
    return str(files("distill.image") / "weights" / name)


FEATURES: dict[str, Callable[[], DigitFeatures]] = {"digits": digit_features}
