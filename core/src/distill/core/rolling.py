"""A cache in memory of a fixed size: sinks, a window that rolls on, and room for what is being made."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from distill.core.cache import Cache, Draft, KeyValue, Move, Span, check_fit, foreign, positions_of
from distill.core.errors import DistillError


@dataclass(frozen=True)
class RollingCache(Cache):
    """A cache whose entries are written in place, for streams: nothing grows once its memory is there.

    It is used in a line: each call goes on from the newest value, or from one whose entries no later call has
    overwritten. For roll-outs side by side, fork it: that copies the memory. No gradient runs through it.
    """

    store: Store = field(kw_only=True)
    mark: int = 0

    @classmethod
    def of(cls, *, sink: int = 0, window: int, room: int) -> RollingCache:
        """An empty one, for `sink` first positions, the last `window`, and `room` for the new ones of a call.

        Room beyond what one call needs makes it rarer that the window is moved to the front of the memory.
        """
        if window < 1 or room < 1:
            raise DistillError(f"a rolling cache needs a window and room of one position or more, not {window}, {room}")
        return cls(store=Store(sink, window, room))

    def fork(self) -> RollingCache:
        """A copy with memory of its own."""
        return replace(self, store=self.store.copy())

    def plain(self) -> Cache:
        """The same entries as an ordinary cache, in memory of their own."""
        store = self._fresh()
        places = torch.unique_consecutive(self.positions)
        layers = {name: store.entries(name, places.tolist()) for name in store.layers}
        return Cache(layers, self.positions, self.fixed, self.pending, self.origin, self.last)

    def commit(self, layers: Mapping[str, KeyValue], positions: Tensor | None = None) -> Cache:
        """Write new keys and values of every layer."""
        start, count = self.next_position, next(iter(layers.values()))[0].shape[2]
        places = range(start, start + count) if positions is None else torch.unique_consecutive(positions).tolist()
        draft = self.draft(places, count // len(places))
        for name, made in layers.items():
            draft.write(name, *made)
        return draft.commit(Span(start, places[-1] + 1, max(0, start - self.store.window), self.store.sink))

    def select(self, entries: Tensor) -> Cache:
        return self.plain().select(entries)

    def before(self, position: int) -> RollingCache:
        kept = self.positions[self.positions < position]
        return replace(self, positions=kept, mark=self.store.owner.get(position - 1, -1))

    def detach(self) -> RollingCache:
        return self

    def draft(self, places: Sequence[int], tokens: int = 1, past: int = 0) -> Draft:
        return RollingDraft(self, self._fresh(), places, tokens, past)

    def _fresh(self) -> Store:
        """The memory, where this value's entries are still in it."""
        if len(self.positions) and not self.store.holds(self.next_position, self.mark):
            raise DistillError(
                "what this rolling cache held was overwritten by a later call: go on from the newest cache, or fork "
                "it before two roll-outs do"
            )
        return self.store


