"""Cheap convolutions in the places of dear ones: they begin as the nearest of their form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from distill.core import DistillError, Roles, Transform
from distill.image.super_resolution.networks import Block


def separable(conv: nn.Conv2d, width: int = 0) -> nn.Sequential:
    """One kernel for each channel, then channels are mixed place by place."""
    inside, out, form = conv.in_channels, conv.out_channels, _form(conv)
    first = nn.Conv2d(inside, inside, groups=inside, bias=False, **form)
    second = nn.Conv2d(inside, out, 1)
    mix, kernels = _halves(conv.weight.flatten(2).transpose(0, 1), 1)  # [inside, out, 1] and [inside, 1, k·k]
    return _filled(first, kernels.view_as(first.weight), second, mix[:, :, 0].T, conv)


def narrow(conv: nn.Conv2d, width: int) -> nn.Sequential:
    """Channels are brought to `width` place by place before they meet their neighbours."""
    inside, out = conv.in_channels, conv.out_channels
    first = nn.Conv2d(inside, width, 1, bias=False)
    second = nn.Conv2d(width, out, **_form(conv))
    left, right = _halves(conv.weight.transpose(0, 1).flatten(1), width)  # [inside, width] and [width, out·k·k]
    kernels = right.view(width, out, *conv.kernel_size).transpose(0, 1)
    return _filled(first, left.T, second, kernels, conv)


def _form(conv: nn.Conv2d) -> dict[str, Any]:
    return {name: getattr(conv, name) for name in ("kernel_size", "stride", "padding", "dilation")}


def _halves(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two factors of a matrix, or of a stack of them, at the rank."""
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    root = s[..., :rank].sqrt()
    return u[..., :rank] * root[..., None, :], root[..., None] * v[..., :rank, :]


def _filled(first: nn.Conv2d, kernel: Tensor, second: nn.Conv2d, weight: Tensor, conv: nn.Conv2d) -> nn.Sequential:
    first.weight.copy_(kernel.reshape(first.weight.shape))
    second.weight.copy_(weight.reshape(second.weight.shape))
    assert second.bias is not None
    second.bias.zero_() if conv.bias is None else second.bias.copy_(conv.bias)
    return nn.Sequential(first, second).to(conv.weight)


def keep_units(block: Block, units: int) -> None:
    """Leave the units of a block's perceptron whose weights are largest."""
    size = block.inlet.weight.flatten(1).norm(dim=1) * block.outlet.weight.flatten(2).norm(dim=(0, 2))
    kept = size.topk(min(units, len(size))).indices.sort().values
    for conv, axis in ((block.inlet, 0), (block.outlet, 1)):
        conv.weight = nn.Parameter(conv.weight.index_select(axis, kept))
    assert block.inlet.bias is not None
    block.inlet.bias = nn.Parameter(block.inlet.bias[kept])
    block.inlet.out_channels = block.outlet.in_channels = len(kept)


FORMS: dict[str, Callable[[nn.Conv2d, int], nn.Sequential]] = {"separable": separable, "narrow": narrow}


class Slimmed(Transform):
    """Separable convolutions where pictures enter a network, narrow ones where they leave it, and fewer units between.

    TinySR does so to the two halves of its autoencoder (arXiv:2508.17434); what begins as the nearest of its form is to
    be trained. Separable kernels cost too much quality where pictures leave.
    """

    conformance: ClassVar[dict[str, str]] = {"toy/transform": "the toy has no convolutions"}
    separable: tuple[str, ...] = ("inlet",)
    """Convolutions that become separable."""
    narrow: tuple[str, ...] = ("outlet",)
    """Convolutions that get fewer channels first."""
    width: PositiveInt = 32
    """How many."""
    units: PositiveInt | None = None
    """Units of each block's perceptron that stay; all if None."""

    @torch.no_grad()
    def apply(self, roles: Roles, name: str) -> None:
        denoiser = roles[name].denoiser
        for form in FORMS:
            for site in getattr(self, form):
                conv = denoiser.submodule(site)
                if not isinstance(conv, nn.Conv2d) or conv.groups > 1:
                    raise DistillError(f"'{site}' is no plain convolution, and only such can become {form}")
                parent, _, leaf = site.rpartition(".")
                setattr(denoiser.network.get_submodule(parent), leaf, FORMS[form](conv, self.width))
        for block in denoiser.network.modules():
            if self.units is not None and isinstance(block, Block):
                keep_units(block, self.units)
