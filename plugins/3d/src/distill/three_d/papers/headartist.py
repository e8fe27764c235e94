"""HeadArtist: a head made from the difference of one teacher's two opinions, both told where the face is."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt

from distill.core import Trajectory
from distill.three_d.losses import Levels, SelfScore
from distill.three_d.papers.sds import SDS
from distill.three_d.trajectories import DirectedView


class HeadArtist(SDS):
    """HeadArtist: Text-conditioned 3D Head Generation with Self Score Distillation (Liu et al. 2023, arXiv:2312.07539).

    The reference is the teacher itself, without guidance and under a text that names no direction; both opinions see
    the landmarks of the face as the camera does. Defaults are those of the paper's texture stage; its geometry stage
    has guidance 100 and levels up to 0.5, on a mesh with regularisers that a scene of Gaussians has not.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, seen through a lens"}
    steps: PositiveInt = 20_000
    """Optimiser iterations."""
    views: Trajectory = DirectedView()
    """How it is seen, its directions and its landmarks."""
    score: SelfScore = SelfScore(guidance=7.5, levels=Levels(low=((0.0, 0.02),), high=((0.0, 0.98), (0.5, 0.7))))
    """σ² (ε of the view − ε of the plain text): levels, guidance, the plain text."""
