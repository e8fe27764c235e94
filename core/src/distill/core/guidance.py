"""Guidance: a weighted list of predictions with some conditions dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.paths import per_key
from distill.core.prediction import Prediction
from distill.core.tree import combine, expand

EVERYTHING = frozenset({"*"})
Weight = float | Tensor


@dataclass(frozen=True)
class Guidance:
    """`Σ w_i · p(condition without dropped_i)`. Every role has its own; a weight is a number or one per
    sample [B].

    Outside `interval` (times; Kynkäänniemi et al. 2024, arXiv:2404.07724) the plain conditional prediction
    is used.
    """

    terms: tuple[tuple[Weight, frozenset[str]], ...] = ((1.0, frozenset()),)
    interval: tuple[float, float] | None = None

    def __call__(
        self,
        predict: Callable[..., Prediction],
        drop: Callable[..., Any],
        x: Any,
        t: Any,
        cond: Any,
        **options: Any,
    ) -> Prediction:
        """The combined prediction; features and cache are those of the first term."""
        if len(self.terms) == 1 or not cond:
            return predict(x, t, drop(cond, self.terms[0][1], x) if cond else cond, **options)
        said = [predict(x, t, drop(cond, dropped, x), **options) for _, dropped in self.terms]
        weights = [self._weight(w, plain=not index, t=said[0].t) for index, (w, _) in enumerate(self.terms)]
        value = combine(*((w, p.value) for w, p in zip(weights, said, strict=True)))
        return replace(said[0], value=value)

    def _weight(self, weight: Weight, *, plain: bool, t: Any) -> Any:
        if self.interval is None:
            return weight
        low, high = self.interval

        def at(t: Tensor) -> Tensor:
            inside = expand(torch.as_tensor(weight, dtype=t.dtype, device=t.device), t)
            return torch.where((t >= low) & (t <= high), inside, float(plain))

        return per_key(at, t)

    @property
    def calls(self) -> int:
        """Network calls that one prediction costs."""
        return len(self.terms)


PLAIN = Guidance()


def cfg(w: Weight, *names: str, interval: tuple[float, float] | None = None) -> Guidance:
    """Classifier-free guidance `p(∅) + w (p(c) − p(∅))`; w = 1 is none. `names` are the conditions to drop,
    all if empty."""
    if isinstance(w, float | int) and w == 1:
        return PLAIN
    dropped = frozenset(names) or EVERYTHING
    return Guidance(((w, frozenset()), (1 - w, dropped)), interval)


def drop_conditions(cond: Mapping[str, Any], dropped: frozenset[str], null: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions with the dropped ones replaced by their null values, broadcast over the batch."""
    names = set(cond) & set(null) if dropped == EVERYTHING else dropped & set(cond)
    if dropped and (not names or not names <= set(null)):
        raise DistillError(
            f"guidance drops {', '.join(sorted(dropped - EVERYTHING)) or 'the conditions'}, but of "
            f"{', '.join(cond)} the network knows null values for {', '.join(null) or 'none'} only: set its "
            "guidance to 1, or name others to drop"
        )
    return {
        name: torch.as_tensor(null[name], dtype=value.dtype, device=value.device).expand_as(value)
        if name in names
        else value
        for name, value in cond.items()
    }
