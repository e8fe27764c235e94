"""A network with its path and parameterisation: everything that a method needs to ask it something."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill.core.cache import Cache
from distill.core.errors import DistillError
from distill.core.guidance import drop_conditions
from distill.core.paths import GaussianPath
from distill.core.prediction import KINDS, Prediction
from distill.core.tree import State, batch_size, combine, leaves

Shape = Sequence[int] | Mapping[str, Any]
Scope = Callable[[], AbstractContextManager[Any]]
SCOPES: ContextVar[tuple[Scope, ...]] = ContextVar("scopes", default=())
"""The scopes around the call that is under way, for what is computed again when it is over."""


@contextmanager
def within(*scopes: Scope) -> Iterator[None]:
    """Enter scopes, and make them known."""
    before = SCOPES.set((*SCOPES.get(), *scopes))
    try:
        with ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(scope())
            yield
    finally:
        SCOPES.reset(before)


class Denoiser(nn.Module):
    """`network(x, native_time, cond)` wrapped as `predict(x, t, cond) → Prediction`.

    Args:
        network: called as `network(x, native_time, cond)`; with `cache=` too where a cache is given, and
            then it returns (output, cache).
        path: forward process of the states.
        kind: what the network says: x0, eps, v, velocity or logits.
        shape: shape of one sample, or a mapping of shapes; None where samples differ in size.
        null: value of each condition when it is dropped.
        sigma_data: turns on EDM preconditioning (Karras et al. 2022, table 1) around a network of kind x0.
        taps: submodules whose outputs serve as features by default.
        scalar_sites: submodules whose output an extra scalar input is added to (`add_scalar`).
        restore: `restore(guided, plain)`, what this network's guidance rule does to a guided output; nothing if None.
    """

    def __init__(
        self,
        network: nn.Module,
        path: GaussianPath,
        kind: str,
        *,
        shape: Shape | None = None,
        null: Mapping[str, Any] | None = None,
        sigma_data: float | None = None,
        taps: Sequence[str] = (),
        scalar_sites: Sequence[str] = (),
        restore: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise DistillError(f"a denoiser cannot predict '{kind}'; choose one of {', '.join(KINDS)}")
        self.network, self.path, self.kind = network, path, kind
        self.shape, self.null, self.sigma_data = shape, dict(null or {}), sigma_data
        self.taps, self.scalar_sites = tuple(taps), tuple(scalar_sites)
        self.scalars, self.restore = nn.ModuleDict(), restore

    def predict(
        self,
        x: State,
        t: Any,
        cond: Mapping[str, Any] | None = None,
        *,
        cache: Cache | None = None,
        taps: Sequence[str] = (),
        **scalars: Any,
    ) -> Prediction:
        """Ask the network at state x and time t.

        `t` has the shape of the path's units ([B], [B, frames], ...), or is a number for all, or None for a
        classifier. `taps` names submodules whose outputs come back in `features`. `scalars` are extra inputs
        added by `add_scalar`.
        """
        t = self.times(t, x)
        features: dict[str, Any] = {}
        with ExitStack() as stack:
            if taps:
                stack.enter_context(self._tapped(taps, features))
            if scalars:
                stack.enter_context(within(partial(self._shifted, self._shift(scalars))))
            value, cache = self._call(x, t, dict(cond or {}), cache)
        return Prediction(self.kind, value, x, t, self.path, features, cache)

    forward = predict

    def times(self, t: Any, x: State) -> Any:
        """A number becomes one time per sample, on the state's device."""
        if isinstance(t, Mapping):
            return {key: self.times(part, x[key]) for key, part in t.items()}  # type: ignore[index]
        if t is None or (isinstance(t, Tensor) and t.ndim):
            return t
        first = leaves(x)[0]
        dtype = torch.promote_types(first.dtype, torch.float32)
        return torch.as_tensor(t, dtype=dtype, device=first.device).expand(batch_size(x))

    def example(self, size: int = 1) -> tuple[Any, Tensor, dict[str, Any]]:
        """States of zeros, the last time and null conditions, to find out sizes with."""
        if self.shape is None:
            raise DistillError("this denoiser declares no sample shape, so nothing can be tried on it")
        device = next(iter([*self.parameters(), *self.buffers()]), torch.zeros(0)).device
        x = _zeros(self.shape, size, device)
        t = torch.full((size,), self.path.t_max, device=device)
        null = {name: torch.as_tensor(value, device=device) for name, value in self.null.items()}
        cond = {name: value.expand(size, *value.shape) for name, value in null.items()}
        return x, t, cond

    def drop(
        self, cond: Mapping[str, Any], dropped: frozenset[str], x: State, null: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The conditions without the dropped ones (guidance asks for this); `null` overrides the network's values."""
        if odd := set(null or {}) - set(cond):
            raise DistillError(
                f"a negative {', '.join(sorted(odd))} is given, and the conditions are {', '.join(cond)}"
            )
        return drop_conditions(cond, dropped, {**self.null, **(null or {})})

    def _call(self, x: State, t: Any, cond: dict[str, Any], cache: Cache | None) -> tuple[Any, Cache | None]:
        native = None if t is None else self.path.native(t)
        extra = {} if cache is None else {"cache": self._told(cache)}
        if self.sigma_data is None:
            said = self.network(x, native, cond, **extra)
            return said if extra else (said, None)
        sigma, data, norm = self.path.sigma(t), self.sigma_data, self._norm(t)
        said = self.network(combine((norm, x)), native, cond, **extra)
        value, cache = said if extra else (said, None)
        return combine((data**2 * norm**2, x), (sigma * data * norm, value)), cache

    def _norm(self, t: Any) -> Any:
        """What EDM preconditioning multiplies a state with."""
        return 1.0 if self.sigma_data is None else (self.path.sigma(t) ** 2 + self.sigma_data**2).rsqrt()

    def _told(self, cache: Cache) -> Cache:
        """The cache with what it defers as the network gets states and times."""
        if cache.pending is None:
            return cache
        clean, t = cache.pending.x, self.times(cache.pending.t, cache.pending.x)
        told = replace(cache.pending, x=combine((self._norm(t), clean)), t=self.path.native(t))
        return replace(cache, pending=told)

    @contextmanager
    def _tapped(self, names: Sequence[str], features: dict[str, Any]) -> Iterator[None]:
        def keep(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                features[name] = output[0] if isinstance(output, tuple) else output

            return hook

        handles = [self.submodule(name).register_forward_hook(keep(name)) for name in names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def submodule(self, name: str) -> nn.Module:
        """A part of the network by its dotted name."""
        try:
            return self.network.get_submodule(name)
        except AttributeError:
            known = [key for key, _ in self.network.named_modules() if key]
            raise DistillError(f"the network has no part '{name}'; it has {', '.join(known[:40])}") from None

    def _shift(self, scalars: Mapping[str, Any]) -> Any:
        """What extra inputs add at every site."""
        if unknown := set(scalars) - set(self.scalars):
            raise DistillError(
                f"this denoiser takes no extra input {', '.join(sorted(unknown))}; it takes "
                f"{', '.join(self.scalars) or 'none'}. The transform 'scalar-input' adds one."
            )
        return sum(self.scalars[name](value) for name, value in scalars.items())

    @contextmanager
    def _shifted(self, shift: Any) -> Iterator[None]:
        handles = [
            self.submodule(site).register_forward_hook(lambda module, args, output: output + shift)
            for site in self.scalar_sites
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def add_scalar(self, name: str, scale: float = 1.0) -> None:
        """Give the network an extra scalar input [B] that changes nothing until it is trained.

        A Fourier embedding of `scale · value` goes through a zero-initialised projection that is added to
        the output of every module in `scalar_sites`, the time embedding as a rule (Meng et al. 2023,
        arXiv:2210.03142).
        """
        if not self.scalar_sites:
            raise DistillError(f"this denoiser names no place (scalar_sites) where '{name}' could enter")
        widths = {_width(self.submodule(site)) for site in self.scalar_sites}
        if len(widths) > 1:
            raise DistillError(f"the places {self.scalar_sites} differ in width: {sorted(widths)}")
        self.scalars[name] = ScalarEmbedding(widths.pop(), scale)


def _zeros(shape: Shape, size: int, device: torch.device) -> Any:
    if isinstance(shape, Mapping):
        return {key: _zeros(part, size, device) for key, part in shape.items()}
    return torch.zeros(size, *shape, device=device)


def _width(module: nn.Module) -> int:
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    return linear[-1].out_features


class ScalarEmbedding(nn.Module):
    """Fourier features of a scalar [B] and a zero-initialised projection: [B, width]."""

    def __init__(self, width: int, scale: float, frequencies: int = 16) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * 2.0 ** torch.linspace(-3, 4, frequencies))
        self.hidden = nn.Linear(2 * frequencies, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, value: Tensor) -> Tensor:
        phase = value[:, None] * self.get_buffer("frequencies")
        features = torch.cat([phase.sin(), phase.cos()], 1)
        out: Tensor = self.out(nn.functional.silu(self.hidden(features)))
        return out
