"""Every error that distill raises on purpose.

::

    DistillError                exit code 2: the user can mend it
    ├── UnknownName             a name that no plugin provides; knows the nearest one
    ├── PluginLoadError         a plugin, or one of its targets, that cannot be imported
    ├── PluginConflict          one name, two providers
    ├── IncompatibleSpec        a plugin built for another version of the hookspecs
    ├── RecipeError             a recipe that does not fit: where, what, what is allowed
    ├── CheckpointError         a checkpoint that is damaged, incomplete or of another run
    ├── DataError               a data set that is missing, empty or of unequal samples
    ├── NonFiniteError          a loss that is no longer a number: which term, which step
    ├── CollapsedError          a subject of which nothing is left
    └── ClaimFailed             exit code 1: all went well, but the claim does not hold

A message says what was given, what is allowed, and what to do. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ClaimFailed",
    "CollapsedError",
    "DataError",
    "DistillError",
    "IncompatibleSpec",
    "NonFiniteError",
    "PluginConflict",
    "PluginLoadError",
    "RecipeError",
    "UnknownName",
    "nearest",
]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, or None when none comes close.

    >>> nearest("dmd3", ["dmd2", "sid"])
    'dmd2'
    """
    from difflib import get_close_matches  # only a mistake needs it

    by_lower = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


class DistillError(Exception):
    """The root of the tree: catch this to catch every error that distill raises on purpose."""

    exit_code = 2


class UnknownName(DistillError):
    """A name that nothing provides; `known` holds what would have been right, `suggestion` the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str] = (), *, hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(set(known)))
        self.suggestion = nearest(name, self.known)
        parts = [f"there is no {kind} {name!r}."]
        if self.suggestion:
            parts.append(f"Did you mean {self.suggestion!r}?")
        parts.append(f"Known: {', '.join(self.known)}." if self.known else "None is known.")
        super().__init__(" ".join([*parts, hint]).rstrip())


class PluginLoadError(DistillError):
    """A plugin or a component's target that cannot be imported; the cause is chained."""


class PluginConflict(DistillError):
    """Two providers of one name; neither is picked in silence."""


class IncompatibleSpec(DistillError):
    """A plugin written for a version of the hookspecs that this core does not speak."""


class RecipeError(DistillError):
    """A recipe, or an override of it, that cannot be used as it stands."""


class CheckpointError(DistillError):
    """A checkpoint that cannot be read or written, or that belongs to another run."""


class DataError(DistillError):
    """Data that is missing, too little, or not of one kind."""


class NonFiniteError(DistillError):
    """A loss term or gradient that is infinite or not a number; training stopped before it was applied."""


class CollapsedError(DistillError):
    """A subject of which nothing is left to optimise; training stopped before anything was saved."""


class ClaimFailed(DistillError):
    """The measurement ran to its end, and a threshold of the claim was not met."""

    exit_code = 1
