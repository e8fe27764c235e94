"""How the claim of six views measures: fidelity of held-out views, error of distances."""

from __future__ import annotations

import torch

from distill.core import Rng
from distill.three_d.claims.six_views import fidelity, misplaced, pictures
from distill.three_d.starts import Noise, Surface


def test_a_scene_on_the_surface_is_where_the_mesh_is_and_looks_like_it_and_fog_is_not():
    solid = Surface(mesh="house", count=1500, opacity=0.95).scene(0, Rng(0))
    fog = Noise(count=300, opacity=0.6).scene(0, Rng(0))
    fog["sh0"] = Rng(1).normal_like(fog["sh0"])
    assert misplaced(solid, "house", 0) < 0.15 < misplaced(fog, "house", 0)
    assert fidelity(solid, "house", 0) > fidelity(fog, "house", 0) + 3


def test_held_out_views_are_not_those_that_a_scene_is_made_from():
    known, held = (pictures("house", 0, split, 2)[1].places for split in ("train", "test"))
    assert torch.cdist(known, held).min() > 1e-3
    assert not torch.equal(known, pictures("house", 1, "train", 2)[1].places)
