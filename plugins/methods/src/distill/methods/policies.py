"""Policies: a network says once how to move along a whole segment, and the moves then need no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distill.core import (
    Batch,
    Context,
    Denoiser,
    DistillError,
    Event,
    GaussianPath,
    Prediction,
    Role,
    Roles,
    Trajectory,
    Transform,
    cfg,
    rollout,
    tree,
)
from distill.core.sampling import Grid

# ---------------------------------------------------------------- what a policy is


@dataclass(frozen=True)
class Policy:
    """An x0 for every (x, t) below the time t at which the network was asked, made of K parts [B, K, C, ...]."""

    path: GaussianPath
    x: Tensor
    t: Tensor
    s: Tensor
    parts: Tensor
    logits: Tensor
    std: Tensor

    def x0(self, x: Tensor, t: Tensor) -> Tensor:
        """The clean state that the policy moves towards from state x at times t: [B, C, ...]."""
        raise NotImplementedError

    def detach(self) -> Policy:
        """The same without gradient."""
        given = {name: getattr(self, name).detach() for name in ("parts", "logits", "std")}
        return replace(self, **given)

    def without(self, dropped: Tensor) -> Policy:
        """The same without the dropped parts [B, K]; where all are dropped, none is."""
        gone = dropped & ~dropped.all(1, keepdim=True)
        return replace(self, logits=self.logits.masked_fill(_over(gone, self.logits), -torch.inf))

    def follow(self, x: Tensor, t: Tensor, s: Tensor, steps: int) -> Tensor:
        """The state at s, in so many equal moves from x at t; times are [B]."""
        for n in range(steps):
            here = torch.lerp(t, s, n / steps)
            x = self.path.jump(x, self.x0(x, here), here, s if n + 1 == steps else torch.lerp(t, s, (n + 1) / steps))
        return x


def _over(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


class MixturePolicy(Policy):
    """The posterior mean of a mixture of Gaussians with one variance, given two states of its route.

    If q(x0 | x_t) is such a mixture, then x0(x, t') is exact at every later t' (pi-Flow: Chen et al. 2025,
    arXiv:2510.14974): with ζ = (α/σ)² − (α_s/σ_s)² and ν = αx/σ² − α_s x_s/σ_s², means become
    (v ν + μ) / (v ζ + 1) and log-weights grow by μ·(ν − ζμ/2) / (v ζ + 1).
    """

    def x0(self, x: Tensor, t: Tensor) -> Tensor:
        (a, precision), (a_s, precision_s) = (self._levels(time) for time in (t, self.t))
        zeta = _over(a**2 * precision - a_s**2 * precision_s, self.parts)
        nu = (_over(a * precision, x) * x - _over(a_s * precision_s, x) * self.x).unsqueeze(1)
        variance = self.std**2
        spread = variance * zeta + 1
        gain = (self.parts * (nu - zeta * self.parts / 2)).sum(2, keepdim=True) / spread
        share = (self.logits + gain.squeeze(2)).softmax(1).unsqueeze(2)
        return (share * (variance * nu + self.parts) / spread).sum(1)

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.path.alpha(t), 1 / self.path.sigma(t).clamp_min(1e-4) ** 2


class GridPolicy(Policy):
    """x0 at K even times of the segment, linear in between (the DX policy of arXiv:2510.14974)."""

    def x0(self, x: Tensor, t: Tensor) -> Tensor:
        last = self.parts.shape[1] - 1
        place = (self.t - t) / (self.t - self.s).clamp_min(1e-12) * last
        near = (1 - (place[:, None] - torch.arange(last + 1, device=t.device)).abs()).clamp_min(0)
        return (_over(near, self.parts) * self.parts).sum(1)


POLICIES: dict[str, type[Policy]] = {"mixture": MixturePolicy, "grid": GridPolicy}


# ---------------------------------------------------------------- a network that says one


class Spread(nn.Module):
    """A network's last layer beside a wider one on the same input, whose output is tapped."""

    def __init__(self, base: nn.Module, factor: int, more: int) -> None:
        super().__init__()
        self.base = base
        if isinstance(base, nn.Linear):
            self.extra: nn.Module = nn.Linear(base.in_features, factor * base.out_features + more)
        elif isinstance(base, nn.Conv2d):
            width = factor * base.out_channels + more
            self.extra = nn.Conv2d(base.in_channels, width, base.kernel_size, base.stride, base.padding)  # type: ignore[arg-type]
        else:
            raise DistillError(f"a policy is said by a linear or a convolution layer, not by a {type(base).__name__}")

    def forward(self, hidden: Tensor) -> Tensor:
        self.extra(hidden)
        out: Tensor = self.base(hidden)
        return out


class PolicyDenoiser(Denoiser):
    """A denoiser that says a policy for the segment below t.

    `predict` says the x0 whose single jump from t lands where the policy leads, so that any sampler that jumps along
    the segments' ends needs to know nothing of policies.
    """

    def __init__(self, base: Denoiser, head: PolicyHead, layer: str) -> None:
        super().__init__(
            base.network, base.path, base.kind, shape=base.shape, null=base.null, sigma_data=base.sigma_data,
            taps=base.taps, scalar_sites=base.scalar_sites,
        )  # fmt: skip
        self.scalars = base.scalars
        self.head, self.site = head, f"{layer}.extra"
        self.register_buffer("edges", torch.tensor(head.grid.times(base.path, head.steps), dtype=torch.float32))

    def ends(self, t: Tensor) -> Tensor:
        """Lower end of the segment that each time lies in: [B]."""
        edges = self.get_buffer("edges").to(t)
        below = edges < t[:, None] - 1e-4 * (edges[0] - edges[-1])
        return torch.where(below, edges, edges[-1]).amax(1)

    def policy(self, x: Tensor, t: Any, cond: Mapping[str, Any] | None = None, **options: Any) -> Policy:
        """The policy for the segment below t."""
        return self._read(super().predict(x, t, cond, taps=(self.site,), **options))

    def predict(
        self, x: Any, t: Any, cond: Mapping[str, Any] | None = None, *, taps: Sequence[str] = (), **options: Any
    ) -> Prediction:
        said = super().predict(x, t, cond, taps=(self.site, *taps), **options)
        policy = self._read(said)
        end, still = policy.follow(x, policy.t, policy.s, self.head.substeps), policy.t <= policy.s
        lower = torch.where(still, policy.s - 1, policy.s)
        x0 = tree.where(still, x, self.path.inverse_jump(x, end, policy.t, lower))
        return replace(said, kind="x0", value=x0)

    def _read(self, said: Prediction) -> Policy:
        x = said.x
        if not isinstance(x, Tensor) or not isinstance(said.value, Tensor):
            raise DistillError(f"a policy moves states that are one tensor, and this one is a {type(x).__name__}")
        raw, count, width = said.features[self.site], self.head.parts, x.shape[1]
        if raw.shape[2:] != x.shape[2:] or raw.shape[1] != count * width + count + 1:
            raise DistillError(f"the layer '{self.site}' says {tuple(raw.shape)} for states of {tuple(x.shape)}")
        values, logits, level = raw.split((count * width, count, 1), 1)
        values = said.value.unsqueeze(1) + values.unflatten(1, (count, width))
        parts = Prediction(self.kind, values, x.unsqueeze(1).expand_as(values), said.t, self.path).x0
        std = _over(self.path.sigma(said.t), level) * level.clamp(-8, 2).exp()
        cool = logits / self.head.temperature
        return POLICIES[self.head.policy](self.path, x, said.t, self.ends(said.t), parts, cool, std.unsqueeze(1))

    forward = predict


class PolicyHead(Transform):
    """A denoiser that says a policy, by a wider layer beside its last one (pi-Flow, arXiv:2510.14974)."""

    layer: str = ""
    """Name of the network's last layer, whose output has the shape of the state; found if empty."""
    policy: Literal["mixture", "grid"] = "mixture"
    """Gaussians that are carried along in closed form, or x0 at a few times of the segment."""
    parts: int = 8
    """K, Gaussians or times."""
    steps: int = 4
    """Segments, which are the calls of a sampler."""
    grid: Grid = Grid()
    """How they are spread."""
    substeps: int = 128
    """Moves without the network in a segment."""
    temperature: float = 1.0
    """Divides the log-weights of the Gaussians."""

    def apply(self, roles: Roles, name: str) -> None:
        role = roles[name]
        layer = self.layer or last_layer(role.denoiser.network)
        parent, _, leaf = layer.rpartition(".")
        wide = Spread(role.denoiser.submodule(layer), self.parts, self.parts + 1)
        setattr(role.denoiser.network.get_submodule(parent), leaf, wide)
        role.module = PolicyDenoiser(role.denoiser, self, layer)


def last_layer(network: nn.Module) -> str:
    """Name of the linear or convolution layer that a network declares last."""
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    if not names:
        raise DistillError("this network has no linear or convolution layer that could say a policy")
    return names[-1]


def policy_of(role: Role, x: Any, t: Any, cond: Any) -> Policy:
    """What a role with such a head says."""
    if not isinstance(role.module, PolicyDenoiser):
        raise DistillError(f"role '{role.name}' says no policy: give it the transform 'policy-head'")
    with role.asked():
        return role.module.policy(x, t, cond)


# ---------------------------------------------------------------- imitation


class PolicyRoute(Trajectory):
    """States that the student's own policy visits in a segment, with the teacher's velocity there.

    The route is walked without gradient; the prediction is what the policy says at its states, with gradient. Without
    data a segment begins where the student's earlier segments lead, else at noised data.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student needs a head that says policies"}
    states: int = 2
    """States of each route."""
    substeps: int = 128
    """Moves of a whole route, spread over the stretches between its states."""
    drop: float = 0.05
    """Probability with which each part of the policy is left out while the route is walked."""
    low: float = 0.01
    """Lowest time of a state, as a fraction of the path's range."""
    guidance: float = 1.0
    """w of the teacher's guidance."""
    interval: tuple[float, float] | None = None
    """Times between which it acts."""
    teacher: str = "teacher"
    """Role whose velocity is imitated."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student, path = ctx.roles["student"], ctx.roles["student"].denoiser.path
        x, t = self.begin(batch, student, ctx)
        with torch.set_grad_enabled(attached):
            policy = policy_of(student, x, t, batch.cond)
        points = self.walk(policy, x, path, ctx)
        cond = {name: tree.concatenate([value] * self.states) for name, value in batch.cond.items()}
        x_t, times = (torch.cat(part) for part in zip(*points, strict=True))
        guidance = cfg(self.guidance, interval=self.interval)
        velocity = ctx.roles[self.teacher].ask(x_t, times, cond, guidance=guidance).velocity
        with torch.set_grad_enabled(attached):
            x0 = torch.cat([policy.x0(*point) for point in points])
        said = Prediction("x0", x0, x_t, times, path)
        yield Event(x0, cond, times, x_t, None, said, targets={"velocity": velocity}, meta={"start": t})

    @torch.no_grad()
    def begin(self, batch: Batch, student: Role, ctx: Context) -> tuple[Tensor, Tensor]:
        """State and time at which each sample's segment begins."""
        noise, path = batch.noise(ctx.rng, "policy/noise"), student.denoiser.path
        edges: Tensor = student.denoiser.get_buffer("edges")
        if batch.x is not None:
            t = edges[ctx.rng.integers(len(edges) - 1, batch.size, stream="policy/segment")]
            return path.noised(batch.x, noise, t), t
        times = tuple(edges.tolist())
        last = ctx.rng.choice(len(edges) - 1, stream="policy/segment")
        x = path.prior(noise, times[0])
        for move in rollout(student, x, times[: last + 1], cond=batch.cond):
            x = move.next
        return x, edges[last].expand(batch.size)

    @torch.no_grad()
    def walk(self, policy: Policy, x: Tensor, path: GaussianPath, ctx: Context) -> list[tuple[Tensor, Tensor]]:
        """States and times of the route, descending."""
        size, parts = policy.parts.shape[:2]
        gone = ctx.rng.uniform(size, parts, stream="policy/drop") < self.drop
        guide = policy.detach().without(gone)
        u = ctx.rng.uniform(size, self.states, stream="policy/time").sort(1, descending=True).values
        floor = path.t_min + self.low * (path.t_max - path.t_min)
        times = (policy.s[:, None] + (policy.t - policy.s)[:, None] * u).clamp_min(floor).unbind(1)
        points: list[tuple[Tensor, Tensor]] = []
        here = policy.t
        for t in times:
            x, here = guide.follow(x, here, t, max(1, self.substeps // self.states)), t
            points.append((x, t))
        return points
