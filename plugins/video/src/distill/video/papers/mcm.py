"""MCM: consistency of motion through a learnt head, and a GAN that takes appearance from pictures."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import EMA, Loss, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.consistency import Segments, TargetJumps
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator
from distill.methods.trajectories import sampler_at
from distill.methods.transforms import ScalarInput
from distill.video.losses import FrameHead, MotionHead, MotionMatch, OnFrames
from distill.video.trajectories import Mixed


class MCM(Method):
    """Motion Consistency Model: Accelerating Video Diffusion (Zhai et al. 2024, arXiv:2406.06890).

    Answers along the teacher's flow agree through the motion head only; how frames look is learnt from pictures: the
    condition `picture` of the data, or the clips' own frames. The paper's discriminator looks at DINOv2 features and
    pays a gradient penalty of weight 1e-5 there; this one is a small network on frames, without it. All weights of the
    student learn unless the recipe gives it an adapter.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy has no frames"}
    points: int = 50
    """Steps of the teacher's grid."""
    w: tuple[float, float] | None = None
    """Range of the teacher's guidance, an input of the student; None is no guidance. The paper's is (6, 16)."""
    sample_w: float = 8.5
    """Guidance weight that the student is sampled with."""
    own: float = 0.5
    """Share of the student's own answers among the data; 0 leaves the mixed trajectory out."""
    motion: MotionHead | None = MotionHead()
    """The motion head; None compares the clips themselves."""
    consistency: float = 1.0
    """Weight of the agreement along the flow; 0 leaves it out, and pictures alone teach."""
    frames: int = 2
    """Frames of each clip that the discriminator sees."""
    adversarial: float = 1.0
    """Weight of the student's side of the GAN; 0 leaves it out."""
    heads: FrameHead = FrameHead()
    """The discriminator."""
    average: float = 0.95
    """Decay of the averages of student and head that the targets come from."""
    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times when it samples, re-noising between them."""
    optimiser: Optimiser = Optimiser(lr=5e-6)
    """Optimiser of student and motion head."""
    heads_optimiser: Optimiser = Optimiser(lr=5e-5)
    """The discriminator's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        w = (ScalarInput(scalar="w", scale=1 / self.w[1]),) if self.w else ()
        roles = {"student": RoleSpec(copy_of="teacher", transforms=w)}
        roles["target"] = RoleSpec(copy_of="student", frozen=True)
        if self.motion is not None:
            roles |= {"motion": RoleSpec(build=self.motion)}
            roles |= {"motion_average": RoleSpec(copy_of="motion", frozen=True)}
        return roles | ({"discriminator": RoleSpec(build=self.heads)} if self.adversarial else {})

    def plan(self, teacher: Any) -> Plan:
        head = "motion" if self.motion else ""
        jumps = TargetJumps(
            points=self.points, target=Segments(anywhere=False), boundary="blend", ahead="target",
            scalars={"w": self.w} if self.w else {},
        )  # fmt: skip
        mixed = Mixed(inner=jumps, share=self.own) if self.own else jumps
        side: dict[str, Any] = {"features": "", "form": "hinge", "times": None}
        gan: tuple[Loss, ...] = (
            OnFrames(inner=AdversarialGenerator(**side), weight=self.adversarial, frames=self.frames),
            OnFrames(inner=AdversarialDiscriminator(**side, train_features=False), frames=self.frames),
        )
        match = (MotionMatch(head=head, weight=self.consistency),) if self.consistency else ()
        losses = (*match, *(gan if self.adversarial else ()))
        pairs = [("student", "target"), *([("motion", "motion_average")] if head else [])]
        phases = one_phase(
            [Update(trajectory=mixed, loss=loss) for loss in losses], self.steps,
            {"student": self.optimiser, "motion": self.optimiser, "discriminator": self.heads_optimiser},
            actions=tuple(EMA(source=a, target=b, decay=self.average) for a, b in pairs),
        )  # fmt: skip
        return Plan(phases=phases, sampler=sampler_at(self.times, scalars={"w": self.sample_w} if self.w else {}))
