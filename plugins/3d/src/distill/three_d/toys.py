"""Exact worlds for score distillation: points with seeds of their own, and scenes whose views have a known law."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distill.core import Batch, Context, Event, Method, Mixture, Optimiser, Rng, Role, Sampler, Samples, Subject
from distill.core.paths import Cosine
from distill.core.roles import Roles
from distill.methods import toys as plain
from distill.methods.trajectories import View
from distill.three_d.cameras import Cameras, Orbit
from distill.three_d.directions import FACE, JAW, Directions, Landmarks
from distill.three_d.gaussians import Gaussians
from distill.three_d.render import Render, Rendered, render
from distill.three_d.starts import FLAT, from_points

RING = "eight Gaussians on a circle of radius 2, standard deviation 0.15"
SEEDS = 400


class Points(Subject):
    """Free states [B, ...] of which a batch is made; each is a subject of its own."""

    def __init__(self, begin: Tensor) -> None:
        super().__init__()
        self.points = nn.Parameter(begin.clone())

    def materialise(self, batch: Batch, rng: Rng) -> Tensor:
        return self.points


class Seeded(View):
    """Points with a noise each: that of their seed, kept through the run, or another one in every step."""

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a subject"}
    noise: Literal["kept", "drawn"] = "kept"
    """Whose it is."""
    seed: int = 0
    """Of the noise."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        for event in super().events(batch, ctx, attached=attached):
            drawn = self.noise == "drawn"
            yield replace(event, noise=ctx.rng.normal_like(event.x) if drawn else seeds(self.seed, event.x))


@cache
def ring(weights: bool = False) -> Mixture:
    """The exact denoiser of the ring; with classes, each mode is one."""
    rows = torch.cat([torch.eye(8), torch.ones(1, 8)]) if weights else None
    return plain.ring(Cosine(), radius=2.0, std=0.15, weights=rows)


def seeds(seed: int, like: Tensor) -> Tensor:
    """The noises that points of this form are kept with."""
    drawn: Tensor = Rng(seed).normal_like(like, stream="seed")
    return drawn


def sampled(teacher: Mixture, noise: Tensor, cond: Any = None, level: float = 0.98) -> Tensor:
    """Where the teacher's own path leads from noises: DDIM in 200 steps, from so high a level."""
    times = tuple(torch.linspace(level, 0, 201, dtype=torch.float64).tolist())
    ends: Tensor = Sampler(times=times[:-1], end=0.0).sample(Role("teacher", teacher), noise, cond)
    return ends


def distilled(
    method: Method, teacher: Mixture, begin: Tensor, seed: int, *, data: Any = None, lens: Any = None
) -> Tensor:
    """Where points end that begin in one place, distilled by a method."""
    subject = Points(begin)
    student = Role("student", subject)
    roles = Roles({"teacher": Role("teacher", teacher), "student": student})
    plain.train(method, roles, seed=seed, size=len(begin), data=data, lens=lens)
    return subject.points.detach()


def descent(rate: float, count: int) -> Optimiser:
    """Plain gradient descent of so many points at a rate each, whatever their number; Adam's ε is far above √v."""
    return Optimiser(lr=rate * 2 * count, eps=1.0, betas=(0.0, 0.99))


QUICK = Optimiser(lr=0.05, betas=(0.9, 0.99))
"""Optimiser of colours."""


def modes(x: Tensor, teacher: Mixture) -> Tensor:
    """The mode that each point is nearest to [B]."""
    return torch.cdist(x.flatten(1), teacher.means.flatten(1)).argmin(1)


def agreement(x: Tensor, y: Tensor, teacher: Mixture) -> float:
    """Share of the points that end in the same mode."""
    return float((modes(x, teacher) == modes(y, teacher)).float().mean())


def astray(x: Tensor, teacher: Mixture) -> float:
    """Mean distance to the nearest mode's centre."""
    return float(torch.cdist(x.flatten(1), teacher.means.flatten(1)).amin(1).mean())


# ---------------------------------------------------------------- scenes whose views have a known law

VIEWS, SIDE, DOTS = 8, 10, 100
COLOURS = ((0.9, 0.2, 0.2), (0.2, 0.8, 0.3), (0.2, 0.3, 0.9), (0.9, 0.8, 0.2))
BALLS = "views 10 x 10 of a ball of 100 Gaussians from 8 sides"
HEADS = "heads on a ball of 100 Gaussians in four pairs of colours, seen 10 x 10 from 8 sides, the front most often"


def cameras() -> Cameras:
    """Where all is seen from: eight sides, the front first."""
    return Orbit(elevation=(10, 10), azimuth=(0, 360)).even(VIEWS, SIDE, SIDE)


def spots() -> Tensor:
    """Even places on a ball [N, 3]."""
    n = torch.arange(DOTS)
    high = 1 - (2 * n + 1) / DOTS
    turn = n * (math.pi * (3 - 5**0.5))
    flat = (1 - high**2).sqrt()
    return 0.7 * torch.stack([flat * turn.sin(), high, flat * turn.cos()], 1)


def ball(colours: Tensor) -> dict[str, Tensor]:
    """A ball in colours [N, 3]."""
    return from_points(spots(), colours, opacity=0.95)


@cache
def blending() -> tuple[Tensor, Rendered]:
    """How much of each Gaussian's colour each pixel of the eight views has [V, N, H, W], and what else they show."""
    shares = []
    for n in range(0, DOTS, 3):
        scene = ball(torch.eye(DOTS)[:, n : n + 3] if n + 3 <= DOTS else torch.eye(DOTS, DOTS + 3)[:, n : n + 3])
        drawn = render(scene, cameras())
        shares.append(drawn.images)
    return torch.cat(shares, 1)[:, :DOTS], drawn


