"""Editing one clip by a teacher's scores: the clip is what is optimised, and its likeness to itself is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from distill.core import Batch, Context, Event, HeadBuilder, Loss, Rng, Roles, Subject, Terms, Trajectory, tree
from distill.methods.losses import guidance_of, surrogate
from distill.methods.networks import tokens
from distill.methods.times import Times, UniformTimes


class Clips(Subject):
    """Clips that start as those of the first batch and are changed from there on; `source` keeps what they were."""

    def __init__(self, shape: tuple[int, ...], count: int) -> None:
        super().__init__()
        self.clips = nn.Parameter(torch.zeros(count, *shape))
        self.register_buffer("source", torch.zeros(count, *shape))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def materialise(self, batch: Batch, rng: Rng) -> Tensor:
        if not self.get_buffer("begun"):
            with torch.no_grad():
                self.clips.copy_(batch.data)
                self.get_buffer("source").copy_(batch.data)
                self.get_buffer("begun").fill_(True)
        return self.clips


class EditedClips(HeadBuilder):
    """Clips of the teacher's shape to be edited, as many as a batch holds; they are those of the first batch."""

    features: str = "teacher"
    """Role whose clips they are like."""
    count: int = 1
    """How many; the batch size of the run."""

    def build(self, roles: Roles) -> nn.Module:
        shape: Any = roles[self.features].denoiser.shape
        return Clips(tuple(shape), self.count)


class Edit(Trajectory):
    """The clips as they are, with the conditions that they shall meet; `targets["source"]` is what they were.

    The data's own conditions are those of the source, in `meta["source"]`; a field `mask` [B, F or 1, 1, H, W] says
    where the clips may change.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a subject"}
    to: dict[str, float] = {}
    """New values of conditions; the others stay."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        subject = ctx.roles["student"].module
        assert isinstance(subject, Clips)
        with torch.set_grad_enabled(attached):
            x = subject.materialise(batch, ctx.rng)
        source = {name: value for name, value in batch.cond.items() if name != "mask"}
        cond = {
            name: torch.full_like(value, self.to[name]) if name in self.to else value for name, value in source.items()
        }
        yield Event(
            x, cond, targets={"source": subject.get_buffer("source")},
            meta={"source": source, "mask": batch.cond.get("mask")},
        )  # fmt: skip


class EditScore(Loss):
    """Score differences of a clip and of its source under one noise, and self-similarities that stay.

    DreamMotion (Jeong et al. 2024, arXiv:2403.12002): `g = M ⊙ (ε(x_t, y) − ε(x̂_t, ŷ))` moves the clip, and cosines of
    tapped features, between the places of a frame and between the mean features of frames, keep to the source's.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a subject"}
    teacher: str = "teacher"
    """Role of the scores."""
    guidance: float = 7.5
    """w of the teacher's guidance."""
    times: Times = UniformTimes(low=0.05, high=0.95)
    """Noise levels."""
    features: str = ""
    """Role whose features are compared; the teacher's own, of the same calls, if empty."""
    taps: tuple[str, ...] = ()
    """Parts of its network whose outputs are compared; those that it taps if empty."""
    only_keys: bool = False
    """The outputs are queries, keys and values side by side, of which the keys are compared."""
    space: float = 1.0
    """Weight of the likeness of places within a frame."""
    time: float = 1.0
    """Weight of the likeness of frames."""

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(role for role in ("student", self.teacher, self.features) if role)

    def terms(self, event: Event, ctx: Context) -> Terms:
        role, source = ctx.roles[self.teacher], event.targets["source"]
        path = role.denoiser.path
        t = self.times.draw(path, tree.batch_size(event.x), ctx.rng, "edit/time")
        noise = ctx.rng.normal_like(event.x, stream="edit/noise")
        mine = self._look(path.noised(event.x, noise, t), t, event.cond, ctx)
        with torch.no_grad():
            true = self._look(path.noised(source, noise, t), t, event.meta.get("source", event.cond), ctx)
        gradient = (mine[0] - true[0]).detach()
        mask = event.meta.get("mask")
        terms = {"score": surrogate(event.x, gradient if mask is None else gradient * mask)}
        frames = event.x.shape[1]
        pairs = [(mine[1][name], true[1][name]) for name in mine[1]]
        if self.space:
            terms["space"] = self.space * _gaps(within, pairs, frames)
        if self.time:
            terms["time"] = self.time * _gaps(between, pairs, frames)
        return terms

    def _look(self, x_t: Any, t: Any, cond: Any, ctx: Context) -> tuple[Any, Mapping[str, Tensor]]:
        """The noise that the teacher sees, and features with gradient."""
        role, wanted = ctx.roles[self.teacher], self.space or self.time
        other = ctx.roles[self.features] if self.features else role
        taps = (self.taps or other.denoiser.taps) if wanted else ()
        with torch.set_grad_enabled(bool(wanted) and not self.features and torch.is_grad_enabled()):
            said = role.predict(x_t, t, cond, guidance=guidance_of(self.guidance), taps=() if self.features else taps)
        seen = other.predict(x_t, t, cond, taps=taps) if self.features and wanted else said
        features = {name: tokens(value) for name, value in seen.features.items()}
        return said.eps, {name: value.chunk(3, -1)[1] if self.only_keys else value for name, value in features.items()}


def within(feature: Tensor, frames: int) -> Tensor:
    """Cosines between the places of each frame, of tokens [B, F · P, C]: [B, F, P, P]."""
    unit = normalize(feature.unflatten(1, (frames, -1)), dim=-1)
    return unit @ unit.transpose(-1, -2)


def between(feature: Tensor, frames: int) -> Tensor:
    """Cosines between the mean features of frames: [B, F, F]."""
    unit = normalize(feature.unflatten(1, (frames, -1)).mean(2), dim=-1)
    return unit @ unit.transpose(-1, -2)


def _gaps(likeness: Any, pairs: list[tuple[Tensor, Tensor]], frames: int) -> Tensor:
    gaps = [(likeness(a, frames) - likeness(b, frames)).square().flatten(1).sum(1) for a, b in pairs]
    return torch.stack(gaps).sum(0)
