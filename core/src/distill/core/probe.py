"""Asking the networks of a run once, so that what does not fit is said before training and not in its midst."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from distill.core import tree
from distill.core.contracts import Lens, Subject
from distill.core.data import Grouped, Samples, collate
from distill.core.denoiser import Denoiser
from distill.core.errors import DataError
from distill.core.roles import Role
from distill.core.tree import Ragged, batch_size


def probe(student: Role, teacher: Role | None, dataset: Any, lens: Lens | None) -> None:
    """One prediction of each for the dataset's telling samples; where it has no states, for states of zeros.

    A subject's states are its own, whatever the data are.
    """
    fields = {} if dataset is None else collate([dataset[row] for row in _telling_rows(dataset)])
    if "x" not in fields or isinstance(student.module, Subject):
        if not isinstance(student.module, Denoiser) or student.module.shape is None:
            return
        size = batch_size(next(iter(fields.values()))) if fields else 1
        fields = {**fields, "x": student.module.example(size)[0]}
    x, cond = fields["x"], {name: value for name, value in fields.items() if name != "x"}
    _ask(student, x, cond)
    if teacher is not None and teacher.module is not student.module:
        _ask(teacher, x if lens is None else lens(x), cond if lens is None else lens.conditions(cond, x))


@contextmanager
def as_in_use(role: Role) -> Iterator[None]:
    """Without dropout; a role that is in training goes on as before."""
    training = role.module.training
    role.module.eval()
    try:
        yield
    finally:
        role.module.train(training)


def _telling_rows(dataset: Any) -> list[int]:
    """The first sample, the last, and where data in memory are whole numbers the smallest and the largest."""
    if not len(dataset):
        raise DataError("the dataset has no samples: check its folder, split and filters")
    if isinstance(dataset, Grouped):
        return [dataset.groups.index(min(dataset.groups))]
    fields = dataset.tensors.values() if isinstance(dataset, Samples) else ()
    whole = [field for field in fields if field.ndim == 1 and not field.is_floating_point()]
    return sorted({0, len(dataset) - 1, *(int(end) for field in whole for end in (field.argmin(), field.argmax()))})


def _ask(role: Role, x: Any, cond: Mapping[str, Any]) -> None:
    """One prediction for samples, or a message that says why there is none."""
    if not isinstance(role.module, Denoiser) or role.module.shape is None:
        return
    given, wanted = _shape(x), _shape(role.denoiser.example()[0])
    if isinstance(x, Ragged):  # rows, of which each sample has its own number
        wanted = wanted[1:]
    if given != wanted:
        raise DataError(f"the {role.name} takes samples of shape {wanted}, and the data are {given}: choose data, or a "
                        "lens, that fit")  # fmt: skip
    device = next(iter(role.module.parameters()), torch.zeros(0)).device
    try:
        with as_in_use(role):
            role.ask(tree.to(x, device), role.denoiser.path.t_max, {k: tree.to(v, device) for k, v in cond.items()})
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        given = {
            name: value.tolist() for name, value in cond.items() if isinstance(value, torch.Tensor) and value.ndim == 1
        }
        why = f"it wants the condition {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"the {role.name} cannot be asked about the data: {why}. Their conditions are "
            f"{given or ', '.join(cond) or 'none'}: "
            "choose data that have what it was trained with."
        ) from error


def _shape(x: Any) -> Any:
    return (
        {key: _shape(part) for key, part in x.items()} if isinstance(x, Mapping) else list(tree.leaves(x)[0].shape[1:])
    )
