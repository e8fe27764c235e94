"""Pictures of any size, tile by tile, in memory that does not grow with their height.

Tiles overlap by more than a network looks at, meet the same noise in the same place, and fade into each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill.core import Options, Rng, Role, Sampler
from distill.core.errors import DataError
from distill.image.super_resolution.data import whole

Rows = Callable[[int, int], Tensor]
"""Rows [C, n, W] of a picture, from one number to another."""
WIDE = 512
"""Columns that are enlarged at a time."""
GRAIN = 64
"""Side of the squares in which noise is drawn."""
MULTIPLE = 4
"""Tiles begin at multiples of so many pixels, as places of the network do."""


class Tiling(Options):
    """How a picture is cut."""

    size: int = 320
    """Side of a tile without its overlap, in pixels of the result."""
    overlap: int = 56
    """What a tile sees beyond its own, on each side."""
    fade: int = 16
    """Over how many pixels on either side of a border two tiles fade into each other."""

    def model_post_init(self, context: Any) -> None:
        if self.size % MULTIPLE or self.overlap % MULTIPLE or not 0 < self.fade <= self.overlap <= self.size:
            raise DataError(f"tiles and overlaps are multiples of {MULTIPLE}, and 0 < fade <= overlap <= size")


def cubic(inside: int, outside: int, first: int, last: int) -> tuple[int, Tensor]:
    """Rows `first` to `last` of bicubic enlargement from `inside` values to `outside`: where they begin to look, and
    their weights [last − first, n]. The same numbers as Pillow's.
    """
    ratio = outside / inside
    centre = (torch.arange(first, last, dtype=torch.float64) + 0.5) / ratio
    start = max(0, int(centre[0] - 2.5))
    stop = min(inside, int(centre[-1] + 2.5) + 1)
    gap = (torch.arange(start, stop, dtype=torch.float64) + 0.5 - centre[:, None]).abs()
    near = (1.5 * gap - 2.5) * gap**2 + 1
    far = ((-0.5 * gap + 2.5) * gap - 4) * gap + 2
    weights = torch.where(gap < 1, near, torch.where(gap < 2, far, torch.zeros_like(gap)))
    return start, (weights / weights.sum(1, keepdim=True)).float()


@dataclass(frozen=True)
class Enlarged:
    """A picture of `inside` height and width as it looks at `outside`, of which parts can be asked for."""

    rows: Rows
    inside: tuple[int, int]
    outside: tuple[int, int]

    def part(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """[C, bottom − top, right − left]; wide parts are made piece by piece, since weights are many."""
        pieces = [self._piece(top, bottom, x, min(right, x + WIDE)) for x in range(left, right, WIDE)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)

    def _piece(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        above, down = cubic(self.inside[0], self.outside[0], top, bottom)
        beside, across = cubic(self.inside[1], self.outside[1], left, right)
        block = self.rows(above, above + down.shape[1])[:, :, beside : beside + across.shape[1]]
        return down @ block @ across.T


def noise(seed: int, channels: int, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Standard normal noise of a place in the picture, the same for every tile: [C, bottom − top, right − left]."""
    rows = [
        torch.cat([_grain(seed, channels, y, x) for x in range(left // GRAIN, -(-right // GRAIN))], 2)
        for y in range(top // GRAIN, -(-bottom // GRAIN))
    ]
    field, y, x = torch.cat(rows, 1), top % GRAIN, left % GRAIN
    return field[:, y : y + bottom - top, x : x + right - left]


def _grain(seed: int, channels: int, y: int, x: int) -> Tensor:
    draw = torch.Generator().manual_seed((seed * 1_000_003 + y) * 1_000_003 + x)
    return torch.randn(channels, GRAIN, GRAIN, generator=draw)


def ramp(first: int, last: int, low: int, high: int, fade: int, size: int) -> Tensor:
    """Weights of a tile's own pixels `low` to `high` in places `first` to `last`; those of neighbours add up to 1."""
    place = torch.arange(first, last) + 0.5
    rise = torch.ones_like(place) if low == 0 else ((place - low + fade) / (2 * fade)).clamp(0, 1)
    fall = torch.ones_like(place) if high >= size else ((high + fade - place) / (2 * fade)).clamp(0, 1)
    return rise * fall


class Tiled:
    """A network's answer to an enlarged picture, strip by strip.

    Args:
        role, sampler: who restores, and how.
        picture: the picture, in [−1, 1].
        seed: of the noise.
    """

    def __init__(self, role: Role, sampler: Sampler, picture: Enlarged, tiling: Tiling, seed: int = 0) -> None:
        self.role, self.sampler, self.picture, self.tiling, self.seed = role, sampler, picture, tiling, seed
        self.height, self.width = picture.outside

    @property
    def strips(self) -> int:
        """How many there are."""
        return -(-self.height // self.tiling.size)

    @property
    def columns(self) -> int:
        """Tiles of a strip."""
        return -(-self.width // self.tiling.size)

    def run(self, first: int = 0, tick: Callable[[], None] = lambda: None) -> Iterator[tuple[int, Tensor]]:
        """Rows [C, n, W] that are finished, from strip `first` on, each with the number of its first row.

        `tick` is called after each tile. A strip that is begun anew is the same as one that was never left off.
        """
        fade, size = self.tiling.fade, self.tiling.size
        carry = self._strip(first - 1, lambda: None)[1][:, -2 * fade :] if first else None
        for k in range(first, self.strips):
            top, rows = self._strip(k, tick)
            if carry is not None:
                rows[:, : carry.shape[1]] += carry
            last = (k + 1) * size + fade >= self.height and k == self.strips - 1
            done = rows.shape[1] if last else (k + 1) * size - fade - top
            carry = None if last else rows[:, done:].clone()
            yield top, rows[:, :done]

    def _strip(self, k: int, tick: Callable[[], None]) -> tuple[int, Tensor]:
        """The first row of a strip with what fades into its neighbours, and its rows, weighted there."""
        fade, size = self.tiling.fade, self.tiling.size
        low, high = k * size, min(self.height, (k + 1) * size)
        top, bottom = max(0, low - fade), min(self.height, high + fade)
        strip = torch.zeros(3, bottom - top, self.width)
        down = ramp(top, bottom, low, high, fade, self.height)[:, None]
        for left in range(0, self.width, size):
            right = min(self.width, left + size)
            first, last = max(0, left - fade), min(self.width, right + fade)
            across = ramp(first, last, left, right, fade, self.width)
            strip[:, :, first:last] += down * across * self._tile(low, high, left, right, top, bottom, first, last)
            tick()
        return top, strip

    @torch.inference_mode()
    def _tile(self, low: int, high: int, left: int, right: int, *kept: int) -> Tensor:
        """One tile, of which the rows and columns `kept` are returned."""
        over = self.tiling.overlap
        y, b = max(0, low - over), min(self.height, high + over)
        x, r = max(0, left - over), min(self.width, right + over)
        given = self.picture.part(y, b, x, r)[None]
        start = noise(self.seed, 3, y, b, x, r)[None]
        rng = Rng((self.seed * 1_000_003 + y) * 1_000_003 + x)
        with self.role.asked():
            state = self.sampler.sample(self.role, start, {"low": given}, rng)
        top, bottom, first, last = kept
        out: Tensor = whole(state, given)[0, :, top - y : bottom - y, first - x : last - x]
        return out
