"""Which loss moves which roles, how often, with which optimiser: a method's training programme as data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch

from distill.core.contracts import Action, Context, Fit, Loss, Trajectory
from distill.core.errors import RecipeError
from distill.core.options import Options
from distill.core.sampling import Sampler
from distill.core.scale import local

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "tenth": lambda progress: 1.0 if progress < 0.5 else 0.1,
}


class Optimiser(Options):
    """AdamW and its schedule, for one role."""

    lr: float = 1e-4
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's moments; β1 = 0 is the rule for SiD and adversarial stages."""
    eps: float = 1e-8
    """Adam's ε."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    clip: float | None = None
    """Largest norm of the role's gradient; None does not clip."""
    schedule: Literal["constant", "linear", "cosine", "tenth"] = "constant"
    """How the learning rate falls over the phase; `tenth` is a tenth of it from half time on."""
    warmup: int = 0
    """Steps of linear warm-up."""

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over a role's parameters."""
        return torch.optim.AdamW(
            parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=True
        )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at a step of a phase."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return self.lr * warm * SCHEDULES[self.schedule](step / max(1, steps))


class Update(Options):
    """One line of a phase: events of a trajectory, seen by a loss, every so many iterations.

    Consecutive updates with an equal trajectory share its events, unless `fresh`; a group of such updates
    reads the weights as they were before the group, and the optimisers step in the order of the updates.
    """

    trajectory: Trajectory
    loss: Loss
    every: int = 1
    """Iterations between two such updates."""
    start: int = 0
    """First iteration of the phase at which the update takes place."""
    stop: int | None = None
    """Iteration of the phase before which it takes place for the last time."""
    fresh: bool = False
    """Draw events of its own although the update before has the same trajectory."""

    def due(self, step: int) -> bool:
        """Whether the update takes place at this iteration of the phase."""
        within = step >= self.start and (self.stop is None or step < self.stop)
        return within and (step - self.start) % self.every == 0


class Phase(Options):
    """A stretch of training with one set of updates, or one `fit`."""

    name: str = "train"
    steps: int = 0
    """Iterations."""
    updates: tuple[Update, ...] = ()
    """In the order in which they take place within an iteration."""
    optimisers: dict[str, Optimiser] = {}
    """Optimiser of each role that the losses move; made anew for every phase."""
    actions: tuple[Action, ...] = ()
    """Updates without a gradient, after each iteration."""
    at_end: tuple[Action, ...] = ()
    """The same, once, when the phase is over."""
    fit: Fit | None = None
    """Calibrate the student's sampler instead of training."""

    def groups(self, step: int) -> list[tuple[Trajectory, list[Update]]]:
        """The due updates, those that share events together."""
        groups: list[tuple[Trajectory, list[Update]]] = []
        for update in self.updates:
            if not update.due(step):
                continue
            if groups and groups[-1][0] == update.trajectory and not update.fresh:
                groups[-1][1].append(update)
            else:
                groups.append((update.trajectory, [update]))
        return groups

    @property
    def moved(self) -> set[str]:
        """Roles that losses of this phase move."""
        return {role for update in self.updates for role in update.loss.moves}


class Plan(Options):
    """A method's phases, and how its student is sampled."""

    phases: tuple[Phase, ...]
    sampler: Sampler = Sampler()
    """How the student is sampled: times, solver, guidance."""
    result: str = "student"
    """The role that is the outcome: the student, or an EMA copy of it."""

    @property
    def steps(self) -> int:
        """Iterations of all phases."""
        return sum(phase.steps for phase in self.phases)

    def needs(self) -> set[str]:
        """Roles that some loss asks for, or the sampler."""
        losses = [update.loss for phase in self.phases for update in phase.updates]
        return {role for loss in losses for role in (*loss.needs, *loss.moves)} | set(self.sampler.needs)

    def changed(self) -> set[str]:
        """Roles whose weights the plan changes, by gradient or by an action."""
        actions = [a for phase in self.phases for a in (*phase.actions, *phase.at_end)]
        return {r for p in self.phases for r in p.moved} | {r for a in actions for r in a.changes}

    def check(self, roles: Iterable[str]) -> None:
        """Raise RecipeError where a role or an optimiser is missing."""
        known = set(roles)
        if missing := (self.needs() | self.changed()) - known:
            raise RecipeError(
                f"the method needs the role {', '.join(sorted(missing))}, and this run has "
                f"{', '.join(sorted(known))}: name it under 'teacher:', 'student:' or 'roles:', or choose "
                "another method"
            )
        for phase in self.phases:
            if bare := phase.moved - set(phase.optimisers):
                names = ", ".join(sorted(bare))
                raise RecipeError(f"phase '{phase.name}' moves {names} without an optimiser")


class EMA(Action):
    """Exponential moving average of a role's weights θ in another role of the same shape: `θ' ← μ θ' + (1 − μ) θ`."""

    source: str = "student"
    """Role that is averaged."""
    target: str = "student_ema"
    """Role that holds the average."""
    decay: float = 0.999
    """Share that is kept; ramps up as (1+n)/(10+n) at the start."""

    @property
    def changes(self) -> tuple[str, ...]:
        return (self.target,)

    @torch.no_grad()
    def apply(self, ctx: Context) -> None:
        decay = min(self.decay, (1 + ctx.step) / (10 + ctx.step))
        target, source = ctx.roles[self.target].tensors(), ctx.roles[self.source].tensors()
        pairs = [(local(target[name]), local(value)) for name, value in source.items() if value.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 1 - decay)


class Copy(Action):
    """Hand-over: a role's weights become another's, as when a student becomes the teacher of the next
    stage."""

    source: str = "student"
    """Role that is copied."""
    target: str = "teacher"
    """Role that is overwritten."""

    @property
    def changes(self) -> tuple[str, ...]:
        return (self.target,)

    @torch.no_grad()
    def apply(self, ctx: Context) -> None:
        ctx.roles[self.target].load(ctx.roles[self.source].tensors())


def one_phase(updates: Iterable[Update], steps: int, optimisers: dict[str, Optimiser], **phase: Any) -> tuple[Phase]:
    """The phases of a plan that has one."""
    return (Phase(updates=tuple(updates), steps=steps, optimisers=optimisers, **phase),)
