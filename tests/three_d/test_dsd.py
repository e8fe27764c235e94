"""DSD: the seed's path, the difference of its steps, and a short run."""

from __future__ import annotations

import pytest
import torch

from distill.core import Context, Event, Rng, Role
from distill.core.errors import RecipeError
from distill.core.roles import Roles
from distill.three_d import toys
from distill.three_d.losses import Levels, SeededScore
from distill.three_d.papers.dsd import DSD


def context():
    return Context(Roles({"teacher": Role("teacher", toys.ring())}), Rng(0))


def test_the_seed_is_seen_on_its_own_ddim_path():
    z, ctx = torch.randn(5, 2), context()
    role, path = ctx.roles["teacher"], toys.ring().path
    x = z.clone()
    for t, s in ((1.0, 0.9), (0.9, 0.85)):
        time = torch.full((5,), t)
        x = path.jump(x, role.predict(x, time).x0, time, torch.full((5,), s))
    seen = SeededScore().seen(Event(z, noise=z), ctx, 0.85, 1.0)
    assert torch.allclose(seen, role.predict(x, torch.full((5,), 0.85)).eps, atol=1e-4)


def test_the_gradient_is_the_difference_of_two_steps_of_one_path():
    x, z, ctx = torch.randn(5, 2), torch.randn(5, 2), context()
    loss = SeededScore(levels=Levels(high=((0.0, 0.5), (1.0, 0.1))), ahead=0.5)
    later = 0.5 + 0.5 * 0.4 * float(torch.rand((), generator=Rng(0).generator("score/ahead")))
    role, path, ones = ctx.roles["teacher"], toys.ring().path, torch.ones(5)
    known = loss.seen(Event(x, noise=z), ctx, later, 1.0)
    said = [role.predict(path.noised(x, known, t * ones), t * ones).eps for t in (0.5, later)]
    wanted = path.sigma(0.5 * ones)[:, None] ** 2 * (said[0] - said[1])
    assert torch.allclose(loss.gradient(Event(x, noise=z), ctx, 1.0), wanted, atol=1e-5)
    assert wanted.abs().max() > 1e-3


def test_a_view_without_a_seed_is_refused():
    with pytest.raises(RecipeError, match="seed"):
        SeededScore().gradient(Event(torch.zeros(2, 2)), context(), 1.0)


def test_points_go_where_ddim_leads_their_seed():
    teacher, begin = toys.ring(), torch.full((64, 2), 0.05)
    score = SeededScore(levels=Levels(high=((0.0, 0.98), (1.0, 0.1)), power=0.5), steps=5)
    method = DSD(views=toys.Seeded(), score=score, steps=150, optimiser=toys.descent(0.5, 64))
    goal = toys.sampled(teacher, toys.seeds(0, begin))
    assert toys.agreement(toys.distilled(method, teacher, begin, 0), goal, teacher) > 0.6
