"""The renderer draws what the formulas say, on pictures of any size, and pulls gradients back as they do."""

from __future__ import annotations

import pytest
import torch

from distill.core import Ragged, Rng
from distill.core.errors import DataError
from distill.three_d import composite
from distill.three_d.cameras import LENS, VIEW, Cameras, Orbit, look_at, pinholes
from distill.three_d.composite import Screen, Splats, pairs_of
from distill.three_d.reference import render_dense
from distill.three_d.render import PARTS, SCREEN, Render, project, render

FIELDS = ("images", "alpha", "depth", "normals")
NEAR_AND_FAR = Orbit(radius=(0.8, 3.0), jitter=0.1)


def cameras(count=2, height=21, width=30, dtype=torch.float64, seed=1):
    return NEAR_AND_FAR.draw(count, height, width, Rng(seed)).to(dtype)


def grads(drawn, scene, seed=3):
    total = sum(
        (getattr(drawn, name) * Rng(seed).normal(*getattr(drawn, name).shape, stream=name).to(drawn.depth)).sum()
        for name in FIELDS
    )
    return torch.autograd.grad(total, list(scene.values()))


@pytest.mark.parametrize("harmonics", [0, 3, 15])
def test_it_draws_what_the_dense_reference_draws(scene, harmonics):
    parts = scene(200, harmonics, dtype=torch.float64)
    ours, dense = (draw(parts, cameras()) for draw in (render, render_dense))
    assert float(dense.alpha.max()) > 0.99 and float(dense.alpha.min()) < 0.5
    for name in FIELDS:
        torch.testing.assert_close(getattr(ours, name), getattr(dense, name), rtol=0, atol=1e-10)


def test_single_precision_is_as_good(scene):
    parts = scene(200, size=0.05)
    for name in FIELDS:
        ours, dense = (getattr(draw(parts, cameras(dtype=torch.float32)), name) for draw in (render, render_dense))
        torch.testing.assert_close(ours, dense, rtol=0, atol=1e-5)


def test_gradients_are_those_of_the_dense_reference(scene):
    parts = {part: value.requires_grad_() for part, value in scene(120, 8, dtype=torch.float64).items()}
    ours, dense = (grads(draw(parts, cameras()), parts) for draw in (render, render_dense))
    for part, mine, theirs in zip(parts, ours, dense, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9, msg=part)


def test_gradients_are_those_of_finite_differences(scene):
    """Few, wide and translucent Gaussians on few pixels: none comes near a cut of the definition."""
    parts = scene(4, 3, dtype=torch.float64, size=0.6)
    parts["opacities"] = parts["opacities"] * 0.2
    seen = pinholes(look_at(torch.tensor([[0.0, 0.3, 3.0]]), torch.zeros(1, 3)), 20.0, 3, 4).to(torch.float64)

    def drawn(*values):
        said = render(dict(zip(PARTS, values, strict=True)), seen)
        return said.images, said.alpha, said.depth

    assert torch.autograd.gradcheck(drawn, [parts[part].requires_grad_() for part in PARTS], eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 3, 64])
def test_stretches_of_layers_and_groups_of_tiles_change_nothing(scene, monkeypatch, layers):
    parts = {part: value.requires_grad_() for part, value in scene(150, dtype=torch.float64).items()}
    before = render(parts, cameras())
    known = grads(before, parts)
    monkeypatch.setattr(composite, "LAYERS", layers)
    monkeypatch.setattr(composite, "GROUP", 2)
    after = render(parts, cameras())
    torch.testing.assert_close(after.images, before.images)
    torch.testing.assert_close(grads(after, parts), known)


def test_order_of_gaussians_does_not_matter(scene):
    parts, mixed = scene(80), torch.randperm(80, generator=torch.Generator().manual_seed(0))
    seen = cameras(dtype=torch.float32)
    shuffled = {part: value[mixed] for part, value in parts.items()}
    torch.testing.assert_close(render(parts, seen).images, render(shuffled, seen).images, atol=1e-5, rtol=0)


def test_a_gaussian_in_front_hides_what_is_behind():
    def at(z, colour):
        return torch.tensor([0.0, 0, z]), torch.tensor(colour)

    (front, red), (back, blue) = at(0.5, [1.7, -1.7, -1.7]), at(-0.5, [-1.7, -1.7, 1.7])
    parts = {
        "means": torch.stack([back, front]), "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        "scales": torch.tensor([[-1.5, -1.5, -3]]).repeat(2, 1), "opacities": torch.full((2,), 9.0),
        "sh0": torch.stack([blue, red])[:, None], "shN": torch.zeros(2, 0, 3),
    }  # fmt: skip
    drawn = render(parts, Orbit(elevation=(0, 0)).even(2, 9, 9)[[1]])
    assert drawn.images[0, 0, 4, 4] > 0.9 and drawn.images[0, 2, 4, 4] < 0.1
    assert float(drawn.depth[0, 0, 4, 4]) == pytest.approx(2.5, abs=0.01)
    assert float(drawn.normals[0, 2, 4, 4]) < -0.9


def test_what_is_behind_the_camera_is_not_drawn_and_has_finite_gradients(scene):
    parts = {part: value.requires_grad_() for part, value in scene(50).items()}
    inside = pinholes(look_at(torch.tensor([[0.0, 0, 0.01]]), torch.tensor([[0.0, 0, -1]])), 60.0, 16, 16)
    with torch.no_grad():
        parts["means"][0] = inside.places[0]  # right where the camera stands
    found = grads(render(parts, inside), parts)
    assert all(torch.isfinite(each).all() for each in found)


