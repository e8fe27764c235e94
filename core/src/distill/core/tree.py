"""States: a tensor, ragged or masked samples, or a mapping of states. Nothing here looks at a shape beyond
the batch.

A *state* is what is noised and denoised. Arithmetic on states maps over their leaves; a coefficient (an α, a
time, a weight) has the shape of the path's units, `[B]`, `[B, frames]`, ..., and is broadcast over the rest
of each leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """Samples of unequal size, concatenated: `values` [Σ n_i, ...] and `lengths` [B] with the n_i."""

    values: Tensor
    lengths: Tensor

    @property
    def owner(self) -> Tensor:
        """Index of the sample that owns each row: [Σ n_i]."""
        return torch.arange(len(self.lengths), device=self.values.device).repeat_interleave(self.lengths)

    def split(self) -> tuple[Tensor, ...]:
        """The samples one by one: B tensors [n_i, ...]."""
        parts: tuple[Tensor, ...] = torch.split(self.values, self.lengths.tolist())
        return parts


@dataclass(frozen=True)
class Masked:
    """Padded samples: `values` [B, L, ...] and `mask` [B, L], true where a value counts."""

    values: Tensor
    mask: Tensor


State = Tensor | Ragged | Masked | Mapping[str, Any]
Coefficient = float | Tensor | Mapping[str, Any]


def leaves(state: State) -> list[Tensor]:
    """The value tensors of a state, in a fixed order."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, Mapping):
        return [leaf for key in state for leaf in leaves(state[key])]
    return [state.values]


def tree_map(fn: Callable[..., Tensor], state: State, *others: State) -> Any:
    """Apply `fn` to matching leaves; the structure of the first state is kept."""
    if isinstance(state, Tensor):
        return fn(state, *others)
    if isinstance(state, Mapping):
        parts = {key: [other[key] for other in others] for key in state}  # type: ignore[index]
        return {key: tree_map(fn, state[key], *parts[key]) for key in state}
    return replace(state, values=fn(state.values, *(other.values for other in others)))


def expand(coefficient: Coefficient, like: State) -> Any:
    """Broadcast a coefficient over a state: trailing axes are added, ragged rows get their sample's value."""
    if isinstance(like, Mapping):
        pick = coefficient.__getitem__ if isinstance(coefficient, Mapping) else lambda _: coefficient
        return {key: expand(pick(key), like[key]) for key in like}
    if not isinstance(coefficient, Tensor):
        return coefficient
    if isinstance(like, Ragged):
        coefficient = coefficient[like.owner] if coefficient.ndim else coefficient
    values = leaves(like)[0]
    return coefficient.reshape(coefficient.shape + (1,) * (values.ndim - coefficient.ndim)).to(values.device)


def combine(*terms: tuple[Coefficient, State]) -> Any:
    """`Σ coefficient · state`, every coefficient broadcast over its state; the sum has the states' dtype."""
    coefficients = [coefficient for coefficient, _ in terms]
    return _combine(coefficients, [state for _, state in terms])


def _combine(coefficients: Sequence[Any], states: Sequence[State]) -> Any:
    first = states[0]
    if isinstance(first, Mapping):
        at = [c if isinstance(c, Mapping) else dict.fromkeys(first, c) for c in coefficients]
        parts = {key: [state[key] for state in states] for key in first}  # type: ignore[index]
        return {key: _combine([c[key] for c in at], parts[key]) for key in first}
    scaled = [expand(c, s) * leaves(s)[0] for c, s in zip(coefficients, states, strict=True)]
    total = scaled[0]
    for term in scaled[1:]:
        total = total + term
    dtype = reduce(torch.promote_types, [leaves(state)[0].dtype for state in states])
    total = total.to(dtype) if dtype.is_floating_point else total
    return total if isinstance(first, Tensor) else replace(first, values=total)


def where(condition: Coefficient, chosen: State, otherwise: State) -> Any:
    """Per unit: `chosen` where the condition holds, else `otherwise`, copied and not computed."""
    if isinstance(chosen, Mapping):
        pick = condition.__getitem__ if isinstance(condition, Mapping) else lambda _: condition
        return {key: where(pick(key), chosen[key], otherwise[key]) for key in chosen}  # type: ignore[index]
    mask = expand(condition, chosen)
    return tree_map(lambda a, b: torch.where(mask, a, b), chosen, otherwise)


def detach(state: State) -> Any:
    """The state without its gradient history."""
    return tree_map(Tensor.detach, state)


def batch_size(state: State) -> int:
    """How many samples the state holds."""
    if isinstance(state, Mapping):
        return batch_size(next(iter(state.values())))
    return len(state.lengths) if isinstance(state, Ragged) else len(leaves(state)[0])


def per_sample(state: State) -> tuple[Tensor, Tensor]:
    """Sum over each sample's values and how many there are: two tensors [B]."""
    if isinstance(state, Mapping):
        sums, counts = zip(*(per_sample(part) for part in state.values()), strict=True)
        return torch.stack(sums).sum(0), torch.stack(counts).sum(0)
    values = leaves(state)[0]
    if isinstance(state, Ragged):
        rows = values.flatten(1)
        total = rows.new_zeros(len(state.lengths)).index_add(0, state.owner, rows.sum(1))
        return total, state.lengths.to(values.dtype) * rows.shape[1]
    if isinstance(state, Masked):
        values = values * expand(state.mask, values)
        weight = values[0].numel() // state.mask.shape[1]
        return values.flatten(1).sum(1), state.mask.sum(1).to(values.dtype) * weight
    total = values.flatten(1).sum(1) if values.ndim > 1 else values
    return total, torch.full_like(total, values[0].numel())


def mean(state: State) -> Tensor:
    """Mean over every value of each sample: [B]."""
    total, count = per_sample(state)
    return total / count.clamp_min(1)


def index(state: State, rows: Tensor) -> Any:
    """The samples at `rows` [K], as a state of K samples."""
    if isinstance(state, Mapping):
        return {key: index(part, rows) for key, part in state.items()}
    if isinstance(state, Ragged):
        parts = state.split()
        return Ragged(torch.cat([parts[row] for row in rows.tolist()]), state.lengths[rows])
    if isinstance(state, Masked):
        return Masked(state.values[rows], state.mask[rows])
    return state[rows]


def first(state: Any, n: int) -> Any:
    """The first n samples of a state or of conditions, or as many as there are."""
    if isinstance(state, Mapping):
        return {key: first(part, n) for key, part in state.items()}
    return index(state, torch.arange(min(n, batch_size(state))))


def concatenate(states: Sequence[State]) -> Any:
    """One state with the samples of all, in order. Padded lengths must agree."""
    first = states[0]
    if isinstance(first, Mapping):
        return {key: concatenate([state[key] for state in states]) for key in first}  # type: ignore[index]
    values = torch.cat([leaves(state)[0] for state in states])
    if isinstance(first, Ragged):
        return Ragged(values, torch.cat([state.lengths for state in states]))  # type: ignore[union-attr]
    if isinstance(first, Masked):
        return Masked(values, torch.cat([state.mask for state in states]))  # type: ignore[union-attr]
    return values


def to(state: Any, device: torch.device | str) -> Any:
    """The state on a device, masks and lengths included."""
    if isinstance(state, Mapping):
        return {key: to(part, device) for key, part in state.items()}
    if isinstance(state, Ragged):
        return Ragged(state.values.to(device), state.lengths.to(device))
    if isinstance(state, Masked):
        return Masked(state.values.to(device), state.mask.to(device))
    return state.to(device)
