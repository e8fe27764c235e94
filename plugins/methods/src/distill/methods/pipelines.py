"""Pipelines of diffusers as folders: what they are told apart by, and loading some of their parts without a word."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distill.core.errors import DataError


def encoders_digest(folder: Path, *facts: str) -> str:
    """Of all that a text's conditions depend on: the folder's tokenisers and text encoders, and further facts."""
    said = hashlib.sha256(" ".join(facts).encode())
    for path in sorted(folder.glob("t*/*")):  # text_encoder, text_encoder_2, tokenizer, ...
        if path.is_file() and not path.parent.name.startswith("transformer"):
            said.update(path.relative_to(folder).as_posix().encode() + _excerpts(path))
    return said.hexdigest()[:16]


def _excerpts(path: Path, pieces: int = 16, size: int = 4096) -> bytes:
    """Size and evenly spaced pieces of a file: weights of many gigabytes are told apart without reading them all."""
    total = path.stat().st_size
    parts = [str(total).encode()]
    with path.open("rb") as file:
        for index in range(pieces):
            file.seek(index * max(0, total - size) // max(1, pieces - 1))
            parts.append(file.read(size))
    return hashlib.sha256(b"".join(parts)).digest()


def load(pipeline: Any, folder: Path, **parts: Any) -> Any:
    """A pipeline from its folder; without telling the world that parts were left out on purpose."""
    try:
        with quiet():
            return pipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True, **parts)
    except (ImportError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise DataError(f"the text encoders of {folder} cannot be loaded: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without diffusers' and transformers' remarks and progress bars."""
    from diffusers.utils import logging as one
    from transformers.utils import logging as other

    levels = [each.get_verbosity() for each in (one, other)]
    for each in (one, other):
        each.set_verbosity_error()
        each.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what one part of diffusers says about another
            yield
    finally:
        for each, level in zip((one, other), levels, strict=True):
            each.set_verbosity(level)
            each.enable_progress_bar()
