"""What `distill plugins`, `list` and `show` print, as data for JSON and as text for people.

Plain text, because a table library would cost more than all of discovery.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from distill.core.discovery import PluginRecord, normal
from distill.core.hookspecs import GROUP
from distill.core.registry import Entry, Registry, plural

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

__all__ = [
    "as_text",
    "component_table",
    "describe",
    "facts",
    "plugin_json",
    "plugin_table",
    "problems",
    "table",
    "to_json",
]


_MODULES = re.compile(r"\b(?:[a-z_]\w*\.)+(?=\w)")
"""The part of a type's name that only repeats where it lives."""


def to_json(value: object) -> str:
    """Indented JSON; what JSON does not know becomes its text."""
    return json.dumps(value, indent=2, default=str)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Left-aligned columns under a line of headings; nothing for no rows.

    >>> print(table(["name", "kind"], [["dmd2", "method"]]))
    name  kind
    dmd2  method
    """
    lines = [tuple(head), *(tuple(row) for row in rows)]
    if len(lines) == 1:
        return ""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


# Plugins


def plugin_json(record: PluginRecord) -> dict[str, object]:
    """A plugin as JSON holds it: names only, by kind."""
    return {
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "entry_point": record.entry_point,
        "state": record.state,
        "error": record.error,
        "spec": record.spec,
        "location": record.location,
        "components": {kind: [each.name for each in group] for kind, group in record.components.items()},
    }


def plugin_table(registry: Registry, *, time: bool = False) -> str:
    """All plugins in a table."""
    head = ["name", "distribution", "version", "spec", "state", "provides"]
    rows = [_plugin_row(record) for record in registry.plugins()]
    if time:
        head.insert(5, "import ms")
        for row, record in zip(rows, registry.plugins(), strict=True):
            row.insert(5, f"{record.seconds * 1000:.1f}")
    return table(head, rows)


def _plugin_row(record: PluginRecord) -> list[str]:
    counts = [_count(kind, len(group)) for kind, group in record.components.items()]
    spec = "" if record.spec is None else str(record.spec)
    provides = ", ".join(counts) or "nothing"
    return [record.name, record.distribution, record.version, spec, record.state, provides]


def _count(kind: str, number: int) -> str:
    return f"{number} {kind if number == 1 else plural(kind)}"


def problems(registry: Registry) -> list[str]:
    """Everything that `distill plugins --check` complains about, one sentence or two each."""
    from distill_cli import describe_stray, strays

    dists = [dist for dist in metadata.distributions() if dist.entry_points.select(group=GROUP)]
    stale = filter(None, map(_stale, dists))
    return [*map(describe_stray, strays()), *_installed_twice(dists), *stale, *map(str, registry.faults())]


def _stale(dist: metadata.Distribution) -> str:
    """How a plugin's metadata lag behind what is there, and what to do; empty where they do not."""
    origin = json.loads(dist.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return _stale_editable(dist, Path(unquote(urlparse(origin["url"]).path)))
    files = [file for file in dist.files or () if file.suffix != ".pyc"]
    gone = [str(file) for file in files if not Path(str(file.locate())).exists()]
    if not gone:
        return ""
    more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
    return f"{dist.name} lacks {gone[0]}{more}. Try: pip install --force-reinstall --no-deps {dist.name}."


def _stale_editable(dist: metadata.Distribution, folder: Path) -> str:
    import tomllib  # only a diagnosis needs it

    file = folder / "pyproject.toml"
    if not file.exists():
        return f"{dist.name} was installed from {folder}, where it is no longer. Try: pip uninstall {dist.name}."
    project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    known = {"version": dist.version} | {point.name: point.value for point in dist.entry_points.select(group=GROUP)}
    there = {"version": project.get("version", dist.version)} | project.get("entry-points", {}).get(GROUP, {})
    if known == there or "entry-points" in project.get("dynamic", ()):
        return ""
    name = min(name for name in {*known, *there} if known.get(name) != there.get(name))
    ways = f"{name} = {known.get(name, 'nothing')}, where {file} says {there.get(name, 'nothing')}"
    return f"the metadata of {dist.name} are stale: {ways}. Try: pip install -e {folder}."


def _installed_twice(dists: Iterable[metadata.Distribution]) -> list[str]:
    """First-party or plugin distributions that `sys.path` holds more than once, in different places."""
    places = {(normal(dist.name), str(dist.locate_file("")), dist.version) for dist in dists}
    counts = Counter(name for name, *_ in places)
    return [
        f"distribution {name!r} is installed {count} times: "
        + ", ".join(f"{version} in {where}" for each, where, version in sorted(places) if each == name)
        + f". Python uses the first on sys.path. Try: pip uninstall {name} until it is gone, then install it."
        for name, count in sorted(counts.items())
        if count > 1
    ]


# Components


def facts(entry: Entry) -> dict[str, object]:
    """What is known of a component without importing it."""
    component, plugin = entry.component, entry.plugin
    return {
        "name": component.name,
        "kind": entry.kind,
        "summary": component.summary,
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "modality": component.modality,
        "paper": component.paper,
        "target": component.target,
        "claim": component.claim,
    }


def component_table(entries: Iterable[Entry], clashes: Iterable[Sequence[Entry]] = ()) -> str:
    """Components in a table; one whose short name is taken twice appears under its qualified one."""
    twice = {entry.qualified for group in clashes for entry in group}
    head = ("name", "kind", "modality", "plugin", "summary")
    rows = [
        [each.qualified if each.qualified in twice else each.name]
        + [each.kind, each.component.modality or "any", each.plugin.name, each.component.summary]
        for each in entries
    ]
    return table(head, rows)


def describe(entry: Entry) -> dict[str, object]:
    """What is known of a component once it is imported: text, options, a method's roles and claim."""
    target = entry.load()
    found = facts(entry) | {"doc": _doc(target), "options": _options(target), "schema": _schema(target)}
    if entry.kind == "method":
        found |= {
            "roles": _roles(target),
            "claim_doc": _doc(entry.load_claim()) if entry.component.claim else "",
        }
    return found


def _doc(target: object) -> str:
    return inspect.getdoc(target) or ""


def _model(target: object) -> type[BaseModel] | None:
    from pydantic import BaseModel  # the target is imported by now, so this costs nothing more

    model = target if isinstance(target, type) else type(target)
    return model if issubclass(model, BaseModel) else None


def _options(target: object) -> list[dict[str, object]]:
    model = _model(target)
    return [_option(name, info) for name, info in model.model_fields.items()] if model else []


def _option(name: str, info: FieldInfo) -> dict[str, object]:
    required = info.is_required()
    return {
        "name": name,
        "type": _MODULES.sub("", inspect.formatannotation(info.annotation)),
        "required": required,
        "default": None if required else info.get_default(call_default_factory=True, validated_data={}),
        "description": " ".join((info.description or "").split()),
    }


def _schema(target: object) -> dict[str, object] | None:
    from pydantic.errors import PydanticInvalidForJsonSchema

    model = _model(target)
    try:
        return model.model_json_schema() if model else None
    except PydanticInvalidForJsonSchema:  # options may hold objects, which no JSON schema describes
        return None


def _roles(target: Any) -> dict[str, str]:
    """A method's roles, as it makes them with its default options; none where it has no defaults."""
    roles = getattr(target, "roles", {})
    if callable(roles):
        ready = not isinstance(target, type) or not any(option["required"] for option in _options(target))
        roles = (target() if isinstance(target, type) else target).roles() if ready else {}
    return {str(name): _role(role) for name, role in roles.items()}


def _role(role: object) -> str:
    """The role's settings that differ from the defaults, on one line."""
    model = _model(role)
    if model is None:
        return repr(role)
    fields = {name: (getattr(role, name), info.default) for name, info in model.model_fields.items()}
    return ", ".join(f"{name}={value!r}" for name, (value, default) in fields.items() if value != default)


def as_text(found: Mapping[str, Any]) -> str:
    """The answer of `describe`, for people."""
    head = (
        "name",
        "kind",
        "summary",
        "plugin",
        "distribution",
        "version",
        "modality",
        "paper",
        "target",
        "claim",
    )
    parts = ["\n".join(f"{key:<12}  {found[key]}" for key in head if found[key])]
    parts.append(found["doc"])
    parts.append(_titled("Roles", table(("name", "made from"), found.get("roles", {}).items())))
    parts.append(_titled("Options", "\n".join(map(_option_lines, found["options"]))))
    parts.append(_titled("Claim", found.get("claim_doc", "")))
    return "\n\n".join(filter(None, parts))


def _option_lines(option: Mapping[str, Any]) -> str:
    """`name: type = default`, and the description under it."""
    given = "(required)" if option["required"] else f"= {option['default']!r}"
    line = f"  {option['name']}: {option['type']} {given}"
    return f"{line}\n      {option['description']}" if option["description"] else line


def _titled(title: str, text: str) -> str:
    return f"{title}\n{text}" if text else ""
