"""Claim of Self-Forcing: a student trained on its own clips keeps their law to the end, where CausVid's drifts."""

from __future__ import annotations

from torch import Tensor

from distill.core import Claim, Row
from distill.video import toys
from distill.video.claims.causvid import STEPS, trained
from distill.video.papers.self_forcing import SelfForcing


def worst(clips: Tensor) -> tuple[float, float]:
    """Largest error of a frame's variance, and of a correlation across chunks."""
    variance, border = toys.variances(clips), toys.correlations(clips)[2::3]
    return float((variance - 1).abs().max()), float((border - toys.RHO).abs().max())


def claim(seed: int) -> Claim:
    """AR1-VIDEO: the same student, teacher and updates; clips of the student itself, or noised data."""
    ours, theirs = worst(trained(seed, SelfForcing)), worst(trained(seed))
    return Claim(
        "self-forcing",
        "Distribution matching on a causal student's own clips keeps their law from the first frame to the last.",
        [
            Row("largest error of a frame's variance", ours[0], "<=", 0.1, f"CausVid: {theirs[0]:.2f}"),
            Row("largest error of a correlation across chunks", ours[1], "<=", 0.05, f"CausVid: {theirs[1]:.2f}"),
        ],
        broken=BROKEN,
        settings={
            "data": "AR1-VIDEO: 12 frames of 8 numbers, correlation 0.9, exact teacher", "seed": seed,
            "student": "linear, causal, one step", "steps": STEPS,
        },
    )  # fmt: skip


BROKEN = "Noised data in place of the student's own clips (CausVid's events): measured in each run."
