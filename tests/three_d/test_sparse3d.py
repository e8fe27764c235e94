"""Sparse3D: new views beside known ones, and a score difference between what one teacher says with and without them."""

from __future__ import annotations

import pytest
import torch

from distill.core import Batch, Context, Event, Rng, Role, Roles, Samples
from distill.core.errors import RecipeError
from distill.methods import toys
from distill.three_d.losses import ViewScore
from distill.three_d.papers.sparse3d import Sparse3D
from distill.three_d.render import Render
from distill.three_d.scenes import REFERENCES, CategoryScore, NewViews
from distill.three_d.toys_scenes import AROUND, STATIONS, Kin, toy_scene

LENS = Render(size=(8, 8))
PICTURES = Rng(0).uniform(3, STATIONS, 3, 8, 8) * 2 - 1


def fields(*rows: int) -> dict[str, torch.Tensor]:
    return AROUND.even(STATIONS, 1, 1)[list(rows)].fields()


def context(**roles) -> Context:
    cast = {"teacher": Kin(PICTURES, trust=0.3), "student": toy_scene(20).build(), **roles}
    return Context(Roles({name: Role(name, module) for name, module in cast.items()}), Rng(0), lens=LENS)


def new(ctx: Context, **options) -> Event:
    batch = Batch(2, PICTURES[0, [0, 4]], fields(0, 4))
    (event,) = NewViews(count=3, **options).events(batch, ctx, attached=True)
    return event


def test_known_and_new_views_are_drawn_together():
    event = new(context())
    assert event.x.shape == (3, 3, 8, 8) and event.meta["known"].shape == event.real.shape == (2, 3, 8, 8)
    assert event.cond[REFERENCES].shape == (3, 2, 3, 8, 8)
    assert event.cond["world_to_camera"].shape == (3, 4, 4)
    assert event.x.requires_grad and event.meta["known"].requires_grad


def test_data_without_cameras_are_refused():
    with pytest.raises(RecipeError, match="data with cameras"):
        next(NewViews().events(Batch(2, PICTURES[0, :2]), context(), attached=True))


def test_the_gradient_is_the_difference_of_two_predictions():
    ctx, loss = context(), CategoryScore()
    event = new(ctx)
    teacher, x_t, t = ctx.roles["teacher"], Rng(1).normal(3, 3, 8, 8), torch.tensor([0.3, 0.5, 0.7])
    told = teacher.ask(x_t, t, event.cond).eps
    without = teacher.ask(x_t, t, {**event.cond, REFERENCES: event.cond[REFERENCES] * torch.nan}).eps
    expected = t[:, None, None, None] ** 2 * (told - without)
    torch.testing.assert_close(loss.between(event, ctx, x_t, t, 1.0), expected, atol=1e-5, rtol=1e-4)


def test_without_references_nothing_moves_and_sds_does():
    ctx = context()
    event = new(ctx)
    event.cond = {**event.cond, REFERENCES: event.cond[REFERENCES] * torch.nan}
    with torch.no_grad():
        moved = CategoryScore().gradient(event, ctx, 1.0).abs().max()
        sds = ViewScore().gradient(event, ctx, 1.0).abs().max()
    assert float(moved) == 0 and float(sds) > 0.01


def test_a_blur_that_both_share_falls_out_of_the_difference():
    teacher = Kin(PICTURES, trust=0.3, blur=3)
    ctx = context(teacher=teacher)
    event = new(ctx)
    event.x = PICTURES[0, teacher.station(event.cond["world_to_camera"])]
    t = torch.full((3,), 0.02)
    category, noise = (loss.between(event, ctx, event.x, t, 1.0).abs().max() for loss in (CategoryScore(), ViewScore()))
    assert float(category) < 1e-6 and float(noise) > 1e-3


def test_a_scene_is_trained_by_both_terms():
    data = Samples(x=PICTURES[0, [0, 4]], **fields(0, 4))
    method = Sparse3D(steps=2, scene=toy_scene(20), views=NewViews(count=2))
    engine = toys.train(method, {"teacher": Kin(PICTURES)}, data=data, size=2, lens=LENS)
    assert engine.step == 2
    assert {type(update.trajectory) for update in method.plan(None).phases[0].updates} == {NewViews}
