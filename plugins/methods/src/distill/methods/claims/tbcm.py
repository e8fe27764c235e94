"""Claim of TBCM: one step, learnt on the teacher's routes without data, as good as on noised data."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from distill.core import (
    Batch,
    Claim,
    Context,
    Optimiser,
    Plan,
    Rng,
    Role,
    Roles,
    Row,
    Samples,
    Update,
    rollout,
)
from distill.core.paths import Trigonometric
from distill.core.plan import one_phase
from distill.core.sampling import finish
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.tbcm import TBCM
from distill.methods.teacher_paths import Harvest
from distill.methods.times import UniformTimes
from distill.methods.trajectories import NoisedData, sampler_at

PATH = Trigonometric(sigma_data=0.5)
NETWORK = MLPDenoiser(path="trigonometric", path_options={"sigma_data": 0.5}, kind="velocity")
FIT, STEPS, POINTS = 1200, 1000, 4096
OPTIMISER = Optimiser(lr=2e-4, clip=0.1, betas=(0.9, 0.99), warmup=100, schedule="cosine")
OURS = TBCM(steps=STEPS, tangent_warmup=STEPS // 2, optimiser=OPTIMISER, times=(math.pi / 2,))


class OnData(TBCM):
    """The same loss on noised data, the teacher's velocity asked for at each point."""

    def plan(self, teacher: Any) -> Plan:
        plan = super().plan(teacher)
        update = Update(trajectory=NoisedData(times=UniformTimes(low=0.01)), loss=plan.phases[0].updates[0].loss)
        return plan.model_copy(update={"phases": one_phase([update], self.steps, plan.phases[0].optimisers)})


def route_gap(teacher: Role, seed: int) -> float:
    """Largest difference between the route's end and a plain roll-out of the teacher over the same times."""
    ctx = Context(Roles({"teacher": teacher, "student": teacher}), Rng(seed))
    event = next(Harvest().events(Batch(64, shape=(2,)), ctx, attached=False))
    start = PATH.prior(Rng(seed).normal(64, 2, stream="harvest/noise"), math.pi / 2)
    return float((finish(rollout(teacher, start, event.meta["times"])) - event.meta["end"]).abs().max())


def claim(seed: int) -> Claim:
    """Train one step on 16-point routes, on noised data, and on 3-point routes, with equal points a step."""
    law = toys.ring(PATH, radius=0.7, std=0.06, weights=toys.class_weights(shares=(0.2,) * 4 + (0.05,) * 4))
    data, reference = Samples(x=law.data(20000, Rng(seed))), law.data(POINTS, Rng(seed + 1))
    fit = toys.Fitted(network=NETWORK, steps=FIT, level="edm")
    start = toys.train(fit, {}, data=data, seed=seed).roles["student"]

    def samples(role: Role) -> torch.Tensor:
        return toys.draw(role, sampler_at((math.pi / 2,)), POINTS, seed + 2)

    def error(method: TBCM, size: int, source: Samples | None = None) -> tuple[float, torch.Tensor]:
        roles = {"teacher": law, "student": copy.deepcopy(start.denoiser)}
        x = samples(toys.train(method, roles, data=source, size=size, seed=seed).roles["student"])
        return toys.energy_distance(x, reference), x

    ours, x = error(OURS, 32)
    on_data, _ = error(OnData(**OURS.model_dump()), 480, data)
    short, _ = error(OURS.model_copy(update={"points": 3}), 240)
    untrained = toys.energy_distance(samples(start), reference)
    return Claim(
        "tbcm",
        "Points of the teacher's own routes train a one-step student as well as noised data do.",
        [
            Row(
                "energy distance of one step",
                ours,
                "<=",
                0.02,
                f"the fitted network's one step: {untrained:.3f}",
            ),
            Row("modes covered", toys.modes_covered(x, law), ">=", 7, "of 8"),
            Row(
                "energy distance / of consistency on data",
                ours / on_data,
                "<=",
                1.5,
                f"on data: {on_data:.4f}",
            ),
            Row("energy distance on 3-point routes / ours", short / ours, ">=", 2.0, f"3 points: {short:.4f}"),
            Row(
                "route's end against the teacher's sampler",
                route_gap(Role("teacher", law), seed),
                "<=",
                1e-5,
                "same times",
            ),
        ],
        broken=BROKEN,
        open=OPEN,
        settings={
            "data": "none; ring of 8, radius 0.7, std 0.06",
            "seed": seed,
            "steps": (FIT, STEPS),
            "points": 480,
        },
    )


OPEN = "A tighter bound, 1.3 times consistency on data: 0.95, 0.84 and 1.34 on seeds 0, 1, 2."
BROKEN = (
    "The student's derivative with the other sign in the tangent (seed 0): energy distance 1.22, 2 modes "
    "of 8. Routes of 3 points are in the rows; 4 points were 1.8 times as bad as 16."
)
