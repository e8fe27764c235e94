"""A teacher that ships with this package, and its student, each with the recipe that made it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from distill.core import Denoiser, Sampler
from distill.core.sampling import Consistency
from distill.video.attention import Reach
from distill.video.networks import VideoDiT
from distill.video.streaming import ChunkSampler


class MovingTeacher(VideoDiT):
    """A video transformer of 4.2 M parameters that draws 24 frames of 32×32 moving digits by label; flow matching,
    made by `recipes/moving-teacher.yaml`.
    """

    example: ClassVar[dict[str, Any]] = {}
    stem: ClassVar[str] = "moving-teacher"
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] = (4, 8, 8)
    """Frames, height and width of a patch."""
    width: PositiveInt = 192
    """Values of a token."""
    heads: PositiveInt = 6
    """Attention heads."""
    classes: NonNegativeInt = 10
    """Class labels."""
    kind: Literal["velocity", "v", "x0", "eps"] = "x0"
    """What the network says."""
    guidance: float = 1.5
    """w of its own sampler."""

    def build(self) -> Denoiser:
        weights = self.weights or str(files("distill.video") / "weights" / f"{self.stem}.safetensors")
        return VideoDiT(**self.model_dump(exclude={"weights"}), weights=weights).build()


class MovingStudent(MovingTeacher):
    """`moving-teacher` made causal, four frames at a time in four steps, by `recipes/moving-student.yaml`."""

    stem: ClassVar[str] = "moving-student"
    reach: Reach = Reach(chunk=4, window=20)
    """Which frames a frame attends to."""

    def sampler(self) -> Sampler:
        return ChunkSampler(times=(1.0, 0.9375, 0.8333, 0.625), steps=4, solver=Consistency())
