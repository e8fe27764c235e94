"""CFD: the flow of clean points is DDIM's, noise that stays decides, and a short run on a scene."""

from __future__ import annotations

import torch

from distill.three_d import toys
from distill.three_d.claims import cfd
from distill.three_d.losses import Levels, ViewScore
from distill.three_d.papers.cfd import CFD
from distill.three_d.trajectories import SceneView


def test_the_flow_of_clean_points_is_ddim():
    assert cfd.flow(0) < 1e-10


def test_under_kept_noise_points_go_where_ddim_leads_their_seed():
    teacher, begin = toys.ring(), torch.full((64, 2), 0.05)
    method = CFD(views=toys.Seeded(), score=cfd.FALLING, steps=150, optimiser=toys.descent(0.2, 64))
    goal = toys.sampled(teacher, toys.seeds(0, begin))
    assert toys.agreement(toys.distilled(method, teacher, begin, 0), goal, teacher) > 0.9


def test_two_runs_with_one_noise_agree_though_their_views_come_in_another_order():
    views, score = SceneView(noise="surface", seed=3), ViewScore(units="x0", levels=Levels())
    method = CFD(views=views, score=score, steps=30, optimiser=toys.QUICK)
    one, other = (toys.painted(method, toys.balls(), seed) for seed in (0, 1))
    assert (toys.colours(one) == toys.colours(other)).float().mean() > 0.8


def test_noise_on_a_surface_is_standard_and_goes_along():
    mean, variance, same, other = cfd.transport(0)
    assert abs(mean) < 0.02 and abs(variance - 1) < 0.03
    assert same > 0.8 and abs(other) < 0.3


def test_levels_are_those_of_the_paper():
    score, path = CFD().score, toys.ring().path
    levels = score.levels
    assert [round(levels.at(levels.high, path, p), 3) for p in (0.0, 0.1, 0.5, 1.0)] == [0.98, 0.692, 0.404, 0.212]