class Store:
    """The memory of a rolling cache, shared by its values: slots for positions, of `tokens` entries each.

    Position p lies in slot p − shift. Sinks that the window has left behind are kept aside, and copied to the slots
    right before the window, which is thereby one piece with them.
    """

    def __init__(self, sink: int, window: int, room: int) -> None:
        self.sink, self.window, self.slots = sink, window, sink + window + room
        self.tokens, self.shift, self.stamp = 1, 0, 0
        self.layers: dict[str, KeyValue] = {}
        self.sinks: dict[str, KeyValue] = {}
        self.placed: dict[str, int] = {}
        self.owner: dict[int, int] = {}
        """Which call wrote each position that is still there."""

    def copy(self) -> Store:
        """The same in memory of its own."""
        twin = copy.copy(self)
        twin.layers, twin.sinks = ({n: _cloned(kv) for n, kv in kept.items()} for kept in (self.layers, self.sinks))
        twin.placed, twin.owner = dict(self.placed), dict(self.owner)
        return twin

    def holds(self, end: int, mark: int) -> bool:
        """Whether what a value of `end` positions sees is still as it left it."""
        live = all(p in self.owner for p in range(max(self.sink, end - self.window), end))
        return live and (end <= self.sink or self.owner[end - 1] == mark)

    def entries(self, name: str, places: list[int]) -> KeyValue:
        """Copies of the entries at these positions, the sinks as they were written."""
        sinks = sum(place < self.sink for place in places)
        rows = self.rows(places[sinks], places[-1] + 1) if len(places) > sinks else slice(0)
        kept = slice(0, sinks * self.tokens)
        aside = self.sinks.get(name, self.layers[name])
        key, value = (
            torch.cat([a[:, :, kept], b[:, :, rows]], 2) for a, b in zip(aside, self.layers[name], strict=True)
        )
        return key, value

    def rows(self, start: int, stop: int) -> slice:
        """Entries of the positions [start, stop)."""
        return slice((start - self.shift) * self.tokens, (stop - self.shift) * self.tokens)

    def begin(self, start: int, stop: int, tokens: int) -> int:
        """Make room for the positions [start, stop), and forget what was there; a new stamp."""
        self.tokens = tokens if not self.owner else self.tokens
        if tokens != self.tokens:
            raise DistillError(f"this cache has {self.tokens} entries a position, and the new states {tokens}")
        if stop - self.shift > self.slots:
            self._roll(max(0, start - self.window), start)
        if stop - self.shift > self.slots:
            raise DistillError(f"{stop - start} positions at once do not fit: give the rolling cache room for them")
        low = self.shift + (self.sink if self.shift else 0)
        self.stamp += 1
        self.owner = {p: mark for p, mark in self.owner.items() if low <= p < start}
        self.owner |= dict.fromkeys(range(start, stop), self.stamp)
        return self.stamp

    def _roll(self, low: int, start: int) -> None:
        """Move the window [low, start) to the front, behind the place of the sinks."""
        if low <= self.sink + self.shift:
            return
        front = slice(self.sink * self.tokens, (self.sink + start - low) * self.tokens)
        for made in self.layers.values():
            for part in made:
                part[:, :, front] = part[:, :, self.rows(low, start)].clone()
        self.shift, self.placed = low - self.sink, {}

    def write(self, name: str, made: KeyValue, start: int, stop: int) -> None:
        """Put a layer's new entries into their slots."""
        check_fit(self.layers if self.stamp > 1 else {}, name, made)
        if name not in self.layers:
            self.layers[name] = _zeros(made, self.slots * self.tokens), _zeros(made, self.slots * self.tokens)
            self.sinks[name] = _zeros(made, self.sink * self.tokens), _zeros(made, self.sink * self.tokens)
        rows = self.rows(start, stop)
        sinks = slice(start * self.tokens, min(stop, self.sink) * self.tokens)
        for memory, aside, part in zip(self.layers[name], self.sinks[name], made, strict=True):
            memory[:, :, rows] = part
            if start < self.sink:
                aside[:, :, sinks] = part[:, :, : sinks.stop - sinks.start]

    def read(self, name: str, span: Span, move: Move | None) -> KeyValue:
        """What a group sees, as a view."""
        behind = span.low > span.sink > 0
        if behind and self.placed.get(name) != span.low:
            self._place(name, span, move)
        first = span.low - span.sink if behind else 0 if span.low <= span.sink else span.low
        rows = self.rows(first, span.stop)
        key, value = self.layers[name]
        return key[:, :, rows], value[:, :, rows]

    def _place(self, name: str, span: Span, move: Move | None) -> None:
        """Put the sinks right before a group's window."""
        rows = self.rows(span.low - span.sink, span.low)
        key, value = self.sinks[name]
        self.layers[name][0][:, :, rows] = key if move is None else move(key, span.low - span.sink)
        self.layers[name][1][:, :, rows] = value
        self.placed[name] = span.low
        for position in range(span.low - span.sink, span.low):
            self.owner.pop(position, None)


class RollingDraft(Draft):
    """Entries under way that go straight to their slots."""

    def __init__(self, cache: RollingCache, store: Store, places: Sequence[int], tokens: int, past: int) -> None:
        self.start, self.stop, self.own_start = places[0], places[-1] + 1, places[past]
        if self.start != cache.next_position or len(places) != self.stop - self.start:
            raise DistillError("states can only follow the last of a rolling cache: take an ordinary cache")
        self.before, self.store, self.tokens = cache, store, tokens
        self.fixed, self.fresh = dict(cache.fixed), {}
        self.stamp = store.begin(self.start, self.stop, tokens)

    def write(self, name: str, key: Tensor, value: Tensor) -> None:
        if key.requires_grad or value.requires_grad:
            raise DistillError("no gradient runs through a rolling cache: take an ordinary one")
        self.store.write(name, (key, value), self.start, self.stop)
        self.fresh[name] = key, value

    def read(self, name: str, span: Span, move: Move | None = None) -> KeyValue:
        store = self.store
        if span.low < max(0, self.start - store.window) or span.sink > store.sink:
            raise DistillError(
                f"the network looks back to position {span.low} with {span.sink} sinks, and the rolling cache keeps "
                f"{store.window} positions and {store.sink} sinks: make it for the network's own window"
            )
        return store.read(name, span, move)

    def commit(self, span: Span) -> Cache:
        if self.fresh.keys() != self.store.layers.keys():
            raise foreign(self.store.layers, self.fresh)
        sinks = range(min(span.sink, self.stop)) if span.low else ()
        kept = (*sinks, *range(max(span.low, len(sinks)), self.stop))
        return replace(
            self.before, positions=positions_of(kept, self.tokens), fixed=self.fixed, pending=None, mark=self.stamp,
            last=self.own_start,
        )  # fmt: skip


def _zeros(made: KeyValue, length: int) -> Tensor:
    key = made[0]
    return key.new_zeros(*key.shape[:2], length, key.shape[3])


def _cloned(made: Any) -> KeyValue:
    return made[0].clone(), made[1].clone()
