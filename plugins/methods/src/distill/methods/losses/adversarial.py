"""Adversarial losses, on features of a frozen network or of a critic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import relu, softplus

from distill.core import Context, Event, Loss, State, Terms, tree
from distill.methods.losses.parts import features_of
from distill.methods.networks import tokens
from distill.methods.times import Times, UniformTimes

GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": lambda q: softplus(-q),
    "hinge": lambda q: -q,
    "squares": lambda q: (q.sigmoid() - 1) ** 2 / 2,
    "least-squares": lambda q: (q - 1) ** 2,
}
DISCRIMINATOR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softplus": lambda real, fake: softplus(-real) + softplus(fake),
    "hinge": lambda real, fake: relu(1 - real) + relu(1 + fake),
    "squares": lambda real, fake: ((real.sigmoid() - 1) ** 2 + fake.sigmoid() ** 2) / 2,
    "least-squares": lambda real, fake: (real - 1) ** 2 + fake**2,
}


class _Adversarial(Loss):
    features: str = "critic"
    """Role whose hidden features the discriminator looks at; empty to let it look at the state itself."""
    heads: str = "discriminator"
    """Role of the discriminator's heads; empty to take the mean of each feature for a logit."""
    form: Literal["softplus", "hinge", "squares", "least-squares"] = "softplus"
    """Non-saturating, hinge, least squares of probabilities, or of the logits themselves."""
    times: Times | None = UniformTimes()
    """Noise levels of what the discriminator sees; None for states as they are: at the event's `level`, or clean."""
    conditional: bool = False
    """Tell the heads the time and the conditions too (projection heads)."""

    def noised(self, x: State, event: Event, ctx: Context, name: str) -> tuple[Any, Tensor | None]:
        """The state as the discriminator sees it, and its time."""
        return self.under(self.draw(x, ctx, name), x, event, ctx)

    def draw(self, x: State, ctx: Context, name: str) -> tuple[Tensor, Any] | None:
        """A time and a noise for each sample; None for states as they are."""
        if self.times is None:
            return None
        t = self.times.draw(self._path(ctx), tree.batch_size(x), ctx.rng, f"{name}/time")
        return t, ctx.rng.normal_like(x, stream=f"{name}/noise")

    def under(self, drawn: tuple[Tensor, Any] | None, x: State, event: Event, ctx: Context) -> Any:
        """The state under a time and a noise, and its time."""
        if drawn is None:
            return x, event.meta.get("level")
        return self._path(ctx).noised(x, drawn[1], drawn[0]), drawn[0]

    def _path(self, ctx: Context) -> Any:
        return ctx.roles[self.features or "teacher"].denoiser.path

    def look(self, x: State, t: Tensor | None, event: Event, ctx: Context) -> Any:
        """What the heads get: a role's hidden features of the state, or the state itself."""
        if not self.features:
            return x
        role = ctx.roles[self.features]
        time = role.denoiser.path.t_min if t is None else t
        return features_of(role, x, time, event)

    def judge(self, seen: Any, t: Tensor | None, event: Event, ctx: Context) -> Tensor:
        """Logits of what was seen: [B], or [B, K] of K heads or places."""
        if not self.heads:
            return torch.stack([tree.mean(feature) for feature in seen.values()], 1)
        heads = ctx.roles[self.heads]
        logits: Tensor = heads(seen, t, event.cond) if self.conditional else heads(seen)
        return logits

    def opinion(self, x: State, t: Tensor | None, event: Event, ctx: Context) -> Tensor:
        """Logits of a state: [B] or [B, K]."""
        return self.judge(self.look(x, t, event, ctx), t, event, ctx)


class AdversarialGenerator(_Adversarial):
    """The student's side: `softplus(−Q)` or `−Q` of its samples, with gradient through frozen features."""

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(role for role in ("student", self.features, self.heads) if role)

    def terms(self, event: Event, ctx: Context) -> Terms:
        x_t, t = self.noised(event.x, event, ctx, "adversarial/generator")
        return {"adversarial": tree.mean(GENERATOR[self.form](self.opinion(x_t, t, event, ctx)))}


class AdversarialDiscriminator(_Adversarial):
    """The discriminator's side: samples against real states (`targets["real"]`), each noised on its own.

    `softplus(Q(x)) + softplus(−Q(y))` for samples x and real states y, or another of the forms.
    """

    train_features: bool = True
    """Move the feature network too (DMD2); off where the features are a frozen teacher's (LADD)."""
    shared: bool = False
    """Noise samples and real states alike: one time and one noise for both."""
    r1: float = 0.0
    """Weight of the approximate R1 penalty `‖Q(x) − Q(x + 0.1 ε)‖²` on real states (Lin et al. 2025, APT)."""
    feature_r1: float = 0.0
    """Weight of the exact R1 penalty on what the heads get of real states (ADD, arXiv:2311.17042, eq. 3)."""

    @property
    def moves(self) -> tuple[str, ...]:
        moved = (self.features, self.heads) if self.train_features else (self.heads,)
        return tuple(role for role in moved if role)

    def terms(self, event: Event, ctx: Context) -> Terms:
        drawn = self.draw(event.real, ctx, "adversarial/real")
        real, t = self.under(drawn, event.real, event, ctx)
        with torch.set_grad_enabled(self.train_features):
            seen = self.look(real, t, event, ctx)
        on_real = self.judge(seen, t, event, ctx)
        on_fake = self._on_fake(drawn if self.shared else self.draw(event.x, ctx, "adversarial/fake"), event, ctx)
        terms = {"discriminator": tree.mean(DISCRIMINATOR[self.form](on_real, on_fake))}
        if self.r1:
            near = tree.combine((1.0, real), (0.1, ctx.rng.normal_like(real, stream="adversarial/r1")))
            terms["r1"] = self.r1 * tree.mean((on_real - self.opinion(near, t, event, ctx)) ** 2)
        if self.feature_r1:
            terms["feature_r1"] = self.feature_r1 * self._steepness(seen, t, event, ctx)
        return terms

    def _on_fake(self, drawn: tuple[Tensor, Any] | None, event: Event, ctx: Context) -> Tensor:
        x_t, t = self.under(drawn, tree.detach(event.x), event, ctx)
        with torch.set_grad_enabled(self.train_features):
            seen = self.look(x_t, t, event, ctx)
        return self.judge(seen, t, event, ctx)

    def _steepness(self, seen: Any, t: Tensor | None, event: Event, ctx: Context) -> Tensor:
        seen = tree.tree_map(lambda feature: feature.detach().requires_grad_(), seen)
        logits = self.judge(seen, t, event, ctx)
        slopes = torch.autograd.grad(logits.sum(), tree.leaves(seen), create_graph=True)
        return torch.stack([tree.per_sample(slope**2)[0] for slope in slopes]).sum(0)


