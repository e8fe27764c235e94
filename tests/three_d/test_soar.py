"""SOAR: what pictures show of a scene, and a score that leaves it alone."""

from __future__ import annotations

import math

import torch

from distill.core import Batch, Context, Rng, Role, Roles, Samples
from distill.methods import toys
from distill.three_d.papers.soar import SOAR
from distill.three_d.render import Render
from distill.three_d.scenes import NewViews, Recovered, visible
from distill.three_d.toys_scenes import AROUND, STATIONS, Kin, toy_scene

LENS = Render(size=(8, 8))
PICTURES = Rng(0).uniform(3, STATIONS, 3, 8, 8) * 2 - 1
FRONT = STATIONS // 2


def fields(*rows: int) -> dict[str, torch.Tensor]:
    return AROUND.even(STATIONS, 1, 1)[list(rows)].fields()


def event_of(**options):
    cast = {"teacher": Kin(PICTURES), "student": toy_scene(40).build()}
    ctx = Context(Roles({name: Role(name, module) for name, module in cast.items()}), Rng(0), lens=LENS)
    batch = Batch(1, PICTURES[0, [FRONT]], fields(FRONT))
    (event,) = NewViews(count=3, **options).events(batch, ctx, attached=True)
    return event, ctx


def test_points_before_what_a_camera_sees_are_visible_and_those_behind_are_not():
    camera = AROUND.even(STATIONS, 8, 8)[[FRONT]]
    toward = camera.places / camera.places.norm()
    points = torch.cat([0.5 * toward, -0.5 * toward, 4 * toward])
    depth = torch.full((1, 1, 8, 8), 3.0)
    assert visible(points, depth, camera).tolist() == [1, 0, 0]


def test_new_views_know_what_is_seen():
    event, _ = event_of(seen=True)
    seen = event.meta["seen"]
    assert seen.shape == (3, 1, 8, 8) and not seen.requires_grad
    assert 0 <= float(seen.min()) and 0 < float(seen.max()) <= 1.001


def test_the_gradient_of_a_pixel_that_is_seen_is_scaled_by_e_to_the_minus_three():
    event, ctx = event_of(seen=True)
    event.meta = {**event.meta, "seen": torch.ones(3, 1, 8, 8)}
    with torch.no_grad():
        masked, plain = (
            Recovered(guidance=1.0, keep=k).gradient(event, Context(ctx.roles, Rng(0)), 1.0) for k in (3.0, 0.0)
        )
    torch.testing.assert_close(masked, math.exp(-3) * plain)


def test_the_step_is_the_way_to_what_the_teacher_says():
    event, ctx = event_of()
    x_t, t = Rng(1).normal(3, 3, 8, 8), torch.tensor([0.3, 0.5, 0.7])
    said = ctx.roles["teacher"].ask(x_t, t, event.cond).x0
    gap = Recovered(guidance=1.0).between(event, ctx, x_t, t, 1.0)
    torch.testing.assert_close(gap, event.x - said)


def test_levels_fall_over_the_phase():
    levels, path = Recovered().levels, Kin(PICTURES).path
    assert [levels.at(levels.high, path, share) for share in (0.0, 1.0)] == [0.75, 0.25]
    assert levels.at(levels.low, path, 0.5) == 0.02


def test_a_scene_is_trained_by_both_terms():
    data = Samples(x=PICTURES[0, [0, 4]], **fields(0, 4))
    method = SOAR(steps=2, scene=toy_scene(20), recovered=Recovered(guidance=2.0))
    engine = toys.train(method, {"teacher": Kin(PICTURES)}, data=data, size=2, lens=LENS)
    assert engine.step == 2
