"""What is slow to make of data, kept on disk: encoded captions, latents, rendered pictures.

A folder with `about.json` and one safetensors file for every few items. A file is named after what it was made of,
written aside, synced and renamed: a killed process leaves whole files or none, and several processes may fill one
folder, each from another end, without waiting for each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distill.core.errors import DataError

T = TypeVar("T")
SHARD = 64
"""Items of one file."""
ABOUT, PART = "about.json", ".part"
ABANDONED = 3600.0
"""Seconds after which a file that was written aside belongs to nobody any more."""


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
        self.what, self.fingerprint = what, fingerprint
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._compare()
            self._tidy()
        except OSError as error:
            raise self._unwritable(error) from error

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
        files = [self.folder / f"{digest(*map(key, share))}.safetensors" for share in shares]
        for place in _own_end(len(shares)):
            if not files[place].exists():
                self._put(files[place], save({k: v.contiguous() for k, v in make(shares[place]).items()}))
        return Table(files, len(items))

    def _compare(self) -> None:
        about = self.folder / ABOUT
        mine = {"what": self.what, "fingerprint": self.fingerprint}
        if not about.exists():
            if any(path.name[0] != "." for path in self.folder.iterdir()):
                raise DataError(f"{self.folder} holds other things than a cache: choose an empty folder for 'cache:'")
            self._put(about, json.dumps(mine).encode())
        if (theirs := _facts(about)) != mine:
            raise DataError(
                f"the cache {self.folder} holds {theirs.get('what')} of {theirs.get('fingerprint')}, and this run "
                f"needs {self.what} of {self.fingerprint}: the weights or options that made them are others. "
                "Delete the folder, or give another one under 'cache:'."
            )

    def _tidy(self) -> None:
        """Delete what a killed process left aside."""
        for path in self.folder.glob(f".*{PART}"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()

    def _put(self, path: Path, content: bytes) -> None:
        aside = path.with_name(f".{path.name}.{os.getpid()}{PART}")
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"the cache {self.folder} cannot be written: {error.strerror or error}. What it held is untouched; free "
            "some space, or give another folder under 'cache:'."
        )


def _own_end(count: int) -> list[int]:
    """All places, from another start for each of the processes that share a launch."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    start = rank * count // world
    return [*range(start, count), *range(start)]


def _facts(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"what": "something unreadable", "fingerprint": "unknown origin"}


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
