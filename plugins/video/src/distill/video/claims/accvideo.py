"""Claim of AccVideo: five steps on stored routes keep to the flow, without data and without forward noising."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor

from distill.core import Claim, Engine, Mixture, Optimiser, Rng, Role, Row, Sampler, Samples
from distill.core.paths import Flow
from distill.core.sampling import Grid
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.video.losses import HeadsPerStep
from distill.video.papers.accvideo import AccVideo

WALK, FEW, POINTS = Sampler(steps=50, grid=Grid(shift=7.0)), Sampler(steps=5, grid=Grid(shift=7.0)), 4096
RATE = Optimiser(lr=2e-3, schedule="cosine")


class Counted(Flow):
    """A flow path that counts how often data are noised."""

    calls: ClassVar[list[int]] = [0]

    def noised(self, x0: Any, noise: Any, t: Any) -> Any:
        self.calls[0] += 1
        return super().noised(x0, noise, t)


def trained(law: Mixture, seed: int, steps: int, gan: float = 0.0) -> Engine:
    """A perceptron that learns from an exact teacher; heads look at another one, fitted to the teacher's data."""
    torch.manual_seed(seed)
    network = MLPDenoiser(shape=tuple(law.means.shape[1:]), width=160, kind="velocity")
    trunk = {"trunk": fitted(law, network, seed)} if gan else {}
    side = {"features": "trunk"}
    method = AccVideo(
        steps=steps, count=8192, sampler=WALK, optimiser=RATE, heads_optimiser=Optimiser(lr=1e-3),
        generator=AccVideo().generator.model_copy(update={"weight": gan, **side}),
        discriminator=AccVideo().discriminator.model_copy(update=side), heads=HeadsPerStep(features="trunk"),
    )  # fmt: skip
    return toys.train(method, {"teacher": law, "student": network.build(), **trunk}, size=256, seed=seed)


def fitted(law: Mixture, network: MLPDenoiser, seed: int) -> Any:
    """Features for the heads, where the teacher is exact and has none."""
    data = Samples(x=law.data(8192, Rng(seed)))
    engine = toys.train(toys.Fitted(network=network, steps=400), {}, data=data, seed=seed)
    return copy.deepcopy(engine.roles["student"].denoiser)


def claim(seed: int) -> Claim:
    """A Gaussian and a ring with exact teachers: ends against the teacher's, and distances to the modes."""
    gauss, ring = Mixture(torch.tensor([[1.5]]), 0.4, Counted()), toys.ring(Counted(), radius=2, std=0.15)

    def ends(role: Role, sampler: Sampler) -> Tensor:
        return toys.draw(role, sampler, POINTS, seed + 1000)

    teacher = Role("teacher", gauss)
    line = trained(gauss, seed, 500)
    gap = toys.rmse(ends(line.roles["student"], line.sampler), ends(teacher, WALK)) / gauss.std
    own = toys.rmse(ends(teacher, FEW), ends(teacher, WALK)) / gauss.std
    Counted.calls[0] = 0
    circle = trained(ring, seed, 2000)
    noised = Counted.calls[0]
    ours = to_modes(ends(circle.roles["student"], circle.sampler), ring)
    few, fine = (to_modes(ends(Role("teacher", ring), each), ring) for each in (FEW, WALK))
    return Claim(
        "accvideo",
        "Mean velocities of stored routes give five steps the ends of fifty, and need no data.",
        [
            Row("Gaussian: RMS to the ends of 50 steps / std", gap, "<=", 0.05, f"teacher, 5 steps: {own:.2f}"),
            Row(
                "ring: distance to the modes / the teacher's, 5 steps", ours / few, "<=", 0.6,
                f"{few:.2f}; 50 steps: {fine:.2f}",
            ),
            Row("calls of forward noising", noised, "<=", 0),
        ],
        broken=BROKEN,
        open=OPEN,
        settings={"data": "N(1.5, 0.4²), and a ring of 8, radius 2, std 0.15", "seed": seed, "steps": "500 and 2000"},
    )  # fmt: skip


def to_modes(x: Tensor, law: Mixture) -> float:
    """Mean distance of points to the nearest mean."""
    return float(torch.cdist(x, law.means).min(1).values.mean())


BROKEN = (
    "The velocity at the start of each stretch in place of its mean (seed 0): RMS 0.64 of a standard deviation on the "
    "Gaussian, where 0.05 is the limit."
)
OPEN = (
    "What the GAN adds: on the ring with weight 0.1 the distance to the modes was 0.36 in place of 0.40 (seed 0, "
    "one run), which is within what seeds differ by. That data of another law spoil forward noising: after 2000 "
    "steps the error was 0.40 with the data of the ring itself and 0.38 with data shifted by 3 (seed 0), so the "
    "toy does not show it."
)
