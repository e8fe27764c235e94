"""Samplers that ask several roles: a teacher that begins, helps or mends, and an oracle that judges."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from distill.core import DistillError, Method, Plan, Prediction, Rng, Role, RoleSpec, Sampler, State, tree
from distill.core.errors import RecipeError
from distill.core.paths import GaussianPath, Joint
from distill.core.sampling import ALONE, Move
from distill.methods.teacher_paths import repeated


class Helped(Sampler):
    """A student's sampler in which a teacher on the same path takes part."""

    teacher: str = "teacher"
    """Role that takes part."""
    base: Sampler = Sampler()
    """How it is asked: its times, solver and guidance."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.teacher,)

    def negated(self, values: Mapping[str, Any]) -> Sampler:
        return super().negated(values).model_copy(update={"base": self.base.negated(values)})

    def helper(self, roles: Mapping[str, Role], role: Role) -> Role:
        """The teacher, known to share the student's path."""
        teacher = asked(roles, self.teacher)
        if teacher.denoiser.path != role.denoiser.path or isinstance(role.denoiser.path, Joint):
            raise RecipeError(
                f"'{role.name}' and '{teacher.name}' pass states to each other, and need one path of a single "
                "modality for that"
            )
        return teacher


class HandOver(Helped):
    """The teacher takes the first steps and the student the rest (Gandikota & Bau 2025, arXiv:2503.10637).

    The teacher's grid is cut at the student's time, so that its last step ends there exactly.
    """

    first: int = 1
    """Steps of the student that the teacher takes instead of it; 0 is the student alone."""

    def walk(
        self, role: Role, noise: State, cond: Any = None, rng: Rng | None = None, roles: Mapping[str, Role] = ALONE
    ) -> Generator[Move, Any, Any]:
        if not self.first:
            return (yield from super().walk(role, noise, cond, rng))
        teacher, (before, after) = self.helper(roles, role), self.parts(role.denoiser.path)
        x = yield from self.base.descend(teacher, self.base.start(teacher, noise), before, cond, rng)
        return (yield from self.descend(role, x, after, cond, rng))

    def parts(self, path: GaussianPath) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The teacher's times and the student's; the last of the ones is the first of the others."""
        own = self.grid_for(path)
        after, theirs = own[min(self.first, len(own) - 1) :], self.base.grid_for(path)
        return (*above(theirs, after[0]), after[0]), after

    def calls(self, path: GaussianPath) -> float:
        if not self.first:
            return super().calls(path)
        before, after = self.parts(path)
        return self.base.calls_on(path, before) + self.calls_on(path, after)


class Assisted(Helped):
    """The student's first predictions are drawn towards what the teacher says of them, noised anew to the next time.

    `x0 ← (1 − λ_n) x0 + λ_n teacher(α_s x0 + σ_s ε, s)`: a step of score distillation inside the sampler
    (Distillation++: Park et al. 2024, arXiv:2412.08871, algorithm 1). The last step has no noise and is the student's.
    """

    shares: tuple[float, ...] = (0.5,)
    """λ of the first steps, one each."""

    def walk(
        self, role: Role, noise: State, cond: Any = None, rng: Rng | None = None, roles: Mapping[str, Role] = ALONE
    ) -> Generator[Move, Any, Any]:
        path, times, teacher = role.denoiser.path, self.grid_for(role.denoiser.path), self.helper(roles, role)

        def revise(n: int, said: Prediction) -> Prediction:
            if n >= len(self.helped(times)):
                return said
            if rng is None:
                raise RecipeError("the teacher looks at states that are noised anew: give the sampler an rng")
            s, fresh = role.denoiser.times(times[n + 1], said.x0), rng.normal_like(said.x0, stream="sample/assist")
            better = teacher.predict(path.noised(said.x0, fresh, s), times[n + 1], cond, guidance=self.base.guide).x0
            return said.replace_x0(tree.combine((1 - self.shares[n], said.x0), (self.shares[n], better)))

        return self.descend(role, self.start(role, noise), times, cond, rng, revise)

    def helped(self, times: tuple[float, ...]) -> tuple[float, ...]:
        """The times at which the teacher is asked."""
        return times[1:-1][: len(self.shares)]

    def calls(self, path: GaussianPath) -> float:
        times = self.grid_for(path)
        return self.calls_on(path, times) + sum(map(self.base.guide.calls_at, self.helped(times)))


class Refined(Helped):
    """The student's samples, of which the teacher improves those that an oracle scores low.

    They are noised to `until` and the teacher's grid is walked from there (Starodubcev et al. 2024, arXiv:2312.10835);
    at the path's last time they are made anew.
    """

    oracle: str = "oracle"
    """Role that scores samples: a denoiser of kind logits that says one number a sample."""
    until: float = 0.7
    """Time to which samples are noised."""
    threshold: float = math.inf
    """τ: samples that score less are improved. Fitted on calibration samples."""
    fraction: float = 1.0
    """Share of the calibration samples that scored less; `calls` counts with it."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.teacher, self.oracle)

    @torch.no_grad()
    def sample(
        self, role: Role, noise: State, cond: Any = None, rng: Rng | None = None, roles: Mapping[str, Role] = ALONE
    ) -> Any:
        if rng is None:
            raise RecipeError("samples that are improved are noised anew: give the sampler an rng")
        x = super().sample(role, noise, cond, rng)
        poor = self.poor(x, cond, roles)
        rows, fresh = poor.nonzero().flatten(), rng.normal_like(x, stream="sample/refine")
        if not len(rows):
            return x
        better = self.refine(role, tree.index(x, rows), tree.index(fresh, rows), chosen(cond, rows), rng, roles)
        rest = (~poor).nonzero().flatten()
        return tree.index(tree.concatenate([tree.index(x, rest), better]), torch.cat([rest, rows]).argsort())

    def poor(self, x: State, cond: Any, roles: Mapping[str, Role]) -> Tensor:
        """Which samples score less than τ: [B]."""
        return judge(asked(roles, self.oracle), x, cond) < self.threshold

    def refine(
        self, role: Role, x: State, fresh: State, cond: Any, rng: Rng, roles: Mapping[str, Role]
    ) -> Any:  # fmt: skip
        """The samples, noised and denoised by the teacher."""
        teacher, path, times = self.helper(roles, role), role.denoiser.path, self.remaining(role.denoiser.path)
        noised = path.noised(x, fresh, role.denoiser.times(times[0], x))
        walk = self.base.descend(teacher, path.prior(fresh) if times[0] >= path.t_max else noised, times, cond, rng)
        return [move.next for move in walk][-1]

    def remaining(self, path: GaussianPath) -> tuple[float, ...]:
        """The teacher's times from `until` on."""
        return (self.until, *below(self.base.grid_for(path), self.until))

    def calls(self, path: GaussianPath) -> float:
        return super().calls(path) + self.fraction * self.base.calls_on(path, self.remaining(path))


