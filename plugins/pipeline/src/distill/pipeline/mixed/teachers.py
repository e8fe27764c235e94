"""Teachers that ship with this package, each with the recipe that made it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from distill.core import Builder, Denoiser, Modality, Sampler, checkpoint
from distill.methods.networks import MLPDenoiser
from distill.pipeline.mixed.bouncing import FRAMES, HEARD, TALL, WIDE
from distill.pipeline.mixed.exact import PathName, film_of
from distill.pipeline.mixed.networks import JointMLP

SHAPES: dict[str, tuple[int, ...]] = {"video": (FRAMES, 1, TALL, WIDE), "audio": (1, FRAMES * HEARD)}
"""Shape of each modality of bouncing digits."""
PATHS: dict[str, PathName] = {"video": "flow", "audio": "cosine"}
"""Forward process of each."""


class BouncingTeacher(Builder):
    """A perceptron of 0.4 M parameters that draws bouncing digits together with their sounds, made by
    `recipes/bouncing-teacher.yaml`; or one that draws only the clips, or only the sounds.
    """

    example: ClassVar[dict[str, object]] = {}
    parts: tuple[Literal["video", "audio"], ...] = ("video", "audio")
    """What it draws."""
    width: PositiveInt = 128
    """Units of a layer."""
    depth: PositiveInt = 3
    """Residual layers."""
    classes: NonNegativeInt = 10
    """Class labels."""
    weights: str = ""
    """A safetensors file of weights in place of those that ship."""
    trained: bool = True
    """Take the weights that ship; untrained if not."""
    steps: PositiveInt = 32
    """Steps of its own sampler."""

    def build(self) -> Denoiser:
        denoiser = JointMLP(
            shapes={name: SHAPES[name] for name in self.parts}, paths={name: PATHS[name] for name in self.parts},
            width=self.width, depth=self.depth, classes=self.classes,
        ).build()  # fmt: skip
        if self.weights or self.trained:
            name = "-".join(("bouncing", *(part for part in SHAPES if part in self.parts)))
            checkpoint.fill(denoiser.network, Path(self.weights or _shipped(name)), "network.")
        return denoiser

    def sampler(self) -> Sampler:
        return Sampler(steps=self.steps)

    def modality(self) -> Modality | None:
        return film_of(set(self.parts))


class MelTeacher(MLPDenoiser):
    """A perceptron of 0.2 M parameters that draws pictures of the mel spectra of short music, made by
    `recipes/mel-teacher.yaml`.
    """

    example: ClassVar[dict[str, object]] = {}
    shape: tuple[int, ...] = (1, 9, 16)
    """Shape of a picture."""
    width: int = 192
    """Units per hidden layer."""
    depth: int = 4
    """Hidden layers."""
    classes: int = 6
    """Instruments."""
    weights: str = ""
    """A safetensors file of weights in place of those that ship."""
    trained: bool = True
    """Take the weights that ship; untrained if not."""

    def build(self) -> Denoiser:
        denoiser = super().build()
        if self.weights or self.trained:
            checkpoint.fill(denoiser.network, Path(self.weights or _shipped("mel-teacher")), "network.")
        return denoiser

    def sampler(self) -> Sampler:
        return Sampler(steps=32)


def _shipped(name: str) -> str:
    return str(files("distill.pipeline") / "weights" / f"{name}.safetensors")
