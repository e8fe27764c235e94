"""Batches of a dataset: every step's samples follow from the seed and the step alone, so a resumed run sees
the same."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distill.core.contracts import Batch
from distill.core.denoiser import Shape
from distill.core.errors import DataError
from distill.core.tree import Masked, Ragged, batch_size, concatenate, to


class Samples(Dataset[dict[str, Any]]):
    """A dataset in memory: named tensors with the sample axis first."""

    def __init__(self, **tensors: Tensor) -> None:
        if len({len(tensor) for tensor in tensors.values()}) > 1:
            counts = ", ".join(f"{name} {len(tensor)}" for name, tensor in tensors.items())
            raise DataError(f"every field must have one value per sample, but their counts differ: {counts}")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values()), ()))

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: tensor[row] for name, tensor in self.tensors.items()}

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return {name: tensor[torch.as_tensor(rows)] for name, tensor in self.tensors.items()}


class Order:
    """An endless shuffled order of `length` samples, cut into batches: positions are computed, not
    remembered."""

    def __init__(self, length: int, batch: int, seed: int, start: int, rank: int, world: int) -> None:
        self.length, self.batch, self.seed, self.start = length, batch, seed, start
        self.share = slice(rank * batch // world, (rank + 1) * batch // world)
        self._epoch, self._shuffled = -1, torch.zeros(0, dtype=torch.long)

    def _row(self, position: int) -> int:
        epoch, place = divmod(position, self.length)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._shuffled = epoch, torch.randperm(self.length, generator=generator)
        return int(self._shuffled[place])

    def rows(self, step: int) -> list[int]:
        """The samples of one batch, over all ranks."""
        return [self._row(position) for position in range(step * self.batch, (step + 1) * self.batch)]

    def __iter__(self) -> Iterator[list[int]]:
        for step in count(self.start):
            yield self.rows(step)[self.share]


class Grouped(Dataset[Any]):
    """A dataset whose samples differ in shape; those of one group fit in one batch."""

    @property
    @abstractmethod
    def groups(self) -> Sequence[int]:
        """The group of each row."""


class Worded(Dataset[Any]):
    """A dataset whose samples have captions; prompts alone are one too."""

    @property
    @abstractmethod
    def captions(self) -> Sequence[str]:
        """The caption of each row."""

    def __getitems__(self, rows: Sequence[int]) -> Any:
        return collate([self[row] for row in rows])


class Joined(Worded):
    """Captioned data with further conditions, made of the captions when they are first asked for."""

    def __init__(self, dataset: Worded, encode: Callable[[Sequence[str]], Mapping[str, Any]]) -> None:
        self.dataset, self.encode = dataset, encode
        self.known: dict[str, dict[str, Any]] = {}

    @property
    def captions(self) -> Sequence[str]:
        return self.dataset.captions

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**self.dataset[row], **{name: value[0] for name, value in self._said([row]).items()}}

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Any]:
        return {**self.dataset.__getitems__(rows), **self._said(rows)}

    def _said(self, rows: Sequence[int]) -> dict[str, Any]:
        all_captions = self.captions
        captions = [all_captions[row] for row in rows]
        if fresh := [caption for caption in dict.fromkeys(captions) if caption not in self.known]:
            said = self.encode(fresh)
            self.known |= {
                caption: {name: value[place] for name, value in said.items()} for place, caption in enumerate(fresh)
            }
        return dict(collate([self.known[caption] for caption in captions]))


class JoinedGroups(Joined, Grouped):
    """The same for data whose samples differ in shape."""

    @property
    def groups(self) -> Sequence[int]:
        assert isinstance(self.dataset, Grouped)
        return self.dataset.groups


def joined(dataset: Dataset[Any] | None, encode: Callable[[Sequence[str]], Mapping[str, Any]]) -> Dataset[Any] | None:
    """A dataset with further conditions of its captions; itself where it has none."""
    if not isinstance(dataset, Worded):
        return dataset
    return (JoinedGroups if isinstance(dataset, Grouped) else Joined)(dataset, encode)


class GroupedOrder(Order):
    """An order whose batches hold samples of one group each; what a group lacks for its last batch it repeats."""

    def __init__(self, groups: Sequence[int], *arguments: int) -> None:
        super().__init__(len(groups), *arguments)
        members: dict[int, list[int]] = {}
        for row, group in enumerate(groups):
            members.setdefault(group, []).append(row)
        self._members = [torch.tensor(members[group]) for group in sorted(members)]
        self._per_epoch = sum(-(-len(rows) // self.batch) for rows in self._members)
        self._batches = torch.zeros(0, dtype=torch.long)

    def rows(self, step: int) -> list[int]:
        epoch, place = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            cut = torch.cat([self._cut(rows, generator) for rows in self._members])
            self._epoch, self._batches = epoch, cut[torch.randperm(len(cut), generator=generator)]
        return [int(row) for row in self._batches[place]]

    def _cut(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """A group's rows, shuffled, in full batches [n, batch]."""
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        whole = -(-len(rows) // self.batch) * self.batch
        return shuffled[torch.arange(whole) % len(rows)].view(-1, self.batch)


def batches(
    dataset: Dataset[Any] | None,
    size: int,
    *,
    seed: int = 0,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    device: torch.device | str = "cpu",
    shape: Shape | None = None,
) -> Iterator[Batch]:
    """Endless batches from number `start` on; this rank's share of `size` samples each.

    Without a dataset the batches are empty but for their size and shape: enough for methods that need no
    data.

    Raises:
        DataError: the dataset is empty, or its samples do not fit in one batch.
    """
    if size < 1 or size % world:
        raise DataError(f"{world} processes cannot share a batch of {size}: choose a multiple of {world}")
    if dataset is None:
        while True:
            yield Batch(size // world, shape=shape)
    order = _order(dataset, size, seed, start, rank, world)
    # else the loader would draw from the global generator
    workers_seed = torch.Generator().manual_seed(seed + start)
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_sampler=cast(Any, order), collate_fn=collate, num_workers=workers,
        persistent_workers=workers > 0, generator=workers_seed,
    )  # fmt: skip
    for fields in loader:
        cond = {name: to(value, device) for name, value in fields.items() if name != "x"}
        x = to(fields["x"], device) if "x" in fields else None
        yield Batch(_size(fields), x, cond, shape)


def _order(dataset: Dataset[Any], *place: int) -> Order:
    length = len(cast(Sized, dataset))
    if not length:
        raise DataError("the dataset has no samples: check its folder, split and filters")
    return GroupedOrder(dataset.groups, *place) if isinstance(dataset, Grouped) else Order(length, *place)


def captions_of(dataset: Dataset[Any] | None, size: int, *, seed: int = 0) -> list[str] | None:
    """The captions of the first of `batches(dataset, size, seed=seed)`; None where data have none."""
    if not isinstance(dataset, Worded):
        return None
    return [dataset.captions[row] for row in _order(dataset, size, seed, 0, 0, 1).rows(0)]


def _size(fields: Mapping[str, Any]) -> int:
    return batch_size(fields["x"] if "x" in fields else next(iter(fields.values())))


def collate(samples: Any) -> Any:
    """One batch of samples: tensors are stacked, ragged and masked ones joined, mappings key by key."""
    if isinstance(samples, Mapping):
        return samples
    first = samples[0]
    if isinstance(first, Mapping):
        if any(set(sample) != set(first) for sample in samples):
            raise DataError(f"samples of one batch differ in their fields; the first has {', '.join(first)}")
        return {name: collate([sample[name] for sample in samples]) for name in first}
    if isinstance(first, Ragged):
        return concatenate(samples)
    if isinstance(first, Masked):
        values, masks = ([sample.values[0] for sample in samples], [sample.mask[0] for sample in samples])
        return Masked(collate(values), collate(masks))
    tensors = [torch.as_tensor(sample) for sample in samples]
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise DataError(
            f"samples of one batch differ in shape: {', '.join(map(str, sorted(shapes)[:4]))}. "
            "Crop or pad them to one size, or let the dataset return Ragged or Masked samples."
        )
    return torch.stack(tensors)


def without_data(batch: Batch) -> Batch:
    """The batch with its conditions only, for methods that must not see data."""
    return replace(batch, x=None)
