"""Claim of SFD: two and three calls that land where a long solve lands."""

from __future__ import annotations

import copy

import torch

from distill.core import Claim, Role, Row, Sampler, Samples
from distill.core.paths import Karras
from distill.core.rng import Rng
from distill.core.sampling import DDIM, Grid, Heun
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.sfd import SFD
from distill.methods.times import KarrasTimes

RANGE = {"t_min": 0.006, "t_max": 20.0}
PATH = Karras(**RANGE)
NETWORK = MLPDenoiser(path="karras", path_options=RANGE, sigma_data=0.7)
FIT, STEPS, LR, POINTS = 1200, 1000, 4e-3, 4096


def fitted(seed: int) -> Role:
    """A network fitted to the ring's data."""
    data = Samples(x=toys.ring(PATH).data(20000, Rng(seed)))
    fit = toys.Fitted(network=NETWORK, steps=FIT, times=KarrasTimes(), level="edm", sigma_data=0.7)
    return toys.train(fit, {}, data=data, seed=seed).roles["student"]


def claim(seed: int) -> Claim:
    """Distil the exact teacher's Heun route into roll-outs of 3 and 4 steps, the first of them free."""
    law = toys.ring(PATH)
    teacher, start = Role("teacher", law), fitted(seed)

    def ends(role: Role, sampler: Sampler) -> torch.Tensor:
        return toys.draw(role, sampler, POINTS, seed + 1)

    truth = ends(teacher, Sampler(steps=400, grid=Grid(spacing="karras"), solver=Heun()))

    def error(steps: int, **options: object) -> tuple[float, Sampler]:
        method = SFD(counts=(steps,), steps=STEPS, lr=LR, **{"solver": Heun(), **options})
        roles = {"teacher": law, "student": copy.deepcopy(start.denoiser)}
        engine = toys.train(method, roles, seed=seed)
        return toys.rmse(ends(engine.roles["student"], engine.sampler), truth), engine.sampler

    (two, sampler), (three, _), (coarse, _) = error(3), error(4), error(3, refine=1, solver=DDIM())
    euler = {n: toys.rmse(ends(teacher, Sampler(steps=n, grid=Grid(spacing="karras"))), truth) for n in (2, 3)}
    return Claim(
        "sfd",
        "A few Euler steps, trained on their own roll-out against a finer route, end where a long one ends.",
        [
            Row("RMSE of 2 calls / Euler's", two / euler[2], "<=", 0.2, f"Euler, 2 calls: {euler[2]:.3f}"),
            Row("RMSE of 3 calls / Euler's", three / euler[3], "<=", 0.3, f"Euler, 3 calls: {euler[3]:.3f}"),
            Row("RMSE with an Euler route, K = 1 / SFD's", coarse / two, ">=", 2.5, f"SFD, 2 calls: {two:.4f}"),
            Row("calls of 3 steps", sampler.calls(PATH), "<=", 2, "the first step is free"),
        ],
        broken=BROKEN,
        settings={
            "data": "ring of 8, std 0.1, σ 20 to 0.006",
            "seed": seed,
            "steps": (FIT, STEPS),
            "lr": LR,
            "batch": 256,
        },
    )


BROKEN = (
    "Targets one step too early on the teacher's route (seed 0): 2 calls 0.45 and 3 calls 0.70 of Euler's "
    "error instead of 0.10 and 0.19, the coarse route only 2.2 times as bad. The route of K = 1 is in the "
    "rows."
)