class Painted(Render):
    """What `render` shows of a ball from the eight sides, where only colours change: the blending is known before."""

    def drawn(self, scene: Any) -> Rendered:
        shares, known = blending()
        seen = Cameras.of(scene, *self.size) or cameras()
        rows = torch.cdist(seen.places, cameras().places).argmin(1)
        colours = (FLAT * scene["sh0"][:, 0] + 0.5).clamp_min(0)
        images = torch.einsum("vnhw,nc->vchw", shares[rows], colours)
        return Rendered(images, known.alpha[rows], known.depth[rows], known.normals[rows])


def lens() -> Painted:
    """Views on grey."""
    return Painted(size=(SIDE, SIDE), background=(0.5, 0.5, 0.5))


def pictures(scene: Any) -> Tensor:
    """Its eight views [V, 3, H, W] in [-1, 1]."""
    pixels: Tensor = lens()({part: value[None] for part, value in {**scene, **cameras().fields()}.items()})
    return pixels


def head(skin: int, features: int) -> Tensor:
    """Colours [N, 3] of a head that looks along z: eyes, nose and mouth in another colour than the skin."""
    points = spots()
    face = torch.nn.functional.normalize(torch.tensor(FACE[len(JAW) :]), dim=1) * 0.7
    painted = (torch.cdist(points, face).amin(1) < 0.16)[:, None]
    return torch.where(painted, torch.tensor(COLOURS[features]), torch.tensor(COLOURS[skin]))


@cache
def balls() -> Mixture:
    """The exact denoiser of views of a ball in one of four colours, class by class the sides."""
    means = torch.cat([pictures(ball(torch.tensor(colour).expand(DOTS, 3))) for colour in COLOURS])
    return Mixture(
        means, 0.25, Cosine(), torch.cat([torch.eye(VIEWS).repeat(1, len(COLOURS)), torch.ones(1, len(means))])
    )


class Heads(Mixture):
    """Views of heads: a text names the head and a direction, landmarks the side; few views are from behind.

    Texts are 0 the head alone, 1 to 3 its front, sides and back, 4 none.
    """

    def __init__(self, bias: float = 3.0, said: float = 1.5, tolerance: float = 0.5) -> None:
        kinds = [head(skin, (skin + 1) % len(COLOURS)) for skin in range(len(COLOURS))]
        means = torch.cat([pictures(ball(kind)) for kind in kinds])
        seen = cameras()
        often = (bias * torch.arange(VIEWS).mul(2 * math.pi / VIEWS).cos()).exp()
        names = Directions().named(seen)
        told = [torch.tensor([said if name == each else 1.0 for name in names]) for each in ("front", "side", "back")]
        first = torch.zeros(len(kinds), 1).index_fill(0, torch.tensor(0), 1.0)
        rows = [(first * often * more).flatten() for more in (torch.ones(VIEWS), *told)]
        everything = often.repeat(len(kinds))
        super().__init__(means, 0.25, Cosine(), torch.stack([*rows, everything]))
        self.tolerance = tolerance
        self.register_buffer("landmarks", Landmarks(size=0.7, dot=0.06).drawn(seen).repeat(len(kinds), 1, 1, 1))

    def _prior(self, cond: Mapping[str, Any], size: int) -> Tensor:
        prior = super()._prior(cond, size)
        if "landmarks" not in cond:
            return prior
        gap = torch.cdist(cond["landmarks"].flatten(1), self.get_buffer("landmarks").flatten(1))
        return prior * (-(gap**2) / (2 * self.tolerance**2)).exp().clamp_min(1e-12)


def features(views: Tensor) -> Tensor:
    """How far the first head's views have the colour of its features instead of its skin's, from 0 to 1: [V]."""
    skin, other = torch.tensor(COLOURS[0]), torch.tensor(COLOURS[1])
    along = (other - skin) / (other - skin).square().sum()
    return torch.einsum("vchw,c->vhw", (views + 1) / 2 - skin[:, None, None], along).clamp(0, 1).flatten(1).mean(1)


def colours(views: Tensor) -> Tensor:
    """The colour of `balls` that each of the eight views is nearest to [V]."""
    known = balls().means.unflatten(0, (len(COLOURS), VIEWS))
    return (views - known).square().flatten(2).sum(2).argmin(0)


def seed_of(number: int) -> Tensor:
    """The noise that `SceneView` keeps with a scene of that seed, where all views have the same: [1, 3, H, W]."""
    return Rng(number).normal(1, 3, SIDE, SIDE)


def sides(label: bool = True) -> Samples:
    """The cameras, and the number of each."""
    told = {"label": torch.arange(VIEWS)} if label else {}
    return Samples(**cameras().fields(), **told)


def painted(method: Method, teacher: Mixture, seed: int, *, label: bool = True, size: int = 4) -> Tensor:
    """Views of a ball whose colours a method has found, from nearly grey ones."""
    begin = 0.5 + 0.05 * Rng(seed).normal(DOTS, 3, stream="begin")
    frozen = dict.fromkeys(("means", "quats", "scales", "opacities", "shN"), 0.0)
    subject = Gaussians(ball(begin), rates=frozen)
    student = Role("student", subject)
    roles = Roles({"teacher": Role("teacher", teacher), "student": student})
    plain.train(method, roles, seed=seed, size=size, data=sides(label), lens=lens())
    with torch.no_grad():
        return pictures(subject.scene)
