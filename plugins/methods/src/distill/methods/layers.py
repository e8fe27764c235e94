"""Networks that leave layers out where there is much noise: fewer layers a step beside fewer steps."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from distill.core import Context, Denoiser, DistillError, Event, Loss, Roles, Terms, Transform, tree
from distill.core.denoiser import ScalarEmbedding
from distill.core.errors import RecipeError
from distill.methods.networks import enclose, switched_on
from distill.methods.times import time_of


@dataclass
class Budget:
    """Whether layers may be left out, and, while a call is under way, how many in each sample [B]."""

    on: bool = False
    dropped: Tensor | None = None


class Skippable(nn.Module):
    """A layer that hands its first input on where the budget leaves it out.

    Args:
        first: the layer is left out of samples that leave out so many layers or more; None where it always runs.
    """

    def __init__(self, layer: nn.Module, first: int | None, budget: Budget) -> None:
        super().__init__()
        self.layer, self.first, self.budget = layer, first, budget

    def forward(self, h: Any, *others: Any, **named: Any) -> Any:
        if self.first is None or self.budget.dropped is None:
            return self.layer(h, *others, **named)
        gone = self.budget.dropped >= self.first
        if gone.all():
            return h
        said = self.layer(h, *others, **named)
        return tree.where(gone, h, said) if gone.any() else said


class Budgeted(nn.Module):
    """A network that leaves out as many layers as a table says for the noise, and is told how many.

    Args:
        edges: native times, ascending, from which on so many layers more are left out.
        drops: how many layers are left out below the first edge, from the first edge on, and so forth.
        sites: parts of the network to whose output the embedding of that number is added.
    """

    edges: Tensor
    drops: Tensor

    def __init__(
        self, inner: nn.Module, edges: Tensor, drops: Tensor, sites: tuple[str, ...], width: int, budget: Budget
    ) -> None:
        super().__init__()
        self.inner, self.sites, self.budget = inner, sites, budget
        self.register_buffer("edges", edges)
        self.register_buffer("drops", drops)
        self.embedding = ScalarEmbedding(width, 1.0)

    def forward(self, x: Any, t: Any, cond: Any, **options: Any) -> Any:
        if not self.budget.on:
            return self.inner(x, t, cond, **options)
        self.budget.dropped = self.drops[(t[:, None] >= self.edges).sum(1)]
        shift = self.embedding(self.budget.dropped.float())
        hooks = [
            self.inner.get_submodule(site).register_forward_hook(lambda module, args, output: output + shift)
            for site in self.sites
        ]
        try:
            return self.inner(x, t, cond, **options)
        finally:
            self.budget.dropped = None
            for hook in hooks:
                hook.remove()


class LayerBudget(Transform):
    """Leave out layers of a role's network where there is much noise, those just before the last ones.

    The last layers always run, so that what the outlet gets keeps its variance, and the network is told how many are
    left out (Presto: Novack et al. 2024, arXiv:2410.05167, section 3.3; after ASE: Moon et al. 2023). Other roles that
    hold the same module run all its layers.
    """

    conformance: ClassVar[dict[str, str]] = {"toy/transform": "the toy has no layers that could be left out"}
    levels: tuple[float, ...] = (0.3, 1.0, 4.0)
    """Noise σ/α, ascending, from which on more layers are left out."""
    drops: tuple[NonNegativeInt, ...] = (0, 1, 2, 3)
    """Layers that are left out below the first level, from the first level on, and so forth."""
    last: NonNegativeInt = 1
    """Layers at the end that always run."""
    layers: str = "blocks"
    """Name of the list of layers in the network."""

    def apply(self, roles: Roles, name: str) -> None:
        role, budget = roles[name], Budget()
        denoiser = role.denoiser
        self._budget(denoiser, budget)
        scope = partial(switched_on, budget, role.scope)

        def fold() -> Denoiser:
            with scope():
                return copy.deepcopy(denoiser)

        role.scope, role.fold = scope, fold

    def _budget(self, denoiser: Denoiser, budget: Budget) -> None:
        network: Any = denoiser.network
        found = dict(network.named_modules()).get(self.layers)
        if not isinstance(found, nn.ModuleList) or len(self.drops) != len(self.levels) + 1:
            raise DistillError(
                f"'{self.layers}' must be a list of layers of this network, and {len(self.levels)} levels need "
                f"{len(self.levels) + 1} drops, not {len(self.drops)}"
            )
        if max(self.drops) > len(found) - self.last:
            raise DistillError(f"of {len(found)} layers {max(self.drops)} cannot be left out and {self.last} kept")
        top = len(found) - self.last
        for n, layer in enumerate(found):
            found[n] = Skippable(layer, top - n if n < top else None, budget)
        times = time_of(denoiser.path, torch.tensor(self.levels))
        budgeted = Budgeted(
            network, denoiser.path.native(times), torch.tensor(self.drops), denoiser.scalar_sites,
            self._width(denoiser), budget,
        )  # fmt: skip
        enclose(denoiser, budgeted)

    @torch.no_grad()
    def _width(self, denoiser: Denoiser) -> int:
        """Values of what the sites say."""
        if not denoiser.scalar_sites:
            raise DistillError("this denoiser names no place (scalar_sites) where the number of layers could enter")
        x, t, cond = denoiser.example()
        said = denoiser.predict(x, t, cond, taps=denoiser.scalar_sites).features
        return int(next(iter(said.values())).shape[-1])


class SelfTeacher(Loss):
    """What the last layer says with layers left out, against what it says with all of them: `‖h − sg h'‖²`.

    Presto: Novack et al. 2024, arXiv:2410.05167, section 3.3. It needs the time and the noised state of an event.
    """

    role: str = "student"
    """Who leaves layers out."""
    full: str = "full"
    """The same weights with all layers."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.role, self.full)

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        role, full = ctx.roles[self.role], ctx.roles[self.full]
        taps = role.denoiser.taps[-1:]
        if not taps:
            raise RecipeError(f"the network of role '{self.role}' names no taps, whose features this loss looks at")
        said = role.predict(event.x_t, event.t, event.cond, taps=taps).features
        wanted = full.ask(event.x_t, event.t, event.cond, taps=taps).features
        return {"self_teacher": tree.mean(tree.tree_map(lambda a, b: (a - b) ** 2, said, wanted))}
