"""Networks that learn which of their layers they can do without, and then do without them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import one_hot

from distill.core import Action, Context, Denoiser, DistillError, Role, Roles, Transform, tree
from distill.core.denoiser import within
from distill.methods.networks import INNER, enclose

SHIFTS = 3
"""A pair of groups moves a layer from the second to the first, none, or one from the first to the second."""


class Gates(nn.Module):
    """Which layers run: one of the subsets of each group, and a shift of one layer between neighbouring groups.

    TinySR (arXiv:2508.17434): every draw keeps equally many layers in a pair, and hard draws carry the gradient of soft
    ones. A group grows by the layer of the largest marginal probability that it lacks, and shrinks by that of the
    smallest that it has; one that keeps a single layer does neither, for it would be left with none.

    Args:
        groups: how many, neighbours in pairs; an odd one at the end stays as it is.
        size: layers in each of them.
        keep: layers of a group that run, before the shift.
        scale: of the logits, so that they move at the rate of the weights.
        draws: how many differ within a batch: its samples take turns.
    """

    options: Tensor
    noise: Tensor
    shift_noise: Tensor
    temperature: Tensor
    kept: Tensor
    decided: Tensor

    def __init__(self, groups: int, size: int, keep: int, scale: float, draws: int) -> None:
        super().__init__()
        subsets = list(combinations(range(size), keep))
        self.scale = scale
        self.logits = nn.Parameter(torch.full((groups, len(subsets)), 0.02))
        self.shifts = nn.Parameter(torch.full((groups // 2 if keep > 1 else 0, SHIFTS), 0.02))
        self.register_buffer("options", torch.stack([one_hot(torch.tensor(s), size).sum(0).float() for s in subsets]))
        self.register_buffer("noise", torch.zeros(draws, *self.logits.shape))
        self.register_buffer("shift_noise", torch.zeros(draws, *self.shifts.shape))
        self.register_buffer("temperature", torch.tensor(4.0))
        self.register_buffer("kept", torch.ones(groups * size))
        self.register_buffer("decided", torch.tensor(False))
        self.mask: Tensor | None = None

    def forward(self) -> Tensor:
        """1 for each layer that runs and 0 for the others, with gradient to the logits: [draws, layers]."""
        base = self._drawn(self.logits, self.noise) @ self.options
        chance, has, size = self.marginals(), base.detach(), base.shape[2]
        grown = base + one_hot((chance - 2 * has).argmax(2), size)
        shrunk = base * (1 - one_hot((chance + 2 * (1 - has)).argmin(2), size))
        paired = 2 * len(self.shifts)
        ways = torch.stack([shrunk, base, grown], 2)[:, :paired].unflatten(1, (paired // 2, 2))
        ways = torch.stack([ways[:, :, 0], ways[:, :, 1].flip(2)], 2)
        moved = (self._drawn(self.shifts, self.shift_noise)[:, :, None, :, None] * ways).sum(3).flatten(1, 2)
        return torch.cat([moved, base[:, paired:]], 1).flatten(1)

    def _drawn(self, logits: Tensor, noise: Tensor) -> Tensor:
        soft = ((self.scale * logits + noise) / self.temperature).softmax(-1)
        hard = one_hot(soft.argmax(-1), soft.shape[-1])
        return hard + (soft - soft.detach())

    def marginals(self) -> Tensor:
        """Probability of each layer to run, by its group's logits: [groups, size]."""
        return (self.scale * self.logits.detach()).softmax(1) @ self.options

    def entropy(self) -> Tensor:
        """Entropy of each group's choice over that of an even one: [groups]."""
        chance = (self.scale * self.logits.detach()).softmax(1)
        return -(chance * chance.clamp_min(1e-12).log()).sum(1) / torch.tensor(float(len(self.options))).log()

    @contextmanager
    def drawn(self, mask: Tensor | None) -> Iterator[None]:
        """Layers run as a mask says, for the time of one call."""
        was, self.mask = self.mask, mask
        try:
            yield
        finally:
            self.mask = was

    @torch.no_grad()
    def decide(self) -> None:
        """Keep the most probable layers from now on; what has been decided stays."""
        if self.decided:
            return
        self.noise.zero_()
        self.shift_noise.zero_()
        self.kept.copy_(self()[0])
        self.decided.fill_(True)


class Gated(nn.Module):
    """A layer whose output counts as much as its gate is open: `m layer(h) + (1 − m) h`."""

    def __init__(self, layer: nn.Module, gates: Gates, place: int) -> None:
        super().__init__()
        self.layer, self.place = layer, place
        self._gates = (gates,)  # not a child: the network holds them once

    def forward(self, h: Any, *others: Any, **named: Any) -> Any:
        gates = self._gates[0]
        if gates.mask is None:
            return self.layer(h, *others, **named) if gates.kept[self.place] else h
        m = gates.mask[torch.arange(tree.batch_size(h), device=gates.mask.device) % len(gates.mask), self.place]
        return tree.combine((m, self.layer(h, *others, **named)), (1 - m, h))


class Prunable(nn.Module):
    """A network with gates, which are drawn until they are decided."""

    def __init__(self, inner: nn.Module, gates: Gates) -> None:
        super().__init__()
        self.inner, self.gates = inner, gates

    def forward(self, *args: Any, **options: Any) -> Any:
        mask = None if self.gates.decided else self.gates()
        with within(partial(self.gates.drawn, mask)):
            return self.inner(*args, **options)


