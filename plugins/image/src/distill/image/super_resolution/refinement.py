"""Self-refinement: what a student made of a low-resolution picture is what its next step is given in place of it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from distill.core import Batch, Context, Event, Rng, Role, Sampler, State, Trajectory
from distill.core.sampling import Move
from distill.image.super_resolution.data import whole


def refined(low: Tensor, x0: State, share: float, state: str) -> Tensor:
    """Pictures between a low-resolution picture (share 0) and what a state x0 means (share 1)."""
    return torch.lerp(low, whole(x0, low, state), share)


class SelfRefinement(Trajectory):
    """One step from noise alone; or one from noised data at a later time, for which the answer of the step before
    stands in for the low-resolution picture (AddSR: arXiv:2404.01717, section 3.2).

    The step before starts from data noised on its own and carries no gradient; `meta["step"]` is the place of the time.
    """

    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times, descending."""
    probability: float = 0.5
    """How often it is a later time; each of them is as likely."""
    share: float = 1.0
    """How much of the answer and how little of the low-resolution picture the later step is given; 0 leaves it as it
    was."""
    state: Literal["residual", "picture"] = "residual"
    """What states are."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role = ctx.roles["student"]
        later = len(self.times) - 1
        shares = (1 - self.probability, *(self.probability / later,) * later) if later else ()
        k = ctx.rng.choice(len(self.times), shares=shares, stream="refinement/step")
        noise, given = batch.noise(ctx.rng, "refinement/noise"), batch.cond
        path = role.denoiser.path
        if k and self.share:
            given = {**batch.cond, "low": self._answer(role, k - 1, batch, ctx)}
        x_t = path.noised(batch.data, noise, role.denoiser.times(self.times[k], noise)) if k else path.prior(noise)
        with torch.set_grad_enabled(attached):
            said = role.predict(x_t, self.times[k], given)
        yield Event(
            said.x0, batch.cond, said.t, x_t, noise, said, targets={"real": batch.data}, meta={"step": k}
        )  # fmt: skip

    def _answer(self, role: Role, k: int, batch: Batch, ctx: Context) -> Tensor:
        noise, path = batch.noise(ctx.rng, "refinement/before"), role.denoiser.path
        t = role.denoiser.times(self.times[k], noise)
        x_t = path.noised(batch.data, noise, t) if k else path.prior(noise)
        return refined(batch.cond["low"], role.ask(x_t, t, batch.cond).x0, self.share, self.state)


class Refined(Sampler):
    """A sampler whose every step but the first is given what the step before made, mixed with the low-resolution
    picture.
    """

    share: float = 0.5
    """How much of it."""
    state: Literal["residual", "picture"] = "residual"
    """What states are."""

    def descend(
        self, role: Role, x: State, times: tuple[Any, ...], cond: Any = None, rng: Rng | None = None, revise: Any = None
    ) -> Generator[Move, Any, Any]:
        told = cond
        for n, step in enumerate(pairwise(times)):
            move = replace(next(super().descend(role, x, step, told, rng, revise)), n=n)
            replaced = yield move
            x = move.next if replaced is None else replaced
            told = {**cond, "low": refined(cond["low"], move.prediction.x0, self.share, self.state)}
        return x