class _Jump(_Adversarial):
    features: str = "trunk"
    """Role whose hidden features the discriminator looks at."""
    times: Times | None = None
    """Levels to which both ends are noised, where those are noisier; None leaves the ends at their own time."""
    from_start: bool = True
    """Show the heads the state that the jump began at too, so that they can tell whether it kept to the flow."""

    def both(self, event: Event, ctx: Context, name: str) -> tuple[Tensor, Tensor]:
        """Logits of where the teacher landed and of where the student did, at one level and with one noise."""
        path, s = ctx.roles[self.features].denoiser.path, event.scalars["next_time"]
        t = s if self.times is None else self.times.draw(path, len(s), ctx.rng, f"{name}/time").maximum(s)
        noise = ctx.rng.normal_like(event.x, stream=f"{name}/noise")
        start = self.look(event.x_t, event.t, event, ctx) if self.from_start else {}
        real, fake = (
            self.judge(_beside(self.look(path.renoise(end, noise, s, t), t, event, ctx), start), t, event, ctx)
            for end in (event.real, event.x)
        )
        return real, fake


def _beside(features: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Features with those of another state appended to each token."""
    return {
        name: torch.cat([tokens(value), tokens(others[name])], 2) if others else value
        for name, value in features.items()
    }


class JumpGenerator(_Jump):
    """The student's side of a GAN on jumps: `softplus(−Q)` (SDXL-Lightning: Lin et al. 2024, arXiv:2402.13929).

    Q sees where the student landed and, from `from_start`, where it began.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.features, self.heads)

    def terms(self, event: Event, ctx: Context) -> Terms:
        _, fake = self.both(event, ctx, "jump/generator")
        return {"jump": tree.mean(GENERATOR[self.form](fake))}


class JumpDiscriminator(_Jump):
    """The discriminator's side: where the teacher landed against where the student did, from one start."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.features, self.heads)

    def terms(self, event: Event, ctx: Context) -> Terms:
        real, fake = self.both(replace(event, x=tree.detach(event.x)), ctx, "jump/discriminator")
        return {"jump_discriminator": tree.mean(DISCRIMINATOR[self.form](real, fake))}


class RelativisticGenerator(_Adversarial):
    """The student's side of a relativistic GAN: `softplus(−(Q(x) − Q(y)))` for samples x and real states y.

    R3GAN: Huang et al. 2024, arXiv:2501.05441, eq. 2; `real` states may be a teacher's.
    """

    role: str = "student"
    """Whose sample it is."""

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(role for role in (self.role, self.features, self.heads) if role)

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        x_t, t = self.noised(event.x, event, ctx, "relativistic/x")
        y_t, s = self.noised(event.real, event, ctx, "relativistic/y")
        with torch.no_grad():
            on_real = self.opinion(y_t, s, event, ctx)
        return {"relativistic": tree.mean(softplus(on_real - self.opinion(x_t, t, event, ctx)))}


class RelativisticDiscriminator(_Adversarial):
    """The discriminator's side: `softplus(−(Q(y) − Q(x)))`, and R1 and R2, its steepness at real and at fake states.

    `targets["fake"]` stands for the event's own sample where there is one. Features are frozen.
    """

    gamma: float = 0.2
    """γ of `γ/2 (‖∇Q(y)‖² + ‖∇Q(x)‖²)`; 0 leaves both out."""

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(role for role in (self.features, self.heads) if role)

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.heads,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        real, r1 = self._judged(event.real, event, ctx, "relativistic/real")
        fake, r2 = self._judged(event.targets.get("fake", event.x), event, ctx, "relativistic/fake")
        terms = {"discriminator": tree.mean(softplus(fake - real))}
        return terms | ({"r1": self.gamma / 2 * r1, "r2": self.gamma / 2 * r2} if self.gamma else {})

    def _judged(self, x: State, event: Event, ctx: Context, name: str) -> tuple[Tensor, Any]:
        """Logits of a state, and the squared norm of their slope there [B]."""
        x_t, t = self.noised(tree.detach(x), event, ctx, name)
        if not self.gamma:
            return self.opinion(x_t, t, event, ctx), None
        x_t = tree.tree_map(lambda leaf: leaf.requires_grad_(), x_t)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be differentiated twice
            logits = self.opinion(x_t, t, event, ctx)
        slopes = torch.autograd.grad(logits.sum(), tree.leaves(x_t), create_graph=True)
        return logits, torch.stack([tree.per_sample(slope**2)[0] for slope in slopes]).sum(0)
