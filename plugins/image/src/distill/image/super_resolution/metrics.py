"""Measures of super-resolution, on pictures in [−1, 1]: against the truth, against the input, and of a picture alone.

PSNR and SSIM are torchmetrics', of the Y channel of BT.601 (as Matlab's `rgb2ycbcr`), after `border` pixels have been
cut off on each side, 4 unless it is said otherwise. Numbers in a network's features name the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from distill.core import Metric, State
from distill.core.errors import DataError
from distill.image.super_resolution.data import whole
from distill.image.super_resolution.degradations import resized
from distill.image.super_resolution.features import perceptual
from distill.image.super_resolution.losses import high_frequency_energy

BORDER = 4
"""Pixels that are cut off on each side."""
PORTION = 16
"""Pictures at a time."""
Conditions = Mapping[str, Any]


def luma(pictures: Tensor) -> Tensor:
    """Y of BT.601 [B, 1, H, W], between 16/255 and 235/255; grey pictures count as RGB with equal channels."""
    rgb = (pictures.clamp(-1, 1) + 1) / 2
    weights = torch.tensor((65.481, 128.553, 24.966)).to(rgb)[:, None, None] / 255
    return (rgb * weights).sum(1, keepdim=True) + 16 / 255


def cut(pictures: Tensor, border: int) -> Tensor:
    """Pictures without their borders."""
    if min(pictures.shape[2:]) <= 2 * border:
        raise DataError(
            f"pictures of {pictures.shape[3]}x{pictures.shape[2]} pixels have nothing inside a border of {border}: "
            "lower 'border', or measure larger ones"
        )
    return pictures[:, :, border : pictures.shape[2] - border, border : pictures.shape[3] - border]


def psnr(a: Tensor, b: Tensor, border: int = BORDER) -> Tensor:
    """Peak signal-to-noise ratio of the Y channel in decibels, picture by picture: [B]."""
    from torchmetrics.functional.image import peak_signal_noise_ratio as measure

    pairs = zip(luma(cut(a, border)), luma(cut(b, border)), strict=True)
    return torch.stack([measure(x, y, data_range=1.0) for x, y in pairs])


def ssim(a: Tensor, b: Tensor, border: int = BORDER) -> Tensor:
    """Structural similarity of the Y channel, 11×11 Gaussian window: [B]."""
    from torchmetrics.functional.image import structural_similarity_index_measure as measure

    found: Any = measure(luma(cut(a, border)), luma(cut(b, border)), data_range=1.0, reduction="none")
    return found.reshape(-1)


@torch.no_grad()
def lpips_type(a: Tensor, b: Tensor, name: str = "efficientnet-lite0", weights: str = "") -> Tensor:
    """Distance in the named network's features: [B]."""
    parts = zip(a.clamp(-1, 1).split(PORTION), b.clamp(-1, 1).split(PORTION), strict=True)
    return torch.cat([perceptual(x, y, name, weights) for x, y in parts])


def blur(pictures: Tensor) -> Tensor:
    """How blurred pictures are, 0 to 1, with nothing to compare with: scikit-image's `blur_effect` (Crété et al. 2007,
    doi:10.1117/12.702790), [B]."""
    from skimage.measure import blur_effect

    return torch.tensor([float(blur_effect(one[0].double().numpy())) for one in luma(pictures)])


def low_fidelity(pictures: Tensor, low: Tensor, ratio: float = 4.0) -> Tensor:
    """PSNR of pictures made small again against the low-resolution pictures: what was invented or lost there, [B].

    `low` is the up-sampled low-resolution picture; both are brought to 1/ratio of their size, all channels count.
    """
    side = [max(1, round(length / ratio)) for length in pictures.shape[2:]]
    again, given = (torch.stack([resized(one, (side[0], side[1])) for one in batch]) for batch in (pictures, low))
    return -10 * ((again - given) / 2).square().mean((1, 2, 3)).clamp_min(1e-10).log10()


