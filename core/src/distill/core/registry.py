"""What all plugins together provide, by kind and name.

Listing never fails, and using one plugin never fails because of another; using a broken one raises with its
cause. Nothing is picked in silence: a name with two providers is a conflict until somebody writes
`plugin:name`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from types import ModuleType
from typing import Any

from distill.core.discovery import PluginRecord, Source, discover, load_all, normal
from distill.core.errors import DistillError, PluginConflict, PluginLoadError, UnknownName
from distill.core.hookspecs import GROUP, KINDS, SPEC, Component

__all__ = ["Entry", "PluginRecord", "Registry", "Source", "default_registry", "discover", "plural"]

FIRST_PARTY = {
    "3d": "distill-3d",
    "audio": "distill-audio",
    "image": "distill-image",
    "methods": "distill-methods",
    "pipeline": "distill-pipeline",
    "policy": "distill-policy",
    "recognition": "distill-recognition",
    "studio": "distill-studio",
    "text": "distill-text",
    "video": "distill-video",
}
"""What to install for a plugin, a modality or a command that is asked for and is not there."""

ESSENTIAL = "distill-core"
"""The distribution that no allow-list has to name, and no block-list may."""


def plural(kind: str) -> str:
    """The word for several of a kind.

    >>> plural("lens")
    'lenses'
    """
    return KINDS[kind].removeprefix("distill_")


@dataclass(frozen=True, slots=True)
class Entry:
    """A component together with its kind and the plugin that provides it."""

    kind: str
    component: Component
    plugin: PluginRecord

    @property
    def name(self) -> str:
        """The short name, unique unless two plugins use it."""
        return self.component.name

    @property
    def qualified(self) -> str:
        """`plugin:name`, which always resolves."""
        return f"{self.plugin.name}:{self.component.name}"

    def load(self) -> object:
        """Import what the component's target names."""
        return self._import(self.component.target)

    def load_claim(self) -> object:
        """Import the claim of a method."""
        if not self.component.claim:
            raise PluginLoadError(f"{self.kind} {self.qualified!r} of plugin {self.plugin} declares no claim.")
        return self._import(self.component.claim)

    def _import(self, target: str) -> object:
        try:
            return metadata.EntryPoint(self.name, target, GROUP).load()
        except Exception as error:
            plugin = self.plugin
            raise PluginLoadError(
                f"{self.kind} {self.name!r} of plugin {plugin.name!r} ({plugin.distribution} "
                f"{plugin.version}, entry point {plugin.entry_point}) could not be imported from {target}: "
                f"{type(error).__name__}: {error}. Try: pip install -U {plugin.distribution}. "
                f"Details: distill check {plugin.name}"
            ) from error


