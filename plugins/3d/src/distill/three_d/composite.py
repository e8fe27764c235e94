"""Gaussians on a screen, blended front to back tile by tile: what gsplat's CUDA kernel does, in torch on any machine.

A tile sees the Gaussians whose extent meets it, sorted by depth. Tiles of like depth are blended together, so many
layers at a time, until nothing more shines through any of their pixels. Work and memory follow the number of (tile,
Gaussian) pairs; the backward pass computes layers again from the transmittance that was kept at every stretch of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import threshold

TILE = 8
"""Pixels of a tile's side."""
LAYERS = 16
"""Gaussians that a tile blends in one stretch."""
GROUP = 96
"""Tiles that are blended together."""
FAINT, OPAQUE, DARK = 1 / 255, 0.999, 1e-4
"""Alphas below are left out, alphas above cut; a pixel with less transmittance is done (Kerbl et al. 2023,
arXiv:2308.04079, and gsplat)."""
EXTENT = 3.33
"""Standard deviations beyond which a Gaussian of any opacity is faint."""


@dataclass(frozen=True)
class Splats:
    """P Gaussians on V screens, each on one.

    Attributes:
        means: centres in pixels [P, 2].
        conics: inverse covariances (xx, xy, yy) in 1 / pixel² [P, 3].
        opacities: [P], in logarithms.
        depths: [P].
        view: the screen of each [P].
        seen: which count at all [P].
    """

    means: Tensor
    conics: Tensor
    opacities: Tensor
    depths: Tensor
    view: Tensor
    seen: Tensor


