"""The kit is the test; the rest is what only this plugin knows."""

import pytest
import torch
from distill.core.testing import component_checks

from distill_sprout.data import Outlines
from distill_sprout.method import claim, roughness
from distill_sprout.modality import Picture

CHECKS = [pytest.param(run, id=name) for name, run in component_checks("sprout")]


@pytest.mark.parametrize("check", CHECKS)
def test_conforms(check):
    check()


def test_a_split_is_not_the_other():
    assert not torch.equal(Outlines().open("train").tensors["x"], Outlines().open("test").tensors["x"])


def test_noise_is_rougher_than_the_data():
    x = Outlines(size=64).open().tensors["x"]
    assert roughness(x).mean() < roughness(x + 0.3 * torch.randn_like(x)).mean()


def test_larger_curves_fill_more_of_the_picture():
    small, large = (Picture()(torch.full((1, 32), r)) for r in (-0.5, 0.5))
    assert large.mean() > small.mean()


def test_its_claim_holds():
    assert claim(0).holds
