"""SCFM: a flow's velocity becomes its own mean over longer windows, with two averages of the student."""

from __future__ import annotations

from typing import Any

from distill.core import EMA, Copy, Method, Optimiser, Plan, RoleSpec, Sampler, Update
from distill.core.plan import one_phase
from distill.core.sampling import Grid
from distill.methods.losses import Match
from distill.methods.teacher_paths import WindowPairs


class SCFM(Method):
    """Shortcutting Pre-trained Flow Matching Diffusion Models is Almost Free Lunch (Cai et al. 2025, arXiv:2510.17858).

    The student gets no step size: it learns at each (x, t) the velocity whose steps agree with steps of twice the
    length. The fast average of its weights makes the first half of a target, the slow one the second and the result.
    """

    windows: WindowPairs = WindowPairs()
    """Grids, shares and shifts of the training points, and the teacher's guidance."""
    fast: float = 0.99
    """Decay of the fast average."""
    slow: float = 0.999
    """Decay of the slow average."""
    restart: int | None = 2000
    """Iterations after which both averages start again from the student; never if None."""
    inference_steps: int = 4
    """Euler steps when the result is sampled."""
    inference_shift: float = 3.0
    """Timestep shift then."""
    optimiser: Optimiser = Optimiser(lr=2e-5)
    """The student's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        average = RoleSpec(copy_of="student", frozen=True)
        return {"student": RoleSpec(copy_of="teacher"), "fast": average, "slow": average}

    def plan(self, teacher: Any) -> Plan:
        averages = (EMA(target="fast", decay=self.fast), EMA(target="slow", decay=self.slow))
        names = ("fast", "slow") if self.restart else ()
        again = tuple(Copy(target=name, every=self.restart) for name in names)
        update = Update(trajectory=self.windows, loss=Match(view="velocity", target="velocity"))
        phases = one_phase([update], self.steps, {"student": self.optimiser}, actions=(*averages, *again))
        grid = Grid(shift=self.inference_shift)
        return Plan(phases=phases, sampler=Sampler(steps=self.inference_steps, grid=grid), result="slow")
