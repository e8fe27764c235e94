"""From prompts to conditions, by a pipeline's own encoders."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.image.families import Family
from distill.methods.cache import Cache
from distill.methods.captions import checked
from distill.methods.pipelines import encoders_digest, load, quiet


@dataclass(frozen=True)
class Encoder:
    """Prompts to named conditions, by the text encoders of a pipeline's folder.

    Attributes:
        folder: the pipeline.
        pipeline: its class.
        family: its row.
        tokens: length of the text; the pipeline's own if None.
    """

    folder: Path
    pipeline: Any
    family: Family
    tokens: int | None = None

    def __call__(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """One value a prompt for each condition: [N, ...]."""
        rows = [self._encode(checked(prompt, f"prompt {index + 1}")) for index, prompt in enumerate(prompts)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    @cached_property
    def null(self) -> dict[str, Tensor]:
        """What the pipeline's guidance takes where there is no prompt; the empty prompt where it has no such thing.

        Kept on disk, so that a teacher whose captions are cached needs no text encoder.
        """
        kept = Cache(None, "null conditions", self.fingerprint).table([None], str, lambda _: self._nothing())
        return {name: value[0] for name, value in kept[[0]].items()}

    def _nothing(self) -> dict[str, Tensor]:
        return {name: value[None] for name, value in self._encode(None).items()}

    @cached_property
    def fingerprint(self) -> str:
        """Of everything that a condition depends on; other encoders, or another length, have another."""
        return encoders_digest(self.folder, self.pipeline.__name__, str(self._length))

    @property
    def _length(self) -> int | None:
        asked = inspect.signature(self.pipeline.__call__).parameters.get("max_sequence_length")
        return self.tokens or (asked.default if asked else None)

    @cached_property
    def _pipe(self) -> Any:
        """The pipeline without what text does not need."""
        spared = (self.family.network, self.family.decoder, "safety_checker", "feature_extractor", "image_encoder")
        known = inspect.signature(self.pipeline.__init__).parameters
        pipe = load(
            self.pipeline,
            self.folder,
            **{name: None for name in spared if name in known and name not in self.family.kept},
        )
        return pipe.to("cuda") if torch.cuda.is_available() else pipe

    @torch.no_grad()
    def _encode(self, prompt: str | None) -> dict[str, Tensor]:
        pipe = self._pipe
        call = partial(pipe.encode_prompt, **self._arguments(pipe, prompt or ""))
        with quiet():
            found = self.family.encode(call, pipe) if self.family.encode else self._named(call())
        said = dict(found)
        prefix = "-" if prompt is None and "-text" in said else ""
        names = [name for name in said if not name.startswith("-")]
        return self._padded({name: _single(said[prefix + name]) for name in names})

    def _named(self, said: Any) -> dict[str, Any]:
        """What `encode_prompt` returned, by its names in the family's row."""
        values = said if isinstance(said, tuple) else (said,)
        return {name: value for name, value in zip(self.family.encoded, values, strict=True) if name}

    def _arguments(self, pipe: Any, prompt: str) -> dict[str, Any]:
        """What `encode_prompt` is given: what the pipeline's call would give it."""
        known = inspect.signature(pipe.encode_prompt).parameters
        calls = inspect.signature(pipe.__call__).parameters
        given = {name: calls[name].default for name in known if name in calls and calls[name].default is not None}
        own = {"device": pipe.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
        own |= {"max_sequence_length": self._length, "prompt": [prompt]}
        empty = {name: None for name, each in known.items() if each.default is inspect.Parameter.empty}
        return empty | given | {name: value for name, value in own.items() if name in known and value is not None}

    def _padded(self, said: dict[str, Tensor | None]) -> dict[str, Tensor]:
        text = said["text"]
        assert text is not None
        if self.family.ragged:
            length = max(self._length or 0, len(text))
            mask = said.get("mask")
            mask = torch.ones(len(text)) if mask is None else mask
            pad = length - len(text)
            said = {**said, "text": _pad(text, pad), "mask": _pad(mask, pad)}
        return {name: value.cpu().contiguous() for name, value in said.items() if value is not None}


def _pad(value: Tensor, rows: int) -> Tensor:
    return torch.cat([value, value.new_zeros(rows, *value.shape[1:])])


def _single(value: Any) -> Tensor | None:
    """The one sample of what was encoded."""
    return None if value is None else value[0]
