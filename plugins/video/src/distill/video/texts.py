"""Texts as conditions of video networks: the encoders of captions, and those of a video pipeline's folder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.core.errors import DataError, RecipeError
from distill.methods.cache import Cache
from distill.methods.captions import ENCODERS, Encoder, checked, encoder_of
from distill.methods.pipelines import encoders_digest, load, quiet

SAID = {
    "WanPipeline": ("text",),
    "LTXPipeline": ("text", "text_mask"),
    "CogVideoXPipeline": ("text",),
}
"""What the first values are that a pipeline's `encode_prompt` returns."""


def texts_of(encoder: str, words: int | None) -> Encoder:
    """Who makes conditions of texts: minilm, wordllama, or the folder of a pipeline."""
    return encoder_of(encoder, words, lambda folder, tokens: PipelineTexts(Path(folder), tokens))


def said(encoder: str, words: int, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Conditions for the prompts that a network is given.

    Raises:
        RecipeError: nobody encodes texts for it.
    """
    if not encoder:
        raise RecipeError(
            "nobody encodes texts for this network: name who did in training with 'encoder', "
            f"{', '.join(ENCODERS)} or the folder of a pipeline"
        )
    return texts_of(encoder, words)(prompts)


@dataclass(frozen=True)
class PipelineTexts:
    """Texts to `text` [N, words, D] by the tokeniser and text encoder of a pipeline's folder.

    Attributes:
        folder: the pipeline, as `save_pretrained` wrote it.
        words: tokens of a text; the pipeline's own number if None.
    """

    folder: Path
    words: int | None = None

    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """One value a caption for each condition: [N, ...]."""
        return self._encode([checked(caption, f"caption {index + 1}") for index, caption in enumerate(captions)])

    @property
    def fingerprint(self) -> str:
        """Changes when tokeniser, text encoder or the length of a text do."""
        return encoders_digest(self.folder, self._name, str(self.words))

    @cached_property
    def null(self) -> dict[str, Tensor]:
        """The empty text, which guidance takes where there is none; kept on disk."""
        kept = Cache(None, "null conditions", self.fingerprint).table(
            [""], str, lambda texts: self._encode(list(texts))
        )
        return {name: value[0] for name, value in kept[[0]].items()}

    @cached_property
    def _name(self) -> str:
        index = self.folder / "model_index.json"
        try:
            name = str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.folder} is no folder of a pipeline: {index.name} cannot be read: {error}"
            ) from error
        if name not in SAID:
            raise DataError(f"{self.folder} is a {name}, and texts are encoded by {', '.join(SAID)}")
        return name

    @cached_property
    def _pipe(self) -> Any:
        """The pipeline without what text does not need."""
        import diffusers

        kind = getattr(diffusers, self._name)
        spared = set(inspect.signature(kind.__init__).parameters) & {"transformer", "transformer_2", "vae"}
        pipe = load(kind, self.folder, **dict.fromkeys(spared))
        return pipe.to("cuda") if torch.cuda.is_available() else pipe

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> dict[str, Tensor]:
        length = {} if self.words is None else {"max_sequence_length": self.words}
        with quiet():
            values = self._pipe.encode_prompt(texts, do_classifier_free_guidance=False, **length)
        return {name: value.cpu().contiguous() for name, value in zip(SAID[self._name], values, strict=False)}
