"""Plans as data: who is needed, who changes, and what shares events."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from distill.core import EMA, Copy, Loss, Optimiser, Phase, Plan, Trajectory, Update


class Here(Trajectory):
    place: int = 0

    def events(self, batch, ctx, *, attached):
        yield from ()


class Two(Loss):
    @property
    def needs(self):
        return ("student", "teacher")

    @property
    def moves(self):
        return ("student", "critic")

    def terms(self, event, ctx):
        return {}


def plan(**phase):
    return Plan(phases=(Phase(steps=2, updates=(Update(trajectory=Here(), loss=Two()),), **phase), Phase(steps=5)))


def test_a_plan_knows_its_steps_and_roles():
    made = plan(actions=(EMA(target="average"),), at_end=(Copy(target="past"),))
    assert made.steps == 7 and made.needs() == {"student", "teacher", "critic"}
    assert made.changed() == {"student", "critic", "average", "past"}


@pytest.mark.parametrize("every, start, stop, due", [
    (1, 0, None, list(range(10))), (3, 0, None, [0, 3, 6, 9]), (3, 2, None, [2, 5, 8]), (1, 4, 6, [4, 5]),
    (4, 1, 5, [1]),
])  # fmt: skip
def test_an_update_is_due_from_its_start_every_so_often_until_its_stop(every, start, stop, due):
    update = Update(trajectory=Here(), loss=Two(), every=every, start=start, stop=stop)
    assert [step for step in range(10) if update.due(step)] == due


def test_neighbours_with_equal_trajectories_make_a_group():
    a, b = (Update(trajectory=Here(), loss=Two(), every=every) for every in (2, 1))
    other, fresh = (
        Update(trajectory=Here(place=1), loss=Two()),
        Update(trajectory=Here(), loss=Two(), fresh=True),
    )
    phase = Phase(updates=(a, b, fresh, other, b))
    assert [len(group) for _, group in phase.groups(0)] == [2, 1, 1, 1]
    assert [len(group) for _, group in phase.groups(1)] == [1, 1, 1, 1]
    assert Phase(updates=(a,)).groups(1) == []


@pytest.mark.parametrize("wrong", [{"schedule": "step"}, {"lr": "fast"}, {"learning_rate": 1}])
def test_optimisers_refuse_what_they_do_not_know(wrong):
    with pytest.raises(ValidationError):
        Optimiser(**wrong)
