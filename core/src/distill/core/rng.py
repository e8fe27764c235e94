"""Random numbers as an argument: one stream per purpose, equal for every split of the same global batch."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from distill.core.tree import Ragged, State, batch_size, leaves


class Rng:
    """Named, independent random streams of one seed.

    Two runs that differ in one purpose (say, a loss switched off) share every other draw. With several
    processes each stream is drawn for the global batch and every rank keeps its own rows, so that the split
    does not change results; ragged states are drawn by rank instead, since their row counts differ.
    """

    def __init__(self, seed: int, *, rank: int = 0, world: int = 1, device: torch.device | str = "cpu") -> None:
        self.seed, self.rank, self.world, self.device = seed, rank, world, torch.device(device)
        self._streams: dict[str, torch.Generator] = {}

    def generator(self, stream: str) -> torch.Generator:
        """The generator behind a stream, made on first use from the seed and the stream's name."""
        if stream not in self._streams:
            seed = (self.seed * 0x9E3779B1 + zlib.crc32(stream.encode())) % 2**63
            self._streams[stream] = torch.Generator(self.device).manual_seed(seed)
        return self._streams[stream]

    def fork(self, name: str) -> Rng:
        """An independent set of streams that depends on this seed and the name only."""
        seed = (self.seed * 31 + zlib.crc32(name.encode())) % 2**31
        return Rng(seed, rank=self.rank, world=self.world, device=self.device)

    def _mine(self, drawn: Tensor) -> Tensor:
        return drawn if self.world == 1 else drawn.chunk(self.world)[self.rank]

    def normal(self, *shape: int, stream: str = "noise") -> Tensor:
        """Standard normal [B, ...]; the first axis is the batch."""
        size = (shape[0] * self.world, *shape[1:])
        return self._mine(torch.randn(size, generator=self.generator(stream), device=self.device))

    def uniform(self, *shape: int, stream: str = "time") -> Tensor:
        """Uniform on [0, 1), [B, ...]; the first axis is the batch."""
        size = (shape[0] * self.world, *shape[1:])
        return self._mine(torch.rand(size, generator=self.generator(stream), device=self.device))

    def integers(self, high: int, *shape: int, stream: str = "index") -> Tensor:
        """Integers 0 … high−1, [B, ...]; the first axis is the batch."""
        size = (shape[0] * self.world, *shape[1:])
        return self._mine(torch.randint(high, size, generator=self.generator(stream), device=self.device))

    def choice(self, high: int, *, shares: Sequence[float] = (), stream: str = "choice") -> int:
        """One integer 0 … high−1, the same on every rank; `shares` are its probabilities, equal if empty."""
        weights = torch.tensor(shares or (1.0,) * high, device=self.device)
        return int(torch.multinomial(weights, 1, generator=self.generator(stream)))

    def normal_like(self, state: State, *, stream: str = "noise") -> Any:
        """Standard normal noise in the structure of a state."""
        if isinstance(state, Mapping):
            return {key: self.normal_like(part, stream=f"{stream}/{key}") for key, part in state.items()}
        values = leaves(state)[0]
        if isinstance(state, Tensor):
            return self.normal(*values.shape, stream=stream).to(values)
        if isinstance(state, Ragged):
            own = self.generator(f"{stream}@{self.rank}")
            drawn = torch.randn(values.shape, generator=own, device=self.device)
        else:
            drawn = self.normal(*values.shape, stream=stream)
        return replace(state, values=drawn.to(values))

    def uniform_for(self, state: State, *, stream: str = "time") -> Tensor:
        """One uniform number per sample of a state: [B]."""
        return self.uniform(batch_size(state), stream=stream)

    def state(self) -> dict[str, Tensor]:
        """Every stream's position, to be saved with a checkpoint."""
        return {name: generator.get_state() for name, generator in sorted(self._streams.items())}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put every stream back where `state` was taken."""
        self._streams.clear()
        for name, position in state.items():
            self.generator(name).set_state(position)