def test_work_follows_tiles_and_depth_and_not_pixels_times_gaussians(scene):
    parts = scene(2000, 0, size=0.01)
    counts = []
    for side in (32, 128):
        seen = Orbit().even(1, side, side)
        counts.append(len(pairs_of(project(parts, seen), Screen(1, side, side)).splats))
    assert counts[1] < 4 * counts[0]  # with sixteen times the pixels
    assert counts[1] * 64 < 0.02 * 2000 * 128**2


def test_pairs_are_sorted_by_depth_and_complete():
    splats = Splats(
        torch.tensor([[4.0, 4.0], [9.0, 4.0], [4.0, 5.0]]), torch.tensor([[1.0, 0, 1]]).repeat(3, 1),
        torch.zeros(3), torch.tensor([3.0, 1.0, 2.0]), torch.zeros(3, dtype=torch.long), torch.tensor([True] * 3),
    )  # fmt: skip
    pairs = pairs_of(splats, Screen(1, 8, 16))
    seen = [pairs.splats[a : a + n].tolist() for a, n in zip(pairs.starts, pairs.counts, strict=True)]
    assert seen == [[1, 2, 0], [1]]


def test_an_empty_view_is_empty_and_has_gradients_of_zero(scene):
    parts = {part: value.requires_grad_() for part, value in scene(5).items()}
    away = pinholes(look_at(torch.tensor([[0.0, 0, 5.0]]), torch.tensor([[0.0, 0, 9]])), 30.0, 8, 8)
    drawn = render(parts, away)
    assert not drawn.alpha.any() and not drawn.depth.any()
    assert not any(each.any() for each in grads(drawn, parts))


def test_the_screen_part_gets_the_gradient_of_places_on_the_screen(scene):
    parts = scene(30, dtype=torch.float64)
    screen = torch.zeros(2, 30, 2, dtype=torch.float64, requires_grad=True)
    drawn = render({**parts, SCREEN: screen}, cameras())
    (gradient,) = torch.autograd.grad(drawn.images.sum(), screen)
    step = torch.zeros_like(screen)
    step[0, :, 0] = 1e-5
    high, low = (render({**parts, SCREEN: sign * step}, cameras()).images.sum() for sign in (1, -1))
    torch.testing.assert_close(gradient[0, :, 0].sum(), (high - low) / 2e-5, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- the lens


def test_the_lens_shows_every_scene_by_its_cameras_in_the_range_of_teachers(scene):
    both = {part: torch.stack([scene(20)[part], scene(20, seed=1)[part]]) for part in PARTS}
    fields = {name: value.view(2, 3, *value.shape[1:]) for name, value in Orbit().even(6, 1, 1).fields().items()}
    lens = Render(size=(8, 12), background=(1.0, 0.0, 0.0))
    shown = lens({**both, **fields})
    assert shown.shape == (6, 3, 8, 12) and lens(both).shape == (2, 3, 8, 12)
    first = render(scene(20), Cameras.of({k: v[0] for k, v in fields.items()}, 8, 12))
    torch.testing.assert_close(shown[:3], 2 * first.over(torch.tensor([1.0, 0, 0])) - 1)


def test_conditions_follow_the_views_and_say_where_they_are_seen_from(scene):
    state = {part: torch.stack([value, value]) for part, value in scene(5).items()}
    lens = Render(count=3)
    said = lens.conditions({"label": torch.tensor([4, 7]), "each": torch.arange(6)}, state)
    assert said["label"].tolist() == [4, 4, 4, 7, 7, 7] and said["each"].tolist() == list(range(6))
    assert said[VIEW].shape == (6, 4, 4) and said[LENS].shape == (6, 3, 3)


def test_scenes_of_unequal_size_are_drawn(scene):
    scenes = [scene(5), scene(9, seed=1)]
    lengths = torch.tensor([5, 9])
    state = {part: Ragged(torch.cat([each[part] for each in scenes]), lengths) for part in PARTS}
    lens = Render(size=(8, 8))
    torch.testing.assert_close(lens(state)[1:], 2 * lens.shown(scenes[1]) - 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {part: value[:0] for part, value in s.items()}, "no Gaussians"),
        (lambda s: {part: value for part, value in s.items() if part != "quats"}, "lacks quats"),
        (lambda s: {**s, "means": s["means"].index_fill(0, torch.tensor(3), torch.nan)}, "means hold 3 values.*row 3"),
    ],
)
def test_a_scene_that_cannot_be_drawn_is_refused_with_the_reason(scene, change, message):
    with pytest.raises(DataError, match=message):
        render(change(scene(6)), Orbit().even(1, 8, 8))
    with pytest.raises(DataError, match="a batch of scenes is a mapping"):
        Render()(torch.zeros(2, 3, 8, 8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gsplats_kernels_draw_the_same(scene):
    parts, seen = scene(500), cameras(3, 40, 56, torch.float32)
    ours = render(parts, seen)
    theirs = render({part: value.cuda() for part, value in parts.items()}, seen)
    for name in ("images", "alpha"):
        torch.testing.assert_close(getattr(theirs, name).cpu(), getattr(ours, name), rtol=0, atol=1e-3)
