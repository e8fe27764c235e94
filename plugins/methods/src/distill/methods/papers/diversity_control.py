"""Diversity distillation: the base model takes the first step, where variety is decided, and the student the rest."""

from __future__ import annotations

from typing import Any

from distill.core import Plan
from distill.methods.samplers import HandOver, WithTeacher


class DiversityControl(WithTeacher):
    """Distilling Diversity and Control in Diffusion Models (Gandikota & Bau 2025, arXiv:2503.10637).

    Trains nothing. The student comes from elsewhere: `student: {name: run, folder: ...}` in a recipe. Control is
    transferred without a method: adapters fit both networks where these have one architecture.
    """

    first: int = 1
    """Steps of the student that the base takes instead of it, on its own finer grid."""

    def plan(self, teacher: Any) -> Plan:
        return Plan(phases=(), sampler=self.together(HandOver, teacher, first=self.first))