class Pruned(Sampler):
    """Several noises a sample, of which an oracle keeps the most promising ones on the way and the best at the end.

    After the calls in `at` the shares in `keep` of those that are left go on, chosen for each sample by the score of
    the predicted x0 (TTSnap, arXiv:2511.22242).
    """

    candidates: int = 38
    """Noises for each sample, the given one among them."""
    at: tuple[int, ...] = (2, 6, 11)
    """Numbers of steps after which noises are given up."""
    keep: tuple[float, ...] = (0.4, 0.4, 0.5)
    """Shares that are kept then."""
    oracle: str = "oracle"
    """Role that scores samples: a denoiser of kind logits that says one number a sample."""
    aware: bool = True
    """Ask `ORACLE-2` after 2 steps, and so on: oracles that know how predictions of that moment look."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.oracle, *(self.judge_after(n) for n in self.at if self.aware))

    def with_steps(self, steps: int | None) -> Pruned:
        """The same with another number of steps; judges know the moments of one grid, so all noises go to the end."""
        other: Any = super().with_steps(steps)
        return other if steps in (None, self.steps) else other.model_copy(update={"at": (), "keep": ()})

    def judge_after(self, n: int) -> str:
        """Role that scores predictions after n steps."""
        return f"{self.oracle}-{n}" if self.aware else self.oracle

    def stages(self, steps: int) -> list[tuple[int, int, int]]:
        """First step, last step and number of candidates of each stretch."""
        if len(self.at) != len(self.keep) or any(a >= b for a, b in pairwise((0, *self.at, steps))):
            raise RecipeError(f"noises cannot be given up after {list(self.at)} of {steps} steps, {list(self.keep)}")
        counts = [self.candidates]
        for share in self.keep:
            counts.append(max(1, round(share * counts[-1])))
        return [(a, b, n) for (a, b), n in zip(pairwise((0, *self.at, steps)), counts, strict=True)]

    @torch.no_grad()
    def sample(
        self, role: Role, noise: State, cond: Any = None, rng: Rng | None = None, roles: Mapping[str, Role] = ALONE
    ) -> Any:
        times, size = self.grid_for(role.denoiser.path), tree.batch_size(noise)
        stages = self.stages(len(times) - 1)
        x, cond = self.start(role, self._noises(noise, rng)), repeated(cond or {}, self.candidates)
        for (first, last, _), following in zip(stages, [*(count for *_, count in stages[1:]), 1], strict=True):
            move = [move for move in self.descend(role, x, times[first : last + 1], cond, rng)][-1]
            ended = following == 1 and last == len(times) - 1
            seen, name = (move.next, self.oracle) if ended else (move.prediction.x0, self.judge_after(last))
            rows = best(judge(asked(roles, name), seen, cond).view(-1, size), following)
            x, cond = tree.index(move.next, rows), chosen(cond, rows)
        return x

    def _noises(self, noise: State, rng: Rng | None) -> Any:
        if rng is None:
            raise RecipeError("candidates are drawn: give the sampler an rng")
        more = [rng.normal_like(noise, stream=f"sample/candidate-{n}") for n in range(1, self.candidates)]
        return tree.concatenate([noise, *more])

    def calls(self, path: GaussianPath) -> float:
        times = self.grid_for(path)
        return sum(n * self.calls_on(path, times[a : b + 1]) for a, b, n in self.stages(len(times) - 1))


class Inference(Method):
    """What methods share that leave the student's network as it is: how it is sampled comes from where it does."""

    student: Sampler | None = None
    """How the student is sampled; what is left out stays as it came."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(shares="teacher", frozen=True)}

    def knowing(self, student: Any) -> Inference:
        return self.model_copy(update={"student": student.but_for(self.student)})


class SeedPruning(Inference):
    """Several noises a sample, of which an oracle keeps the best; nothing is trained, so it looks at predictions on the
    way as it looks at samples (the baseline of TTSnap, arXiv:2511.22242).
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "which oracle judges is the recipe's to say"}
    candidates: PositiveInt = 8
    """Noises for each sample."""
    at: tuple[int, ...] = ()
    """Numbers of steps after which noises are given up, besides the end."""
    keep: tuple[float, ...] = ()
    """Shares that are kept then."""

    def plan(self, teacher: Any) -> Plan:
        options = {"candidates": self.candidates, "at": self.at, "keep": self.keep, "aware": False}
        return Plan(phases=(), sampler=Pruned(**dict(self.student or teacher), **options))


