"""Small networks that no modality owns: a perceptron for flat states, a discriminator's heads on any features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.core import Builder, Denoiser, GaussianPath, HeadBuilder, Roles
from distill.core.paths import PATHS

INNER = "inner."
"""What names of a network's parts begin with once another one holds it."""


def enclose(denoiser: Denoiser, outer: nn.Module) -> None:
    """Put a network that holds the denoiser's as `inner` in its place."""
    denoiser.network = outer
    denoiser.taps = tuple(INNER + tap for tap in denoiser.taps)
    denoiser.scalar_sites = tuple(INNER + site for site in denoiser.scalar_sites)


@contextmanager
def switched_on(part: Any, before: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """A role's scope in which `part.on` is true, around the scope that it had before."""
    was, part.on = part.on, True
    try:
        with before():
            yield
    finally:
        part.on = was


class TimeEmbedding(nn.Module):
    """Sinusoidal features of a native time [B] and two linear layers: [B, width]."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", scale * 2.0 ** torch.linspace(-2, 6, 16))
        self.layers = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        phase = t[:, None] * self.frequencies
        out: Tensor = self.layers(torch.cat([phase.sin(), phase.cos()], 1))
        return out


class MLP(nn.Module):
    """A residual-free perceptron on (x, time, label): states [B, *shape] of `size` values each."""

    def __init__(self, size: int, width: int, depth: int, classes: int, time_scale: float) -> None:
        super().__init__()
        self.time_embedding = TimeEmbedding(width, time_scale)
        self.label_embedding = nn.Embedding(classes + 1, width) if classes else None
        self.inlet = nn.Linear(size, width)
        self.hidden = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(width, width)) for _ in range(depth - 1))
        self.outlet = nn.Sequential(nn.SiLU(), nn.Linear(width, size))

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        h = self.inlet(x.flatten(1)) + self.time_embedding(t)
        if self.label_embedding is not None:
            h = h + self.label_embedding(cond["label"])
        for layer in self.hidden:
            h = layer(h)
        out: Tensor = self.outlet(h).view_as(x)
        return out


class MLPDenoiser(Builder):
    """A perceptron denoiser for flat or tiny states."""

    shape: tuple[int, ...] = (2,)
    """Shape of one sample."""
    width: int = 128
    """Units per hidden layer."""
    depth: int = 3
    """Hidden layers."""
    classes: int = 0
    """Number of class labels; 0 is unconditional. The label `classes` itself is the null condition."""
    path: Literal["flow", "cosine", "karras", "trigonometric"] = "flow"
    """Forward process."""
    path_options: dict[str, float] = {}
    """Options of the path, such as t_max."""
    kind: Literal["x0", "eps", "v", "velocity"] = "x0"
    """What the network says."""
    sigma_data: float | None = None
    """Turns on EDM preconditioning."""

    def build(self) -> Denoiser:
        path = PATHS[self.path](**self.path_options)
        span = abs(float(path.native(torch.tensor(path.t_max))) - float(path.native(torch.tensor(path.t_min))))
        size = int(torch.tensor(self.shape).prod())
        network = MLP(size, self.width, self.depth, self.classes, 2 / max(span, 1e-6))
        null = {"label": self.classes} if self.classes else None
        taps = [f"hidden.{index}" for index in range(self.depth - 1)]
        return Denoiser(
            network, path, self.kind, shape=self.shape, null=null, sigma_data=self.sigma_data,
            taps=taps, scalar_sites=("time_embedding",),
        )  # fmt: skip


def tokens(feature: Tensor) -> Tensor:
    """Features as tokens [B, N, C]: vectors are one token, [B, N, C] stays, [B, C, ...] has its channels moved last."""
    if feature.ndim == 2:
        return feature[:, None]
    return feature if feature.ndim == 3 else feature.flatten(2).transpose(1, 2)


class Heads(nn.Module):
    """One small perceptron per tapped feature; logits are averaged over tokens and heads: [B]."""

    def __init__(self, widths: Mapping[str, int], hidden: int) -> None:
        super().__init__()
        self.names = list(widths)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, 1))
            for width in widths.values()
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        said = [head(tokens(features[name])).mean((1, 2)) for name, head in zip(self.names, self.heads, strict=True)]
        return torch.stack(said).mean(0)


class FeatureHeads(HeadBuilder):
    """A discriminator's heads on the features that another role taps."""

    features: str = "critic"
    """Role whose features are looked at."""
    hidden: int = 64
    """Units of each head."""

    def widths(self, roles: Roles) -> dict[str, int]:
        """Channels of each tapped feature."""
        role = roles[self.features]
        x, t, cond = role.denoiser.example()
        features = role.ask(x, t, cond, taps=role.denoiser.taps).features
        return {name: tokens(value).shape[2] for name, value in features.items()}

    def build(self, roles: Roles) -> nn.Module:
        return Heads(self.widths(roles), self.hidden)


class JumpHeads(FeatureHeads):
    """Heads on the features of two states side by side: where a jump ended, and where it began."""

    features: str = "trunk"
    """Role whose features are looked at."""

    def widths(self, roles: Roles) -> dict[str, int]:
        return {name: 2 * width for name, width in super().widths(roles).items()}


class Projection(nn.Module):
    """Heads that know the noise level and a condition (projection: Miyato & Koyama 2018, arXiv:1802.05637).

    One logit per head and token: [B, K].
    """

    def __init__(
        self, widths: Mapping[str, int], hidden: int, time: nn.Module | None, condition: nn.Module | None
    ) -> None:
        super().__init__()
        self.names, self.time, self.condition = list(widths), time, condition
        self.trunks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
            )
            for width in widths.values()
        )
        self.outlets = nn.ModuleList(nn.Linear(hidden, 1) for _ in widths)

    def forward(self, features: Mapping[str, Tensor], t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        parts = ([self.time(t)] if self.time else []) + ([self.condition(cond)] if self.condition else [])
        direction = torch.stack(parts).sum(0)[:, None] if parts else None
        hidden = [trunk(tokens(features[name])) for name, trunk in zip(self.names, self.trunks, strict=True)]
        said = [self._logits(*pair, direction) for pair in zip(hidden, self.outlets, strict=True)]
        return torch.cat(said, 1)

    def _logits(self, hidden: Tensor, outlet: nn.Module, direction: Tensor | None) -> Tensor:
        logits: Tensor = outlet(hidden)[..., 0]
        return logits if direction is None else logits + (hidden * direction).sum(-1) / hidden.shape[-1] ** 0.5


class LevelEmbedding(nn.Module):
    """A path's times [B] embedded as its networks see them: [B, width]."""

    def __init__(self, width: int, path: GaussianPath) -> None:
        super().__init__()
        ends = path.native(torch.tensor([path.t_min, path.t_max]))
        self.path, self.embedding = path, TimeEmbedding(width, 2 / max(float(abs(ends[1] - ends[0])), 1e-6))

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = self.embedding(self.path.native(t))
        return out


class ConditionEmbedding(nn.Module):
    """One named condition as a vector: a label by a table, vectors [B, (N,) C] by their mean and a projection."""

    def __init__(self, name: str, null: Any, width: int) -> None:
        super().__init__()
        null = torch.as_tensor(null)
        self.name, self.table = name, not null.is_floating_point()
        self.layer = nn.Embedding(int(null.max()) + 1, width) if self.table else nn.Linear(null.shape[-1], width)

    def forward(self, cond: Mapping[str, Any]) -> Tensor:
        value = cond[self.name]
        out: Tensor = self.layer(value if self.table else tokens(value).mean(1))
        return out


class ProjectionHeads(FeatureHeads):
    """Heads on another role's features, one per tap, that are told the noise level and a condition."""

    features: str = "teacher"
    """Role whose features are looked at."""
    timed: bool = True
    """Tell them the noise level."""
    condition: str = ""
    """Name of the condition that they are told, as the teacher knows it; none if empty."""

    def build(self, roles: Roles) -> nn.Module:
        null = roles["teacher"].denoiser.null
        time = LevelEmbedding(self.hidden, roles[self.features].denoiser.path) if self.timed else None
        told = ConditionEmbedding(self.condition, null[self.condition], self.hidden) if self.condition else None
        return Projection(self.widths(roles), self.hidden, time, told)
