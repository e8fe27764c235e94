"""A pipeline taken the whole way: loaded, exported, loaded by diffusers alone, and asked for the same picture."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.core import Denoiser, Rng, Role, Sampler, Samples
from distill.core.contracts import Outcome
from distill.image.families import pack
from distill.image.pipeline import Pipeline
from distill.image.toys import SIZE, SIZES
from distill.methods.pipelines import quiet

PROMPTS = ("a red cat", "a big dog")
"""Of one length: pipelines that pad to the longest of a batch say something else of a text in other company."""


@dataclass
class Trial:
    """A pipeline's builder and network, and how it was last sampled."""

    builder: Pipeline
    denoiser: Denoiser
    sampler: Sampler

    @classmethod
    def of(cls, folder: Path, **options: Any) -> Trial:
        """Load a folder of a pipeline at toy size."""
        name = Pipeline(model=str(folder)).pipeline.__name__
        builder = Pipeline(model=str(folder), **{"size": SIZES.get(name, SIZE), **options})
        return cls(builder, builder.build().eval(), builder.sampler())

    @property
    def guidance(self) -> float:
        """The pipeline's own w."""
        w = self.builder.sampler().guidance
        assert isinstance(w, float)
        return w

    def noise(self) -> Tensor:
        """Two states of standard normal noise, the same each time."""
        assert isinstance(self.denoiser.shape, tuple)
        return Rng(3).normal(2, *self.denoiser.shape, stream="trial")

    def dataset(self, pictures: bool = True) -> Samples:
        """Two prompts, and noise in the place of their pictures' latents."""
        return Samples(**({"x": self.noise()} if pictures else {}), **self.builder.encode(PROMPTS))

    def export(self, folder: Path, role: Role | None = None, to: str = "diffusers", **sampler: Any) -> None:
        """Export the network, or a role, to be sampled in a way of its own."""
        self.sampler = Sampler(**sampler)
        self.builder.export_outcome(Outcome(role or Role("teacher", self.denoiser), self.sampler), to, folder)

    def reload(self, folder: Path) -> Any:
        """The exported pipeline, by diffusers alone."""
        from diffusers import DiffusionPipeline

        with quiet():
            pipe: Any = DiffusionPipeline.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def ours(self, role: Role | None = None) -> Tensor:
        """Pictures in [0, 1] as `distill sample` makes them."""
        role = role or Role("teacher", self.denoiser)
        modality = self.builder.modality()
        assert modality is not None
        latents = self.sampler.sample(role, self.noise(), self.builder.encode(PROMPTS), Rng(0))
        pictures: Tensor = modality.decode(latents)
        return (pictures / 2 + 0.5).clamp(0, 1)

    def theirs(self, pipe: Any, facts: dict[str, Any]) -> Tensor:
        """Pictures of the exported pipeline, from the same latents."""
        latents = self.noise() * facts["latents_factor"]
        family = self.builder.family
        latents = family.laid(latents) if family.laid else pack(latents) if family.patch == 2 else latents
        given = {"latents": latents}
        if "latents" not in inspect.signature(pipe.__call__).parameters:
            pipe.prepare_intermediate_images, given = lambda *_: latents, {}  # it draws its own
        out = pipe(prompt=list(PROMPTS), output_type="np", return_dict=False, **given, **facts["call"])[0]
        return torch.from_numpy(out).movedim(-1, 1)

    def difference(self, folder: Path) -> float:
        """Largest difference of a pixel between the two."""
        facts = json.loads((folder / "sampler.json").read_text())
        return float((self.ours() - self.theirs(self.reload(folder), facts)).abs().max())
