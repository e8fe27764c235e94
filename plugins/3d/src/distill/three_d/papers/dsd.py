"""DSD: a scene follows the sampling path of its own seed."""

from __future__ import annotations

from typing import ClassVar

from distill.core import Trajectory
from distill.three_d.losses import SeededScore
from distill.three_d.papers.sds import SDS
from distill.three_d.trajectories import SceneView


class DSD(SDS):
    """Diverse Score Distillation (Xu et al. 2024, arXiv:2412.06780).

    A seed noise, kept with the scene, has a sampling path of its own; every view takes that path's steps at what it
    shows, so that another seed makes another scene.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, seen through a lens"}
    views: Trajectory = SceneView(noise="seed")
    """How it is seen; `seed` is that of the noise."""
    score: SeededScore = SeededScore(guidance=7.5)
    """σ² (ε_teacher − ε of the seed's path): levels, guidance, steps of the path."""
