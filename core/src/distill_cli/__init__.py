"""The `distill` command, outside the namespace `distill` so that it can say why that namespace will not
import.

One regular package or module called `distill`, anywhere on `sys.path`, hides every part of ours (PEP 420: a
regular package wins over all namespace portions, even as the last of the path). The symptom, "No module
named 'distill.core'", helps nobody; this module names the file, who installed it, and what to do.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

__all__ = ["describe_stray", "main", "owner_of", "strays"]

_SHADOWS = ("distill/__init__.py", "distill.py")


def strays() -> list[Path]:
    """Files on `sys.path` that make `distill` a regular module, in the order in which Python meets them."""
    found = (Path(folder or ".").resolve() / shadow for folder in sys.path for shadow in _SHADOWS)
    return list(dict.fromkeys(path for path in found if path.is_file()))


def owner_of(path: Path) -> str | None:
    """The distribution whose RECORD lists `path`, or None when no installer knows the file."""
    for dist in metadata.distributions():
        record = dist.read_text("RECORD") or ""
        if path.name in record and any(_same(dist, file, path) for file in dist.files or ()):
            return str(dist.metadata["Name"])
    return None


def _same(dist: metadata.Distribution, file: metadata.PackagePath, path: Path) -> bool:
    return file.name == path.name and Path(str(dist.locate_file(file))).resolve() == path


def describe_stray(path: Path) -> str:
    """What the file is, who put it there, and how to get rid of it."""
    owner = owner_of(path)
    whose = f"installed by the distribution {owner!r}" if owner else "which no installed distribution lists"
    remedy = f"pip uninstall {owner}" if owner else f"remove or rename it, or take {_root(path)} off sys.path"
    return f"{path} ({whose}) makes 'distill' a regular module, and that hides the namespace. Try: {remedy}."


def _root(path: Path) -> Path:
    return path.parent if path.name == "distill.py" else path.parent.parent


def main() -> None:
    """Run the command line, or say in one message what keeps it from being imported."""
    try:
        from distill.core.cli import main as run
    except Exception as error:  # importing a stranger's `distill` runs a stranger's code: it may raise anything
        reasons = [describe_stray(path) for path in strays()]
        if "--debug" in sys.argv or not (reasons or isinstance(error, ImportError)):
            raise
        reasons = reasons or ["Try: pip install --force-reinstall distill-core."]
        print(f"distill cannot start: {type(error).__name__}: {error}.", *reasons, sep="\n  ", file=sys.stderr)
        sys.exit(2)
    run()
