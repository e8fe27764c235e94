"""Claim of CausVid: regression alone gives a causal student that fades; distribution matching mends it."""

from __future__ import annotations

from typing import Any

import torch

from distill.core import Claim, Optimiser, Rng, Row, Sampler, Samples
from distill.methods import toys as plain
from distill.methods.losses import Denoise, ScoreDifference
from distill.video import toys
from distill.video.attention import Reach
from distill.video.papers.causvid import LEVELS, CausVid

FIRST, STEPS, CLIPS = 500, 800, 4000


def trained(seed: int, method: type[CausVid] = CausVid, steps: int = STEPS, **options: Any) -> torch.Tensor:
    """Clips of a linear one-step student of the exact bidirectional teacher, made chunk by chunk on its cache."""
    settings: dict[str, Any] = {
        "reach": Reach(chunk=3), "times": (1.0,), "walk": Sampler(steps=50), "at": (0,), "routes": 8192,
        "first": FIRST, "steps": steps, "score": ScoreDifference(times=LEVELS), "critic": Denoise(view="x0"),
        "critic_updates": 2, "regression": Optimiser(lr=2e-2, schedule="cosine"),
        "student_optimiser": Optimiser(lr=5e-3, betas=(0, 0.99), schedule="cosine"),
        "critic_optimiser": Optimiser(lr=1e-2, betas=(0, 0.99)),
    }  # fmt: skip
    data = Samples(x=toys.AR1().data(8192, Rng(seed + 3)))
    roles = {"teacher": toys.AR1(), "student": toys.linear((1.0,), chunk=3), "critic": toys.GaussianClips()}
    engine = plain.train(method(**settings | options), roles, data=data, size=128, seed=seed)
    return plain.draw(engine.roles["student"], engine.sampler, CLIPS, seed + 5)


def claim(seed: int) -> Claim:
    """AR1-VIDEO with chunks of three frames: variance, and correlation where chunks meet (both known)."""
    early, late = trained(seed, steps=1), trained(seed)
    faded, level = (float(toys.variances(x).mean()) for x in (early, late))
    apart, border = (float(toys.correlations(x)[2::3].min()) for x in (early, late))
    return Claim(
        "causvid",
        "Regression on routes leaves a causal student faded; a bidirectional teacher's scores mend it.",
        [
            Row("|mean variance after regression alone − 0.59|", abs(faded - 0.59), "<=", 0.05, "theory: 0.59"),
            Row("mean variance after distribution matching", level, ">=", 0.9, f"before: {faded:.2f}; true: 1"),
            Row("lowest correlation across chunks after it", border, ">=", 0.85, f"before: {apart:.2f}; true: 0.9"),
        ],
        broken=BROKEN,
        open=OPEN,
        settings={
            "data": "AR1-VIDEO: 12 frames of 8 numbers, correlation 0.9, exact teacher", "seed": seed,
            "student": "linear, causal, one step", "steps": f"{FIRST} and {STEPS}",
        },
    )  # fmt: skip


BROKEN = "Sign of the score difference flipped (seed 0): mean variance 467, correlation across chunks -0.96."
OPEN = (
    "The level of single frames: after distribution matching on noised data variances run from 0.62 in the first "
    "chunks to 1.7 in the last (seed 0); Self-Forcing, which matches them to 3 %, has a claim of its own. That "
    "regression must come first: without it the mean variance is 0.92 and the correlation 0.95 after as many "
    "steps, since a linear student is easy to move. Four-step students and real clips were not measured."
)