class WithTeacher(Inference):
    """The same for a student that its teacher helps."""

    base: Sampler | None = None
    """How the teacher is sampled: guidance, interval, steps; what is left out stays as the teacher has it."""

    def together(self, kind: type[Helped], teacher: Sampler, **options: Any) -> Helped:
        """The student's sampler with the teacher's part in it."""
        return kind(**dict(self.student or Sampler()), base=teacher.but_for(self.base), **options)


def above(times: tuple[float, ...], at: float) -> tuple[float, ...]:
    """The times of a grid above a given one; what is within a millionth of the grid's first counts as equal."""
    return tuple(t for t in times if t > at + 1e-6 * times[0])


def below(times: tuple[float, ...], at: float) -> tuple[float, ...]:
    """The times of a grid below a given one."""
    return tuple(t for t in times if t < at - 1e-6 * times[0])


def asked(roles: Mapping[str, Role], name: str) -> Role:
    """A role of the run."""
    if name not in roles:
        raise DistillError(f"this sampler asks the role '{name}', and was given {', '.join(roles) or 'none'}")
    return roles[name]


def judge(oracle: Role, x: State, cond: Any = None) -> Tensor:
    """What an oracle says of clean samples: [B].

    Raises:
        RecipeError: its network scores nothing.
    """
    if oracle.denoiser.kind != "logits":
        raise RecipeError(f"role '{oracle.name}' is to score samples, and its network says {oracle.denoiser.kind}")
    return oracle.predict(x, None, cond).logits.reshape(tree.batch_size(x))


def best(scores: Tensor, count: int) -> Tensor:
    """Rows of the highest scores of each sample, from scores [candidates, B]; candidate-major like their rows."""
    size = scores.shape[1]
    return (scores.topk(count, 0).indices * size + torch.arange(size, device=scores.device)).flatten()


def chosen(cond: Any, rows: Tensor) -> Any:
    """The conditions of some samples."""
    return {name: tree.index(value, rows) for name, value in (cond or {}).items()}
