"""LiveTalk: on-policy distillation of a clip's text, picture and sound, with anchors that stay in the cache."""

from __future__ import annotations

from typing import ClassVar

from distill.core import Optimiser, Sampler
from distill.core.sampling import Consistency, Grid
from distill.video.attention import Reach
from distill.video.losses import GuidedScore
from distill.video.papers.causvid import LEVELS
from distill.video.papers.self_forcing import SelfForcing
from distill.video.samplers import Windowed


class LiveTalk(SelfForcing):
    """LiveTalk: Real-Time Multimodal Interactive Video Diffusion (Chern et al. 2025, arXiv:2512.23576).

    Self-Forcing with a long regression before it, rates twice as high, a strong teacher with a weight for each of its
    conditions, and a first frame that teacher and critic are given. In a stream the first frames are never evicted,
    so that whoever they show stays the same. Mending the data's pictures and captions is up to the data.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy is not causal"}
    walk: Sampler | None = Sampler(steps=48, grid=Grid(shift=5.0), guidance=6.0)
    """How the teacher makes its routes; its own sampler if None."""
    at: tuple[int, ...] = (0, 12, 24, 36)
    """Numbers of its steps after which the states have the student's times."""
    clean_keys: bool = False
    """Chunks of the first phase are noisy, all of them."""
    first: int = 20_000
    """Iterations of the first phase."""
    score: GuidedScore = GuidedScore(times=LEVELS, weights={"text": 6.0, "audio": 6.0}, anchors=1)
    """Distribution matching: levels, weights of the conditions, anchors."""
    streamed: Reach = Reach(chunk=3, window=6, sink=9)
    """What frames of a stream see: the first ones, and a window that rolls."""
    student_ema: float | None = 0.99
    """Decay of the average of the student that is the result."""
    regression: Optimiser = Optimiser(lr=4e-5, clip=10)
    """The student's optimiser in the first phase."""
    student_optimiser: Optimiser = Optimiser(lr=4e-6, betas=(0, 0.999))
    """The student's optimiser in the second phase."""
    critic_optimiser: Optimiser = Optimiser(lr=8e-7, betas=(0, 0.999))
    """The critic's optimiser."""

    def sampler(self) -> Sampler:
        return Windowed(times=self.times, steps=len(self.times), solver=Consistency(), reach=self.streamed)
