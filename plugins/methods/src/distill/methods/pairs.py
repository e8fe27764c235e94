"""Noises and the end points that a teacher gives them, made once and kept with the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from distill.core import Batch, Context, DistillError, Event, Loss, Sampler, Terms, Trajectory, tree
from distill.core.contracts import Fit
from distill.methods.losses import distance
from distill.methods.trajectories import Generate


class MakePairs(Fit):
    """Sample a role once and keep noises, end points and conditions in the run's state, saved with it.

    Conditions are those of one batch, drawn with replacement. The student's sampler stays as it is.
    """

    count: int = 1024
    """Pairs to make."""
    role: str = "teacher"
    """Who makes them."""
    sampler: Sampler = Sampler()
    """How: steps, solver, guidance."""
    chunk: int = 256
    """Pairs that are made at a time."""

    def fit(self, batch: Batch, ctx: Context, sampler: Any) -> Any:
        parts = [
            self._make(min(self.chunk, self.count - done), batch, ctx) for done in range(0, self.count, self.chunk)
        ]
        noise, end, cond = zip(*parts, strict=True)
        kept = pack("pairs/noise", tree.concatenate(noise)) | pack("pairs/end", tree.concatenate(end))
        for name in batch.cond:
            kept |= pack(f"pairs/cond/{name}", tree.concatenate([part[name] for part in cond]))
        ctx.state.update(kept)
        return sampler

    def _make(self, size: int, batch: Batch, ctx: Context) -> tuple[Any, Any, dict[str, Any]]:
        role = ctx.roles[self.role]
        rows = ctx.rng.integers(batch.size, size, stream="pairs/condition")
        cond = {name: tree.index(value, rows) for name, value in batch.cond.items()}
        noise = Batch(size, shape=batch.shape or role.denoiser.shape).noise(ctx.rng, "pairs/noise")
        return noise, self.sampler.sample(role, noise, cond, ctx.rng), cond


def pack(name: str, value: Any) -> dict[str, Tensor]:
    """A state as named tensors."""
    if isinstance(value, Mapping):
        return {key: leaf for part in value for key, leaf in pack(f"{name}/{part}", value[part]).items()}
    if not isinstance(value, Tensor):
        raise DistillError(f"pairs are kept as tensors, and '{name}' is a {type(value).__name__}")
    return {name: value}


def unpack(kept: Mapping[str, Tensor], name: str) -> Any:
    """The state that was packed under a name; nothing of that name is an empty mapping."""
    if name in kept:
        return kept[name]
    inside = [key.removeprefix(f"{name}/").split("/")[0] for key in kept if key.startswith(f"{name}/")]
    return {part: unpack(kept, f"{name}/{part}") for part in dict.fromkeys(inside)}


def recall(size: int, ctx: Context) -> tuple[Any, Any, dict[str, Any]]:
    """Stored pairs, drawn with replacement: noise, end point and conditions of `size` samples."""
    noise, end = unpack(ctx.state, "pairs/noise"), unpack(ctx.state, "pairs/end")
    cond = unpack(ctx.state, "pairs/cond")
    if not tree.leaves(noise):
        raise DistillError("this run has no stored pairs: begin the plan with a phase whose fit is MakePairs")
    rows = ctx.rng.integers(tree.batch_size(noise), size, stream="pairs/row")
    return (
        tree.index(noise, rows),
        tree.index(end, rows),
        {key: tree.index(value, rows) for key, value in cond.items()},
    )


class Paired(Trajectory):
    """The student's fresh samples and its answers to stored noises (DMD, arXiv:2311.18828, algorithm 1).

    `meta["paired"]` are the answers, `targets["end"]` the teacher's end points for the same noises.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "a phase before must have stored pairs"}
    generate: Generate = Generate()
    """How fresh samples are made, in one step."""
    joined: bool = True
    """The answers belong to the samples that the other losses see."""

    @property
    def moves(self) -> tuple[str, ...]:
        return self.generate.moves

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role, time = ctx.roles[self.generate.role], self.generate.times[0]
        for event in self.generate.events(batch, ctx, attached=attached):
            noise, end, cond = recall(batch.size, ctx)
            start = role.denoiser.path.prior(noise, time)
            with torch.set_grad_enabled(attached):
                answer = ctx.through_lens(role.predict(start, time, cond).x0)
                x = tree.concatenate([event.x, answer]) if self.joined else event.x
            both = {key: tree.concatenate([event.cond[key], cond[key]]) for key in cond} if self.joined else event.cond
            yield Event(x, both, targets={"end": ctx.through_lens(end)}, meta={"paired": answer})


class PairRegression(Loss):
    """Answers to stored noises against the teacher's end points (DMD, arXiv:2311.18828, eq. 9)."""

    weight: float = 0.25
    """Factor of this loss beside the score difference."""
    metric: Literal["l2", "l1", "huber"] = "l2"
    """Discrepancy; a modality's perceptual distance takes its place where there is one."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        return {"pairs": distance(self.metric, event.meta["paired"], event.targets["end"])}


class Replay(Trajectory):
    """Another trajectory, fed with stored end points for data: training on a teacher's own samples."""

    conformance: ClassVar[dict[str, str]] = {
        "options": "what is inside is a trajectory of any class, which JSON cannot name",
        "toy": "a phase before must have stored pairs",
    }
    inner: Trajectory
    """What happens with them."""

    @property
    def moves(self) -> tuple[str, ...]:
        return self.inner.moves

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        _, end, cond = recall(batch.size, ctx)
        yield from self.inner.events(Batch(batch.size, end, cond, batch.shape), ctx, attached=attached)
