"""What is slow to make of data, kept on disk: encoded captions, latents, rendered pictures.

One safetensors file for every few items, named after what it was made of. `distill.core.folder` says who makes it, and
what a kill leaves.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distill.core.errors import DataError
from distill.core.folder import Folder

T = TypeVar("T")
SHARD = 64
"""Items of one file."""


def home() -> Path:
    """Where caches are kept unless a recipe says otherwise: $DISTILL_CACHE, or .cache/distill in the home folder."""
    return Path(os.environ.get("DISTILL_CACHE") or Path.home() / ".cache" / "distill")


def digest(*facts: str) -> str:
    """A short name for facts."""
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:24]


class Cache:
    """Tensors of items in a folder.

    Args:
        folder: where; `home()/what/fingerprint` if None.
        what: what is kept, in a user's words: "text embeddings".
        fingerprint: of everything besides the items that the tensors depend on: weights, options.

    Raises:
        DataError: the folder was filled under another fingerprint, or holds something else.
    """

    def __init__(self, folder: Path | None, what: str, fingerprint: str) -> None:
        self.folder = folder or home() / what.replace(" ", "-") / fingerprint
        self._files = Folder(self.folder, {"what": what, "fingerprint": fingerprint}, "cache")

    def table(
        self,
        items: Sequence[T],
        key: Callable[[T], str],
        make: Callable[[Sequence[T]], Mapping[str, Tensor]],
    ) -> Table:
        """The tensors of all items, making those that are missing.

        Args:
            items: what they are made of.
            key: names an item, so that a changed item has another key.
            make: named tensors [n, ...] of n items.
        """
        shares = [items[start : start + SHARD] for start in range(0, len(items), SHARD)]
        names = [f"{digest(*map(key, share))}.safetensors" for share in shares]
        self._files.fill(names, lambda place: save({k: v.contiguous() for k, v in make(shares[place]).items()}))
        return Table([self.folder / name for name in names], len(items))


class Table:
    """Rows of a cache, read from disk when they are asked for."""

    def __init__(self, files: Sequence[Path], length: int) -> None:
        self.files, self.length = list(files), length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, rows: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Named tensors [n, ...] of n rows, in the precision in which they are kept."""
        read = [self._row(int(row)) for row in rows]
        return {name: torch.stack([each[name] for each in read]) for name in read[0]}

    def _row(self, row: int) -> dict[str, Tensor]:
        path, place = self.files[row // SHARD], row % SHARD
        try:
            file = _opened(str(path))
            return {name: file.get_slice(name)[place] for name in file.keys()}  # noqa: SIM118  no mapping
        except (OSError, SafetensorError, IndexError) as error:
            raise DataError(f"{path} is damaged ({error}): delete it, and it is made anew") from error


@lru_cache(maxsize=256)
def _opened(path: str) -> Any:
    return safe_open(path, framework="pt")
