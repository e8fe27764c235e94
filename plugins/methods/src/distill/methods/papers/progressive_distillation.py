"""Progressive distillation: the student learns two jumps as one, becomes the teacher, and N is halved."""

from __future__ import annotations

from typing import Any

from distill.core import Copy, Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.core.errors import RecipeError
from distill.core.sampling import DDIM
from distill.methods.losses import Match
from distill.methods.teacher_paths import GridJumps

PREVIOUS = {"previous": RoleSpec(copy_of="student", frozen=True)}


class ProgressiveDistillation(Method):
    """Progressive Distillation for Fast Sampling of Diffusion Models (Salimans & Ho 2022, arXiv:2202.00512).

    Stages N = start/2, start/4, ..., end; after each the student's weights go to `previous`, the next stage's
    teacher. The student's head must be x0, v or velocity: at α = 0 an ε-head carries no signal.
    """

    start: int = 64
    """Jumps of the teacher's sampler that the first stage halves: end times a power of two."""
    end: int = 1
    """Jumps of the final student."""
    level: str = "truncated-snr"
    """Weight of an x0 error: max(SNR, 1), or snr+1, which is the v-loss."""
    lr: float = 5e-5
    """Learning rate, annealed to 0 in every stage."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(copy_of="teacher"), **PREVIOUS}

    def plan(self, teacher: Any) -> Plan:
        phases = stages(self.start, self.end, self.steps, lr=self.lr, level=self.level)
        return Plan(phases=phases, sampler=jumps(self.end))


def stages(
    start: int, end: int, steps: int, *, lr: float, level: str, first: str = "teacher", **jump: Any
) -> tuple[Phase, ...]:
    """Halving stages; the stages of two jumps and of one get twice the iterations of the others."""
    counts = halvings(start, end)
    shares = [2 if count <= 2 else 1 for count in counts]
    optimisers = {"student": Optimiser(lr=lr, clip=1.0, schedule="linear")}
    return tuple(
        Phase(
            name=f"{count}-steps",
            steps=steps * share // sum(shares),
            updates=(
                Update(
                    trajectory=GridJumps(steps=count, teacher="previous" if index else first, **jump),
                    loss=Match(view="x0", target="x0", level=level),
                ),
            ),
            optimisers=optimisers,
            at_end=(Copy(source="student", target="previous"),),
        )
        for index, (count, share) in enumerate(zip(counts, shares, strict=True))
    )


def halvings(start: int, end: int) -> list[int]:
    """start/2, start/4, ..., end."""
    counts = [start // 2**k for k in range(1, start.bit_length()) if start // 2**k >= end]
    if not counts or counts[-1] * 2 ** len(counts) != start or counts[-1] != end:
        raise RecipeError(f"start must be end times a power of two, not {start} for an end of {end}")
    return counts


def jumps(steps: int, **scalars: float) -> Sampler:
    """N deterministic jumps, evenly spaced in time, without guidance."""
    return Sampler(steps=steps, solver=DDIM(), scalars=scalars)
