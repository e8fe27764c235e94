"""Finding plugins and importing their light modules, one guarded step at a time.

First entry points are read, as text, once per process. Then each plugin's module is imported and asked what
it provides; whatever goes wrong there becomes the state of its record and touches no other plugin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from time import perf_counter
from types import ModuleType
from typing import Literal

import pluggy

from distill.core import __version__, hookspecs
from distill.core.errors import DistillError, IncompatibleSpec, PluginConflict, PluginLoadError
from distill.core.hookspecs import GROUP, KINDS, Component

__all__ = ["PluginRecord", "Source", "discover", "load_all", "normal"]

State = Literal["ok", "broken", "blocked", "conflict", "incompatible"]

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plugin comes from, before it is imported: an entry point as found, or a module as given."""

    name: str
    value: str
    distribution: str = "unknown"
    version: str = ""
    location: str = ""
    module: ModuleType | None = field(default=None, compare=False)

    @classmethod
    def of(cls, module: ModuleType, *, distribution: str = "in-process", version: str = "") -> Source:
        """A plugin that is a module already: for tests and notebooks, nothing has to be installed."""
        name = module.__name__.removesuffix(".plugin").rpartition(".")[2]
        return cls(name, module.__name__, distribution, version, module=module)

    def load(self) -> object:
        """Import the plugin's light module."""
        return self.module or metadata.EntryPoint(self.name, self.value, GROUP).load()

    def record(self, state: State, error: str = "") -> PluginRecord:
        """This plugin with what became of it."""
        return PluginRecord(
            name=self.name,
            distribution=self.distribution,
            version=self.version,
            entry_point=self.value,
            location=self.location,
            state=state,
            error=error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRecord:
    """One plugin as found: where it comes from, whether it can be used, why not, and what it provides.

    `state` is `ok`, `broken` (raised, misspelt a hook, or answered nonsense), `blocked` (by the user),
    `conflict` (a second plugin has its name) or `incompatible` (written for another version of the
    hookspecs). `components` maps a kind to its components; `seconds` is what importing the light module
    took.
    """

    name: str
    distribution: str
    version: str
    entry_point: str
    state: State = "ok"
    error: str = ""
    spec: int | None = None
    location: str = ""
    components: Mapping[str, tuple[Component, ...]] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)
    cause: BaseException | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})".replace(" )", ")")

    @property
    def usable(self) -> bool:
        """Whether its components can be used."""
        return self.state == "ok"

    @property
    def faulty(self) -> bool:
        """Whether something is wrong with it; what the user blocked is neither usable nor faulty."""
        return self.state not in ("ok", "blocked")

    def fault(self) -> DistillError:
        """The exception that using this plugin raises, with the remedy."""
        return _FAULTS[self.state](self)


def _load_error(record: PluginRecord) -> DistillError:
    error = PluginLoadError(
        f"plugin {record.name!r} ({record.distribution} {record.version}, entry point {record.entry_point}) "
        f"could not be loaded: {record.error}. Try: pip install -U {record.distribution}; "
        f"or skip it: DISTILL_BLOCK={record.name}. Details: distill plugins --check"
    )
    error.__cause__ = record.cause
    return error


_FAULTS: dict[str, Callable[[PluginRecord], DistillError]] = {
    "broken": _load_error,
    "blocked": lambda record: PluginLoadError(f"plugin {record} is installed but not loaded: {record.error}."),
    "conflict": lambda record: PluginConflict(record.error),
    "incompatible": lambda record: IncompatibleSpec(record.error),
}


@cache
def discover() -> tuple[Source, ...]:
    """The plugins that installed distributions announce: read once per process, none imported."""
    found: dict[str, list[Source]] = {}
    for dist in metadata.distributions():
        if GROUP in (dist.read_text("entry_points.txt") or ""):  # nothing else is worth parsing
            # Python imports the first of a name; a stale copy further down the path is not a second plugin.
            found.setdefault(normal(dist.metadata["Name"]), _announced(dist))
    return tuple(source for sources in found.values() for source in sources)


def _announced(dist: metadata.Distribution) -> list[Source]:
    points = [point for point in dist.entry_points if point.group == GROUP]
    name, version, where = str(dist.metadata["Name"]), str(dist.version), str(dist.locate_file(""))
    return [Source(point.name, point.value, name, version, where) for point in points]


