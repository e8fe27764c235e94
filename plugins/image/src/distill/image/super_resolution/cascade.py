"""A network at a resolution that it was not trained for, led by what it makes at the one that it was."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from distill.core import Batch, Context, DistillError, Event, Rng, Role, Roles, Sampler, State, Transform
from distill.core.paths import GaussianPath
from distill.core.sampling import ALONE, Move
from distill.image.super_resolution.degradations import resized
from distill.image.super_resolution.networks import Block
from distill.image.super_resolution.paths import Tempered
from distill.methods.networks import TimeEmbedding, enclose, switched_on
from distill.methods.trajectories import NoisedData


class Upsampler(nn.Module):
    """A pivot's feature [B, C, h, w] to what is added to a larger one: two blocks that know the time; 0 at first."""

    def __init__(self, width: int, kernel: int, time_scale: float) -> None:
        super().__init__()
        self.time_embedding = TimeEmbedding(width, time_scale)
        self.blocks = nn.ModuleList(Block(width, kernel, 1) for _ in range(2))
        self.outlet = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor, t: Tensor, size: tuple[int, int]) -> Tensor:
        moment = silu(self.time_embedding(t))
        h = interpolate(self.blocks[0](h, moment), size, mode="bilinear")
        out: Tensor = self.outlet(self.blocks[1](h, moment))
        return out


