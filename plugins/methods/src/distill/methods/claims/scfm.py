"""Claim of SCFM: a flow takes half of its steps or fewer, without being told how long they are."""

from __future__ import annotations

import copy
from typing import Any

from distill.core import Claim, Denoiser, Engine, Optimiser, Role, Row, Sampler, Samples
from distill.core.paths import Flow
from distill.core.rng import Rng
from distill.core.sampling import Grid
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.scfm import SCFM
from distill.methods.teacher_paths import WindowPairs

NETWORK = MLPDenoiser(kind="velocity", width=128)
FIT, STEPS, LR, POINTS = 1500, 3000, 1e-3, 4096


def fitted(seed: int) -> tuple[Samples, Denoiser]:
    """Data of the ring, and a network fitted to them."""
    data = Samples(x=toys.ring(Flow()).data(20000, Rng(seed)))
    fit = toys.Fitted(network=NETWORK, steps=FIT, level="snr+1")
    return data, toys.train(fit, {}, data=data, seed=seed).roles["student"].denoiser


def shortcut(data: Samples, start: Denoiser, seed: int, **windows: Any) -> Engine:
    """Train SCFM on the ring."""
    optimiser = Optimiser(lr=LR, schedule="cosine")
    method = SCFM(steps=STEPS, optimiser=optimiser, restart=None, windows=WindowPairs(**windows))
    return toys.train(method, {"teacher": copy.deepcopy(start)}, data=data, seed=seed)


def claim(seed: int) -> Claim:
    """Shorten a fitted flow's route, and the same with every sample on the teacher's own grid."""
    data, start = fitted(seed)
    reference = toys.ring(Flow()).data(POINTS, Rng(seed), stream="reference")

    def measure(role: Role, steps: int, shift: float = 3.0) -> float:
        sampler = Sampler(steps=steps, grid=Grid(shift=shift))
        return toys.sliced_wasserstein(toys.draw(role, sampler, POINTS, seed + 1), reference)

    teacher, slow = Role("teacher", start), shortcut(data, start, seed).roles["slow"]
    alone = shortcut(data, start, seed, share=1.0).roles["slow"]
    ours, raw = ({n: measure(role, n) for n in (3, 4, 8)} for role in (slow, teacher))
    best = {n: min(measure(teacher, n, shift) for shift in (0.5, 1.0, 2.0, 3.0)) for n in (4, 8)}
    return Claim(
        "scfm",
        "A flow learns velocities whose few steps agree with many, without an input for their length.",
        [
            Row("SW of 4 steps / the teacher's", ours[4] / raw[4], "<=", 0.5, f"teacher, 4 steps: {raw[4]:.3f}"),
            Row("SW of 8 steps / the teacher's", ours[8] / raw[8], "<=", 0.75, f"teacher, 8 steps: {raw[8]:.3f}"),
            Row("teacher's grid alone / SCFM, 4 steps", measure(alone, 4) / ours[4], ">=", 1.4, f"SCFM: {ours[4]:.3f}"),
            Row("SW of 3 steps / the teacher's", ours[3] / raw[3], "<=", 0.8, f"teacher, 3 steps: {raw[3]:.3f}"),
            Row(
                "SW of 4 steps / teacher's best grid", ours[4] / best[4], "<=", 1.6, f"best of 4 shifts: {best[4]:.3f}"
            ),
            Row(
                "SW of 8 steps / teacher's best grid", ours[8] / best[8], "<=", 1.2, f"best of 4 shifts: {best[8]:.3f}"
            ),
        ],
        broken=BROKEN,
        open=OPEN,
        settings={"data": "ring of 8, std 0.1, flow path", "seed": seed, "steps": (FIT, STEPS), "lr": LR},
    )


BROKEN = (
    "The second window left out of the target (seed 0): SW of 3, 4 and 8 steps 0.433, 0.332 and 0.119, exactly the "
    "teacher's. The teacher's own grid alone is in the rows."
)
OPEN = (
    "8 steps were expected at half of the teacher's SW on the same grid, and 0.60, 0.55 and 0.63 were measured "
    "(seeds 0, 1, 2). At 4 steps the teacher on its best grid, which on this ring is not a shifted one, is better "
    "than SCFM on the shifted grid. The second velocity asked at the first state instead of the middle one is not "
    "told apart here (seed 0: 0.130 at 4 steps, 0.068 at 8). One average instead of two was not measured."
)
