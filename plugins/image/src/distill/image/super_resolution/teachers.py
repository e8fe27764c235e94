"""The teacher of super-resolution and its student that ship with this package, each with the recipe that made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from distill.core import Denoiser, Sampler
from distill.image.features import shipped
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.paths import Tempered


class SRTeacher(RestorerDenoiser):
    """A restorer of 0.5 M parameters for photographs at ratios up to 4, residual shifting in 15 steps; made by
    `recipes/sr-teacher.yaml`.
    """

    example: ClassVar[dict[str, Any]] = {}
    stem: ClassVar[str] = "sr-teacher"

    def build(self) -> Denoiser:
        options = self.model_dump() | {"weights": self.weights or shipped(f"{self.stem}.safetensors")}
        return RestorerDenoiser(**options).build()

    def sampler(self) -> Sampler:
        return Tempered(steps=self.steps)


class SRStudent(SRTeacher):
    """`sr-teacher` in one step, made by `recipes/sr-student.yaml`."""

    conformance: ClassVar[dict[str, str]] = dict.fromkeys(
        ("shape", "times", "permutation", "randomness", "serialisation", "taps"),
        "it is the network of sr-teacher, which is checked",
    )
    stem: ClassVar[str] = "sr-student"

    def sampler(self) -> Sampler:
        about = json.loads(Path(shipped(f"{self.stem}.json")).read_text())
        return Sampler.model_validate(about["sampler"])
