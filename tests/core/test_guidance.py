"""Guidance: which conditions are dropped, and how predictions add up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.core import Denoiser, Role, cfg
from distill.core.errors import DistillError
from distill.core.guidance import PLAIN, Guidance
from distill.core.paths import Flow

X, T = torch.zeros(3, 2), torch.full((3,), 0.5)


class Echo(nn.Module):
    """Says `10 text + image`, and remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, x, t, cond):
        self.asked.append({name: value.tolist() for name, value in cond.items()})
        return x + 10 * cond.get("text", torch.zeros(3))[:, None] + cond.get("image", torch.zeros(3))[:, None]


@pytest.fixture
def role():
    return Role("student", Denoiser(Echo(), Flow(), "x0", shape=(2,), null={"text": 0.0, "image": 0.0}))


def conditions():
    return {"text": torch.tensor([1.0, 2.0, 3.0]), "image": torch.tensor([4.0, 5.0, 6.0])}


def test_a_weight_of_one_is_plain_and_costs_one_call(role):
    assert cfg(1) is PLAIN and cfg(1.0, "text") is PLAIN and PLAIN.calls == 1
    role.predict(X, T, conditions(), guidance=cfg(1))
    assert len(role.denoiser.network.asked) == 1


@pytest.mark.parametrize("w", [0.0, 0.5, 3.0, torch.tensor([0.0, 1.0, 7.5])])
def test_the_formula_holds_per_sample(role, w):
    said = role.predict(X, T, conditions(), guidance=cfg(w)).x0
    expected = w * (10 * conditions()["text"] + conditions()["image"])
    torch.testing.assert_close(said, expected[:, None].expand(3, 2))


def test_only_named_conditions_are_dropped(role):
    said = role.predict(X, T, conditions(), guidance=cfg(2.0, "text")).x0
    torch.testing.assert_close(said[:, 0], 20 * conditions()["text"] + conditions()["image"])
    assert role.denoiser.network.asked[1] == {"text": [0.0, 0.0, 0.0], "image": [4.0, 5.0, 6.0]}


def test_several_terms_add_up(role):
    text, image = frozenset({"text"}), frozenset({"image"})
    three = Guidance(((3.0, frozenset()), (-1.0, text), (-1.0, image)))
    said = role.predict(X, T, conditions(), guidance=three).x0[:, 0]
    torch.testing.assert_close(said, 20 * conditions()["text"] + 2 * conditions()["image"])
    assert three.calls == 3


def test_outside_its_interval_guidance_is_plain_per_sample(role):
    t = torch.tensor([0.1, 0.5, 0.9])
    said = role.predict(X + 1, t, conditions(), guidance=cfg(3.0, interval=(0.2, 0.6))).x0[:, 0] - 1
    plain = 10 * conditions()["text"] + conditions()["image"]
    torch.testing.assert_close(said, plain * torch.tensor([1.0, 3.0, 1.0]))


def test_an_interval_bears_one_number_for_all_and_times_per_frame(role):
    guidance = cfg(torch.tensor([3.0, 3.0, 1.0]), interval=(0.2, 0.6))
    assert role.predict(X, 0.5, conditions(), guidance=guidance).x0[0, 0] == 3 * 14
    frames = torch.tensor([[0.1, 0.5]] * 3)
    assert role.predict(X, frames, conditions(), guidance=guidance).x0[0].tolist() == [14, 42]


def test_the_role_s_own_guidance_is_used_unless_another_is_given(role):
    role.guidance = cfg(2.0)
    assert role.predict(X, T, conditions()).x0[0, 0] == 28
    assert role.predict(X, T, conditions(), guidance=PLAIN).x0[0, 0] == 14


def test_without_conditions_there_is_nothing_to_guide(role):
    role.predict(X, T, {}, guidance=cfg(5.0))
    assert len(role.denoiser.network.asked) == 1


def test_dropping_what_has_no_null_value_is_an_error(role):
    role.denoiser.null.pop("image")
    with pytest.raises(DistillError, match="image"):
        role.predict(X, T, conditions(), guidance=cfg(5.0, "image"))
    with pytest.raises(DistillError, match="null values for none"):
        role.denoiser.null.clear()
        role.predict(X, T, conditions(), guidance=cfg(5.0))
