"""Clouds in one batch are what they are alone, noise stays local, and completions start at their scan."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from distill.core import Ragged, Rng, Role, Sampler, cfg, tree
from distill.core.errors import DataError, RecipeError
from distill.core.probe import probe
from distill.three_d.lidar import Lidar
from distill.three_d.points import (
    Completed,
    LocalPath,
    PointDenoiser,
    _brute_nearest,
    _tree_nearest,
    anchors,
    centres,
    nearest,
    neighbours,
    packed,
    repeated,
)

PATH = LocalPath()


def clouds(*lengths, seed=0, stretch=1.0):
    draw = torch.Generator().manual_seed(seed)
    return Ragged(stretch * torch.randn(sum(lengths), 3, generator=draw), torch.tensor(lengths))


@cache
def spoken():
    """A denoiser with something to say: at its start it answers with zeros."""
    torch.manual_seed(0)
    denoiser = PointDenoiser(width=16, depth=1, near=4, points=20).build().eval()
    torch.nn.init.normal_(denoiser.network.outlet[1].weight)
    return denoiser


# ---------------------------------------------------------------- clouds and neighbours


def test_clouds_are_ragged_rows_or_tensors_of_points():
    dense = torch.randn(2, 5, 3)
    assert packed(dense).lengths.tolist() == [5, 5] and torch.equal(packed(dense).values[5:], dense[1])
    for wrong in (torch.zeros(4, 3), torch.zeros(2, 5, 2), Ragged(torch.zeros(4, 2), torch.tensor([4]))):
        with pytest.raises(DataError, match="clouds are ragged rows"):
            packed(wrong)


def test_anchors_are_the_points_of_the_scan_over_and_over():
    scan = clouds(2, 3)
    often = repeated(scan, 2)
    assert often.lengths.tolist() == [4, 6] and torch.equal(often.values[4:7], often.values[7:])
    placed = anchors(scan, clouds(5, 1))
    assert torch.equal(placed.values[:5], scan.values[[0, 1, 0, 1, 0]]) and torch.equal(
        placed.values[5], scan.values[2]
    )
    assert anchors(scan, torch.zeros(2, 7, 3)).shape == (2, 7, 3)


@pytest.mark.parametrize("search", [_tree_nearest, _brute_nearest])
def test_neighbours_are_those_of_the_obvious_way(search):
    points, queries = clouds(50).values, clouds(20, seed=1).values
    away = (queries[:, None] - points).norm(dim=2)
    assert torch.equal(search(queries, points, 4), away.argsort(1)[:, :4])


def test_few_points_stand_several_times_and_samples_do_not_see_each_other():
    assert (
        nearest(torch.zeros(1, 3), clouds(2).values, 5).tolist()[0][2:4]
        == nearest(torch.zeros(1, 3), clouds(2).values, 2).tolist()[0]
    )
    found = neighbours(clouds(6, 8), clouds(3, 40, seed=2), 4)
    assert found[:6].max() < 3 and found[6:].min() >= 3


# ---------------------------------------------------------------- the path


def test_the_path_is_the_table_of_the_paper_and_moves_no_point():
    betas = torch.linspace(3.5e-5, 0.007, 1000, dtype=torch.float64)
    table = (1 - (1 - betas).cumprod(0)).sqrt()
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert float((PATH.sigma(t) - table).abs().max()) < 2e-3 and bool((PATH.alpha(t) == 1).all())
    assert float(LocalPath(spread=0.5).sigma(t[-1])) == pytest.approx(0.5 * float(PATH.sigma(t[-1])))


def test_the_slope_of_the_noise_is_its_derivative():
    t = torch.linspace(0.05, 1, 20, dtype=torch.float64, requires_grad=True)
    (true,) = torch.autograd.grad(PATH.sigma(t).sum(), t)
    torch.testing.assert_close(PATH.slopes(t)[1], true)


def test_local_noise_keeps_the_mean_of_a_cloud():
    x, t = clouds(64, 192), torch.full((2,), 0.8)
    shift = (centres(PATH.noised(x, Rng(0).normal_like(x), t)) - centres(x)).abs()
    assert (shift <= 3 * PATH.sigma(t)[:, None] / x.lengths[:, None] ** 0.5).all()


# ---------------------------------------------------------------- the denoiser


def test_clouds_in_one_batch_are_answered_as_alone():
    x, scan, t = clouds(5, 30, 12), clouds(3, 9, 2, seed=1), torch.tensor([0.2, 0.9, 0.5])
    together = spoken().predict(x, t, {"scan": scan}).value.split()
    for row in range(3):
        one = torch.tensor([row])
        alone = spoken().predict(tree.index(x, one), t[one], {"scan": tree.index(scan, one)}).value
        torch.testing.assert_close(together[row], alone.values, atol=1e-6, rtol=1e-5)


def test_order_of_points_and_place_of_the_cloud_do_not_matter():
    x, scan, t = clouds(20), clouds(7, seed=1), torch.tensor([0.4])
    said = spoken().predict(x, t, {"scan": scan}).value.values
    order = torch.randperm(20)
    turned = spoken().predict(Ragged(x.values[order], x.lengths), t, {"scan": scan}).value.values
    torch.testing.assert_close(turned, said[order])
    moved = [Ragged(cloud.values + 10, cloud.lengths) for cloud in (x, scan)]
    torch.testing.assert_close(
        spoken().predict(moved[0], t, {"scan": moved[1]}).value.values, said, atol=1e-3, rtol=1e-3
    )


def test_tensors_are_answered_as_ragged_clouds_of_one_size():
    x, scan, t = torch.randn(2, 9, 3), torch.randn(2, 4, 3), torch.tensor([0.3, 0.6])
    said = spoken().predict(x, t, {"scan": scan}).value
    assert torch.equal(said.flatten(0, 1), spoken().predict(packed(x), t, {"scan": packed(scan)}).value.values)


def test_a_dropped_scan_is_an_absent_one():
    x, scan, t = clouds(8, 8), clouds(3, 5, seed=1), torch.tensor([0.4, 0.4])
    role = Role("student", spoken())
    without = role.predict(x, t, {"scan": scan}, guidance=cfg(0.0)).value.values
    torch.testing.assert_close(without, spoken().predict(x, t, {}).value.values)
    assert (without - role.predict(x, t, {"scan": scan}).value.values).abs().max() > 1e-3


# ---------------------------------------------------------------- sampling


def test_a_completion_starts_around_its_scan():
    sampler, scan, role = Completed(steps=2), clouds(4, 6, stretch=100.0), Role("student", spoken())
    noise = Rng(0).normal_like(clouds(40, 60))
    start = sampler.around(role, noise, scan)
    away = (start.values - anchors(scan, noise).values).std()
    assert float(away) == pytest.approx(float(PATH.sigma(torch.tensor(1.0))), rel=0.1)
    x = sampler.sample(role, noise, {"scan": scan}, Rng(0))
    assert x.lengths.tolist() == [40, 60] and torch.cdist(x.values[:40], scan.values[:4]).amin(1).max() < 20


def test_without_a_scan_there_is_nothing_to_complete():
    with pytest.raises(RecipeError, match="a completion starts at a scan: give its points as the condition 'scan'"):
        Completed().sample(Role("student", spoken()), torch.zeros(1, 4, 3), {}, Rng(0))


def test_a_run_takes_ragged_data_for_a_network_that_declares_a_size():
    data = Lidar(points=48, scan_points=8, count=2).open()
    probe(Role("student", spoken()), None, data, None)


def test_the_denoiser_comes_with_its_sampler():
    sampler = PointDenoiser(sample_steps=3, guidance=2.0).sampler()
    assert isinstance(sampler, Sampler) and sampler.calls(PATH) == 6
