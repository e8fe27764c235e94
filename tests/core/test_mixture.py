"""The exact teacher is exact."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from distill.core import Mixture, Rng, Role, Sampler
from distill.core.mixture import MixtureTeacher
from distill.core.paths import Cosine, Flow, Karras
from distill.core.sampling import DPM, Grid

MEANS = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.5]])
CLASSES = torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0], [1.0, 2.0, 1.0]])


@pytest.mark.parametrize("path", [Flow(), Cosine(), Karras()], ids=lambda p: type(p).__name__)
def test_the_prediction_is_the_posterior_mean_by_importance_sampling(path):
    teacher, t = Mixture(MEANS, 0.4, path), torch.tensor([0.6])
    x0 = teacher.data(400_000, Rng(0))
    x = torch.tensor([[0.3, -0.2]])
    share = (-((x - path.alpha(t) * x0) ** 2).sum(1) / (2 * path.sigma(t) ** 2)).softmax(0)
    torch.testing.assert_close(teacher.predict(x, t).x0[0], share @ x0, rtol=0, atol=0.02)


def test_a_class_knows_nothing_of_the_others():
    teacher = Mixture(MEANS, 0.05, Flow(), CLASSES)
    at_other = MEANS[:1] * 0.98
    said = teacher.predict(at_other, 0.02, {"label": torch.tensor([1])}).x0
    alone = Mixture(MEANS[1:2], 0.05, Flow()).predict(at_other, 0.02).x0
    torch.testing.assert_close(said, alone)


def test_the_null_class_is_the_last_row_and_is_used_without_a_label():
    teacher = Mixture(MEANS, 0.3, Flow(), CLASSES)
    x, nothing = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.full((5,), 2)
    torch.testing.assert_close(teacher.predict(x, 0.5).x0, teacher.predict(x, 0.5, {"label": nothing}).x0)
    assert teacher.null == {"label": 2} and Mixture(MEANS, 0.3, Flow()).null == {}


def test_data_have_the_weights_and_the_spread_of_the_mixture():
    teacher = Mixture(MEANS, 0.1, Flow(), CLASSES)
    x = teacher.data(20_000, Rng(0))
    nearest = torch.cdist(x, MEANS).argmin(1)
    torch.testing.assert_close(torch.bincount(nearest) / len(x), torch.tensor([0.25, 0.5, 0.25]), rtol=0, atol=0.01)
    assert float((x - MEANS[nearest]).std()) == pytest.approx(0.1, rel=0.02)
    assert (torch.cdist(teacher.data(500, Rng(0), torch.ones(500, dtype=torch.long)), MEANS).argmin(1) == 1).all()


@pytest.mark.parametrize("shape", [(), (1,), (2, 2), (3, 1, 4)], ids=str)
def test_states_of_any_shape_are_sampled(shape):
    means = torch.stack([torch.full(shape, -1.0), torch.full(shape, 1.0)])
    teacher = Role("teacher", Mixture(means, 0.1, Flow()))
    out = Sampler(steps=16).sample(teacher, Rng(0).normal(64, *shape))
    assert out.shape == (64, *shape) and float((out.abs() - 1).abs().mean()) < 0.15


def test_many_steps_reach_the_data():
    teacher = Mixture(MEANS, 0.2, Karras())
    sampler = Sampler(steps=40, solver=DPM(), grid=Grid(spacing="karras", end=0.0))
    x = sampler.sample(Role("teacher", teacher), Rng(0).normal(20_000, 2))
    torch.testing.assert_close(x.mean(0), MEANS.mean(0), rtol=0, atol=0.03)
    assert float((x - MEANS[torch.cdist(x, MEANS).argmin(1)]).std()) == pytest.approx(0.2, rel=0.05)


def test_its_options_build_it():
    made = MixtureTeacher(means=[[0.0] * 4, [1.0] * 4], shape=(2, 2), weights=[[1.0, 1.0]], path="cosine").build()
    assert made.shape == (2, 2) and made.path == Cosine() and not list(made.parameters())
    with pytest.raises(ValidationError, match="path"):
        MixtureTeacher(means=[[0.0]], path="discrete")
