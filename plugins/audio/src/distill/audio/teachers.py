"""A teacher of music that ships with this package, and its student, each with the recipe that made it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from pydantic import NonNegativeInt, PositiveInt

from distill.audio.networks import AudioDiT
from distill.core import Denoiser, Role, Roles, Sampler, checkpoint
from distill.core.sampling import DDIM
from distill.methods.layers import LayerBudget


class MusicTeacher(AudioDiT):
    """A transformer of 4 M parameters that plays 4.1 s in the manner of Bach's chorales by text and chords; TrigFlow,
    made by `recipes/music-teacher.yaml`.
    """

    example: ClassVar[dict[str, Any]] = {}
    stem: ClassVar[str] = "music-teacher"
    patch: PositiveInt = 2
    """Tokens that the network takes as one."""
    text: NonNegativeInt = 32
    """Values of a word."""
    words: PositiveInt = 6
    """Words of a text."""
    chords: bool = True
    """Take the share of each token for which each of the 12 pitch classes sounds."""
    path: Any = "trigonometric"
    """Forward process."""
    guidance: float = 2.0
    """w of its own sampler."""

    @property
    def file(self) -> Path:
        """Its weights, those that ship if no others are named."""
        return Path(self.weights or str(files("distill.audio") / "weights" / f"{self.stem}.safetensors"))

    def build(self) -> Denoiser:
        denoiser = self._empty()
        checkpoint.fill(denoiser.network, self.file, "network.")
        return denoiser

    def _empty(self) -> Denoiser:
        """The network with weights at random."""
        return AudioDiT(**self.model_dump(exclude={"weights"})).build()


class MusicStudent(MusicTeacher):
    """`music-teacher` in four steps that leave layers out where there is much noise, by `recipes/music-presto.yaml`."""

    stem: ClassVar[str] = "music-student"
    layers: LayerBudget | None = LayerBudget(levels=(0.2, 0.6, 2.0, 20.0), drops=(0, 1, 2, 3, 4))
    """Layers that are left out at each noise; none if None."""
    times: tuple[float, ...] = (1.56, 1.45, 1.2, 0.8)
    """Its times, descending, without fresh noise between them."""

    def _empty(self) -> Denoiser:
        plain = AudioDiT(**self.model_dump(exclude={"weights", "layers", "times"})).build()
        if self.layers is None:
            return plain
        roles = Roles({"student": Role("student", plain)})
        self.layers.apply(roles, "student")
        return roles["student"].alone()

    def sampler(self) -> Sampler:
        return Sampler(times=self.times, steps=len(self.times), solver=DDIM())
