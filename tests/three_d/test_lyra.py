"""Lyra: Gaussians of latents, on their pixels' rays; a loss that knows depths up to scale and shift; pruning."""

from __future__ import annotations

import torch

from distill.core import Batch, Context, Rng, Role, Roles, Samples
from distill.methods import toys
from distill.three_d.latents import Decoded, DecodedViews, GaussianDecoder, KeepOpaque, depth_gap, pruned
from distill.three_d.papers.lyra import Lyra
from distill.three_d.render import Render
from distill.three_d.toys_scenes import AROUND, CHANNELS, STATIONS, PatchDecoder, encoded, stations

LENS = Render(size=(16, 16))
SMALL = GaussianDecoder(channels=CHANNELS, size=(4, 4), views=2, width=16, depth=1, heads=2)
PICTURES = Rng(0).uniform(2, STATIONS, 3, 16, 16) * 2 - 1


def told(count: int, *rows: int) -> dict[str, torch.Tensor]:
    return {name: value[:, list(rows)] for name, value in stations(count).items()}


def context() -> Context:
    cast = {"teacher": PatchDecoder(), "student": SMALL.build()}
    return Context(Roles({name: Role(name, module) for name, module in cast.items()}), Rng(0), lens=LENS)


def test_every_gaussian_lies_on_its_pixels_ray():
    latents = Rng(1).normal(1, 2, CHANNELS, 4, 4)
    scene = SMALL.build().predict(latents, None, told(1, 0, 3)).x0
    origins, along = AROUND.even(STATIONS, 8, 8)[[0, 3]].rays()
    away = scene["means"][0].view(2, 8, 8, 3) - origins
    torch.testing.assert_close(away / away.norm(dim=-1, keepdim=True), along, atol=1e-5, rtol=1e-4)
    assert scene["scales"].exp().max() < 0.31 and (away.norm(dim=-1) < 4.5).all()


def test_the_teachers_pictures_are_the_target_and_it_gets_no_gradient():
    ctx, latents = context(), encoded(PICTURES)
    views = DecodedViews(inputs=(0, 4), shown=(2,), count=1)
    (event,) = views.events(Batch(2, latents, stations(2)), ctx, attached=True)
    torch.testing.assert_close(event.real, PatchDecoder().predict(latents, None).x0[:, 2])
    assert event.x.shape == (2, 3, 16, 16) and event.x.requires_grad and not event.real.requires_grad


def test_latents_hold_most_of_a_picture():
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 3, 3), size=(16, 16), mode="bilinear")[:, None]
    again = PatchDecoder().predict(encoded(smooth), None).x0
    assert again.shape == smooth.shape and (again - smooth).square().mean() < 0.2 * smooth.var()


def test_depths_count_up_to_scale_and_shift():
    depth = 1 + Rng(0).uniform(2, 1, 8, 8)
    assert depth_gap(depth, 3 * depth + 0.5).abs().max() < 1e-6
    assert depth_gap(depth, 3 - depth).min() > 0.1


def test_depth_and_opacity_have_their_terms():
    ctx = context()
    cond = {**stations(2), "depth": 1 + Rng(0).uniform(2, STATIONS, 1, 16, 16)}
    views = DecodedViews(inputs=(0, 4), count=2)
    (event,) = views.events(Batch(2, encoded(PICTURES), cond), ctx, attached=True)
    terms = Decoded(opacity=0.1).terms(event, ctx)
    assert set(terms) == {"colour", "structure", "depth", "opacity"}
    assert set(Decoded(structure=0, depth=0).terms(event, ctx)) == {"colour"}


def test_pruning_keeps_the_most_opaque_fifth():
    scene = SMALL.build().predict(Rng(1).normal(2, 2, CHANNELS, 4, 4), None, told(2, 0, 3)).x0
    scene["opacities"] = Rng(2).normal(2, 128)
    kept = pruned(scene, 0.2)
    assert kept["means"].shape == (2, 26, 3) and kept["shN"].shape == (2, 26, 0, 3)
    torch.testing.assert_close(kept["opacities"], scene["opacities"].sort(1, descending=True).values[:, :26])


def test_a_last_stage_prunes_and_the_decoder_remembers():
    data = Samples(x=encoded(PICTURES), **stations(2))
    method = Lyra(steps=3, pruning=1, decoder=SMALL, views=DecodedViews(inputs=(0, 4), count=1), prune=KeepOpaque())
    engine = toys.train(method, {"teacher": PatchDecoder()}, data=data, size=2, lens=LENS)
    scene = engine.roles["student"].ask(encoded(PICTURES)[:, [0, 4]], None, told(2, 0, 4)).x0
    assert engine.step == 3 and scene["means"].shape[1] == 26
