"""Distillation++: the teacher's share in the student's predictions."""

from distill.core import Sampler
from distill.methods import few_step
from distill.methods.claims import distillation_plusplus as claim
from distill.methods.papers.distillation_plusplus import DistillationPlusPlus
from distill.methods.samplers import Assisted


def test_the_teacher_is_asked_under_its_own_guidance() -> None:
    teacher = Sampler(steps=20, guidance=7.0)
    student = few_step.sampler((1.0, 0.5))
    sampler = DistillationPlusPlus(student=student).plan(teacher).sampler
    assert isinstance(sampler, Assisted) and sampler.base.guide.calls == 2
    assert sampler.calls(few_step.PATH) == 2 + 2


def test_a_weak_student_gains_from_an_exact_teacher() -> None:
    none, calls = claim.assisted(0, 0.0)
    full, more = claim.assisted(0, 1.0, 1.0, 1.0)
    assert full < 0.85 * few_step.distance(none, 0) and (calls, more) == (5, 7)
