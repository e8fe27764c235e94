"""How teachers are made."""

from __future__ import annotations

from typing import Any, Literal

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.losses import Denoise
from distill.methods.times import Times, UniformTimes
from distill.methods.trajectories import Data


class Denoising(Method):
    """Train a network from nothing by denoising data; the result is an average of its weights.

    The recipe's `student:` says which network. Karras et al. 2022 (arXiv:2206.00364); flow matching with a network of
    kind velocity (Lipman et al. 2023, arXiv:2210.02747).
    """

    times: Times = UniformTimes()
    """Noise levels."""
    view: Literal["value", "x0", "eps", "v", "velocity"] = "value"
    """What is compared: the network's own kind, or another view of it."""
    level: str = "one"
    """Weight of a noise level (`losses.WEIGHTS`); `edm` with the view x0 is EDM's loss."""
    sigma_data: float = 0.5
    """Standard deviation of the data, for `edm`."""
    lr: float = 1e-3
    """Learning rate, falling to 0 along a cosine."""
    warmup: int = 100
    """Steps of linear warm-up."""
    clip: float | None = 1.0
    """Largest gradient norm."""
    drop: float = 0.1
    """Share of samples that are seen without conditions, for guidance later."""
    parts: dict[str, float] = {}
    """Factor of each modality of a joint state; 1 for those that are left out."""
    decay: float = 0.999
    """Decay of the average."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student_ema": RoleSpec(copy_of="student", frozen=True)}

    def plan(self, teacher: Any) -> Plan:
        loss = Denoise(
            role="student", times=self.times, drop=self.drop, view=self.view, level=self.level,
            sigma_data=self.sigma_data, parts=self.parts,
        )  # fmt: skip
        optimisers = {
            "student": Optimiser(lr=self.lr, schedule="cosine", warmup=self.warmup, clip=self.clip, betas=(0.9, 0.99))
        }
        phases = one_phase(
            [Update(trajectory=Data(), loss=loss)], self.steps, optimisers, actions=(EMA(decay=self.decay),)
        )
        return Plan(phases=phases, sampler=teacher, result="student_ema")
