"""Key-value state of an autoregressive network: a value that `predict` takes and returns, never hidden in a
module.

A network opens a draft for one call, writes every layer's new keys and values into it, reads what each group of
queries sees, and commits it: the cache that it returns. A rolling cache does the same in memory of a fixed size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.tree import detach

KeyValue = tuple[Tensor, Tensor]
Move = Callable[[Tensor, int], Tensor]
"""How a network moves roped keys by a number of positions."""


@dataclass(frozen=True)
class Span:
    """A group of queries at positions [start, stop), which sees the positions [low, stop) and [0, sink).

    `past` says that the group belongs to deferred states: it is history for those that come after.
    """

    start: int
    stop: int
    low: int = 0
    sink: int = 0
    past: bool = False

    def sees(self, past: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Which entries at these positions it sees, of the history and of the new states that are none."""
        if self.past:
            return self._within(past, self.stop), torch.zeros_like(own, dtype=torch.bool)
        mine = (own >= self.start) & (own < self.stop)
        return self._within(past, self.start), mine | (self._within(own, self.start) & fresh(past, own))

    def _within(self, positions: Tensor, end: int) -> Tensor:
        return (positions < end) & ((positions >= self.low) | (positions < self.sink))


def fresh(past: Tensor, own: Tensor) -> Tensor:
    """Which new entries lie beyond the history, and are history for those after them."""
    return own > (past[-1] if len(past) else -1)


@dataclass(frozen=True)
class Pending:
    """Clean states that are not yet written, their conditions, and their time: the path's, or as a network is asked
    the network's own."""

    x: Any
    cond: Mapping[str, Any] = field(default_factory=dict)
    t: Any = 0.0


@dataclass(frozen=True)
class Cache:
    """Keys and values per layer, [B, heads, length, dim], and the position of each entry [length].

    Every operation returns a new cache; tensors are shared, never written. A fork is therefore the value
    itself.

    Attributes:
        fixed: what does not depend on the states, such as a text's keys and values, by name, with what it was made of.
        pending: clean states that the next call writes before it looks at its own.
        origin: position of the next states, where that is not the one after the last entry.
        last: position at which the states of the last call begin.
    """

    layers: Mapping[str, KeyValue] = field(default_factory=dict)
    positions: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    fixed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    pending: Pending | None = None
    origin: int | None = None
    last: int = 0

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def next_position(self) -> int:
        """The position that the next committed entry gets if none was evicted from the end."""
        return int(self.positions[-1]) + 1 if len(self) else 0

    def commit(self, layers: Mapping[str, KeyValue], positions: Tensor | None = None) -> Cache:
        """Append new keys and values of every layer; entries of one position (a frame's tokens) stay together."""
        if self.layers and layers.keys() != self.layers.keys():
            raise foreign(self.layers, layers)
        start, count = self.next_position, next(iter(layers.values()))[0].shape[2]
        places = torch.arange(start, start + count) if positions is None else positions
        grown = {name: self._append(name, kv) for name, kv in layers.items()}
        return replace(
            self, layers=grown, positions=torch.cat([self.positions, places]), pending=None, origin=None,
            last=int(places[0]) if len(places) else start,
        )  # fmt: skip

    def _append(self, name: str, fresh: KeyValue) -> KeyValue:
        if name not in self.layers:
            return fresh
        check_fit(self.layers, name, fresh)
        key, value = self.layers[name]
        return torch.cat([key, fresh[0]], 2), torch.cat([value, fresh[1]], 2)

    def fork(self) -> Cache:
        """A cache that may grow on its own from here."""
        return replace(self)

    def select(self, entries: Tensor) -> Cache:
        """Only the entries at these indexes [K], in this order."""
        kept = {name: (k[:, :, entries], v[:, :, entries]) for name, (k, v) in self.layers.items()}
        return Cache(kept, self.positions[entries], self.fixed, self.pending, self.origin, self.last)

    def evict(self, *, sink: int, window: int) -> Cache:
        """Keep the first `sink` positions (attention sinks) and the last `window`."""
        places = torch.unique_consecutive(self.positions)
        if len(places) <= sink + window:
            return self
        kept = torch.cat([places[:sink], places[len(places) - window :]])
        return self.select(torch.isin(self.positions, kept).nonzero()[:, 0])

    def before(self, position: int) -> Cache:
        """Only the entries before a position."""
        return self.select((self.positions < position).nonzero()[:, 0])

    def context(self) -> Cache:
        """What the states of the last call attended to: all but their own entries."""
        return self.before(self.last)

    def defer(self, x: Any, cond: Mapping[str, Any] | None = None, t: float = 0.0) -> Cache:
        """Leave it to the next call to write these clean states, together with its own: one call less than to write
        them now.

        `t` is the path's time at which they are written. The conditions matter where there is one a frame; others are
        those of the next call.
        """
        return replace(self, pending=Pending(x, dict(cond or {}), t))

    def take(self) -> tuple[Pending | None, Cache]:
        """What was deferred, and the cache without it, for a call of its own."""
        return self.pending, replace(self, pending=None)

    def at(self, position: int) -> Cache:
        """The same entries for states that begin at this position: they see of the history what lies before them."""
        return replace(self, origin=position)

    def detach(self) -> Cache:
        """The cache without its gradient history."""
        pending = self.pending and replace(self.pending, x=detach(self.pending.x))
        fixed = {name: (source, tuple(map(Tensor.detach, made))) for name, (source, made) in self.fixed.items()}
        layers = {name: _detached(made) for name, made in self.layers.items()}
        return Cache(layers, self.positions, fixed, pending, self.origin, self.last)

    def draft(self, places: Sequence[int], tokens: int = 1, past: int = 0) -> Draft:
        """Entries under way, `tokens` at each of these positions; the first `past` of them are of deferred states."""
        return Draft(self, positions_of(tuple(places), tokens), past * tokens)


