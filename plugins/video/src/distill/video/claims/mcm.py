"""Claim of MCM: a motion head lets pictures decide how frames look, at the motion of the clips."""

from __future__ import annotations

import copy
from typing import Any

from distill.core import Claim, Engine, Optimiser, Row
from distill.methods import toys as plain
from distill.video import toys
from distill.video.losses import MotionHead
from distill.video.papers.mcm import MCM

STEPS = 500
HEAD = MotionHead(kernel=3)
RATES: dict[str, Any] = {
    "optimiser": Optimiser(lr=3e-4, betas=(0, 0.99), schedule="cosine"),
    "heads_optimiser": Optimiser(lr=5e-4, betas=(0, 0.99)),
}


def trained(seed: int, **options: Any) -> Engine:
    """A student of a teacher of blurred clips, beside sharp pictures."""
    method = MCM(**{"steps": STEPS, "motion": HEAD, "adversarial": 0.1, **RATES, **options})
    teacher = copy.deepcopy(toys.rolling_start(seed, True))
    return plain.train(method, {"teacher": teacher}, data=toys.rolling(True, seed), size=128, seed=seed)


def claim(seed: int) -> Claim:
    """Rolling digits: the clips are blurred, the pictures sharp."""
    sharp = toys.rolling(False, seed + 7).tensors["x"]

    def judged(engine: Engine, steps: int) -> tuple[float, float]:
        return toys.judged(engine.roles["student"], engine.sampler.with_steps(steps), seed, sharp)

    full, raw, pure = trained(seed), trained(seed, motion=None), trained(seed, own=0.0)
    ours, bare = judged(full, 4), judged(raw, 4)
    mixed, unmixed = judged(full, 1)[0], judged(pure, 1)[0]
    return Claim(
        "mcm",
        "Consistency through a learnt motion head leaves appearance to a GAN on pictures.",
        [
            Row("4 steps: appearance distance / without the head", ours[0] / bare[0], "<=", 0.8, f"{bare[0]:.2f}"),
            Row("4 steps: motion distance / without the head", ours[1] / bare[1], "<=", 1.1, f"{bare[1]:.2f}"),
            Row("1 step: appearance / without own answers as data", mixed / unmixed, "<=", 0.95, f"{unmixed:.2f}"),
        ],
        broken=BROKEN,
        open=OPEN,
        settings={"data": toys.ROLLING, "features": "PCA-32", "seed": seed, "steps": STEPS},
    )  # fmt: skip


BROKEN = "The motion head left out, and the own answers left out: both are measured in each run."
OPEN = (
    "That the motion head helps. Seed 0, 500 steps, GAN of weight 0.1: in 4 steps appearance and motion distances "
    "were 29.8 and 24.3 with it, 25.4 and 23.2 without; in 1 step 8.2 and 17.0 with, 8.1 and 16.2 without. "
    "Samples of 4 steps are worse than those of 1, which points at too strong a GAN at low noise levels. The "
    "claim is not confirmed; the code agrees with the equations, and the thresholds are those of the method as it "
    "was written down before."
)
