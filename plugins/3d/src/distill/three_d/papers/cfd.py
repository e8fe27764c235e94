"""CFD: a scene follows the flow of a diffusion model, under noise that lies on its surface."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt

from distill.core import Trajectory
from distill.three_d.losses import Levels, ViewScore
from distill.three_d.papers.sds import SDS
from distill.three_d.trajectories import SceneView


class CFD(SDS):
    """Consistent Flow Distillation for Text-to-3D Generation (Yan et al. 2025, arXiv:2501.05445).

    Noise belongs to the scene's surface, and its level falls while the run goes on: with fixed noise a deterministic
    flow, with noise that changes slowly a stochastic one. The paper's weights are σ/α for one view, as here, and 1 for
    several at once.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, seen through a lens"}
    steps: PositiveInt = 25_000
    """Optimiser iterations."""
    views: Trajectory = SceneView(noise="surface", refresh=1e-4)
    """How it is seen, its noise, and how fast that changes."""
    score: ViewScore = ViewScore(
        units="x0", guidance=71, levels=Levels(high=((0, 0.98), (0.1, 0.692), (0.5, 0.404), (1, 0.212)))
    )
    """σ/α (ε_teacher − ε): levels and guidance."""