def scores(pictures: Tensor, truth: Tensor, low: Tensor, ratio: float = 4.0) -> dict[str, float]:
    """Every measure of pictures [B, 3, H, W], the mean over them."""
    found = {
        "psnr": psnr(pictures, truth), "ssim": ssim(pictures, truth), "lpips": lpips_type(pictures, truth),
        "low-fidelity": low_fidelity(pictures, low, ratio), "blur": blur(pictures),
    }  # fmt: skip
    detail = high_frequency_energy(pictures).sum() / high_frequency_energy(truth).sum().clamp_min(1e-8)
    return {name: float(value.double().mean()) for name, value in found.items()} | {"detail": float(detail)}


# ---------------------------------------------------------------- components


class _OnPairs(Metric):
    needs_reference: ClassVar[bool] = False
    state: Literal["residual", "picture"] = "residual"
    """What samples are."""
    border: NonNegativeInt = BORDER
    """Pixels that are cut off on each side."""

    def both(self, samples: State, reference: Any, cond: Conditions | None) -> tuple[Tensor, Tensor]:
        """The pictures and the truth.

        Raises:
            DataError: the data do not say what the truth is.
        """
        seen = self.seen(samples, cond)
        if "high" in (cond or {}):
            return seen, (cond or {})["high"]
        if isinstance(reference, Tensor) and reference.shape == seen.shape:
            return seen, self.seen(reference, cond)
        raise DataError("these measures compare with the truth: give the data the option 'with_high: true'")

    def seen(self, samples: State, cond: Conditions | None) -> Tensor:
        """Samples as whole pictures."""
        if not isinstance(samples, Tensor) or samples.ndim != 4:
            raise DataError("measures of super-resolution look at pictures [B, C, H, W]")
        if self.state == "picture":
            return samples.clamp(-1, 1)
        if "low" not in (cond or {}):
            raise DataError("samples are residuals, and there is no condition 'low' to add: say 'state: picture'")
        seen: Tensor = whole(samples, (cond or {})["low"])
        return seen


NO_PAIRS = {"measure": "samples of the toy are no pairs"}


class PSNR(_OnPairs):
    """Peak signal-to-noise ratio of the Y channel in decibels; higher is better."""

    higher_is_better: ClassVar[bool] = True
    conformance: ClassVar[dict[str, str]] = NO_PAIRS

    def measure(self, samples: State, reference: State, cond: Conditions | None = None) -> float:
        return float(psnr(*self.both(samples, reference, cond), self.border).double().mean())


class SSIM(_OnPairs):
    """Structural similarity of the Y channel (Wang et al. 2004); higher is better."""

    higher_is_better: ClassVar[bool] = True
    conformance: ClassVar[dict[str, str]] = NO_PAIRS

    def measure(self, samples: State, reference: State, cond: Conditions | None = None) -> float:
        return float(ssim(*self.both(samples, reference, cond), self.border).double().mean())


class PerceptualDistance(_OnPairs):
    """LPIPS with `alexnet`; otherwise a distance of its form in EfficientNet-lite0's features. Lower is better."""

    conformance: ClassVar[dict[str, str]] = NO_PAIRS
    features: Literal["efficientnet-lite0", "alexnet"] = "efficientnet-lite0"
    """Network whose features they are."""
    weights: str = ""
    """File of AlexNet's weights."""

    def network(self, samples: State) -> str:
        return self.features

    def measure(self, samples: State, reference: State, cond: Conditions | None = None) -> float:
        found = lpips_type(*self.both(samples, reference, cond), self.features, self.weights)
        return float(found.double().mean())


class LowFidelity(_OnPairs):
    """PSNR against the input, of pictures made small again: what was invented or lost there; higher is better."""

    higher_is_better: ClassVar[bool] = True
    conformance: ClassVar[dict[str, str]] = NO_PAIRS
    ratio: float = 4.0
    """How many times smaller the input was."""

    def measure(self, samples: State, reference: Any = None, cond: Conditions | None = None) -> float:
        if "low" not in (cond or {}):
            raise DataError("this measure compares with the condition 'low', and the data have none")
        return float(low_fidelity(self.seen(samples, cond), (cond or {})["low"], self.ratio).double().mean())


class Blur(_OnPairs):
    """How blurred pictures are, with nothing to compare with (scikit-image's blur_effect); lower is sharper."""

    conformance: ClassVar[dict[str, str]] = NO_PAIRS

    def measure(self, samples: State, reference: Any = None, cond: Conditions | None = None) -> float:
        return float(blur(self.seen(samples, cond)).double().mean())
