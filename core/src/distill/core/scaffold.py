"""`distill new-plugin`: a plugin that works, from a template that can be applied again when it has changed.

The template is itself a plugin, called `sprout`. A plugin that is made of it keeps, in a file of its own, what the
template's files were, so that a newer template replaces what nobody has touched, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

import typer

from distill.core.errors import DistillError
from distill.core.registry import FIRST_PARTY, default_registry

RECORD = ".distill-template.json"
SPROUT = "sprout"
LONGEST = 24
"""Letters of a name, so that lines of the template stay short enough."""


def template() -> Traversable:
    """The folder of the template."""
    return files("distill.core") / "template"


def rendered(name: str) -> dict[str, str]:
    """Every file of a plugin by its path, as the template makes it."""
    return {_named(path, name).replace("dot-", "."): _named(text, name) for path, text in _walk(template())}


def _named(text: str, name: str) -> str:
    module = f"distill_{name.replace('-', '_')}"
    return text.replace(f"distill_{SPROUT}", module).replace(SPROUT, name)


def _walk(folder: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.startswith((".", "__pycache__")):  # what tools left there
            continue
        if item.is_dir():
            yield from _walk(item, f"{above}{item.name}/")
        else:
            yield f"{above}{item.name}", item.read_text(encoding="utf-8")


def digest(text: str) -> str:
    """What a text is known by."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def version() -> str:
    """The template's version, which follows from its files."""
    return digest(json.dumps(sorted(_walk(template()))))


def new_plugin(
    name: Annotated[str, typer.Argument(help="What the plugin, and its modality, are called.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The plugin's folder; distill-NAME if left out.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Apply a newer template to a plugin that is there.")] = False,
) -> None:
    """Make a plugin that works, trains and passes its checks; replace its parts by yours."""
    folder = out or Path(f"distill-{name}")
    if update:
        before = _read(folder, name)
    else:
        _check(name, folder)
        before = {}
    made = rendered(name)
    for path, text in made.items():
        if said := _apply(folder / path, text, before.get(path)):
            typer.echo(f"{said:<8}  {folder / path}")
    record = {"name": name, "template": version(), "files": {path: digest(text) for path, text in made.items()}}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"Next: pip install -e {folder}, then distill check {name}, and {folder / 'README.md'}.")


def _apply(path: Path, text: str, before: str | None) -> str:
    """Write a file unless its author has another idea of it; says what was done, nothing where nothing was."""
    there = digest(path.read_text(encoding="utf-8")) if path.exists() else None
    if there == digest(text) or (there is None and before is not None):
        return ""
    if there is not None and before == digest(text):
        return "kept"
    clash = there is not None and there != before
    target = path.with_name(f"{path.name}.new") if clash else path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return "beside" if clash else "made" if there is None else "updated"


def _check(name: str, folder: Path) -> None:
    """Raise what is wrong with a new plugin's name, or its place."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > LONGEST:
        raise DistillError(
            f"a plugin cannot be called {name!r}: write at most {LONGEST} small letters, digits and single hyphens, "
            "a letter first, such as night-sky"
        )
    if name in {record.name for record in default_registry().plugins()} | set(FIRST_PARTY):
        raise DistillError(f"there is a plugin {name!r} already, and names are unique: choose another one")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DistillError(f"{folder} is there already: choose another place with --out, or apply --update to it")


def _read(folder: Path, name: str) -> dict[str, str]:
    """What the files were that the template made."""
    try:
        record: Any = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        made_as, before = record["name"], dict(record["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DistillError(
            f"{folder} is no plugin that `distill new-plugin` made: {RECORD} is missing or damaged. "
            "Give the plugin's folder with --out, or make a new one without --update"
        ) from error
    if made_as != name:
        raise DistillError(
            f"{folder} holds the plugin {made_as!r}, not {name!r}: distill new-plugin {made_as} --update"
        )
    return before
