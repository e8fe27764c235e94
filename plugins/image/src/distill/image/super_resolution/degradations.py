"""How low-resolution pictures come about: plain bicubic, and the pipeline of two orders of Real-ESRGAN.

A degradation is a function of a picture, a ratio and a generator: the same seed gives the same picture, in any worker.
"""

from __future__ import annotations

import io
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from distill.core import Options

Draw = torch.Generator


def resized(picture: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """A picture [C, H, W] at another height and width; bicubic and bilinear as Pillow has them, with antialiasing."""
    smooth = {"antialias": True} if mode in ("bicubic", "bilinear") else {}
    return interpolate(picture[None], size, mode=mode, **smooth)[0]


def uniform(draw: Draw, low: float, high: float) -> float:
    """A number between two."""
    return low + (high - low) * float(torch.rand((), generator=draw))


def pick(draw: Draw, shares: dict[str, float]) -> str:
    """A name with the probability of its share."""
    weights = torch.tensor(list(shares.values()))
    return list(shares)[int(torch.multinomial(weights, 1, generator=draw))]


class Degradation(Options):
    """What a low-resolution picture is made by."""

    @abstractmethod
    def __call__(self, picture: Tensor, ratio: float, draw: Draw) -> Tensor:
        """A picture [C, H, W] in [−1, 1] at 1/ratio of its size."""


def small(picture: Tensor, ratio: float) -> tuple[int, int]:
    """Height and width of the low-resolution picture."""
    return max(1, round(picture.shape[1] / ratio)), max(1, round(picture.shape[2] / ratio))


class Bicubic(Degradation):
    """Bicubic down-sampling with antialiasing, and nothing else."""

    name: Literal["bicubic"] = "bicubic"

    def __call__(self, picture: Tensor, ratio: float, draw: Draw) -> Tensor:
        return resized(picture, small(picture, ratio)).clamp(-1, 1)


# ---------------------------------------------------------------- kernels


def _plane(size: int, widths: tuple[float, float], angle: float) -> Tensor:
    """Squared Mahalanobis distance from the centre, [size, size]."""
    place = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    y, x = torch.meshgrid(place, place, indexing="ij")
    u, v = math.cos(angle) * x + math.sin(angle) * y, -math.sin(angle) * x + math.cos(angle) * y
    return (u / widths[0]) ** 2 + (v / widths[1]) ** 2


PROFILES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gaussian": lambda d, beta: torch.exp(-d / 2),
    "generalised": lambda d, beta: torch.exp(-(d**beta) / 2),
    "plateau": lambda d, beta: 1 / (1 + d**beta),
}
KERNELS = {
    "iso gaussian": 0.45, "aniso gaussian": 0.25, "iso generalised": 0.12, "aniso generalised": 0.03,
    "iso plateau": 0.12, "aniso plateau": 0.03,
}  # fmt: skip
BETAS = {"gaussian": (1.0, 1.0), "generalised": (0.5, 4.0), "plateau": (1.0, 2.0)}


def blur_kernel(draw: Draw, size: int, widths: tuple[float, float]) -> Tensor:
    """A random kernel [size, size] of sum 1 (Real-ESRGAN: Wang et al. 2021, arXiv:2107.10833, section 3.1)."""
    shape, profile = pick(draw, KERNELS).split()
    first, second, angle = uniform(draw, *widths), uniform(draw, *widths), uniform(draw, -math.pi, math.pi)
    both = (first, first if shape == "iso" else second)
    kernel = PROFILES[profile](_plane(size, both, angle), uniform(draw, *BETAS[profile]))
    return kernel / kernel.sum()


