"""Attention over chunks of frames: who sees whom is data (`Reach`), and one call of a network is a `Pass`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from pydantic import NonNegativeInt
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from distill.core import Cache, DistillError, Options
from distill.core.cache import Draft, Span

FRAMED = ("audio",)
"""Conditions that have one value a frame."""


class Reach(Options):
    """Which frames a frame attends to; one value for training in parallel and for a stream."""

    chunk: NonNegativeInt = 0
    """Frames that see each other; 0 is all of them, in both directions."""
    window: NonNegativeInt = 0
    """Frames before the chunk that it sees; 0 is all of them."""
    sink: NonNegativeInt = 0
    """First frames that every chunk sees, whatever the window (attention sinks)."""
    moving: bool = False
    """Move the sinks along, to the positions right before the window, instead of leaving them where they were."""
    top: NonNegativeInt = 0
    """Frames of the history that each query of each head picks by `q · mean(K)`; 0 is all (arXiv:2512.15702)."""

    def spans(self, start: int, stop: int, *, past: bool = False) -> list[Span]:
        """The groups of queries at positions [start, stop), each with what it sees."""
        size = self.chunk or stop - start
        edges = [*range(start, stop, size), stop]
        return [self._span(a, b, past) for a, b in zip(edges, edges[1:], strict=False)]

    def _span(self, start: int, stop: int, past: bool) -> Span:
        low = max(0, start - self.window) if self.window else 0
        return Span(start, stop, low, self.sink if self.window else 0, past)

    def over(self, frames: int) -> Reach:
        """The same in units of `frames` frames, the temporal side of a patch."""
        odd = {name: n for name in ("chunk", "window", "sink") if (n := getattr(self, name)) % frames}
        if odd:
            said = ", ".join(f"{name} {n}" for name, n in odd.items())
            raise DistillError(f"patches are {frames} frames long, and {said} is no multiple of that")
        return self.model_copy(update={name: getattr(self, name) // frames for name in ("chunk", "window", "sink")})


class Rotary:
    """Rotary positions (Su et al. 2021) with a share of each head for every axis: frame, row, column.

    Neighbouring values of a head are a pair, turned as one complex number. Of the pairs, a third belongs to rows, a
    third to columns and the rest to frames, unless `pairs` says how many.
    """

    def __init__(self, dim: int, base: float = 10_000.0, *, pairs: tuple[int, int, int] | None = None) -> None:
        side = dim // 6
        self.pairs = pairs or (dim // 2 - 2 * side, side, side)
        if sum(self.pairs) * 2 != dim or min(self.pairs) < 1:
            raise DistillError(f"heads of {dim} values cannot be shared among three axes in pairs: take another size")
        self.rates = tuple(base ** -(torch.arange(n, dtype=torch.float64) / n) for n in self.pairs)

    def table(self, frames: tuple[int, ...], grid: tuple[int, int], device: torch.device) -> Tensor:
        """Turns [F · rows · columns, dim / 2] of the places in these frames, as complex numbers of length one."""
        return _table(self, frames, grid, device)

    def move(self, keys: Tensor, frames: int) -> Tensor:
        """Keys [..., dim] moved by a number of frames."""
        still = torch.zeros(self.pairs[1] + self.pairs[2], dtype=torch.float64)
        return turned(keys, unit(torch.cat([frames * self.rates[0], still])).to(keys.device))


@lru_cache(maxsize=64)
def _table(rotary: Rotary, frames: tuple[int, ...], grid: tuple[int, int], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # training may meet it too
        axes = (torch.tensor(frames), torch.arange(grid[0]), torch.arange(grid[1]))
        time, up, along = (axis[:, None] * rate for axis, rate in zip(axes, rotary.rates, strict=True))
        size = (len(frames), *grid, -1)
        parts = (time[:, None, None].expand(size), up[:, None].expand(size), along.expand(size))
        return unit(torch.cat(parts, -1).flatten(0, 2)).to(device)


def unit(angle: Tensor) -> Tensor:
    """Complex numbers of length one, in single precision, of angles in double."""
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Neighbouring values of x [..., dim] as complex numbers, times `turn` [..., dim / 2]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


class Pass:
    """One call of a network: the new frames, the groups that they form, and the entries that it writes.

    Args:
        cache: what was there; None for a call that leaves nothing behind.
        reach: who sees whom, in frames of tokens.
        frames: new frames of tokens, those that were deferred not counted.
        deferred: frames of tokens that were deferred.
        grid: rows and columns of tokens in a frame.
    """

    def __init__(self, cache: Cache | None, reach: Reach, frames: int, deferred: int, grid: tuple[int, int]) -> None:
        self.kept, self.reach, self.grid, self.tokens = cache is not None, reach, grid, grid[0] * grid[1]
        cache = Cache() if cache is None else cache
        first = cache.next_position
        start = first + deferred if cache.origin is None else cache.origin
        past = reach.spans(first, first + deferred, past=True) if deferred else []
        own = reach.spans(start, start + frames)
        self.spans = [*past, *own]
        self.groups = {
            fresh: [(s, (s.stop - s.start) * self.tokens) for s in (own if fresh else self.spans)] for fresh in (0, 1)
        }
        self.frames = (*range(first, first + deferred), *range(start, start + frames))
        self.deferred = deferred * self.tokens
        self.draft: Draft = cache.draft(self.frames, self.tokens, deferred)

    def attend(
        self, name: str, q: Tensor, k: Tensor, v: Tensor, move: Any = None, *, fresh: bool = False, beside: Any = None
    ) -> Tensor:
        """Attention [B, heads, N, dim] of every group to what it sees; k and v are written to the layer's entries.

        With `fresh`, q holds the new frames only, not those that were deferred. `beside` are keys and values that
        every group sees besides: a text's.
        """
        self.draft.write(name, k, v)
        groups, move = self.groups[fresh], move if self.reach.moving else None
        parts = [
            self._seen(part, *self.draft.read(name, span, move), span, beside)
            for part, (span, _) in zip(q.split([size for _, size in groups], 2), groups, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def _seen(self, q: Tensor, k: Tensor, v: Tensor, span: Span, beside: Any) -> Tensor:
        history, mask = k.shape[2] // self.tokens - (span.stop - span.start), None
        if self.reach.top and self.reach.chunk and history > self.reach.top:
            more = 0 if beside is None else beside[0].shape[2]
            mask = routed(q, k, history, self.tokens, self.reach.top, more)
        if beside is not None:
            k, v = torch.cat([k, beside[0]], 2), torch.cat([v, beside[1]], 2)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def knows(self, source: Tensor) -> bool:
        """Whether keys and values of this condition are there already."""
        return any(known is source for known, _ in self.draft.fixed.values())

    def once(self, name: str, source: Any, make: Callable[[Any], Any]) -> Any:
        """What depends on a condition only (a text's keys and values), made when it is first met."""
        return self.draft.once(name, source, make)

    def end(self, out: Tensor) -> Any:
        """What the network returns: its output, and the cache where one was given."""
        return (out, self.draft.commit(self.spans[0])) if self.kept else out


def routed(q: Tensor, k: Tensor, frames: int, tokens: int, top: int, more: int = 0) -> Tensor:
    """Mask [B, heads, N, length]: of the first `frames` frames, the `top` whose mean key agrees best with each query.

    What follows them, and `more` entries besides, is seen by all (history routing, arXiv:2512.15702).
    """
    mean = k[:, :, : frames * tokens].unflatten(2, (frames, tokens)).mean(3)
    best = (q @ mean.transpose(2, 3)).topk(top, 3).indices
    chosen = torch.zeros(*q.shape[:3], frames, dtype=torch.bool, device=q.device).scatter_(3, best, True)
    own = chosen.new_ones(*q.shape[:3], k.shape[2] - frames * tokens + more)
    return torch.cat([chosen.repeat_interleave(tokens, 3), own], 3)


def with_deferred(x: Tensor, t: Tensor, cond: Mapping[str, Any], cache: Cache | None, framed: Sequence[str]) -> Any:
    """States, native times and conditions of a call with the deferred states before its own, and how many they are.

    `framed` names the conditions that have one value a frame.
    """
    if cache is None or cache.pending is None:
        return x, t, cond, 0
    clean, said = cache.pending.x, cache.pending.cond
    times = t.reshape(len(t), -1).expand(-1, x.shape[1])
    t = torch.cat([cache.pending.t.to(times)[:, None].expand(-1, clean.shape[1]), times], 1)
    joined = {
        name: torch.cat([framed_as(said[name], clean), framed_as(cond[name], x)], 1) for name in framed if name in cond
    }
    return torch.cat([clean.to(x.dtype), x], 1), t, {**cond, **joined}, clean.shape[1]


def framed_as(value: Tensor, x: Tensor) -> Tensor:
    """A condition [B, D] or [B, F, D] as one vector for each of the frames of x: [B, F, D]."""
    value = value[:, None] if value.ndim == 2 else value
    if value.shape[1] not in (1, x.shape[1]):
        raise DistillError(f"a condition has {value.shape[1]} frames, and the clip has {x.shape[1]}: give one for each")
    return value.expand(-1, x.shape[1], -1)


@lru_cache(maxsize=64)
def grid_of(height: int, width: int, patch: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches in a frame.

    Raises:
        DistillError: the patch does not divide it.
    """
    if height % patch[0] or width % patch[1]:
        fit = [-(-side // p) * p for side, p in zip((height, width), patch, strict=True)]
        raise DistillError(
            f"frames of {height} x {width} pixels cannot be cut into patches of {patch[0]} x {patch[1]}: "
            f"the nearest size is {fit[0]} x {fit[1]}"
        )
    return height // patch[0], width // patch[1]