@lru_cache(maxsize=64)
def positions_of(places: tuple[int, ...], tokens: int) -> Tensor:
    """The position of every entry, where each place has so many: a tensor that is shared and never written."""
    with torch.inference_mode(False):
        return torch.tensor(places, dtype=torch.long).repeat_interleave(tokens)


def _detached(made: KeyValue) -> KeyValue:
    return made[0].detach(), made[1].detach()


def foreign(mine: Mapping[str, KeyValue], theirs: Mapping[str, KeyValue]) -> DistillError:
    """What to say where a cache meets a network that did not write it."""
    said = [", ".join(f"{name} {list(_sizes(kv))}" for name, kv in list(side.items())[:2]) for side in (mine, theirs)]
    return DistillError(
        f"this cache belongs to another network, or to another batch: it holds {len(mine)} layers ({said[0]}, ...), "
        f"and the network writes {said[1]}, in [batch, heads, values]. Start from an empty cache."
    )


class Draft:
    """Entries under way in one call of a network."""

    def __init__(self, cache: Cache, positions: Tensor, past: int) -> None:
        self.cache, self.past = cache, torch.cat([cache.positions, positions[:past]])
        self.own, self.positions = positions[past:], positions
        self.fresh: dict[str, KeyValue] = {}
        self.fixed = dict(cache.fixed)
        self.rows: dict[Span, tuple[Any, Any, int]] = {}

    def write(self, name: str, key: Tensor, value: Tensor) -> None:
        """New keys and values of a layer, [B, heads, length, dim]."""
        check_fit(self.cache.layers, name, (key, value))
        self.fresh[name] = (key, value)

    def read(self, name: str, span: Span, move: Move | None = None) -> KeyValue:
        """Keys and values of a layer that a group of queries sees, its own last.

        Where `move` is given, sinks that the window has left behind are moved to the positions right before it.
        """
        old, new, sinks = self._rows(span)
        parts = [] if old is None else [_some(self.cache.layers[name], old)]
        parts += [] if new is None else [_some(self.fresh[name], new)]
        key, value = parts[0] if len(parts) == 1 else (torch.cat(side, 2) for side in zip(*parts, strict=True))
        if move is None or not 0 < span.sink < span.low:
            return key, value
        return torch.cat([move(key[:, :, :sinks], span.low - span.sink), key[:, :, sinks:]], 2), value

    def _rows(self, span: Span) -> tuple[Any, Any, int]:
        """Which entries a group sees, of the cache and of the new ones, and how many of them are sinks."""
        if span not in self.rows:
            old, (seen, mine) = len(self.cache), span.sees(self.past, self.own)
            sinks = int((self.past[seen] < span.sink).sum()) + int((self.own[mine] < span.sink).sum())
            self.rows[span] = _run(seen[:old]), _run(torch.cat([seen[old:], mine])), sinks
        return self.rows[span]

    def once(self, name: str, source: Any, make: Callable[[Any], Any]) -> Any:
        """Tensors made of something that stays the same from call to call, when it is first met."""
        if torch.is_grad_enabled():
            return make(source)
        if name not in self.fixed or self.fixed[name][0] is not source:
            self.fixed[name] = (source, make(source))
        return self.fixed[name][1]

    def commit(self, span: Span) -> Cache:
        """The cache that follows; what the first of the call's groups does not see any more is evicted."""
        cache = self.cache
        new = torch.cat([torch.ones(len(self.positions) - len(self.own), dtype=torch.bool), fresh(self.past, self.own)])
        layers = {name: _some(made, _run(new) or slice(0)) for name, made in self.fresh.items()}
        live = (cache.positions >= span.low) | (cache.positions < span.sink)
        kept = cache if bool(live.all()) else cache.select(live.nonzero()[:, 0])
        grown = kept.commit(layers, self.positions[new])
        return replace(grown, fixed=self.fixed, last=int(self.own[0]))


def check_fit(layers: Mapping[str, KeyValue], name: str, made: KeyValue) -> None:
    """Refuse to write what does not belong to the same network and batch as what is there."""
    if layers and (name not in layers or _sizes(layers[name]) != _sizes(made)):
        raise foreign(layers, {name: made})


def _sizes(made: KeyValue) -> tuple[int, ...]:
    shape = made[0].shape
    return shape[0], shape[1], shape[3]


def _run(mask: Tensor) -> Any:
    """The indexes that are set: None for none, a slice where they follow each other."""
    found = mask.nonzero()[:, 0]
    if not len(found):
        return None
    first, last = int(found[0]), int(found[-1])
    return slice(first, last + 1) if last - first + 1 == len(found) else found


def _some(made: KeyValue, rows: Any) -> KeyValue:
    return made[0][:, :, rows], made[1][:, :, rows]