def normal(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503).

    >>> normal("Distill_Image")
    'distill-image'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def load_all(sources: Sequence[Source], refuse: Callable[[Source], str], spec: int) -> Iterator[PluginRecord]:
    """Load each source, unless `refuse` gives a reason not to, or a rival has the same name."""
    reasons = [refuse(source) for source in sources]
    welcome = [source for source, reason in zip(sources, reasons, strict=True) if not reason]
    manager = pluggy.PluginManager("distill")
    manager.add_hookspecs(hookspecs)
    for source, reason in zip(sources, reasons, strict=True):
        if reason:
            yield source.record("blocked", reason)
        elif rivalry := _rivalry(source, welcome):
            yield source.record("conflict", rivalry)
        else:
            yield _load(source, manager, spec)


def _rivalry(source: Source, others: Sequence[Source]) -> str:
    """Who else has the plugin's name, or its module, and what to do; empty when nobody does."""
    namesakes = [each for each in others if each.name == source.name]
    twins = [each for each in others if each.value == source.value]
    rivals = namesakes if len(namesakes) > 1 else twins
    if len(rivals) == 1:
        return ""
    who = " and ".join(f"{each.distribution} {each.version}".rstrip() for each in rivals)
    shared = f"are called {source.name!r}" if rivals is namesakes else f"are the module {source.value}"
    return (
        f"{len(rivals)} plugins {shared}: from {who}. "
        f"Try: pip uninstall one of them; or skip one: DISTILL_BLOCK={rivals[-1].distribution}"
    )


def _load(source: Source, manager: pluggy.PluginManager, spec: int) -> PluginRecord:
    start = perf_counter()
    try:
        module = source.load()
        declared = getattr(module, "DISTILL_SPEC", None)
        refusal = _spec_refusal(source, declared, spec)
        if refusal:
            return replace(source.record("incompatible", refusal), spec=declared)
        components = _ask(module, source.name, manager)
    except (Exception, SystemExit) as error:  # a plugin that exits at import must not take the others with it
        return replace(source.record("broken", _one_line(error)), cause=error)
    return replace(
        source.record("ok"),
        spec=declared,
        components=components,
        location=getattr(module, "__file__", None) or source.location,
        seconds=perf_counter() - start,
    )


def _one_line(error: BaseException) -> str:
    if isinstance(error, pluggy.PluginValidationError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _spec_refusal(source: Source, declared: object, spec: int) -> str:
    """Why a plugin written for `declared` is refused, and what to install; empty when it is welcome."""
    if declared in (spec, spec - 1):
        return ""
    wants = f"was written for hookspec version {declared}" if declared is not None else "declares no DISTILL_SPEC"
    newer = isinstance(declared, int) and declared > spec
    remedy = f"pip install -U {'distill-core' if newer else source.distribution}"
    if declared is None:
        remedy += f"; if it is yours, write DISTILL_SPEC = {spec} in {source.value}"
    return (
        f"plugin {source.name!r} ({source.distribution} {source.version}) {wants}, "
        f"but distill-core {__version__} speaks {spec} and {spec - 1}: {remedy}"
    )


def _ask(module: object, name: str, manager: pluggy.PluginManager) -> dict[str, tuple[Component, ...]]:
    """Register a plugin and call its hooks; on any failure nothing of it stays registered."""
    try:
        manager.register(module, name)
        manager.check_pending()  # at once, so that a misspelt hook is laid at the right door
        answers = {kind: _answer(manager, module, hook) for kind, hook in KINDS.items()}
    except BaseException:
        manager.unregister(name=name)
        raise
    return {kind: components for kind, components in answers.items() if components}


def _answer(manager: pluggy.PluginManager, module: object, hook: str) -> tuple[Component, ...]:
    """What one plugin answers to one hook; the others are not asked, so that a failure has one author."""
    others = [plugin for plugin in manager.get_plugins() if plugin is not module]
    replies = manager.subset_hook_caller(hook, others)()
    return _checked(hook, [component for reply in replies for component in reply])


def _checked(hook: str, components: Iterable[object]) -> tuple[Component, ...]:
    valid: dict[str, Component] = {}
    for component in components:
        if not isinstance(component, Component):
            raise TypeError(f"{hook}() must return Component records, got {component!r}")
        if not component.name or ":" in component.name or component.name in valid:
            raise ValueError(f"{hook}(): {component.name!r} is empty, holds a colon, or is given twice")
        for target in filter(None, (component.target or "(empty)", component.claim)):
            if not _TARGET.fullmatch(target):
                raise ValueError(f"{hook}(): {component.name!r} has the target {target!r}; write 'module:attribute'")
        valid[component.name] = component
    return tuple(valid.values())
