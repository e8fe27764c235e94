"""Guidance: which conditions are dropped, and how predictions add up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.core import Denoiser, Role, cfg
from distill.core.errors import DistillError
from distill.core.guidance import EVERYTHING, PLAIN, Guidance, drop_conditions, rescaled
from distill.core.paths import Flow
from distill.core.tree import Masked, Ragged

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


def test_ragged_conditions_are_dropped_row_by_row():
    scan = Ragged(torch.ones(5, 3), torch.tensor([2, 3]))
    dropped = drop_conditions({"scan": scan}, EVERYTHING, {"scan": torch.zeros(1, 3)})["scan"]
    assert not dropped.values.any() and dropped.values.shape == (5, 3) and torch.equal(dropped.lengths, scan.lengths)


def test_dropping_what_has_no_null_value_is_an_error(role):
    role.denoiser.null.pop("image")
    with pytest.raises(DistillError, match="image"):
        role.predict(X, T, conditions(), guidance=cfg(5.0, "image"))
    with pytest.raises(DistillError, match="null values for none"):
        role.denoiser.null.clear()
        role.predict(X, T, conditions(), guidance=cfg(5.0))


# ---------------------------------------------------------------- interval, rescaling, negative values


def test_a_number_outside_the_interval_costs_one_call(role):
    guidance = cfg(3.0, interval=(0.2, 0.6))
    for t in (0.1, 0.4, 0.9):
        role.predict(X, t, conditions(), guidance=guidance)
    assert len(role.denoiser.network.asked) == 1 + 2 + 1
    assert [guidance.calls_at(t) for t in (0.1, 0.2, 0.6, 0.9, T)] == [1, 2, 2, 1, 2]


def test_rescaling_is_that_of_the_paper_per_sample():
    guided, plain = torch.randn(5, 3, 4, 4), 2 * torch.randn(5, 3, 4, 4) + 1
    axes = (1, 2, 3)
    whole = guided * plain.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    torch.testing.assert_close(rescaled(guided, plain, 0.7), 0.7 * whole + 0.3 * guided)
    assert torch.equal(rescaled(guided, plain, 0.0), guided)


def test_rescaling_looks_at_each_modality_and_at_what_the_mask_counts():
    a, b = torch.randn(3, 4), torch.randn(3, 6)
    both = rescaled({"a": a, "b": b}, {"a": 2 * a, "b": 5 * b}, 1.0)
    torch.testing.assert_close(both, {"a": 2 * a, "b": 5 * b})
    mask = torch.tensor([[True, True, False, False]] * 3)
    masked = rescaled(Masked(a, mask), Masked(torch.where(mask, 3 * a, 99.0), mask), 1.0)
    torch.testing.assert_close(masked.values[:, :2], 3 * a[:, :2])


def test_guidance_rescales_what_the_network_says(role):
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    plain, guided = (role.predict(x, T, conditions(), guidance=g).x0 for g in (PLAIN, cfg(3.0)))
    said = role.predict(x, T, conditions(), guidance=cfg(3.0, rescale=1.0)).x0
    torch.testing.assert_close(said.std(1), plain.std(1))
    torch.testing.assert_close(said / guided, (said / guided)[:, :1].expand(3, 2))


@pytest.mark.parametrize("negative", [7.0, [7.0], torch.tensor([7.0, 8.0, 9.0])])
def test_a_negative_value_takes_the_place_of_the_dropped_condition(role, negative):
    role.predict(X, T, conditions(), guidance=cfg(2.0, null={"text": negative}))
    expected = negative.tolist() if isinstance(negative, torch.Tensor) else [7.0] * 3
    assert role.denoiser.network.asked[1] == {"text": expected, "image": [0.0, 0.0, 0.0]}


def test_a_negative_value_does_where_the_network_has_no_null_value(role):
    role.denoiser.null.clear()
    said = role.predict(X, T, {"text": torch.ones(3)}, guidance=cfg(2.0, null={"text": 4.0})).x0
    assert said[0, 0] == 10 * (4 + 2 * (1 - 4))


def test_a_negative_of_no_condition_is_an_error(role):
    with pytest.raises(DistillError, match="a negative txt is given, and the conditions are text, image"):
        role.predict(X, T, conditions(), guidance=cfg(2.0, null={"txt": 4.0}))
