"""Lyra: a decoder of a video model's latents into Gaussians, taught by the same latents' own pictures."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import NonNegativeInt

from distill.core import Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.three_d.latents import Decoded, DecodedViews, GaussianDecoder, KeepOpaque


class Lyra(Method):
    """Lyra: Generative 3D Scene Reconstruction via Video Diffusion Model Self-Distillation (arXiv:2509.19296).

    The teacher is the decoder of the latents into pictures, the student one into Gaussians, the lens `render`. No true
    picture and no true scene is needed. The paper grows resolution and views stage by stage (name them as runs that
    begin with the last one's student), has state-space layers between those of attention, and a time for scenes that
    move; a last stage prunes.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "its data are latents of views with cameras"}
    decoder: GaussianDecoder = GaussianDecoder()
    """The student."""
    views: DecodedViews = DecodedViews()
    """Which views it gets, and which it is taught on."""
    loss: Decoded = Decoded()
    """How drawn views are compared with the teacher's pictures."""
    pruning: NonNegativeInt = 0
    """How many of the steps come last, with a pull on opacities and the most opaque Gaussians alone."""
    prune: KeepOpaque = KeepOpaque()
    """How many are kept then."""
    optimiser: Optimiser = Optimiser(lr=1e-4, weight_decay=0.01, clip=1.0)
    """Optimiser of the student."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(build=self.decoder)}

    def plan(self, teacher: Any) -> Plan:
        first = self._phase("decoding", self.steps - self.pruning, self.loss, (self.prune,) if self.pruning else ())
        last = self._phase("pruning", self.pruning, self.loss.model_copy(update={"opacity": 0.1}))
        return Plan(phases=(first, last) if self.pruning else (first,), sampler=Sampler(times=(1.0,), steps=1))

    def _phase(self, name: str, steps: int, loss: Decoded, at_end: tuple[KeepOpaque, ...] = ()) -> Phase:
        update = Update(trajectory=self.views, loss=loss)
        return Phase(name=name, steps=steps, updates=(update,), optimisers={"student": self.optimiser}, at_end=at_end)
