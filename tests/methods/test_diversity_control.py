"""Diversity distillation: a plan without phases, whose sampler is the student's with the teacher before it."""

from distill.core import Sampler
from distill.methods import few_step, toys
from distill.methods.claims import diversity_control as claim
from distill.methods.papers.diversity_control import DiversityControl
from distill.methods.samplers import HandOver

STUDENT = few_step.sampler((1.0, 0.75, 0.5, 0.25))


def test_the_sampler_is_the_student_s_with_the_teacher_s_in_it() -> None:
    teacher = Sampler(steps=20, guidance=7.0)
    sampler = DiversityControl(first=2).knowing(STUDENT).plan(teacher).sampler
    assert sampler == HandOver(**dict(STUDENT), base=teacher, first=2) and sampler.needs == ("teacher",)
    assert sampler.guidance == 1 and sampler.base.guidance == 7


def test_what_a_recipe_says_goes_before_what_the_student_came_with() -> None:
    method = DiversityControl(student=Sampler(steps=3))
    known = method.knowing(STUDENT.model_copy(update={"guidance": 2.0})).student
    assert (known.steps, known.times, known.guidance) == (3, None, 2.0) and known.solver == STUDENT.solver


def test_nothing_is_trained_and_the_student_can_be_sampled() -> None:
    law = few_step.law()
    engine = toys.train(DiversityControl(student=STUDENT), {"teacher": law, "student": few_step.law()})
    x = toys.draw(engine.roles["student"], engine.sampler, 500, 0, roles=engine.roles)
    assert engine.step == 0 and toys.modes_covered(x, law) == 8


def test_a_student_that_lost_modes_finds_them_again() -> None:
    alone, together = (claim.evenness(claim.drawn(0, first=first)) for first in (0, 3))
    assert alone < 0.6 and together > 0.9