def sinc_kernel(draw: Draw, size: int) -> Tensor:
    """A circular low-pass filter, which rings: cut-off ω in [π/3, π] (arXiv:2107.10833, eq. 6)."""
    cut = uniform(draw, math.pi / 3, math.pi)
    radius = _plane(size, (1.0, 1.0), 0.0).sqrt()
    kernel = cut * torch.special.bessel_j1(cut * radius) / (2 * math.pi * radius.clamp_min(1e-6))
    kernel[size // 2, size // 2] = cut**2 / (4 * math.pi)
    return kernel / kernel.sum()


def filtered(picture: Tensor, kernel: Tensor) -> Tensor:
    """A picture [C, H, W] under a kernel, mirrored at its borders as far as it reaches."""
    reach = len(kernel) // 2
    fits = min(picture.shape[1:]) > reach
    padded = pad(picture[None], (reach,) * 4, mode="reflect" if fits else "replicate")
    return conv2d(padded.transpose(0, 1), kernel[None, None])[:, 0]


# ---------------------------------------------------------------- noise and compression


def noisy(picture: Tensor, draw: Draw, gaussian: float, sigma: tuple[float, float], scale: tuple[float, float],
          grey: float) -> Tensor:  # fmt: skip
    """Gaussian noise with σ in units of 1/255 of the range, or Poisson noise; of one colour with probability `grey`."""
    same = uniform(draw, 0, 1) < grey
    shape = (1, *picture.shape[1:]) if same else tuple(picture.shape)
    if uniform(draw, 0, 1) < gaussian:
        return (picture + torch.randn(shape, generator=draw) * uniform(draw, *sigma) * 2 / 255).clamp(-1, 1)
    level = (picture.clamp(-1, 1) + 1) / 2
    level = level.mean(0, keepdim=True) if same else level
    values = 2 ** math.ceil(math.log2(max(2, len(level.mul(255).round().unique()))))
    drawn = torch.poisson(level * values, generator=draw) / values - level
    return (picture + 2 * drawn * uniform(draw, *scale)).clamp(-1, 1)


def to_picture(picture: Tensor) -> Any:
    """A picture [1 or 3, H, W] in [−1, 1] as Pillow has it."""
    from PIL import Image

    raw = ((picture.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous()
    mode = "L" if raw.shape[2] == 1 else "RGB"
    return Image.frombytes(mode, (raw.shape[1], raw.shape[0]), raw.numpy().tobytes())


def from_picture(picture: Any) -> Tensor:
    """A grey or RGB picture of Pillow as [C, H, W] in [−1, 1]."""
    raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return raw.view(picture.height, picture.width, -1).permute(2, 0, 1).float() / 127.5 - 1


def compressed(picture: Tensor, quality: int) -> Tensor:
    """A picture after JPEG as Pillow writes it; no gradient runs through."""
    from PIL import Image

    file = io.BytesIO()
    to_picture(picture).save(file, "JPEG", quality=quality)
    return from_picture(Image.open(file))


# ---------------------------------------------------------------- two orders


class Order(Options):
    """One order of blur, resize, noise and JPEG."""

    blur: float = 1.0
    """Probability of a blur."""
    kernel: int = 21
    """Side of the blur kernel in pixels, odd."""
    sinc: float = 0.1
    """Probability that the kernel is a sinc filter."""
    widths: tuple[float, float] = (0.2, 3.0)
    """Standard deviations of the kernel between which is drawn."""
    resize: tuple[float, float, float] = (0.2, 0.7, 0.1)
    """Probabilities of enlarging, reducing, keeping."""
    resize_range: tuple[float, float] = (0.15, 1.5)
    """Least and largest factor."""
    gaussian: float = 0.5
    """Probability of Gaussian noise; Poisson noise otherwise."""
    sigma: tuple[float, float] = (1.0, 30.0)
    """Standard deviation of Gaussian noise in units of 1/255."""
    poisson: tuple[float, float] = (0.05, 3.0)
    """Scale of Poisson noise."""
    grey: float = 0.4
    """Probability of noise without colour."""

    def __call__(self, picture: Tensor, draw: Draw) -> Tensor:
        """The picture after blur, resize and noise."""
        if uniform(draw, 0, 1) < self.blur:
            ringing = uniform(draw, 0, 1) < self.sinc
            picture = filtered(
                picture, sinc_kernel(draw, self.kernel) if ringing else blur_kernel(draw, self.kernel, self.widths)
            )
        picture = resized(picture, self._size(picture, draw), pick(draw, RESIZE))
        return noisy(picture, draw, self.gaussian, self.sigma, self.poisson, self.grey)

    def _size(self, picture: Tensor, draw: Draw) -> tuple[int, int]:
        ends = dict(zip(("up", "down", "keep"), self.resize, strict=True))
        low, high = {"up": (1.0, self.resize_range[1]), "down": (self.resize_range[0], 1.0), "keep": (1.0, 1.0)}[
            pick(draw, ends)
        ]
        factor = uniform(draw, low, high)
        return max(4, round(picture.shape[1] * factor)), max(4, round(picture.shape[2] * factor))


RESIZE = {"area": 1.0, "bilinear": 1.0, "bicubic": 1.0}


class RealWorld(Degradation):
    """Two orders of blur, resize, noise and JPEG, and a sinc filter (Real-ESRGAN: arXiv:2107.10833, figure 2).

    Numbers are those with which ResShift, TAD-SR and CTMSR were trained at ratio 4.
    """

    name: Literal["real-world"] = "real-world"
    first: Order = Order()
    """First order."""
    second: Order = Order(
        blur=0.8, kernel=15, widths=(0.2, 1.5), resize=(0.3, 0.4, 0.3), resize_range=(0.3, 1.2), sigma=(1.0, 25.0),
        poisson=(0.05, 2.5),
    )  # fmt: skip
    """Second order."""
    twice: float = 0.5
    """Probability of the second order."""
    quality: tuple[int, int] = (30, 95)
    """JPEG quality of either compression."""
    last_sinc: float = 0.8
    """Probability of the last sinc filter."""

    def __call__(self, picture: Tensor, ratio: float, draw: Draw) -> Tensor:
        low = self._jpeg(self.first(picture, draw), draw)
        if uniform(draw, 0, 1) < self.twice:
            low = self.second(low, draw)
        size, sinc_first = small(picture, ratio), uniform(draw, 0, 1) < 0.5
        if sinc_first:
            return self._jpeg(self._ringing(resized(low, size, pick(draw, RESIZE)), draw), draw)
        low = self._ringing(resized(self._jpeg(low, draw), size, pick(draw, RESIZE)), draw)
        return ((low.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1

    def _jpeg(self, picture: Tensor, draw: Draw) -> Tensor:
        return compressed(picture, round(uniform(draw, *self.quality)))

    def _ringing(self, picture: Tensor, draw: Draw) -> Tensor:
        return filtered(picture, sinc_kernel(draw, 21)) if uniform(draw, 0, 1) < self.last_sinc else picture


AnyDegradation = Annotated[Bicubic | RealWorld, Field(discriminator="name")]


def degraded(pictures: Tensor, ratio: float, degradation: Degradation, seed: int = 0) -> Tensor:
    """Low-resolution pictures [B, C, h, w] of pictures [B, C, H, W], picture n drawn with seed + n."""
    return torch.stack(
        [degradation(one, ratio, torch.Generator().manual_seed(seed + n)) for n, one in enumerate(pictures)]
    )
