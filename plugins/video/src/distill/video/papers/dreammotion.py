"""DreamMotion: a clip is edited by score differences, and keeps its structure and motion by likeness to itself."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.video.editing import Edit, EditedClips, EditScore


class DreamMotion(Method):
    """DreamMotion: Space-Time Self-Similarity Score Distillation for Zero-Shot Video Editing (arXiv:2403.12002).

    No student network: the clips of the run's first batch are what is optimised. The paper's weights and tapped layers
    are not public, and its optimiser is plain gradient descent; these are ours. For the clips that a transformer of
    ours makes, tap `blocks.N.qkv` with `only_keys`.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a subject"}
    steps: PositiveInt = 200
    """Optimiser iterations."""
    to: dict[str, float] = {}
    """Conditions that the clips shall meet."""
    clips: EditedClips = EditedClips()
    """How many are edited: the batch size."""
    score: EditScore = EditScore()
    """Guidance, levels, likenesses."""
    optimiser: Optimiser = Optimiser(lr=0.01, betas=(0, 0.99))
    """Optimiser of the clips."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(build=self.clips)}

    def plan(self, teacher: Any) -> Plan:
        update = Update(trajectory=Edit(to=self.to), loss=self.score)
        return Plan(phases=one_phase([update], self.steps, {"student": self.optimiser}), sampler=teacher)