class Pivoted(nn.Module):
    """A network that first looks at a clean pivot, at the same time, and adds what upsamplers make of its features.

    The pivot's call has no graph. Without the conditions `pivot` and `pivot_low`, or while it is off, nothing is added.
    """

    def __init__(self, inner: nn.Module, upsamplers: nn.ModuleList, sites: tuple[str, ...], scale: float) -> None:
        super().__init__()
        self.inner, self.upsamplers, self.sites, self.scale, self.on = inner, upsamplers, sites, scale, False

    def forward(self, x: Any, t: Any, cond: Mapping[str, Any], **options: Any) -> Any:
        if not self.on or "pivot" not in cond:
            return self.inner(x, t, cond, **options)
        seen: dict[str, Tensor] = {}
        small = {name: value for name, value in cond.items() if name != "pivot"} | {"low": cond.get("pivot_low")}
        with torch.no_grad(), self._hooked(lambda site, said: seen.update({site: said})):
            self.inner(self.scale * cond["pivot"], t, small, **options)
        parts = dict(zip(self.sites, self.upsamplers, strict=True))
        with self._hooked(lambda site, said: said + parts[site](seen[site], t, tuple(said.shape[2:]))):
            return self.inner(x, t, cond, **options)

    @contextmanager
    def _hooked(self, act: Any) -> Iterator[None]:
        handles = [
            self.inner.get_submodule(site).register_forward_hook(lambda m, args, said, site=site: act(site, said))
            for site in self.sites
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class PivotUpsamplers(Transform):
    """Small modules that carry a pivot's features to a role at a larger resolution, while the network stays frozen
    (self-cascade: Guo et al. 2024, arXiv:2402.10491).

    The role owns the modules alone; other roles that hold the network answer as before, bit for bit.
    """

    conformance: ClassVar[dict[str, str]] = {"toy/transform": "the toy's features are no maps"}
    sites: tuple[str, ...] = ()
    """Parts of the network whose outputs are carried; its taps if empty."""
    kernel: PositiveInt = 3
    """Side of the depthwise kernels, odd."""
    scale: float = 1.0
    """Factor that brings a pivot to the scale at which the network gets clean states."""

    def apply(self, roles: Roles, name: str) -> None:
        role = roles[name]
        denoiser = role.denoiser
        sites = self.sites or denoiser.taps
        if not sites:
            raise DistillError(f"role '{name}' has no taps: name 'sites' whose outputs are carried")
        with torch.no_grad():
            features = denoiser.predict(*denoiser.example(), taps=sites).features
        if any(value.ndim != 4 for value in features.values()):
            raise DistillError(f"what {', '.join(sites)} say are no maps [B, C, h, w], and only such can be enlarged")
        span = float(denoiser.path.native(torch.tensor(denoiser.path.t_max)))
        parts = nn.ModuleList(Upsampler(features[site].shape[1], self.kernel, 2 / span) for site in sites)
        pivoted = Pivoted(denoiser.network, parts.to(next(denoiser.parameters()).device), sites, self.scale)
        enclose(denoiser, pivoted)
        role.scope, role.own = partial(switched_on, pivoted, role.scope), dict(parts.named_parameters())


def shrunk(pictures: Tensor, ratio: int) -> Tensor:
    """Pictures [B, C, H, W] at a fraction of their size, bicubic."""
    size = (pictures.shape[2] // ratio, pictures.shape[3] // ratio)
    return torch.stack([resized(one, size) for one in pictures])


class PivotData(NoisedData):
    """Noised data beside their pivots: the conditions `pivot`, the clean state at the base's resolution, and
    `pivot_low`, what a network is told of it there.
    """

    ratio: PositiveInt = 2
    """How many times smaller the base's pictures are."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        pivot = {"pivot": shrunk(batch.data, self.ratio), "pivot_low": shrunk(batch.cond["low"], self.ratio)}
        yield from super().events(replace(batch, cond={**batch.cond, **pivot}), ctx, attached=attached)


class Cascade(Sampler):
    """A base role samples at its own resolution; that pivot, enlarged and noised to a time before the last, is where
    the larger sample begins (self-cascade: arXiv:2402.10491).

    A role without upsamplers does the rest as it is, which needs no tuning; one with them looks at the pivot each time.
    """

    steps: int = 15
    """Steps of the whole grid, of which the larger sample takes those after its first time."""
    base: str = "teacher"
    """Role that makes the pivot."""
    below: Tempered = Tempered(steps=15)
    """How it does."""
    ratio: PositiveInt = 2
    """How many times smaller its pictures are."""
    strength: float = 0.7
    """First time of the larger sample, as a fraction of the path's range."""
    state: Literal["residual", "picture"] = "residual"
    """What states are."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.base,)

    def grid_for(self, path: GaussianPath) -> tuple[float, ...]:
        first = path.t_min + self.strength * (path.t_max - path.t_min)
        count = max(1, round(self.strength * self.steps))
        return self.grid.times(path.model_copy(update={"t_max": first}), count)

    def pivot(self, noise: Tensor, cond: Any, rng: Rng | None, roles: Mapping[str, Role]) -> dict[str, Tensor]:
        """The base's sample, and what it was told."""
        low = shrunk(cond["low"], self.ratio)
        own = (rng or Rng(0)).normal(len(low), noise.shape[1], *low.shape[2:], stream="cascade/pivot").to(noise)
        return {"pivot": self.below.sample(roles[self.base], own, {**cond, "low": low}, rng), "pivot_low": low}

    def enlarged(self, found: Mapping[str, Tensor], low: Tensor) -> Tensor:
        """The pivot as a state of the larger resolution."""
        residual = self.state == "residual"
        picture = found["pivot"] + found["pivot_low"] if residual else found["pivot"]
        large = interpolate(picture, low.shape[2:], mode="bilinear")
        return large - low if residual else large

    def walk(
        self, role: Role, noise: State, cond: Any = None, rng: Rng | None = None, roles: Mapping[str, Role] = ALONE
    ) -> Generator[Move, Any, Any]:
        assert isinstance(noise, Tensor)
        path, times = role.denoiser.path, self.grid_for(role.denoiser.path)
        found = self.pivot(noise, cond, rng, roles)
        start = path.noised(self.enlarged(found, cond["low"]), noise, role.denoiser.times(times[0], noise))
        return self.descend(role, start, times, {**cond, **found}, rng)
