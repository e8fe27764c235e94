"""Two completions of each scan, ranked by a metric, and the loss that pulls one and pushes the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from distill.core import Batch, Context, Event, Loss, Ragged, State, Terms, Trajectory, rollout, tree
from distill.core.errors import RecipeError
from distill.core.sampling import DPM, Solver
from distill.methods.losses import Denoise, consult, guidance_of, surrogate
from distill.methods.times import Times, UniformTimes
from distill.three_d.metrics_points import bev_divergence, chamfer, voxel_iou
from distill.three_d.points import packed, repeated

JUDGES: dict[str, Callable[[State, State], Tensor]] = {
    "chamfer": chamfer,
    "bev-divergence": bev_divergence,
    "voxel-iou": lambda a, b: -voxel_iou(a, b),
}
"""What a completion is judged by; less is better."""
Weights = tuple[float, float, float]


class CompletionPairs(Trajectory):
    """Completions of each scan from one noise at two scales; the event's state is the better one of each pair.

    The worse one is `targets["loser"]`, the complete cloud `targets["real"]`. Gradient runs through the last step of
    each (Distillation-DPO: Zhao et al. 2025, arXiv:2504.11447).
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy has no scans"}
    repeat: PositiveInt = 10
    """How often each point of the scan becomes an anchor."""
    scales: tuple[float, float] = (1.0, 1.1)
    """Factors of the first noise."""
    times: tuple[float, ...] = (1.0,)
    """The student's times in training, descending."""
    solver: Solver = DPM()
    """How it moves between them."""
    judge: Literal["chamfer", "bev-divergence", "voxel-iou", "random"] = "chamfer"
    """What ranks the two; `random` is a control."""
    flipped: bool = False
    """Call the worse one the better: a control."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        if "scan" not in batch.cond:
            said = "name a dataset whose conditions have 'scan', such as 'lidar'"
            raise RecipeError(f"completions start at scans: {said}")
        places = repeated(packed(batch.cond["scan"]), self.repeat)
        noise = ctx.rng.normal_like(places, stream="pair/noise")
        first, second = (self.completed(batch, ctx, places, noise, scale, attached) for scale in self.scales)
        better = self._better(first, second, batch, ctx)
        winner, loser = tree.where(better, first, second), tree.where(better, second, first)
        yield Event(winner, batch.cond, targets={"loser": loser, "real": batch.data})

    def completed(
        self, batch: Batch, ctx: Context, places: Ragged, noise: Ragged, scale: float, attached: bool
    ) -> Ragged:
        """Where the student takes points that start around their places."""
        role, last = ctx.roles["student"], len(self.times) - 1
        path = role.denoiser.path
        start = tree.combine((1.0, places), (scale, path.prior(noise, self.times[0])))
        walk = rollout(
            role, start, (*self.times, path.t_min), solver=self.solver, cond=batch.cond, rng=ctx.rng,
            stream="pair/renoise", attach={last} if attached else (),
        )  # fmt: skip
        with torch.set_grad_enabled(attached):
            x: Ragged = next(move.next for move in walk if move.n == last)
        return x

    def _better(self, first: Ragged, second: Ragged, batch: Batch, ctx: Context) -> Tensor:
        """Whether the first of each pair wins [B]."""
        if self.judge == "random":
            return ctx.rng.uniform(batch.size, stream="pair/coin") < 0.5
        judge = JUDGES[self.judge]
        return (judge(first, batch.data) <= judge(second, batch.data)) ^ self.flipped


FORMS: dict[str, Callable[[float, float], tuple[Weights, Weights]]] = {
    "tilt": lambda pull, push: ((pull, push - pull / 2, -push - pull / 2),) * 2,
    "paper": lambda pull, push: ((pull, -pull, 0.0), (-push, 0.0, push)),
}
"""What the better and the worse completion of a pair descend: weights of ε of the teacher, the better ones' critic and
the worse ones'."""


class Preference(Loss):
    """Distillation by preference: completions move to the teacher's law, tilted to what a judge prefers.

    `tilt` moves both completions of a pair along `pull (s_teacher − (s_w + s_l) / 2) + push (s_w − s_l)`, scores of the
    teacher and of the critics of better and worse completions. Where a completion wins with odds exp(r), the second
    term is ∇r, and the law that is sought is the teacher's times exp(r · push / pull): that of DPO. `paper` is the
    objective of Distillation-DPO (arXiv:2504.11447): the better one moves along `s_teacher − s_w`, the worse one
    against `s_teacher − s_l`. Where one network makes both, the teacher cancels out of that and `s_l − s_w` is left,
    which leads to the worse ones. The product is with x: with x_t − x, the noise, neither would have a gradient.
    """

    teacher: str = "teacher"
    """Role that knows the law of complete clouds."""
    winner: str = "winner"
    """Critic of the better completions."""
    loser: str = "loser"
    """Critic of the worse ones."""
    form: Literal["tilt", "paper"] = "tilt"
    """What pairs descend."""
    pull: NonNegativeFloat = 1.0
    """Weight of the teacher's law."""
    push: NonNegativeFloat = 1.0
    """Weight of preference. In the paper's form 0 is distribution matching on the better ones alone."""
    times: Times = UniformTimes(low=0.02, high=0.98)
    """Noise levels."""
    guidance: float = 1.0
    """w of the teacher's guidance."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", *self._asked())

    @property
    def moves(self) -> tuple[str, ...]:
        return ("student",)

    @property
    def sides(self) -> tuple[Weights, Weights]:
        """Weights of the better completion and of the worse one."""
        return FORMS[self.form](self.pull, self.push)

    def _asked(self) -> list[str]:
        """Roles that have any weight."""
        names = (self.teacher, self.winner, self.loser)
        return [name for place, name in enumerate(names) if any(side[place] for side in self.sides)]

    def terms(self, event: Event, ctx: Context) -> Terms:
        path = ctx.roles[self._asked()[0]].denoiser.path
        t = self.times.draw(path, tree.batch_size(event.x), ctx.rng, "preference/time")
        noise = ctx.rng.normal_like(event.x, stream="preference/noise")
        pair = zip((event.x, event.targets["loser"]), self.sides, strict=True)
        parts = [self._side(event, x, side, noise, t, ctx) for x, side in pair if any(side)]
        return {"preference": torch.stack(parts).sum(0)}

    def _side(self, event: Event, x: State, side: Weights, noise: State, t: Tensor, ctx: Context) -> Tensor:
        """A scalar per sample [B] whose gradient with respect to x is the weighted sum of ε / N."""
        guides = (guidance_of(self.guidance), None, None)
        asked = [each for each in zip(side, (self.teacher, self.winner, self.loser), guides, strict=True) if each[0]]
        with torch.no_grad():
            x_t = ctx.roles[asked[0][1]].denoiser.path.noised(x, noise, t)
            said = [(w, consult(ctx.roles[name], x_t, t, event, guidance=guide).eps) for w, name, guide in asked]
            gradient = tree.combine(*said)
        return surrogate(x, gradient)


class DenoiseTarget(Denoise):
    """Denoising of one of the event's targets instead of its state: a critic of what lost."""

    role: str = "loser"
    """Who learns."""
    target: str = "loser"
    """Name among the event's targets."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        return super().terms(replace(event, x=event.targets[self.target]), ctx)
