"""Progressive distillation: exact targets, hand-over and stages."""

import pytest
import torch

from distill.core import Batch, Context, Copy, DistillError, Mixture, Rng, Role, Roles, Samples
from distill.core.paths import Cosine
from distill.methods import toys
from distill.methods.claims.progressive_distillation import TwoJumps, residual
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.progressive_distillation import ProgressiveDistillation, halvings
from distill.methods.teacher_paths import GridJumps


def gaussian() -> Mixture:
    return Mixture(torch.zeros(1, 2, dtype=torch.float64), 0.7, Cosine())


def event_of(steps, size=64):
    teacher = gaussian()
    ctx = Context(
        Roles({"teacher": Role("teacher", teacher), "student": Role("student", TwoJumps(0.7, steps))}), Rng(0)
    )
    x0 = ctx.rng.normal(size, 2, stream="data").double()
    return teacher, next(GridJumps(steps=steps).events(Batch(size, x0), ctx, attached=False))


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16, 32])
def test_composed_jumps_of_a_linear_teacher_have_no_loss(steps) -> None:
    assert residual(steps) <= 1e-10


@pytest.mark.parametrize("steps", [1, 3, 8, 32])
def test_one_jump_along_the_target_lands_where_two_teacher_jumps_land(steps) -> None:
    teacher, event = event_of(steps)
    path, t, s = teacher.path, event.t, event.meta["s"]
    m = (t + s) / 2
    x_m = path.jump(event.x_t, teacher.predict(event.x_t, t).x0, t, m)
    x_s = path.jump(x_m, teacher.predict(x_m, m).x0, m, s)
    torch.testing.assert_close(path.jump(event.x_t, event.targets["x0"], t, s), x_s, atol=1e-10, rtol=0)


def test_the_last_jump_copies_the_teachers_x0() -> None:
    teacher, event = event_of(1)
    m = event.t / 2
    x_m = teacher.path.jump(event.x_t, teacher.predict(event.x_t, event.t).x0, event.t, m)
    assert torch.equal(event.targets["x0"], teacher.predict(x_m, m).x0)


def test_every_sample_draws_its_own_grid_time() -> None:
    _, event = event_of(4, size=200)
    assert sorted((4 * event.t).round().unique().tolist()) == [1, 2, 3, 4]
    torch.testing.assert_close(event.t - event.meta["s"], torch.full((200,), 0.25, dtype=torch.float64))


def test_stages_halve_and_each_learns_from_the_one_before() -> None:
    phases = ProgressiveDistillation(start=16, end=1, steps=60).plan(None).phases
    assert [phase.updates[0].trajectory.steps for phase in phases] == [8, 4, 2, 1]
    assert [phase.updates[0].trajectory.teacher for phase in phases] == [
        "teacher",
        "previous",
        "previous",
        "previous",
    ]
    assert [phase.steps for phase in phases] == [10, 10, 20, 20]
    assert all(phase.at_end == (Copy(source="student", target="previous"),) for phase in phases)


def test_the_student_is_handed_over_and_the_teacher_stays() -> None:
    teacher = MLPDenoiser(path="cosine", kind="v", width=8).build()
    before = [p.clone() for p in teacher.parameters()]
    method = ProgressiveDistillation(start=4, end=1, steps=4, lr=1e-2)
    roles = toys.train(method, {"teacher": teacher}, data=Samples(x=torch.randn(64, 2)), size=16).roles
    pairs = zip(roles["student"].parameters(), roles["previous"].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert not roles["previous"].module.training


def test_an_end_that_halving_cannot_reach_is_refused() -> None:
    assert halvings(64, 4) == [32, 16, 8, 4]
    with pytest.raises(DistillError, match="power of two"):
        halvings(48, 5)