@dataclass(frozen=True)
class Screen:
    """V pictures of the same size, cut into tiles."""

    views: int
    height: int
    width: int

    @property
    def rows(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.height // TILE)

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return -(-self.width // TILE)

    @property
    def tiles(self) -> int:
        """Tiles of all pictures."""
        return self.views * self.rows * self.columns

    def pictures(self, tiles: Tensor) -> Tensor:
        """Tiles [tiles, pixels, F] as pictures [V, H, W, F]."""
        grid = tiles.view(self.views, self.rows, self.columns, TILE, TILE, -1).permute(0, 1, 3, 2, 4, 5)
        return grid.reshape(self.views, self.rows * TILE, self.columns * TILE, -1)[:, : self.height, : self.width]

    def cut(self, pictures: Tensor) -> Tensor:
        """The inverse of `pictures`, zeros beyond the edges."""
        whole = pictures.new_zeros(self.views, self.rows * TILE, self.columns * TILE, pictures.shape[-1])
        whole[:, : self.height, : self.width] = pictures
        grid = whole.view(self.views, self.rows, TILE, self.columns, TILE, -1).permute(0, 1, 3, 2, 4, 5)
        return grid.reshape(self.tiles, TILE * TILE, -1)


@dataclass(frozen=True)
class Pairs:
    """Which Gaussians each tile sees: for tile i `counts[i]` of `splats` from `starts[i]` on, nearest first."""

    splats: Tensor
    starts: Tensor
    counts: Tensor

    def groups(self) -> Iterator[Tensor]:
        """Tiles that see something, those with most to see first."""
        order = self.counts.argsort(descending=True, stable=True)
        yield from order[: int((self.counts > 0).sum())].split(GROUP)

    def layers(self, tiles: Tensor, first: int, nothing: int) -> Tensor:
        """The next layers of some tiles [layers, tiles], `nothing` where a tile has no more."""
        left = int(self.counts[tiles].max()) - first
        depth = torch.arange(first, first + min(LAYERS, left), device=tiles.device)[:, None]
        there = depth < self.counts[tiles]
        return torch.where(there, self.splats[(self.starts[tiles] + depth).clamp_max(len(self.splats) - 1)], nothing)


@torch.no_grad()
def pairs_of(splats: Splats, screen: Screen) -> Pairs:
    """Bin Gaussians into the tiles that their extents meet, by depth."""
    a, b, c = splats.conics.unbind(-1)
    room = (2 * (splats.opacities - math.log(FAINT))).clamp_min(0).sqrt().clamp_max(EXTENT)
    reach = 1.0001 * room[:, None] * (torch.stack([c, a], -1) / (a * c - b * b).clamp_min(1e-20)[:, None]).sqrt()
    seen = splats.seen & (room > 0)
    near = splats.depths.argsort(stable=True)
    near = near[seen[near]]
    limit = torch.tensor([screen.columns, screen.rows], device=near.device)
    # a pixel's centre lies half a pixel within it
    low = ((splats.means[near] - reach[near] - 0.5) / TILE).floor().long().clamp_min(0).minimum(limit)
    high = ((splats.means[near] + reach[near] + 0.5) / TILE).ceil().long().clamp_min(0).minimum(limit)
    span = (high - low).clamp_min(0)
    count = span.prod(1)
    owner = torch.arange(len(near), device=near.device).repeat_interleave(count)
    place = torch.arange(len(owner), device=near.device) - (count.cumsum(0) - count)[owner]
    column, row = place % span[owner, 0] + low[owner, 0], place // span[owner, 0] + low[owner, 1]
    tile = (splats.view[near][owner] * screen.rows + row) * screen.columns + column
    order = tile.argsort(stable=True)
    counts = tile.bincount(minlength=screen.tiles)
    return Pairs(near[owner[order]], counts.cumsum(0) - counts, counts)


def composite(splats: Splats, features: Tensor, screen: Screen) -> Tensor:
    """Blend features [P, F] front to back: `Σ_i f_i a_i Π_{j<i} (1 − a_j)`, [V, H, W, F].

    `a = min(0.999, opacity · exp(−½ dᵀ conic d))`; gradient runs to means, conics, opacities and features.
    """
    shapes = torch.cat([splats.means, splats.conics, splats.opacities[:, None]], 1)
    nothing = shapes.new_tensor([[0, 0, 1, 0, 1, -math.inf]])
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    tiles = _Blend.apply(torch.cat([shapes, nothing]), padded, pairs_of(splats, screen), screen)
    return screen.pictures(tiles)


class _Layers:
    """Some layers of some tiles: their alphas, and what they hide. Tensors are [layers, tiles, pixels]."""

    def __init__(self, shapes: Tensor, corners: Tensor, transmittance: Tensor) -> None:
        """From shapes [layers, tiles, 6], corners [tiles, 2], and what shines through before [tiles, pixels]."""
        pixels = torch.arange(TILE, device=shapes.device) + 0.5
        mean = shapes[..., :2] - corners
        self.dx, self.dy = pixels - mean[..., :1], pixels - mean[..., 1:]
        self.a, self.b, self.c, opacity = (shapes[..., k, None] for k in (2, 3, 4, 5))
        along = opacity - 0.5 * self.a * self.dx.square()
        power = torch.addcmul(along[..., None, :], (self.b * self.dx).neg()[..., None, :], self.dy[..., :, None])
        self.raw = power.sub_((0.5 * self.c * self.dy.square())[..., :, None]).flatten(-2).exp_()
        self.alpha = threshold(self.raw.clamp_max(OPAQUE), math.nextafter(FAINT, 0), 0.0, inplace=True)
        self.left = 1 - self.alpha
        self.before = torch.empty_like(self.alpha)
        for layer, through in enumerate(self.left):
            self.before[layer] = transmittance
            transmittance = transmittance * through
        self.after = transmittance

    @property
    def weight(self) -> Tensor:
        """What each layer adds of its features; nothing where a pixel is done."""
        weight = self.alpha * self.before
        return weight if bool((self.after > DARK).all()) else weight.mul_(self.before * self.left > DARK)


def _stretches(
    shapes: Tensor, pairs: Pairs, screen: Screen, tiles: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor, _Layers]]:
    """Front to back: tiles that still let light through, their layers' Gaussians, what shines through, the layers."""
    through, first = shapes.new_ones(len(tiles), TILE * TILE), 0
    while len(tiles):
        index = pairs.layers(tiles, first, len(shapes) - 1)
        layers = _Layers(shapes[index], _corners(tiles, screen), through)
        yield tiles, index, through, layers
        first += LAYERS
        on = (pairs.counts[tiles] > first) & (layers.after.amax(1) > DARK)
        tiles, through = tiles[on], layers.after[on]


def _corners(tiles: Tensor, screen: Screen) -> Tensor:
    """The first pixel of tiles, in pixels (x, y)."""
    column, row = tiles % screen.columns, tiles // screen.columns % screen.rows
    return TILE * torch.stack([column, row], -1)


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shapes: Tensor, features: Tensor, pairs: Pairs, screen: Screen) -> Tensor:
        out = shapes.new_zeros(screen.tiles, TILE * TILE, features.shape[1])
        kept = []
        for group in pairs.groups():
            for tiles, index, through, layers in _stretches(shapes, pairs, screen, group):
                # [tiles, pixels, layers] @ [tiles, layers, F]
                out[tiles] += torch.bmm(layers.weight.permute(1, 2, 0), features[index].transpose(0, 1))
                kept.append((tiles, index, through))
        ctx.save_for_backward(shapes, features)
        ctx.kept, ctx.screen = kept, screen
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        shapes, features = ctx.saved_tensors
        to_shapes, to_features = torch.zeros_like(shapes), torch.zeros_like(features)
        behind = shapes.new_zeros(ctx.screen.tiles, TILE * TILE)
        for tiles, index, through in reversed(ctx.kept):
            layers = _Layers(shapes[index], _corners(tiles, ctx.screen), through)
            weight, wanted = layers.weight, grad[tiles]
            # [tiles, layers, F] @ [tiles, F, pixels]: what each pixel would gain by more of a layer
            gain = torch.bmm(features[index].transpose(0, 1), wanted.transpose(1, 2)).transpose(0, 1)
            rows = torch.bmm(weight.transpose(0, 1), wanted).transpose(0, 1)
            to_features.index_add_(0, index.flatten(), rows.flatten(0, 1))
            alpha, behind[tiles] = _to_alpha(layers, weight, gain, behind[tiles])
            to_shapes.index_add_(0, index.flatten(), _to_shapes(layers, alpha).flatten(0, 1))
        return to_shapes, to_features, None, None


