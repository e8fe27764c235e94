"""SwiftBrush: one module for teacher and critic, and scores that are both guided."""

from __future__ import annotations

import copy

import torch

from distill.core import Rng, Role, Sampler, Samples, assemble
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.swiftbrush import SwiftBrush

NETWORK = MLPDenoiser(width=16, depth=2, classes=3, path="cosine", path_options={"t_max": 0.95}, kind="eps")


def method(**options) -> SwiftBrush:
    return SwiftBrush(time=0.95, **options)


def labelled() -> Samples:
    return Samples(label=torch.arange(30) % 3)


def test_teacher_answers_bit_for_bit_the_same_after_a_hundred_critic_steps() -> None:
    torch.manual_seed(0)
    teacher, rng = NETWORK.build(), Rng(0)
    x, t, label = rng.normal(16, 2), rng.uniform(16) * 0.9, {"label": torch.arange(16) % 3}
    before = copy.deepcopy(teacher).predict(x, t, label).value
    run = toys.train(method(steps=100), {"teacher": teacher}, data=labelled(), size=8)
    assert torch.equal(run.roles["teacher"].ask(x, t, label).value, before)
    assert not torch.equal(run.roles["critic"].ask(x, t, label).value, before)


def test_the_critic_is_no_second_copy() -> None:
    roles = assemble(method(), {"teacher": Role("teacher", NETWORK.build())})
    assert roles["critic"].module is roles["teacher"].module
    assert all("lora" in name for name in roles["critic"].tensors())


def test_the_student_has_no_adapter() -> None:
    roles = assemble(method(), {"teacher": Role("teacher", NETWORK.build())})
    assert not any("lora" in name for name in roles["student"].tensors())


def test_student_first_then_critic_on_the_same_samples() -> None:
    ((_, updates),) = method().plan(Sampler()).phases[0].groups(0)
    assert [update.loss.moves[0] for update in updates] == ["student", "critic"]


def test_both_scores_are_guided() -> None:
    score = method().score
    assert score.guidance == score.critic_guidance == 4.5 and score.units == "eps"


def test_a_noise_network_starts_as_its_own_x0() -> None:
    """The student's first answer is (z − σ ε) / α at its time, whatever the teacher's kind."""
    teacher = NETWORK.build()
    z, label = Rng(0).normal(8, 2), {"label": torch.arange(8) % 3}
    path, t = teacher.path, torch.full((8,), 0.95)
    start = path.prior(z, 0.95)
    said = teacher.predict(start, t, label)
    expected = (start - path.sigma(t)[:, None] * said.value) / path.alpha(t)[:, None]
    assert torch.allclose(said.x0, expected, atol=1e-5)
