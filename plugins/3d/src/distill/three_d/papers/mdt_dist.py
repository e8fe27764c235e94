"""MDT-dist: a flow over 3D latents or voxels in one or two steps, by an average velocity that teaches itself."""

from __future__ import annotations

from typing import Any

from distill.core import Method, Optimiser, Plan, Sampler, Update
from distill.core.plan import one_phase
from distill.methods.times import Times, UniformTimes
from distill.methods.trajectories import Generate, NoisedData
from distill.three_d.latents import VelocityDistillation, VelocityMatching


class MDTDist(Method):
    """Few-step Flow for 3D Generation via Marginal-Data Transport Distillation (arXiv:2509.04406).

    One network beside the teacher. The paper's guidance for TRELLIS is 41 in `matching` and 101 in `distilling`, its
    learning rates 4e-8 and 1e-8 with batches of 256; its code draws times by a logit-normal law and normalises dφ, its
    text draws them uniformly and does not, as here.
    """

    times: Times = UniformTimes(low=0.01)
    """Noise levels of data; the code's are `logitnormal` with mean 1."""
    matching: VelocityMatching = VelocityMatching()
    """How the average velocity is learnt on data."""
    distilling: VelocityDistillation | None = VelocityDistillation()
    """How samples are moved towards the teacher's law; None leaves matching alone."""
    student_steps: tuple[float, ...] = (1.0,)
    """Times at which the student is asked in sampling, descending."""
    optimiser: Optimiser = Optimiser(lr=1e-4, schedule="cosine")
    """Optimiser of the student."""

    def plan(self, teacher: Any) -> Plan:
        updates = [Update(trajectory=NoisedData(times=self.times), loss=self.matching)]
        if self.distilling is not None:
            updates.append(Update(trajectory=Generate(), loss=self.distilling))
        sampler = Sampler(times=self.student_steps, steps=len(self.student_steps))
        return Plan(phases=one_phase(updates, self.steps, {"student": self.optimiser}), sampler=sampler)
