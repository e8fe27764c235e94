"""Batches: an order that follows from seed and step alone, shared by ranks, and clear words for bad data."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch.utils.data import Dataset

from distill.core import Masked, Ragged, Samples, batches
from distill.core.data import Grouped, collate, without_data
from distill.core.errors import DataError

TEN = Samples(x=torch.arange(10.0)[:, None], label=torch.arange(10))


def rows(count, size=4, **options):
    return [batch.x.flatten().tolist() for batch in islice(batches(TEN, size, **options), count)]


def test_an_epoch_sees_each_sample_once_in_an_order_of_the_seed():
    epochs = [sum(rows(5, seed=3), [])[start : start + 10] for start in (0, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1]
    assert rows(5, seed=3) != rows(5, seed=4)


@pytest.mark.parametrize("start", [1, 2, 3, 7, 40])
def test_the_order_does_not_depend_on_the_start(start):
    assert rows(3, start=start) == rows(start + 3)[start:]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_each_batch(world):
    shares = [rows(6, rank=rank, world=world) for rank in range(world)]
    assert [sum(parts, []) for parts in zip(*shares, strict=True)] == rows(6)


def test_the_global_generator_stays_where_it_is():
    before = torch.get_rng_state()
    rows(3)
    assert torch.equal(before, torch.get_rng_state())


def test_loader_processes_give_the_same_batches():
    assert rows(3, workers=1) == rows(3)


def test_one_sample_is_enough_for_a_batch():
    one = Samples(x=torch.ones(1, 2))
    assert next(batches(one, 4)).x.shape == (4, 2)


@pytest.mark.parametrize("empty", [Samples(), Samples(x=torch.zeros(0, 2))])
def test_no_sample_is_an_error(empty):
    with pytest.raises(DataError, match="no samples"):
        next(batches(empty, 4))


@pytest.mark.parametrize("size, world", [(5, 2), (0, 1), (-4, 1)])
@pytest.mark.parametrize("data", [TEN, None])
def test_a_batch_that_cannot_be_shared_is_refused(size, world, data):
    with pytest.raises(DataError, match="choose a multiple"):
        next(batches(data, size, world=world))


def test_fields_of_unequal_length_are_refused():
    with pytest.raises(DataError, match="x 3, label 2"):
        Samples(x=torch.zeros(3), label=torch.zeros(2))


class Listed(Dataset):
    def __init__(self, *samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, row):
        return self.samples[row]


@pytest.mark.parametrize("samples, says", [
    ([{"x": torch.zeros(2)}, {"x": torch.zeros(3)}], r"differ in shape: \(2,\), \(3,\)"),
    ([{"x": torch.zeros(2)}, {"y": torch.zeros(2)}], "differ in their fields"),
    ([{"x": Masked(torch.zeros(1, n, 2), torch.ones(1, n, dtype=torch.bool))} for n in (3, 4)],
    "differ in shape"),
], ids=["shape", "fields", "masked"])  # fmt: skip
def test_unequal_samples_are_one_clear_error(samples, says):
    with pytest.raises(DataError, match=says):
        next(batches(Listed(*samples), 2))


def test_samples_of_every_kind_are_joined():
    ragged = [Ragged(torch.full((n, 2), float(n)), torch.tensor([n])) for n in (1, 3)]
    masked = [Masked(torch.full((1, 3), float(n)), torch.ones(1, 3, dtype=torch.bool)) for n in (1, 3)]
    out = collate([{"x": {"a": r, "b": m}, "n": n} for r, m, n in zip(ragged, masked, (1, 3), strict=True)])
    assert out["x"]["a"].lengths.tolist() == [1, 3] and out["x"]["a"].values.shape == (4, 2)
    assert out["x"]["b"].values.shape == (2, 3) and out["n"].tolist() == [1, 3]


def test_without_a_dataset_batches_have_a_size_and_a_shape():
    batch = next(batches(None, 8, world=2, shape=(3,)))
    assert (batch.size, batch.x, batch.shape) == (4, None, (3,))


def test_conditions_are_what_is_not_x():
    batch = next(batches(TEN, 4))
    assert torch.equal(batch.cond["label"].float(), batch.x[:, 0]) and batch.size == 4
    assert without_data(batch).x is None and without_data(batch).cond is batch.cond


class Shaped(Grouped):
    """Rows 0 to 4 have two values each, 5 to 7 three."""

    groups = (0,) * 5 + (1,) * 3

    def __len__(self):
        return 8

    def __getitem__(self, row):
        return {"x": torch.full((2 + self.groups[row],), float(row))}


def grouped(count, **options):
    return [batch.x[:, 0].tolist() for batch in islice(batches(Shaped(), 2, **options), count)]


def test_batches_of_a_grouped_dataset_hold_one_group_each():
    epoch = grouped(5, seed=1)
    assert all(len({row > 4 for row in batch}) == 1 for batch in epoch)
    assert set(sum(epoch, [])) == set(range(8)) and epoch != grouped(10, seed=1)[5:]


def test_a_grouped_order_follows_from_seed_and_step_and_is_shared_by_ranks():
    assert grouped(3, start=4) == grouped(7)[4:]
    shares = [grouped(6, rank=rank, world=2) for rank in range(2)]
    assert [sum(parts, []) for parts in zip(*shares, strict=True)] == grouped(6)


def test_a_group_smaller_than_a_batch_is_repeated():
    sizes = {tuple(batch.x.shape) for batch in islice(batches(Shaped(), 4), 3)}
    assert sizes == {(4, 2), (4, 3)}
