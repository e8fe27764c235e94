"""The kit is the test; the rest is what only this plugin knows."""

import pytest
import torch
from smell.odours import ODOURS, Odours, readings, sniff

from distill.core import Rng
from distill.core.testing import component_checks


@pytest.mark.parametrize("check", [pytest.param(run, id=name) for name, run in component_checks("smell")])
def test_conforms(check):
    check()


def test_strong_smells_saturate():
    weak, strong = (readings(torch.full((1, 6), c), torch.zeros(1, 16)) for c in (1e-4, 1e3))
    assert weak.max() < -0.97 and strong.min() > 0.97


def test_odours_differ_more_than_sniffs_of_one():
    label = torch.arange(len(ODOURS)).repeat_interleave(200)
    patterns = torch.nn.functional.normalize(sniff(label, Rng(0)) + 1, dim=1).view(len(ODOURS), 200, 16)
    assert patterns.mean(1).std(0).mean() > patterns.std(1).mean()


def test_a_split_is_not_the_other():
    assert not torch.equal(Odours().open("train").tensors["x"], Odours().open("test").tensors["x"])