class Registry:
    """The plugins of one process, and what they provide.

    `sources` are entry points as `discover()` returns them, or plugin modules. `allow` and `block` hold
    names of plugins or of distributions; the core cannot be left out. With `strict`, the first query raises
    if anything is wrong with any plugin. Nothing is imported before the first query.
    """

    def __init__(
        self,
        sources: Iterable[Source | ModuleType] = (),
        *,
        allow: Iterable[str] = (),
        block: Iterable[str] = (),
        strict: bool = False,
        spec: int = SPEC,
    ) -> None:
        given = [Source.of(each) if isinstance(each, ModuleType) else each for each in sources]
        first = {(normal(each.distribution), each.name, each.value): each for each in reversed(given)}
        self._sources = sorted(first.values(), key=lambda each: (each.name, each.distribution, each.value))
        self._allow, self._block = self._known(allow), self._known(block)
        if self._block & {ESSENTIAL, "core"}:
            raise DistillError(f"{ESSENTIAL} cannot be blocked: everything else stands on it.")
        self._strict, self._spec = strict, spec

    def _known(self, names: Iterable[str]) -> frozenset[str]:
        known = {name for each in self._sources for name in (each.name, each.distribution)}
        asked = frozenset(filter(None, map(str.strip, names)))
        for name in sorted(asked - known):
            raise UnknownName("plugin or distribution", name, known, hint="See: distill plugins")
        return asked

    def _refuse(self, source: Source) -> str:
        names = {source.name, source.distribution}
        if source.distribution == ESSENTIAL:
            return ""
        if names & self._block:
            return "blocked by DISTILL_BLOCK or --no-plugin"
        if self._allow and not names & self._allow:
            return "not in the allow-list DISTILL_PLUGINS"
        return ""

    @cached_property
    def _records(self) -> tuple[PluginRecord, ...]:
        records = tuple(load_all(self._sources, self._refuse, self._spec))
        for fault in _faults(records) if self._strict else ():
            raise fault
        return records

    @cached_property
    def _entries(self) -> dict[str, list[Entry]]:
        return {kind: _entries(self._records, kind) for kind in KINDS}

    def plugins(self) -> list[PluginRecord]:
        """Every plugin found, sorted by name, those that cannot be used included."""
        return list(self._records)

    def components(self, kind: str | None = None, modality: str | None = None) -> list[Entry]:
        """Every usable component, sorted; with `modality`, those made for it and those that suit any."""
        entries = [entry for each in ([self._kind(kind)] if kind else KINDS) for entry in self._entries[each]]
        if not modality:
            return entries
        known = {entry.component.modality or entry.name for entry in self._entries["modality"]}
        known |= {entry.component.modality for group in self._entries.values() for entry in group} - {""}
        if modality not in known:
            raise UnknownName("modality", modality, known, hint=self.hint(modality))
        return [entry for entry in entries if entry.component.modality in ("", modality)]

    def find(self, kind: str, name: str) -> Entry:
        """The component called `name`, or `plugin:name` where two plugins use one name."""
        entries = self._entries[self._kind(kind)]
        plugin, _, short = name.rpartition(":")
        if plugin:
            self.require(plugin)
        found = [entry for entry in entries if entry.name == short and plugin in ("", entry.plugin.name)]
        if len(found) > 1:
            raise PluginConflict(_clash(found))
        if not found:
            known = [entry.qualified if plugin else entry.name for entry in entries]
            raise UnknownName(kind, name, known, hint=self.hint(short))
        return found[0]

    def load(self, kind: str, name: str) -> object:
        """Import what the target of the component called `name` names."""
        return self.find(kind, name).load()

    def loaded(self, kind: str) -> Iterator[tuple[Entry, Any]]:
        """Every usable component and what its target names; loading one that is missing here says why it cannot be."""
        for entry in self.components(kind):
            with suppress(PluginLoadError):
                yield entry, entry.load()

    def conflicts(self) -> list[list[Entry]]:
        """Groups of components of one kind that share a name."""
        return _conflicts(self._records)

    def faults(self) -> list[DistillError]:
        """What is wrong: plugins that are broken, in conflict or incompatible; names with two providers."""
        return _faults(self._records)

    def requirements(self) -> dict[str, str]:
        """The distributions of all usable plugins with their versions: what a run has to remember."""
        return {record.distribution: record.version for record in self._records if record.usable}

    def _kind(self, kind: str) -> str:
        if kind not in KINDS:
            raise UnknownName("kind of component", kind, KINDS)
        return kind

    def require(self, plugin: str) -> PluginRecord:
        """The plugin of that name, if it can be used; raises what is wrong with it otherwise."""
        named = [record for record in self._records if record.name == plugin]
        if not named:
            known = [record.name for record in self._records]
            raise UnknownName("plugin", plugin, known, hint=self.hint(plugin))
        best = min(named, key=lambda record: (not record.usable, not record.faulty))
        if not best.usable:
            raise best.fault()
        return best

    def hint(self, name: str) -> str:
        """Why a name may be missing: a plugin that is not installed, or one that could not be used."""
        parts = []
        distribution = FIRST_PARTY.get(name)
        if distribution and all(record.distribution != distribution for record in self._records):
            parts.append(f"{distribution!r} provides {name!r}: pip install {distribution}.")
        parts += [f"Plugin {each} is {each.state}: {each.error}." for each in self._records if not each.usable]
        return " ".join(parts)


def _entries(records: Iterable[PluginRecord], kind: str) -> list[Entry]:
    entries = [Entry(kind, each, record) for record in records for each in record.components.get(kind, ())]
    return sorted(entries, key=lambda entry: (entry.name, entry.plugin.name))


def _conflicts(records: Iterable[PluginRecord]) -> list[list[Entry]]:
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for kind in KINDS:
        for entry in _entries(records, kind):
            groups[kind, entry.name].append(entry)
    return [group for group in groups.values() if len(group) > 1]


def _clash(rivals: list[Entry]) -> str:
    who = " and ".join(str(entry.plugin) for entry in rivals)
    ways = " or ".join(entry.qualified for entry in rivals)
    return f"{rivals[0].kind} {rivals[0].name!r} is provided by {who}. Write {ways}."


def _faults(records: Iterable[PluginRecord]) -> list[DistillError]:
    records = list(records)
    faults = [record.fault() for record in records if record.faulty]
    return [*faults, *(PluginConflict(_clash(group)) for group in _conflicts(records))]


@cache
def default_registry() -> Registry:
    """What is installed, under DISTILL_PLUGINS, DISTILL_BLOCK and DISTILL_STRICT; made once."""
    return Registry(
        discover(),
        allow=os.environ.get("DISTILL_PLUGINS", "").split(","),
        block=os.environ.get("DISTILL_BLOCK", "").split(","),
        strict=os.environ.get("DISTILL_STRICT", "") == "1",
    )
