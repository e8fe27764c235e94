"""Refuse to build a distribution that would break the others.

`distill` is a namespace that several distributions share (PEP 420): one `distill/__init__.py` in any of
them hides the rest, and hatchling would pack it without a word. Every package has its own copy of this
file, because a source distribution must be able to build by itself; a test keeps the copies equal.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NamespaceGuard(BuildHookInterface):  # type: ignore[type-arg]
    """Fail when `src/distill` holds anything but packages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Hatchling calls this before it collects any file."""
        stray = sorted(path for path in Path(self.root, "src", "distill").glob("*") if path.is_file())
        if stray:
            raise RuntimeError(
                f"{stray[0]} must not exist: several distributions share the namespace 'distill', and a file "
                f"of its own would hide them. Move it into a package below, or delete it."
            )
