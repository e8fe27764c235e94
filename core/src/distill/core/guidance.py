"""Guidance: a weighted list of predictions with some conditions dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.paths import TINY, per_key
from distill.core.prediction import Prediction
from distill.core.tree import State, combine, expand, mean, tree_map

EVERYTHING = frozenset({"*"})
Weight = float | Tensor | Mapping[str, float]


@dataclass(frozen=True)
class Guidance:
    """`Σ w_i · p(condition without dropped_i)`. Every role has its own; a weight is a number, one per sample [B], or a
    number for each modality of a joint state.

    Attributes:
        terms: weights, and the conditions that each prediction goes without.
        interval: times outside which the plain conditional prediction is used (Kynkäänniemi et al. 2024,
            arXiv:2404.07724); a number that lies outside costs one call.
        rescale: φ, how far each sample gets back the standard deviation that the conditional prediction has (Lin et
            al. 2024, arXiv:2305.08891, section 3.4); 0 is not at all.
        null: values that dropped conditions take instead of the network's own null values (negative prompts): one
            for all samples, or one per sample.
    """

    terms: tuple[tuple[Weight, frozenset[str]], ...] = ((1.0, frozenset()),)
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    null: Mapping[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        predict: Callable[..., Prediction],
        drop: Callable[..., Any],
        x: Any,
        t: Any,
        cond: Any,
        *,
        restore: Callable[[Any, Any], Any] | None = None,
        **options: Any,
    ) -> Prediction:
        """The combined prediction; features and cache are those of the first term.

        `restore` is what the network's own guidance rule does to a combined value, given the first term's.
        """
        if not cond or self.calls_at(t) == 1:
            return predict(x, t, self._dropped(drop, cond, self.terms[0][1], x) if cond else cond, **options)
        said = [predict(x, t, self._dropped(drop, cond, dropped, x), **options) for _, dropped in self.terms]
        weights = [self._weight(w, plain=not index, t=said[0].t) for index, (w, _) in enumerate(self.terms)]
        value = combine(*((w, p.value) for w, p in zip(weights, said, strict=True)))
        value = restore(value, said[0].value) if restore is not None else value
        return replace(said[0], value=rescaled(value, said[0].value, self.rescale) if self.rescale else value)

    def _dropped(self, drop: Callable[..., Any], cond: Any, dropped: frozenset[str], x: Any) -> Any:
        return drop(cond, dropped, x, self.null) if self.null else drop(cond, dropped, x)

    def _weight(self, weight: Weight, *, plain: bool, t: Any) -> Any:
        if self.interval is None:
            return weight
        low, high = self.interval

        def at(t: Tensor, weight: Any) -> Tensor:
            inside = expand(torch.as_tensor(weight, dtype=t.dtype, device=t.device), t)
            return torch.where((t >= low) & (t <= high), inside, float(plain))

        keys = next((each for each in (t, weight) if isinstance(each, Mapping)), None)
        if keys is None:
            return at(t, weight)
        return per_key(at, *(each if isinstance(each, Mapping) else dict.fromkeys(keys, each) for each in (t, weight)))

    @property
    def calls(self) -> int:
        """Network calls that one prediction costs."""
        return len(self.terms)

    def calls_at(self, t: Any) -> int:
        """The same at a time: one where it is a number outside the interval."""
        if self.interval is None or not isinstance(t, float | int):
            return self.calls
        return self.calls if self.interval[0] <= t <= self.interval[1] else 1


PLAIN = Guidance()


def cfg(w: Weight, *names: str, interval: tuple[float, float] | None = None, **options: Any) -> Guidance:
    """Classifier-free guidance `p(∅) + w (p(c) − p(∅))`; w = 1 is none. `names` are the conditions to drop,
    all if empty; `options` are those of `Guidance`. A joint state may have a w for each modality."""
    if isinstance(w, float | int) and w == 1:
        return PLAIN
    dropped = frozenset(names) or EVERYTHING
    if isinstance(w, float | int) and w == 0 and interval is None and not options:
        return Guidance(((1.0, dropped),))
    return Guidance(((w, frozenset()), (per_key(lambda each: 1 - each, w), dropped)), interval, **options)


def rescaled(value: State, plain: State, share: float) -> Any:
    """A guided prediction with each sample's standard deviation moved by `share` to that of the plain one (Lin et al.
    2024, arXiv:2305.08891, eqs. 15 and 16)."""
    ratio = per_key(lambda a, b: a / b.clamp_min(TINY), _spread(plain), _spread(value))
    return combine((per_key(lambda r: share * r + (1 - share), ratio), value))


def _spread(state: State) -> Any:
    """Standard deviation of each sample's values, modality by modality: [B]."""
    if isinstance(state, Mapping):
        return {key: _spread(part) for key, part in state.items()}
    full = tree_map(lambda x: x.to(torch.promote_types(x.dtype, torch.float32)), state)
    gap = combine((1.0, full), (-mean(full), tree_map(torch.ones_like, full)))
    return mean(tree_map(torch.square, gap)).sqrt()


def drop_conditions(cond: Mapping[str, Any], dropped: frozenset[str], null: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions with the dropped ones replaced by their null values, broadcast over the batch."""
    names = set(cond) & set(null) if dropped == EVERYTHING else dropped & set(cond)
    if dropped and (not names or not names <= set(null)):
        raise DistillError(
            f"guidance drops {', '.join(sorted(dropped - EVERYTHING)) or 'the conditions'}, but of "
            f"{', '.join(cond)} the network knows null values for {', '.join(null) or 'none'} only: set its "
            "guidance to 1, or name others to drop"
        )

    def dropped_value(name: str, value: State) -> Any:
        empty = null[name]
        return tree_map(lambda x: torch.as_tensor(empty, dtype=x.dtype, device=x.device).expand_as(x), value)

    return {name: dropped_value(name, value) if name in names else value for name, value in cond.items()}
