"""A teacher of one modality for a student of another: scores through a lens, and the few samples that there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch.utils.data import Dataset

from distill.core import (
    Batch,
    Context,
    DataSource,
    Event,
    Method,
    Optimiser,
    Plan,
    RoleSpec,
    Sampler,
    Samples,
    Trajectory,
    Update,
)  # fmt: skip
from distill.core.errors import RecipeError
from distill.core.plan import one_phase
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.pairs import PairRegression
from distill.methods.trajectories import Generate, sampler_at
from distill.pipeline.mixed.exact import Remembered, RememberedData


class Recollected(Trajectory):
    """The student's answers to fresh noises, beside what a role that knows samples by heart makes of these noises.

    Both are states of the student's own modality: no lens stands between. Classes are those of the samples.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "it needs a role that knows samples by heart"}
    memory: str = "memory"
    """Role that knows them."""
    time: float = 1.0
    """The student's only time."""
    steps: PositiveInt = 8
    """Steps from noise to a sample."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student, memory = ctx.roles["student"], ctx.roles[self.memory]
        if not isinstance(memory.module, Remembered):
            raise RecipeError(f"the role '{self.memory}' must be the network remembered, which knows samples by heart")
        cond = memory.module.classes_of(batch.size, ctx.rng)
        noise = Batch(batch.size, shape=memory.module.shape).noise(ctx.rng, "recollected/noise")
        end = Sampler(steps=self.steps).sample(memory, noise, cond)
        with torch.set_grad_enabled(attached):
            answer = student.predict(student.denoiser.path.prior(noise, self.time), self.time, cond).x0
        yield Event(answer, cond, targets={"end": end}, meta={"paired": answer})


class ThroughLens(Method):
    """A student of one step, taught by a teacher of another modality through the run's lens (DMD's scores:
    arXiv:2311.18828), and by the few samples of its own modality.

    The lens shows the student's samples to teacher and critic; conditions come from the data, the student is the
    recipe's. What the few samples say that the lens does not show, such as how things move or what phase a wave has, it
    learns by answering noises as their exact denoiser does.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "teacher and student differ in modality"}
    example: ClassVar[dict[str, Any]] = {"memory": {"data": "turning-digits", "samples": 4}}
    time: float = 1.0
    """The student's only time."""
    score: ScoreDifference = ScoreDifference()
    """Distribution matching in the teacher's modality; `weight` 0 leaves the teacher out."""
    critic: Denoise = Denoise()
    """The teacher's own training loss, on what the lens shows of the student's samples."""
    critic_updates: PositiveInt = 2
    """Updates of the critic, and answers to noises, per score."""
    memory: RememberedData
    """The few samples of the student's modality."""
    recollection: PairRegression = PairRegression(weight=1.0)
    """Answers against those of the few samples' exact denoiser; `weight` 0 leaves them out."""
    student_optimiser: Optimiser = Optimiser(lr=1e-3, betas=(0.0, 0.99), schedule="cosine")
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=1e-3, betas=(0.0, 0.99))
    """The critic's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        roles = {"student": RoleSpec(copy_of="teacher")}
        if self.recollection.weight:
            roles["memory"] = RoleSpec(build=self.memory, frozen=True)
        return roles | ({"critic": RoleSpec(copy_of="teacher")} if self.score.weight else {})

    def plan(self, teacher: Any) -> Plan:
        shown, own = Generate(times=(self.time,)), Recollected(time=self.time)
        updates = []
        if self.recollection.weight:
            updates.append(Update(trajectory=own, loss=self.recollection))
        if self.score.weight:
            updates.append(Update(trajectory=shown, loss=self.score, every=self.critic_updates))
            updates.append(Update(trajectory=shown, loss=self.critic))
        optimisers = {"student": self.student_optimiser}
        optimisers |= {"critic": self.critic_optimiser} if self.score.weight else {}
        return Plan(phases=one_phase(updates, self.steps, optimisers), sampler=sampler_at((self.time,)))


class LabelData(DataSource):
    """Labels alone, each equally often: conditions for students whose own data show too few of them."""

    conformance: ClassVar[dict[str, str]] = {"samples": "they are conditions alone"}
    classes: PositiveInt = 10
    """How many there are."""

    def open(self, split: str = "train") -> Dataset[Any]:
        return Samples(label=torch.arange(self.classes).repeat(100))
