"""Teachers that ship with this package, each with the recipe that made it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

from distill.core import Denoiser, Sampler
from distill.image.features import shipped
from distill.image.networks import DiT, PixArt


class DigitsTeacher(DiT):
    """A DiT of 0.4 M parameters that draws 8×8 handwritten digits by label; flow matching, made by
    `recipes/digits-teacher.yaml`.
    """

    steps: int = 64
    """Steps of its own sampler."""

    def build(self) -> Denoiser:
        config: dict[str, Any] = json.loads((files("distill.image") / "recipes" / "digits-dit.json").read_text())
        weights = self.weights or shipped("digits-teacher.safetensors")
        return DiT(config=self.config or config, weights=weights).build()

    def sampler(self) -> Sampler:
        return Sampler(steps=self.steps)


class EmojiTeacher(PixArt):
    """A PixArt of 2.4 M parameters that draws 32×32 emoji from prompts; flow matching, made by
    `recipes/emoji-teacher.yaml`.
    """

    example: ClassVar[dict[str, Any]] = {}
    stem: ClassVar[str] = "emoji-teacher"
    tokens: int = 12
    """Length of the text."""
    encoder: Literal["", "minilm", "wordllama"] = "minilm"
    """Who made the text that it was trained with."""
    guidance: float = 3.0
    """w of its own sampler."""

    def build(self) -> Denoiser:
        config: dict[str, Any] = json.loads((files("distill.image") / "recipes" / "emoji-pixart.json").read_text())
        weights = self.weights or shipped(f"{self.stem}.safetensors")
        options = self.model_dump(exclude={"config", "weights"})
        return PixArt(**options, config=self.config or config, weights=weights).build()


class EmojiStudent(EmojiTeacher):
    """`emoji-teacher` in one, two or four steps, made by `recipes/emoji-student.yaml`."""

    conformance: ClassVar[dict[str, str]] = dict.fromkeys(
        ("shape", "times", "permutation", "randomness", "serialisation", "taps"),
        "it is the network of emoji-teacher, which is checked",
    )
    stem: ClassVar[str] = "emoji-student"

    def sampler(self) -> Sampler:
        about = json.loads(Path(shipped(f"{self.stem}.json")).read_text())
        return Sampler.model_validate(about["sampler"])
