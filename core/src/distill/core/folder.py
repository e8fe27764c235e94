"""A folder of files that are slow to make, each made once by whichever process comes first.

It holds `about.json`, which says what was made and of what, and the files. A file is written aside, synced and renamed
under a lock of its own, which the system takes back from a killed process: any number of processes fill one folder,
nobody makes what another is at, and what is left after a kill are whole files or none.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from distill.core.errors import DataError

ABOUT, LOCK, PART = "about.json", ".lock", ".part"


class Folder:
    """A folder of files that are made once, of what `about` says.

    Args:
        path: where; it is made if there is none.
        about: what is kept, in a user's words, under `what`, and everything that the files depend on.
        key: the recipe's key that names the folder.
        free: keys of `about` that may differ: those of the folder count.

    Raises:
        DataError: the folder was filled under another `about`, or holds something else, or cannot be written.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], key: str, free: Sequence[str] = ()) -> None:
        self.path, self.key, self.what = path, key, str(about["what"])
        mine = json.loads(json.dumps(dict(about)))
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._claim(mine)
        except OSError as error:
            raise self._unwritable(error) from error
        self.about = facts(path)
        self._compare(mine, free)

    def fill(self, names: Sequence[str], content: Callable[[int], bytes]) -> None:
        """Make the files that are missing; another process's are waited for once nothing else is left to do.

        Args:
            names: of all files.
            content: of the file at a place among them.
        """
        waiting = [place for place in _own_end(len(names)) if not (self.path / names[place]).exists()]
        if waiting:
            self._tidy()
        for patient in (False, True):
            waiting = [place for place in waiting if not self._once(names[place], partial(content, place), patient)]

    def fill_together(self, names: Sequence[str], content: Callable[[int], bytes]) -> None:
        """The same where only all processes of a launch together can make a file: each makes all, and one writes."""
        dist.barrier()
        waiting = [place for place, name in enumerate(names) if not (self.path / name).exists()]
        dist.barrier()  # nobody writes before all have looked
        for place in waiting:
            made = content(place)
            if dist.get_rank() == 0:
                self._once(names[place], partial(bytes, made), patient=True)
        dist.barrier()

    def _once(self, name: str, content: Callable[[], bytes], patient: bool) -> bool:
        """Whether the file is there now; an impatient process leaves it to the one that is making it."""
        with self._alone(name, patient) as mine:
            if mine and not (self.path / name).exists():
                self._put(name, content())
            return mine

    @contextmanager
    def _alone(self, name: str, patient: bool) -> Iterator[bool]:
        """Whether nobody else is at the file, as long as the block lasts: a lock on one byte of the lock's file."""
        try:
            with (self.path / LOCK).open("ab") as file:
                yield _locked(file.fileno(), zlib.crc32(name.encode()), patient)
        except OSError as error:
            if error.filename != str(self.path / LOCK):
                raise
            raise self._unwritable(error) from error

    def _put(self, name: str, content: bytes) -> None:
        aside = self._aside(name)
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path / name)
        except OSError as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _aside(self, name: str) -> Path:
        return self.path / f".{name}{PART}"

    def _tidy(self) -> None:
        """Delete what killed processes left aside."""
        for part in self.path.glob(f".*{PART}"):
            with self._alone(part.name[1 : -len(PART)], patient=False) as mine:
                if mine:
                    part.unlink(missing_ok=True)

    def _claim(self, mine: Mapping[str, Any]) -> None:
        """Say in an empty folder what it is for."""
        about = self.path / ABOUT
        if about.exists():
            return
        if any(path.name[0] != "." and path.name != ABOUT for path in self.path.iterdir()) and not about.exists():
            raise DataError(
                f"{self.path} holds other things than {self.what}: choose an empty folder for '{self.key}:'"
            )
        with self._alone(ABOUT, patient=True):
            if not about.exists():
                self._put(ABOUT, json.dumps(mine, indent=1).encode())

    def _compare(self, mine: Mapping[str, Any], free: Sequence[str]) -> None:
        odd = [key for key in {**mine, **self.about} if key not in free and mine.get(key) != self.about.get(key)]
        if odd:
            said = "; ".join(
                f"{key} is {_short(self.about.get(key))} there and {_short(mine.get(key))} here" for key in odd
            )
            raise DataError(
                f"{self.path} holds {self.about.get('what')} that this run cannot use: {said}. "
                f"Delete the folder, or give another one under '{self.key}:'."
            )

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path} cannot be written: {error.strerror or error}. What it held is untouched; free some space, "
            f"or give another folder under '{self.key}:'."
        )


def facts(path: Path) -> dict[str, Any]:
    """What a folder's `about.json` says."""
    try:
        found = json.loads((path / ABOUT).read_text())
    except (OSError, ValueError):
        found = None
    return found if isinstance(found, dict) else {"what": "something unreadable"}


def _locked(handle: int, place: int, patient: bool) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB), 1, place)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _own_end(count: int) -> list[int]:
    """All places, from another start for each of the processes that share a launch."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    start = rank * count // world
    return [*range(start, count), *range(start)]


def _short(value: Any) -> str:
    text = "unknown" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
