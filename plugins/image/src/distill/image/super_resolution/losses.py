"""What cards of super-resolution share: bands of frequencies, edges, variation, and losses on whole pictures."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from distill.core import Context, Event, Loss, Terms
from distill.core.errors import RecipeError
from distill.image.super_resolution.features import perceptual


def frequencies(height: int, width: int, like: Tensor) -> Tensor:
    """Distance of each bin of `fft2` from frequency 0, in cycles per pixel: [H, W]."""
    rows, columns = (torch.fft.fftfreq(side, device=like.device, dtype=torch.float32) for side in (height, width))
    return (rows[:, None] ** 2 + columns**2).sqrt()


def bands(x: Tensor, radius: float = 0.25) -> tuple[Tensor, Tensor]:
    """Maps [..., H, W] as the sum of what varies slowly, below `radius` cycles a pixel, and what varies fast."""
    below = frequencies(x.shape[-2], x.shape[-1], x) < radius
    low = torch.fft.ifft2(torch.fft.fft2(x.float()) * below).real.to(x.dtype)
    return low, x - low


def high_frequency_energy(x: Tensor, radius: float = 0.25) -> Tensor:
    """Mean square of what varies fast in maps [B, C, H, W]: [B]."""
    return bands(x, radius)[1].square().mean((1, 2, 3))


def edges(x: Tensor) -> Tensor:
    """Length of Sobel's gradient in each place of pictures [B, C, H, W], of the mean over channels: [B, 1, H, W]."""
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=x.device, dtype=x.dtype) / 8
    kernels = torch.stack([across, across.T])[:, None]
    slopes = conv2d(pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate"), kernels)
    return (slopes.square().sum(1, keepdim=True) + 1e-8).sqrt()


def variation(x: Tensor) -> Tensor:
    """Absolute differences to the right and below, added: [..., H, W], 0 in the last row or column."""
    right = pad((x[..., 1:] - x[..., :-1]).abs(), (0, 1))
    below = pad((x[..., 1:, :] - x[..., :-1, :]).abs(), (0, 0, 0, 1))
    return right + below


def pictures(event: Event, target: str, state: str) -> tuple[Any, Any]:
    """The event's sample and a target as whole pictures, not clamped.

    Raises:
        RecipeError: the data hold no low-resolution pictures, or there is no such target.
    """
    if target not in event.targets or (state == "residual" and "low" not in event.cond):
        raise RecipeError(
            f"a loss on whole pictures needs the target '{target}' and the condition 'low': name data of pairs, such "
            "as photographs, under 'data:'"
        )
    wanted = event.targets[target]
    return (event.x + event.cond["low"], wanted + event.cond["low"]) if state == "residual" else (event.x, wanted)


NO_PAIRS = {"toy": "samples of the toy are no pairs of pictures"}


class OnPictures(Loss):
    """What losses on whole pictures share."""

    target: str = "real"
    """Name among the event's targets."""
    state: Literal["residual", "picture"] = "residual"
    """What states are."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        return {type(self).__name__.lower(): self.between(*pictures(event, self.target, self.state))}

    def between(self, said: Tensor, wanted: Tensor) -> Tensor:
        """The discrepancy of two sets of pictures: [B]."""
        raise NotImplementedError


class Charbonnier(OnPictures):
    """`√((x − y)² + ε²)`, the mean over values (Lai et al. 2017, arXiv:1704.03915)."""

    conformance: ClassVar[dict[str, str]] = NO_PAIRS
    epsilon: float = 1e-3
    """ε."""

    def between(self, said: Tensor, wanted: Tensor) -> Tensor:
        return ((said - wanted).square() + self.epsilon**2).sqrt().mean((1, 2, 3))


class EdgeAware(OnPictures):
    """Absolute error, heavier where the target has edges: `(1 + λ |∇y| / mean |∇y|) |x − y|`."""

    conformance: ClassVar[dict[str, str]] = NO_PAIRS
    strength: float = 1.0
    """λ."""

    def between(self, said: Tensor, wanted: Tensor) -> Tensor:
        steep = edges(wanted)
        heavy = 1 + self.strength * steep / steep.mean((1, 2, 3), keepdim=True)
        return (heavy * (said - wanted).abs()).mean((1, 2, 3))


class Perceptual(OnPictures):
    """Distance in a network's features (LPIPS: Zhang et al. 2018, arXiv:1801.03924), of the pictures and, weighted, of
    their variation maps (TV-LPIPS of FluxSR, arXiv:2502.01993).
    """

    conformance: ClassVar[dict[str, str]] = NO_PAIRS
    features: Literal["efficientnet-lite0", "alexnet"] = "efficientnet-lite0"
    """Network whose features they are."""
    weights: str = ""
    """File of AlexNet's weights."""
    varied: float = 0.0
    """γ, weight of the variation maps."""

    def between(self, said: Tensor, wanted: Tensor) -> Tensor:
        value = perceptual(said, wanted, self.features, self.weights)
        if not self.varied:
            return value
        return value + self.varied * perceptual(variation(said), variation(wanted), self.features, self.weights)
