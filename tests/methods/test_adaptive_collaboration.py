"""Adaptive collaboration: the threshold, and what a choice by an oracle is worth."""

import math

import pytest
import torch

from distill.core import Role, Sampler
from distill.core.errors import RecipeError
from distill.methods import few_step, toys
from distill.methods.claims import adaptive_collaboration as claim
from distill.methods.papers.adaptive_collaboration import AdaptiveCollaboration
from distill.methods.samplers import Refined, judge

STUDENT = few_step.sampler((1.0, 0.5))


def fitted(share):
    method = AdaptiveCollaboration(student=STUDENT, base=Sampler(steps=10), share=share, count=1000, until=0.5)
    return toys.train(method, few_step.cast(0, 60))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_the_threshold_is_that_of_the_share(share) -> None:
    engine = fitted(share)
    x = STUDENT.sample(engine.roles["student"], few_step.noise(2000, 5), None, engine.ctx.rng)
    below = judge(engine.roles["oracle"], x) < engine.sampler.threshold
    assert abs(float(below.float().mean()) - share) < 0.05 and engine.sampler.fraction == pytest.approx(share, abs=2e-3)


def test_until_it_is_fitted_every_sample_is_improved() -> None:
    sampler = AdaptiveCollaboration(student=STUDENT).plan(Sampler()).sampler
    assert isinstance(sampler, Refined) and sampler.threshold == math.inf and sampler.needs == ("teacher", "oracle")


def test_without_an_oracle_the_run_does_not_begin() -> None:
    with pytest.raises(RecipeError, match="needs the role oracle"):
        toys.train(AdaptiveCollaboration(student=STUDENT), {"teacher": few_step.law()})


def test_an_oracle_chooses_better_than_chance() -> None:
    ours, calls, foreseen = claim.collaborate(0, 0.5, few_step.oracle())
    chance, _, _ = claim.collaborate(0, 0.5, Role("oracle", few_step.lot(0)))
    assert ours < 0.75 * chance and calls == pytest.approx(foreseen, abs=0.15)


def test_no_score_carries_gradient() -> None:
    engine = fitted(0.5)
    x = toys.draw(engine.roles["student"], engine.sampler, 50, 0, roles=engine.roles)
    assert not x.requires_grad and torch.isfinite(x).all()
