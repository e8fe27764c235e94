"""Key-value state of an autoregressive network: a value that `predict` takes and returns, never hidden in a
module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cache:
    """Keys and values per layer, [B, heads, length, dim], and the position of each entry [length].

    Every operation returns a new cache; tensors are shared, never written. A fork is therefore the value
    itself.
    """

    layers: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    positions: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def next_position(self) -> int:
        """The position that the next committed entry gets if none was evicted from the end."""
        return int(self.positions[-1]) + 1 if len(self) else 0

    def commit(self, layers: Mapping[str, tuple[Tensor, Tensor]]) -> Cache:
        """Append new keys and values of every layer."""
        fresh = next(iter(layers.values()))[0].shape[2]
        start = self.next_position
        positions = torch.arange(start, start + fresh)
        grown = {name: self._append(name, kv) for name, kv in layers.items()}
        return Cache(grown, torch.cat([self.positions, positions]))

    def _append(self, name: str, fresh: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if name not in self.layers:
            return fresh
        key, value = self.layers[name]
        return torch.cat([key, fresh[0]], 2), torch.cat([value, fresh[1]], 2)

    def fork(self) -> Cache:
        """A cache that may grow on its own from here."""
        return replace(self)

    def select(self, entries: Tensor) -> Cache:
        """Only the entries at these indexes [K], in this order."""
        kept = {name: (k[:, :, entries], v[:, :, entries]) for name, (k, v) in self.layers.items()}
        return Cache(kept, self.positions[entries])

    def evict(self, *, sink: int, window: int) -> Cache:
        """Keep the first `sink` entries (attention sinks) and the last `window`."""
        if len(self) <= sink + window:
            return self
        kept = torch.cat([torch.arange(sink), torch.arange(len(self) - window, len(self))])
        return self.select(kept)

    def detach(self) -> Cache:
        """The cache without its gradient history."""
        return Cache({name: (k.detach(), v.detach()) for name, (k, v) in self.layers.items()}, self.positions)
