"""The toy: two Gaussians, their exact denoiser, and a tiny network that plays every other part."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.core import paths, tree
from distill.core.contracts import Batch, Context, Event, Subject, Trajectory
from distill.core.denoiser import Denoiser
from distill.core.mixture import Mixture
from distill.core.prediction import Prediction
from distill.core.rng import Rng
from distill.core.roles import Role, Roles
from distill.core.testing.fit import Unfit

POINTS = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
WORLD = Mixture(POINTS, 0.2, paths.Flow(), LABELS)
"""Two Gaussians, one a class: data, and a teacher that is exact."""
TOY_PATHS: tuple[paths.GaussianPath, ...] = (
    paths.Flow(t_min=1e-3),
    paths.Karras(t_min=0.02, t_max=20.0),
    paths.Trigonometric(t_min=1e-3),
    paths.Cosine(t_min=1e-3),
)


class _Perceptron(nn.Module):
    """Two layers on a point [B, 2], its time and its class."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(2, 16)
        self.label = nn.Embedding(3, 16)
        self.inlet, self.hidden, self.outlet = nn.Linear(2, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        h = self.inlet(x) + self.time(torch.stack([t / 1000, torch.tanh(t)], 1))
        h = h + self.label(cond["label"]) if "label" in cond else h
        out: Tensor = self.outlet(torch.tanh(self.hidden(torch.tanh(h))))
        return out


class Acting(Denoiser):
    """A denoiser that plays any part: it takes extra scalars when they are first given, and judges what it is shown."""

    gain: nn.Parameter

    @staticmethod
    def taught(denoiser: Denoiser) -> Denoiser:
        """A denoiser of any class, which from now on acts."""
        kind = type(denoiser)
        denoiser.__class__ = type(f"Acting{kind.__name__}", (Acting, kind), {})
        denoiser.gain = nn.Parameter(torch.ones(1))
        return denoiser

    def predict(self, x: Any, t: Any, cond: Any = None, **options: Any) -> Prediction:
        """As any denoiser; an extra scalar is added when it is first given."""
        with torch.random.fork_rng(devices=[]):
            for name in set(options) - {"cache", "taps"} - set(self.scalars):
                self.add_scalar(name)
        return super().predict(x, t, cond, **options)

    def forward(self, *args: Any, **options: Any) -> Any:
        """A prediction, or of features or states alone the logit of a discriminator [B]."""
        if len(args) > 1:
            return self.predict(*args, **options)
        seen = list(args[0].values()) if isinstance(args[0], Mapping) else tree.leaves(args[0])
        return self.gain * torch.stack([part.reshape(len(part), -1).mean(1) for part in seen]).sum(0)


class Player(Acting, Subject):
    """A tiny network for any part: a denoiser of points, a discriminator of states or features, a subject."""

    def __init__(self, path: paths.GaussianPath) -> None:
        super().__init__(
            _Perceptron(), path, "x0", shape=(2,), null={"label": 2}, taps=("hidden",), scalar_sites=("time",)
        )
        self.place, self.gain = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(1))

    def materialise(self, batch: Batch, rng: Rng) -> Any:
        """The free point, once a sample."""
        return self.place.expand(batch.size, 2).clone()  # a view of a parameter would carry gradient always


class Cast(Roles):
    """Roles that come to be when they are first asked for: an exact teacher, and players for all others."""

    def __init__(self, path: paths.GaussianPath, *names: str) -> None:
        super().__init__()
        self.path = path
        self.closed = False
        for name in names:
            _ = self[name]
        self.closed = bool(names)

    def __getitem__(self, name: str) -> Role:
        if name not in self._roles and not self.closed:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(len(self._roles))
                exact = name == "teacher"
                self.add(Role(name, Mixture(POINTS, 0.2, self.path, LABELS) if exact else Player(self.path)))
        return super().__getitem__(name)


class AnyState(dict[str, Any]):
    """Targets or scalars of which any name can be asked; `holds` says whether those that may be missing are there."""

    def __init__(self, make: Callable[[str], Any], *, holds: bool = True) -> None:
        super().__init__()
        self.make, self.holds = make, holds

    def __missing__(self, name: str) -> Any:
        return self.setdefault(name, self.make(name))

    def __contains__(self, name: object) -> bool:
        return self.holds

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if self.holds else default


def toy_batch(size: int = 8) -> Batch:
    """Points of the toy with their labels."""
    label = torch.arange(size) % 2
    return Batch(size, WORLD.data(size, Rng(7), label), {"label": label}, (2,))


def toy_event(ctx: Context, role: str) -> Event:
    """A prediction of one role on noised points, with any target that a loss may look for."""
    path, batch = ctx.roles[role].denoiser.path, toy_batch()
    x: Any = batch.x
    t = path.t_min + (path.t_max - path.t_min) * (0.2 + 0.6 * Rng(1).uniform(batch.size))
    noise = batch.noise(Rng(2))
    x_t = path.noised(x, noise, t)
    said = ctx.roles[role].predict(x_t, t, batch.cond)
    targets = AnyState(lambda name: WORLD.data(batch.size, Rng(3), batch.cond["label"], name))
    scalars = AnyState(lambda name: Rng(4).uniform(batch.size, stream=name))
    meta = AnyState(lambda name: said.x0)
    return Event(said.x0, batch.cond, t, x_t, noise, said, targets, scalars, meta=meta)


class OneEvent(Trajectory):
    """The toy's event."""

    role: str = "student"

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        with torch.set_grad_enabled(attached):
            yield toy_event(ctx, self.role)


def on_some_path(run: Callable[[paths.GaussianPath], None]) -> None:
    """Run on the first of the toy's paths that the component accepts; whatever Unfit says is final."""
    errors: dict[str, Exception] = {}
    for path in TOY_PATHS:
        try:
            return run(path)
        except (Unfit, unittest.SkipTest):
            raise
        except Exception as error:  # it may be made for another path
            errors.setdefault(f"{type(error).__name__}: {' '.join(str(error).split())}", error)
    raise Unfit(f"it does not run on the toy ({'; or '.join(errors)})") from next(iter(errors.values()))