def _to_alpha(layers: _Layers, weight: Tensor, gain: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of log a, `a (T gain − Σ_{j>i} w_j gain_j / (1 − a))`, and the sum from the first layer on."""
    given = weight * gain
    hidden = torch.empty_like(given)
    for layer in range(len(given) - 1, -1, -1):
        hidden[layer] = behind
        behind = behind + given[layer]
    # a T gain is what is given, and is zero where the pixel is done, as is what lies behind
    gradient = given.addcmul_(layers.alpha, hidden.div_(layers.left), value=-1)
    return gradient.mul_((layers.raw <= OPAQUE) & (weight > 0)), behind


def _to_shapes(layers: _Layers, gradient: Tensor) -> Tensor:
    """Gradient of (mean, conic, log opacity) [layers, tiles, 6] from that of the logarithms of alphas."""
    square = gradient.unflatten(-1, (TILE, TILE))
    columns, rows, total = square.sum(-2), square.sum(-1), gradient.sum(-1)
    dx, dy = layers.dx, layers.dy
    x, y = (columns * dx).sum(-1), (rows * dy).sum(-1)
    mixed = (torch.matmul(square, dx[..., None])[..., 0] * dy).sum(-1)
    a, b, c = (part[..., 0] for part in (layers.a, layers.b, layers.c))
    squares = [-0.5 * (part * d.square()).sum(-1) for part, d in ((columns, dx), (rows, dy))]
    return torch.stack([a * x + b * y, b * x + c * y, squares[0], -mixed, squares[1], total], -1)
