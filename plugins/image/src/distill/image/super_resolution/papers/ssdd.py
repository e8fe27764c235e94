"""SSDD: a decoder of latents that denoises, learns without a GAN, and then says in one step what it says in many."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import NonNegativeInt

from distill.core import EMA, Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.core.plan import Copy
from distill.image.super_resolution.codecs import Decoding, EncodedData, EncodedEnds, LatentEncoder, RepresentationHead
from distill.methods.times import LogitNormalTimes

EMA_ROLE = "student_ema"


class SSDD(Method):
    """SSDD: Single-Step Diffusion Decoder for Efficient Image Tokenization (Vallaeys et al. 2025, arXiv:2510.04961).

    First the decoder, which begins as the network that is named as the teacher, and the encoder learn together; then
    the decoder's average becomes the teacher, and one step from a noise learns where many lead from the same noise. The
    data are pictures (`state: picture`, `with_low: false`). A small convolutional network stands for the paper's with
    transformer blocks, EfficientNet-lite0's features for DINOv2's; stages of growing resolution are runs of their own.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "it decodes latents of pictures"}
    encoder: LatentEncoder = LatentEncoder()
    """The encoder."""
    projector: RepresentationHead = RepresentationHead()
    """Head between the decoder's early layer and a frozen network's features."""
    distilling: NonNegativeInt = 200
    """Iterations, of `steps`, that distil: all of them for a decoder and an `encoder` that are trained already."""
    encoded: EncodedData = EncodedData(times=LogitNormalTimes())
    """Noise levels that the decoder learns at."""
    ends: EncodedEnds = EncodedEnds(sampler=Sampler(steps=8), tapped=True)
    """The teacher's steps."""
    decoding: Decoding = Decoding(encoder="encoder")
    """What encoder and decoder learn of the data."""
    distil: Decoding = Decoding(target="x", kl=0)
    """What one step learns of the teacher's many."""
    decay: float = 0.999
    """Decay of the decoder's average."""
    optimiser: Optimiser = Optimiser(lr=3e-4, clip=0.1)
    """Optimiser of all, in the first phase."""
    distil_optimiser: Optimiser = Optimiser(lr=1e-4, clip=0.1)
    """Optimiser of the decoder and the head, in the second."""

    def roles(self) -> dict[str, RoleSpec]:
        return {
            "student": RoleSpec(copy_of="teacher"), EMA_ROLE: RoleSpec(copy_of="student", frozen=True),
            "encoder": RoleSpec(build=self.encoder), "projector": RoleSpec(build=self.projector),
        }  # fmt: skip

    def plan(self, teacher: Any) -> Plan:
        over = tuple(Copy(source=EMA_ROLE, target=role) for role in ("teacher", "student"))
        first = self._phase("decoding", self.steps - self.distilling, self.encoded, self.decoding, self.optimiser)
        last = self._phase("distilling", self.distilling, self.ends, self.distil, self.distil_optimiser)
        sampler = self.ends.sampler.model_copy(update={"times": (1.0,), "steps": 1})
        phases = (first.model_copy(update={"at_end": over}), last)
        return Plan(phases=tuple(phase for phase in phases if phase.steps), sampler=sampler, result=EMA_ROLE)

    def _phase(self, name: str, steps: int, events: Any, loss: Decoding, optimiser: Optimiser) -> Phase:
        return Phase(
            name=name, steps=steps, updates=(Update(trajectory=events, loss=loss),),
            optimisers=dict.fromkeys(loss.moves, optimiser), actions=(EMA(decay=self.decay),),
        )  # fmt: skip
