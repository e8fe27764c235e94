"""Distillation++: at its first steps a student's prediction is corrected by what its teacher sees in it."""

from __future__ import annotations

from typing import Any

from distill.core import Plan
from distill.methods.samplers import Assisted, WithTeacher


class DistillationPlusPlus(WithTeacher):
    """Inference-Time Diffusion Model Distillation (Park et al. 2024, arXiv:2412.08871).

    Trains nothing. The paper's λ could not be confirmed; the default is the middle.
    """

    shares: tuple[float, ...] = (0.5,)
    """λ of the first steps, one each: 0 is the student alone, 1 the teacher's answer in its place."""

    def plan(self, teacher: Any) -> Plan:
        return Plan(phases=(), sampler=self.together(Assisted, teacher, shares=self.shares))
