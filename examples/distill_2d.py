"""Distil an exact teacher into a one-step generator in two dimensions, in about 20 seconds on one CPU core.

    python examples/distill_2d.py [--steps 1600] [--fit-steps 800]

Read it from top to bottom: it is the library in small. A *teacher* whose scores are known in closed form, a
*network* fitted to its data, and a *plan* by which two copies of that network learn: the *student* to answer
noise with a sample in one call (distribution matching: Yin et al. 2023, arXiv:2311.18828), the *critic* what
law those samples have.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator
from functools import partial

import torch

from distill.core import (
    Batch,
    Denoiser,
    Engine,
    Mixture,
    Optimiser,
    Phase,
    Plan,
    Rng,
    Role,
    Roles,
    Sampler,
    Samples,
    Update,
    batches,
)
from distill.core.paths import Karras
from distill.core.sampling import Grid
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.networks import MLPDenoiser
from distill.methods.times import KarrasTimes
from distill.methods.toys import energy_distance
from distill.methods.trajectories import Data, Generate, sampler_at

# The forward process: x_t = x_0 + t ε, with t from 0.02 to 10. A one-step student is asked at one time only.
LEVELS = {"t_min": 0.02, "t_max": 10.0}
ONE_STEP = 2.5


def ring() -> Mixture:
    """Eight Gaussians on a circle, and the exact denoiser of their mixture at every level: no parameters."""
    angle = torch.arange(8) * (math.pi / 4)
    return Mixture(0.7 * torch.stack([angle.cos(), angle.sin()], 1), 0.06, Karras(**LEVELS))


def source(dataset: Samples | None, start: int) -> Iterator[Batch]:
    """Batches from number `start` on; without a dataset they hold only a size and the shape of a sample."""
    return batches(dataset, 256, start=start, shape=(2,))


def train(roles: Roles, phase: Phase, data: Samples | None = None) -> Engine:
    """Run a plan of one phase to its end. There is one training loop, whatever the method."""
    return Engine(roles, Plan(phases=(phase,)), partial(source, data)).run()


def fitted(data: Samples, steps: int) -> Denoiser:
    """A small network that has learnt to denoise the data: student and critic start from it."""
    network = MLPDenoiser(path="karras", path_options=LEVELS, sigma_data=0.5).build()
    learn = Denoise(role="student", view="x0", level="edm", times=KarrasTimes())
    phase = Phase(
        steps=steps,
        updates=(Update(trajectory=Data(), loss=learn),),
        optimisers={"student": Optimiser(lr=2e-3, schedule="cosine")},
    )
    train(Roles({"student": Role("student", network)}), phase, data)
    return network


def distilled(teacher: Mixture, start: Denoiser, steps: int) -> Role:
    """DMD without pairs: the student moves along the difference of two scores, the critic follows it.

    Each update names a trajectory (where events come from) and a loss (what is minimised). A loss names the
    roles that it moves, and the engine lets gradient into no other. Consecutive updates with an equal
    trajectory share its events: the critic learns from the samples that move the student, and four times as
    often as the student moves.
    """
    roles = Roles(
        {
            "teacher": Role("teacher", teacher),
            "student": Role("student", copy.deepcopy(start)),
            "critic": Role("critic", copy.deepcopy(start)),
        }
    )
    samples = Generate(times=(ONE_STEP,))
    learn = Denoise(role="critic", view="x0", level="edm", times=KarrasTimes())
    phase = Phase(
        steps=steps,
        updates=(
            Update(trajectory=samples, loss=ScoreDifference(times=KarrasTimes(high=0.8)), every=4),
            Update(trajectory=samples, loss=learn),
        ),
        optimisers={
            "student": Optimiser(lr=1e-4, betas=(0, 0.999), schedule="linear"),
            "critic": Optimiser(lr=4e-4, betas=(0, 0.999), schedule="linear"),
        },
    )
    return train(roles, phase).roles["student"]


def error(role: Role, sampler: Sampler, teacher: Mixture, size: int = 4000) -> float:
    """Energy distance between samples of a role, from one set of noises, and data: 0 for equal laws."""
    rng = Rng(1)
    return energy_distance(sampler.sample(role, rng.normal(size, 2), None, rng), teacher.data(size, Rng(2)))


def main(steps: int = 1600, fit_steps: int = 800) -> tuple[float, float]:
    """Fit, distil, and print the energy distance to data: of one-step samples before, and after."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    began, teacher = time.perf_counter(), ring()
    start = fitted(Samples(x=teacher.data(20000, Rng(0))), fit_steps)
    slow, one_step = Sampler(steps=64, grid=Grid(spacing="karras")), sampler_at((ONE_STEP,))
    print(f"teacher, 64 steps            {error(Role('teacher', teacher), slow, teacher):.5f}")
    before = error(Role("start", start), one_step, teacher)
    print(f"network, 1 step, before      {before:.5f}")
    after = error(distilled(teacher, start, steps), one_step, teacher)
    print(f"student, 1 step, after DMD   {after:.5f}   ({time.perf_counter() - began:.0f} s)")
    return before, after


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Distil a ring of Gaussians into a one-step generator.")
    arguments.add_argument("--steps", type=int, default=1600, help="iterations of distillation")
    arguments.add_argument("--fit-steps", type=int, default=800, help="iterations of the fit before it")
    given = arguments.parse_args()
    main(given.steps, given.fit_steps)
