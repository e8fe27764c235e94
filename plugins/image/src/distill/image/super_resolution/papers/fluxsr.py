"""FluxSR: a generator's stored noises and pictures, and the short way from the low-resolution picture to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import PositiveInt

from distill.core import EMA, Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.core.sampling import Consistency
from distill.image.super_resolution.losses import Perceptual
from distill.image.super_resolution.paths import Tempered
from distill.image.super_resolution.trajectories import AnchoredPairs
from distill.methods.losses import MatchState, TokenDiversity
from distill.methods.pairs import MakePairs, PairRegression
from distill.methods.transforms import LoRA


class FluxSR(Method):
    """One Diffusion Step to Real-World Super-Resolution via Flow Trajectory Distillation (Li et al. 2025,
    arXiv:2502.01993).

    The teacher is asked once, for pairs. `trajectory` is flow trajectory distillation, `T² ‖v − (x_L − x0) / T‖²` all
    the way from the low-resolution picture to the noise; the other losses look at the one step that sampling takes,
    from x_L without noise. Teachers here know the low-resolution picture, which therefore belongs to their pairs;
    the paper's knows a prompt, and its pictures are made small afterwards. Weights, rank and T are not public.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "samples of the toy are no pairs of pictures"}
    pairs: PositiveInt = 2400
    """Stored pairs."""
    pair_sampler: Sampler | None = None
    """How the teacher makes them; its own sampler if None."""
    store: Path | None = None
    """Folder of the pairs, which runs may share; one in the run's folder if None."""
    anchored: AnchoredPairs = AnchoredPairs()
    """Where the low-resolution picture stands."""
    trajectory: PairRegression = PairRegression(weight=1.0)
    """Flow trajectory distillation; a weight of 0 leaves it out."""
    values: MatchState = MatchState(target="real")
    """Squared distance of the one step to the teacher's picture."""
    perceptual: Perceptual = Perceptual(varied=0.5)
    """The same in a network's features, of pictures and of their variation (TV-LPIPS); likewise."""
    diversity: TokenDiversity = TokenDiversity(weight=0.1)
    """Attention diversification of the features that the network taps; likewise."""
    adapter: LoRA | None = LoRA(rank=16)
    """The student's adapter on the teacher; a copy of the teacher if None."""
    decay: float = 0.999
    """Decay of the student's average, which is the result."""
    optimiser: Optimiser = Optimiser(lr=5e-5)
    """The student's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        adapted = {"shares": "teacher", "transforms": (self.adapter,)} if self.adapter else {"copy_of": "teacher"}
        return {"student": RoleSpec(**adapted), "student_ema": RoleSpec(copy_of="student", frozen=True)}

    def plan(self, teacher: Any) -> Plan:
        losses = (self.trajectory, self.values, self.perceptual, self.diversity)
        made = MakePairs(count=self.pairs, sampler=self.pair_sampler or teacher, store=self.store)
        train = Phase(
            steps=self.steps, optimisers={"student": self.optimiser}, actions=(EMA(decay=self.decay),),
            updates=tuple(Update(trajectory=self.anchored, loss=loss) for loss in losses if loss.weight),
        )  # fmt: skip
        sampler = Tempered(times=(self.anchored.anchor,), steps=1, solver=Consistency(), temperature=0.0)
        return Plan(phases=(Phase(name="pairs", fit=made), train), sampler=sampler, result="student_ema")
