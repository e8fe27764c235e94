"""A network's part in a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from distill.core import scale
from distill.core.denoiser import Denoiser, Scope, within
from distill.core.errors import RecipeError
from distill.core.guidance import PLAIN, Guidance
from distill.core.prediction import Prediction


@dataclass
class Role:
    """A module, how it is asked, and which of its parameters are this role's own.

    Two roles may hold one module: an adapter's role has a `scope` that turns the adapter on around each
    call, and `own` names the adapter's parameters only.
    """

    name: str
    module: nn.Module
    guidance: Guidance = PLAIN
    scope: Scope = nullcontext
    own: Mapping[str, nn.Parameter] | None = None
    frozen: bool = False
    scalars: dict[str, Any] = field(default_factory=dict)
    fold: Callable[[], Denoiser] | None = None

    @property
    def denoiser(self) -> Denoiser:
        """The module, known to be a denoiser."""
        if not isinstance(self.module, Denoiser):
            kind = type(self.module).__name__
            raise RecipeError(f"role '{self.name}' is a {kind}, but a denoiser is needed")
        return self.module

    def alone(self) -> Denoiser:
        """The denoiser as others can use it: an adapter is folded into a copy of the weights."""
        return self.denoiser if self.fold is None else self.fold()

    def predict(
        self, x: Any, t: Any, cond: Any = None, *, guidance: Guidance | None = None, **options: Any
    ) -> Prediction:
        """The role's prediction under its own guidance, or under another one."""
        denoiser = self.denoiser
        with self.asked():
            return (guidance or self.guidance)(
                denoiser.predict, denoiser.drop, x, t, cond, restore=denoiser.restore, **{**self.scalars, **options}
            )

    def inputs(self, scalars: Mapping[str, Any]) -> dict[str, Any]:
        """Those of an event's extra inputs that this role's network takes."""
        return {name: value for name, value in scalars.items() if name in self.denoiser.scalars}

    def ask(self, x: Any, t: Any, cond: Any = None, **options: Any) -> Prediction:
        """`predict` without gradient."""
        with torch.no_grad():
            return self.predict(x, t, cond, **options)

    def __call__(self, *args: Any, **options: Any) -> Any:
        with self.asked():
            return self.module(*args, **options)

    def asked(self) -> AbstractContextManager[None]:
        """The role's scope, around a call of its module."""
        return within(self.scope)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """What an optimiser of this role moves, whether or not it is frozen now; shares, where weights are sharded."""
        scale.settle(self.module)
        return dict(self.module.named_parameters()) if self.own is None else dict(self.own)

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that an optimiser of this role moves."""
        return list(self.named_parameters().values())

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint of this role holds: its own parameters, and buffers where the module is its
        own."""
        scale.settle(self.module)
        if self.own is not None:
            return {name: parameter.data for name, parameter in self.own.items()}
        return self.module.state_dict()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put saved tensors back; names and shapes must agree."""
        mine = self.tensors()
        odd = set(mine) ^ set(tensors) or {name for name in mine if mine[name].shape != tensors[name].shape}
        if odd:
            few = ", ".join(sorted(odd)[:5])
            raise RecipeError(f"the saved weights of role '{self.name}' do not fit: {few} differ")
        with torch.no_grad():
            for name, value in tensors.items():
                scale.fill(mine[name], value)


class Roles(Mapping[str, Role]):
    """The roles of a run, by name; asking for one that is not there says which method needs it and which
    exist."""

    def __init__(self, roles: Mapping[str, Role] | None = None) -> None:
        self._roles = dict(roles or {})

    def __getitem__(self, name: str) -> Role:
        if name not in self._roles:
            raise RecipeError(
                f"this run has no role '{name}'; it has {', '.join(self._roles) or 'none'}. "
                "Name one under 'teacher:', 'student:' or 'roles:', or choose a method without it."
            )
        return self._roles[name]

    def __contains__(self, name: object) -> bool:
        return name in self._roles

    def __iter__(self) -> Iterator[str]:
        return iter(self._roles)

    def __len__(self) -> int:
        return len(self._roles)

    def add(self, role: Role) -> Role:
        """Put a role in, replacing one of the same name."""
        self._roles[role.name] = role
        return role
