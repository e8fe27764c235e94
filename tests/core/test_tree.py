"""States: arithmetic per leaf, coefficients per unit, and reductions that see only what counts."""

from __future__ import annotations

import pytest
import torch

from distill.core import Masked, Ragged, tree

X = torch.arange(12.0).view(2, 2, 3)
RAGGED = Ragged(torch.arange(10.0).view(5, 2), torch.tensor([2, 3]))
MASKED = Masked(torch.arange(12.0).view(2, 3, 2), torch.tensor([[True, True, False], [True, False, False]]))
STATES = {"tensor": X, "ragged": RAGGED, "masked": MASKED, "joint": {"a": X, "b": {"c": RAGGED}}}


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_combine_weights_samples_of_every_kind_of_state(state):
    w = torch.tensor([2.0, -1.0])
    doubled = tree.combine((w, state), (1.0, state))
    assert same(tree.index(doubled, torch.tensor([0])), tree.index(tree.combine((3.0, state)), torch.tensor([0])))
    assert same(tree.index(doubled, torch.tensor([1])), tree.index(tree.combine((0.0, state)), torch.tensor([1])))


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_index_and_concatenate_are_inverse(state):
    parts = [tree.index(state, torch.tensor([row])) for row in range(2)]
    assert same(tree.concatenate(parts), state)
    assert tree.batch_size(parts[0]) == 1 and tree.batch_size(state) == 2


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_the_first_samples_are_as_many_as_there_are(state):
    assert same(tree.first(state, 1), tree.index(state, torch.tensor([0])))
    assert same(tree.first(state, 9), state) and tree.first({}, 3) == {}


def test_a_coefficient_per_frame_reaches_that_frame():
    out = tree.combine((torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2, 2, 5)))
    assert torch.equal(out[..., 0], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


def test_each_key_can_have_its_own_coefficient():
    out = tree.combine(({"a": 2.0, "b": torch.tensor([1.0, 0.0])}, {"a": X, "b": X}), (1.0, {"a": X, "b": X}))
    assert torch.equal(out["a"], 3 * X) and torch.equal(out["b"][1], X[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_sum_has_the_dtype_of_its_states(dtype):
    x = torch.ones(2, 3, dtype=dtype)
    assert tree.combine((torch.tensor([0.3, 0.7]), x), (0.5, x)).dtype == dtype


def test_where_copies_bit_for_bit_and_ignores_what_is_not_chosen():
    broken = torch.full_like(X, float("nan"))
    out = tree.where(torch.tensor([True, False]), X, broken)
    assert torch.equal(out[0], X[0]) and out[1].isnan().all()


def test_means_leave_padding_out_and_weigh_by_size():
    assert tree.mean(MASKED).tolist() == [1.5, 6.5]
    assert tree.mean(RAGGED).tolist() == [1.5, 6.5]
    both = {"a": torch.tensor([[1.0, 1.0], [2.0, 2.0]]), "b": torch.tensor([[4.0], [5.0]])}
    assert tree.mean(both).tolist() == [2.0, 3.0]


def test_a_scalar_state_and_an_empty_sample_have_means():
    assert tree.mean(torch.tensor([3.0, 4.0])).tolist() == [3.0, 4.0]
    empty = Ragged(torch.ones(3, 2), torch.tensor([0, 3]))
    assert tree.mean(empty).tolist() == [0.0, 1.0]


def test_detach_and_map_keep_the_structure():
    x = {"a": X.clone().requires_grad_(), "b": RAGGED}
    out = tree.detach(tree.tree_map(lambda a, b: a + b, x, x))
    assert not out["a"].requires_grad and torch.equal(out["b"].values, 2 * RAGGED.values)
    assert out["b"].lengths is RAGGED.lengths


def test_to_moves_masks_and_lengths_too():
    moved = tree.to({"a": MASKED, "b": RAGGED, "c": X}, "meta")
    assert {moved["a"].mask.device.type, moved["b"].lengths.device.type, moved["c"].device.type} == {"meta"}
