"""FRAMER: the last layer teaches the ones before it, band by band."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.image.super_resolution.losses import FrequencyAlignment
from distill.image.super_resolution.networks import LayerHeads
from distill.methods.losses import Match
from distill.methods.times import Times, UniformTimes
from distill.methods.trajectories import NoisedData


class Framer(Method):
    """Frequency-Aligned Self-Distillation with Adaptive Modulation (Choi et al. 2025, arXiv:2512.01390).

    Ordinary training of a denoiser, the recipe's `student:`, whose layers are drawn to its own last one in the same
    call: low frequencies within a picture, high ones against the batch's other pictures as well. The heads are thrown
    away. Radius, weight and ramp are not public; these are ours.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "its features are no maps"}
    times: Times = UniformTimes()
    """Noise levels."""
    denoise: Match = Match(target="real", level="edm", sigma_data=0.12)
    """The host's own loss."""
    alignment: FrequencyAlignment = FrequencyAlignment(weight=0.1)
    """The last layer's lessons; a weight of 0 leaves them out."""
    heads: LayerHeads = LayerHeads()
    """What brings layers to the size of the last one."""
    decay: float = 0.998
    """Decay of the average that is the result."""
    optimiser: Optimiser = Optimiser(lr=2e-3, schedule="cosine", warmup=50, clip=1.0, betas=(0.9, 0.99))
    """Optimiser of network and heads."""

    def roles(self) -> dict[str, RoleSpec]:
        heads = {"heads": RoleSpec(build=self.heads)} if self.alignment.weight else {}
        return {"student_ema": RoleSpec(copy_of="student", frozen=True), **heads}

    def plan(self, teacher: Any) -> Plan:
        losses = (self.denoise, *((self.alignment,) if self.alignment.weight else ()))
        events = NoisedData(times=self.times, tapped=len(losses) > 1)
        phases = one_phase(
            [Update(trajectory=events, loss=loss) for loss in losses],
            self.steps,
            {role: self.optimiser for loss in losses for role in loss.moves},
            actions=(EMA(decay=self.decay),),
        )
        return Plan(phases=phases, sampler=teacher, result="student_ema")
