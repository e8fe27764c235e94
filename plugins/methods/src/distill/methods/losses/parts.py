"""What losses are made of: discrepancies, weights of noise levels, questions to roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from distill.core import Context, Event, Guidance, Prediction, Role, State, cfg, tree
from distill.core.errors import RecipeError
from distill.core.guidance import Weight
from distill.core.paths import per_key
from distill.core.tree import Coefficient

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda a, b: (a - b) ** 2,
    "l1": lambda a, b: (a - b).abs(),
    "huber": lambda a, b: ((a - b) ** 2 + 1e-6).sqrt() - 1e-3,
}
"""Value by value; `huber` is the pseudo-Huber distance of the LCM line with c = 0.001."""


def distance(name: str, said: State, target: State, weight: Coefficient = 1.0) -> Tensor:
    """Mean discrepancy per sample [B]; the weight has the shape of the times: one a sample, a frame, a modality."""
    return tree.mean(tree.combine((weight, tree.tree_map(DISTANCES[name], said, target))))


WEIGHTS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "one": lambda a, s, d: torch.ones_like(a),
    "snr": lambda a, s, d: (a / s) ** 2,
    "truncated-snr": lambda a, s, d: ((a / s) ** 2).clamp_min(1),
    "snr+1": lambda a, s, d: (a / s) ** 2 + 1,
    "alpha": lambda a, s, d: a,
    "alpha-squared": lambda a, s, d: a**2,
    "edm": lambda a, s, d: (s**2 + d**2) / (s * d) ** 2,
}
"""Weight of a squared x0 error at a noise level, from α, σ and the data's standard deviation."""


def level_weight(name: str, prediction: Prediction, sigma_data: float = 0.5) -> Any:
    """The named weight in the shape of the prediction's times."""
    path, t = prediction.path, prediction.t
    return per_key(lambda a, s: WEIGHTS[name](a, s.clamp_min(1e-6), sigma_data), path.alpha(t), path.sigma(t))


def surrogate(x: State, gradient: State, weight: Coefficient = 1.0) -> Tensor:
    """`½ mean ‖x − sg(x − g)‖²` per sample [B]: its gradient with respect to x is g / N, and x moves along −g."""
    target = tree.detach(tree.combine((1.0, x), (-1.0, gradient)))
    return 0.5 * distance("l2", x, target, weight)


def factors(parts: Mapping[str, float], like: State) -> Coefficient:
    """The factor of each modality of a joint state, 1 for those that are not named; 1 for any other state.

    Raises:
        RecipeError: the state has no modality of that name.
    """
    known = list(like) if isinstance(like, Mapping) else []
    if odd := set(parts) - set(known):
        has = ", ".join(known) or "one modality only"
        raise RecipeError(f"a factor is given for the modality {', '.join(sorted(odd))}, and the state has {has}")
    return {key: parts.get(key, 1.0) for key in known} if known else 1.0


def guidance_of(w: Weight) -> Guidance | None:
    """Guidance of weight w, or None (the role's own) for 1."""
    return None if w == 1 else cfg(w)


def draw_guidance(low: Any, high: float | None, ctx: Context, stream: str) -> Any:
    """One weight for the batch, uniform between two, the same on every process; the lower one if there is no other."""
    if high is None:
        return low
    if isinstance(low, Mapping):
        raise RecipeError("a guidance is drawn between two numbers, or each modality has its own: not both")
    u = torch.rand((), generator=ctx.rng.generator(stream), device=ctx.rng.device)
    return low + (high - low) * float(u)


def renoised(event: Event, ctx: Context, role: str, times: Any, name: str) -> tuple[Any, Tensor]:
    """The event's state at freshly drawn times, with fresh noise: (x_t, t). Streams carry the term's name."""
    path = ctx.roles[role].denoiser.path
    t = times.draw(path, tree.batch_size(event.x), ctx.rng, f"{name}/time")
    return path.noised(event.x, ctx.rng.normal_like(event.x, stream=f"{name}/noise"), t), t


def consult(role: Role, x: Any, t: Any, event: Event, **options: Any) -> Prediction:
    """What a role says at (x, t) under the event's conditions and those of its extra inputs that it takes."""
    return role.predict(x, t, event.cond, **role.inputs(event.scalars), **options)


def features_of(role: Role, x: Any, t: Any, event: Event) -> Mapping[str, Any]:
    """A role's hidden features of a state, at the taps that its network names.

    Raises:
        RecipeError: it names none.
    """
    if not role.denoiser.taps:
        raise RecipeError(f"the network of role '{role.name}' names no taps, whose features this loss looks at")
    return consult(role, x, t, event, taps=role.denoiser.taps).features
