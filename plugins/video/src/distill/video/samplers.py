"""How students of chunks are sampled where chunks differ: more steps for the first, other reach, given frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from distill.core import Rng, Role, Sampler
from distill.video.attention import Reach
from distill.video.streaming import ChunkSampler, Conditions, Stream, reach_of, share
from distill.video.trajectories import continued, thinned


class FirstChunk(ChunkSampler):
    """More steps for the first chunk of a clip than for the others (first-frame enhancement: arXiv:2511.01419)."""

    first_steps: PositiveInt = 4
    """Steps of the first chunk: some of the times, evenly."""
    later_steps: PositiveInt = 1
    """Steps of the others."""

    def of(self, steps: int) -> ChunkSampler:
        """The sampler of a chunk of so many steps."""
        known = self.times or (1.0,)
        options = {"times": thinned(known, steps), "steps": steps, "solver": self.solver, "guidance": self.guidance}
        return ChunkSampler.model_validate(options)

    def with_steps(self, steps: int | None) -> Sampler:
        return self if steps is None else self.model_copy(update={"first_steps": steps, "later_steps": steps})

    def calls(self, path: Any) -> float:
        """Of a later chunk."""
        return self.of(self.later_steps).calls(path)

    def chunks(self, role: Role, noise: Tensor, cond: Conditions, rng: Rng | None = None) -> Iterator[Tensor]:
        stream, size = Stream.of(role, self.of(self.first_steps), rng), reach_of(role.denoiser).chunk
        for n, x in enumerate(noise.split(size, 1)):
            yield stream.chunk(x, share(cond, n * size, x.shape[1]))
            stream.sampler = self.of(self.later_steps)


class Windowed(ChunkSampler):
    """Chunks that see less of the past than in training: the first frames, and a window that rolls."""

    reach: Reach = Reach(chunk=3, window=6, sink=9)
    """Which frames a frame sees in sampling."""

    def chunks(self, role: Role, noise: Tensor, cond: Conditions, rng: Rng | None = None) -> Iterator[Tensor]:
        network: Any = role.denoiser.network
        before, network.reach = network.reach, self.reach
        try:
            yield from super().chunks(role, noise, cond, rng)
        finally:
            network.reach = before


class Continued(Sampler):
    """Clips as long as the noise, one continuing the other; the condition `motion` [B, m, ...] begins the first."""

    motion: int = 1
    """m, frames that a clip shares with the one before."""

    @torch.no_grad()
    def sample(self, role: Role, noise: Any, cond: Any = None, rng: Rng | None = None, roles: Any = None) -> Any:
        cond, length, times = dict(cond or {}), role.denoiser.shape[0], self.grid_for(role.denoiser.path)[:-1]  # type: ignore[index]
        motion, start = cond.pop("motion", noise[:, :0]), 0
        parts = [motion]
        while start < noise.shape[1]:
            fresh = noise[:, start : start + length - motion.shape[1]]
            told = share(cond, max(0, start - motion.shape[1]), length)
            x = continued(
                role, torch.cat([motion, fresh], 1), motion, times, len(times) - 1, told, rng or Rng(0),
                attached=False, solver=self.solver,
            )  # fmt: skip
            parts.append(x[:, motion.shape[1] :])
            start, motion = start + fresh.shape[1], x[:, -self.motion :]
        return torch.cat(parts, 1)
