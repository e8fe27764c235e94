"""OSS: the search against brute force, what the median makes of schedules, and the sampler that comes out."""

from itertools import combinations

import pytest
import torch

from distill.core import DistillError, Rng, Role, Sampler
from distill.core.paths import Flow, Karras
from distill.core.sampling import Calibrated, Grid, finish
from distill.methods import toys
from distill.methods.papers.oss import OSS
from distill.methods.schedules import agreed, quantiles, search

ROLE = Role("teacher", toys.ring(Flow()))


def route(noise, steps):
    walk = list(Sampler(steps=steps).walk(ROLE, noise))
    return [walk[0].x, *(move.next for move in walk)], Sampler(steps=steps).grid_for(Flow())


def fitted(size=32, **options):
    return toys.train(OSS(**options), {"teacher": toys.ring(Flow())}, size=size).sampler


def test_two_moves_are_the_best_of_all() -> None:
    """With two moves there is one free place, and the search cannot miss the best."""
    noise = Rng(0).normal(40, 2)
    states, times = route(noise, 8)
    found = search(ROLE, states, times, 2)
    samplers = [Sampler(times=(times[0], times[k])) for k in range(1, 8)]
    errors = torch.stack([((finish(s.walk(ROLE, noise)) - states[-1]) ** 2).mean(1) for s in samplers])
    assert torch.equal(found[:, 1], errors.argmin(0) + 1)


def test_more_moves_follow_from_states_that_were_reached() -> None:
    noise = Rng(1).normal(40, 2)
    states, times = route(noise, 6)
    found = search(ROLE, states, times, 3)
    tried = {
        (0, *c, 6): (finish(Sampler(times=tuple(times[k] for k in (0, *c))).walk(ROLE, noise)) - states[-1]).norm(dim=1)
        for c in combinations(range(1, 6), 2)
    }
    best = torch.stack([*tried.values()]).min(0).values
    ours = torch.stack([tried[tuple(places)][row] for row, places in enumerate(found.tolist())])
    assert float(ours.mean() / best.mean()) < 1.02


def test_every_kept_state_is_asked_once(monkeypatch) -> None:
    asked = []
    ask = Role.ask
    monkeypatch.setattr(Role, "ask", lambda self, *args, **options: asked.append(1) or ask(self, *args, **options))
    search(ROLE, *route(Rng(0).normal(4, 2), 10), 4)
    assert len(asked) <= 4 * 10


def test_the_median_keeps_places_apart() -> None:
    assert agreed(torch.tensor([[0, 3, 3, 3, 4]])) == [0, 1, 2, 3, 4]
    assert agreed(torch.tensor([[0, 2, 2, 9], [0, 2, 5, 9], [0, 3, 2, 9]])) == [0, 2, 3, 9]


def test_the_sampler_has_the_chosen_times() -> None:
    sampler = fitted(fine=20, moves=3)
    fine = Sampler(steps=20).grid_for(Flow())
    assert len(sampler.times) == 3 == sampler.calls(Flow()) and set(sampler.times) <= set(fine)
    assert Sampler.model_validate_json(sampler.model_dump_json()) == sampler


def test_the_last_time_is_that_of_the_route() -> None:
    path = Karras(t_min=0.006, t_max=20)
    teacher = Sampler(grid=Grid(spacing="karras"))
    chosen = toys.train(_On(teacher=teacher, fine=12, moves=3), {"teacher": toys.ring(path)}, size=8).sampler
    assert chosen.grid_for(path)[-1] == pytest.approx(0.006)


class _On(OSS):
    teacher: Sampler

    def plan(self, teacher):
        return super().plan(self.teacher)


def test_mapped_states_have_the_routes_range() -> None:
    sampler = fitted(size=200, fine=40, moves=3, calibrate=True)
    assert isinstance(sampler.solver, Calibrated)
    noise = Rng(0).normal(200, 2, stream="fit/noise")
    states, times = route(noise, 40)
    for move in sampler.walk(ROLE, noise):
        wanted = states[min(range(41), key=lambda k: abs(times[k] - move.s))]
        assert quantiles(move.next) == pytest.approx(quantiles(wanted), abs=1e-3)


def test_more_moves_than_steps_are_refused() -> None:
    with pytest.raises(DistillError, match="fewer steps"):
        fitted(fine=4, moves=5)