class LearnedDepth(Transform):
    """Gates on a role's layers, which learn what the network can do without. (TinySR:
    arXiv:2508.17434).

    `DrawGates` draws them and `DecideGates` ends that; outside of the run the role is a network of the layers that are
    kept alone.
    """

    conformance: ClassVar[dict[str, str]] = {"toy/transform": "the toy has no layers that could be left out"}
    groups: PositiveInt = 6
    """Groups of neighbouring layers."""
    keep: PositiveInt = 2
    """Layers of each group that are kept; neighbouring groups may shift one."""
    layers: str = "blocks"
    """Name of the list of layers in the network."""
    scale: float = 100.0
    """Factor of the logits."""
    draws: PositiveInt = 1
    """How many draws a batch is shared by. The paper does not say; the more, the steadier gates learn."""

    def apply(self, roles: Roles, name: str) -> None:
        role = roles[name]
        network: Any = role.denoiser.network
        found = dict(network.named_modules()).get(self.layers)
        if not isinstance(found, nn.ModuleList) or len(found) % self.groups:
            raise DistillError(f"'{self.layers}' must be a list of layers that {self.groups} groups share evenly")
        size = len(found) // self.groups
        if self.keep >= size:
            raise DistillError(f"groups of {size} layers can keep {size - 1} at most, not {self.keep}")
        gates = Gates(self.groups, size, self.keep, self.scale, self.draws)
        for n, layer in enumerate(found):
            found[n] = Gated(layer, gates, n)
        enclose(role.denoiser, Prunable(network, gates))
        role.fold = lambda: self.pruned(role.denoiser)

    def pruned(self, denoiser: Denoiser) -> Denoiser:
        """A copy of the denoiser with the kept layers alone, and without gates."""
        alone = copy.deepcopy(denoiser)
        prunable: Any = alone.network
        found = prunable.inner.get_submodule(self.layers)
        kept = [n for n in range(len(found)) if prunable.gates.kept[n]]
        parent, _, leaf = self.layers.rpartition(".")
        setattr(prunable.inner.get_submodule(parent), leaf, nn.ModuleList(found[n].layer for n in kept))
        alone.network = prunable.inner
        names = {f"{INNER}{self.layers}.{n}": f"{self.layers}.{place}" for place, n in enumerate(kept)}
        tap_names = (names.get(tap, tap.removeprefix(INNER)) for tap in alone.taps)
        alone.taps = tuple(tap for tap in tap_names if tap in dict(alone.network.named_modules()))
        alone.scalar_sites = tuple(site.removeprefix(INNER) for site in alone.scalar_sites)
        return alone


def gates_of(role: Role) -> Gates:
    """The gates of a role."""
    network = role.denoiser.network
    if not isinstance(network, Prunable):
        raise DistillError(f"role '{role.name}' has no gates: the transform 'learned-depth' gives it some")
    return network.gates


class DrawGates(Action):
    """Draw a role's gates for the next iteration; their temperature falls along the phase."""

    role: str = "student"
    """Whose they are."""
    temperature: tuple[float, float] = (4.0, 0.1)
    """At the beginning of the phase and at its end, on a geometric line."""

    @property
    def changes(self) -> tuple[str, ...]:
        return (self.role,)

    @torch.no_grad()
    def apply(self, ctx: Context) -> None:
        gates, (first, last) = gates_of(ctx.roles[self.role]), self.temperature
        gates.temperature.fill_(first * (last / first) ** ctx.progress)
        for name, noise in (("options", gates.noise), ("shifts", gates.shift_noise)):
            u = torch.rand(noise.shape, generator=ctx.rng.generator(f"gates/{name}"), device=ctx.rng.device)
            noise.copy_(-(-u.clamp(1e-10, 1 - 1e-7).log()).log())


class DecideGates(Action):
    """Keep a role's most probable layers from now on."""

    role: str = "student"
    """Whose they are."""

    @property
    def changes(self) -> tuple[str, ...]:
        return (self.role,)

    def apply(self, ctx: Context) -> None:
        gates_of(ctx.roles[self.role]).decide()


class Constant(nn.Module):
    """What a part of a network says at the one time at which it is asked."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, moment: Tensor) -> Tensor:
        return self.value.expand(len(moment), *self.value.shape[1:])


class ConstantTime(Transform):
    """A student of one time needs no time: outside of the run, parts that depend on it alone say what they say there
    (TinySR: arXiv:2508.17434).
    """

    conformance: ClassVar[dict[str, str]] = {"toy/transform": "the toy names no parts that depend on the time alone"}
    parts: tuple[str, ...] = ("time_embedding", "modulation")
    """Ends of the names of those parts."""
    time: float = 1.0
    """The time."""

    def apply(self, roles: Roles, name: str) -> None:
        role = roles[name]
        before: Callable[[], Denoiser] = role.fold or (lambda: copy.deepcopy(role.denoiser))
        role.fold = lambda: self.constant(before())

    @torch.no_grad()
    def constant(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser, changed in place."""
        found = [name for name, _ in denoiser.network.named_modules() if name.split(".")[-1] in self.parts]
        if not found:
            raise DistillError(f"the network has no part called {', '.join(self.parts)}")
        x, t, cond = denoiser.example()
        said = denoiser.predict(x, torch.full_like(t, self.time), cond, taps=found).features
        for name in found:
            parent, _, leaf = name.rpartition(".")
            setattr(denoiser.network.get_submodule(parent), leaf, Constant(said[name][:1].clone()))
        denoiser.scalar_sites = ()
        return denoiser
