"""Self-Forcing: distribution matching on clips that a causal student makes as it would in use."""

from __future__ import annotations

from typing import ClassVar

from distill.core import Optimiser, Trajectory
from distill.methods.losses import ScoreDifference
from distill.video.papers.causvid import LEVELS, CausVid
from distill.video.trajectories import SelfRollout


class SelfForcing(CausVid):
    """Self Forcing: Bridging the Train-Test Gap (Huang et al. 2025, arXiv:2506.08009), with distribution matching.

    As CausVid, but in the second phase the student makes whole clips, chunk by chunk on its own cache, with gradient at
    one exit step of each chunk; no data are needed.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy is not causal"}
    times: tuple[float, ...] = (1.0, 0.9375, 0.833, 0.625)
    """The student's times, descending: [1, 0.75, 0.5, 0.25] at shift 5."""
    at: tuple[int, ...] = (0, 12, 25, 37)
    """Numbers of the teacher's steps after which the states have about these times."""
    score: ScoreDifference = ScoreDifference(times=LEVELS, guidance=4.0)
    """Distribution matching: levels, guidance."""
    student_optimiser: Optimiser = Optimiser(lr=2e-6, betas=(0, 0.999))
    """The student's optimiser in the second phase."""
    critic_optimiser: Optimiser = Optimiser(lr=4e-7, betas=(0, 0.999))
    """The critic's optimiser."""

    def events(self) -> Trajectory:
        return SelfRollout(times=self.times)
