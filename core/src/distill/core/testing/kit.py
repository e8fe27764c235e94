"""What a check is, and how all checks of a plugin are run."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

from distill.core import contracts
from distill.core.contracts import Batch
from distill.core.data import collate
from distill.core.errors import DistillError
from distill.core.registry import Entry, Registry, default_registry
from distill.core.rng import Rng
from distill.core.testing.fit import Unfit, ensure
from distill.core.testing.toy import toy_batch

BASES: dict[str, type] = {
    "denoiser": contracts.Builder,
    "trajectory": contracts.Trajectory,
    "loss": contracts.Loss,
    "modality": contracts.Modality,
    "lens": contracts.Lens,
    "transform": contracts.Transform,
    "dataset": contracts.DataSource,
    "metric": contracts.Metric,
    "method": contracts.Method,
}
"""What the target of each kind of component derives from."""

HEAVY = ("torch", "numpy", "scipy", "sklearn", "diffusers", "transformers", "peft", "torchaudio", "trimesh")
"""What listing plugins must not import."""


class Result(NamedTuple):
    """What was checked, what is wrong with it, and what to do; both empty when all is well."""

    what: str
    failure: str
    remedy: str = ""


class Failed(Unfit):
    """A check that failed, with why it is made and how to mend what it found."""

    def __init__(self, failure: str, run: Callable[..., None]) -> None:
        why, _, mend = " ".join((run.__doc__ or "").split()).partition(" Mend: ")
        self.failure, self.remedy = failure, f"Mend: {mend} Why: {why}"
        super().__init__(f"{failure}\n{self.remedy}")


@dataclass(frozen=True)
class Case:
    """One component under test."""

    entry: Entry
    registry: Registry

    @cached_property
    def target(self) -> Any:
        """The class that the component names."""
        return self.entry.load()

    def make(self) -> Any:
        """The component with its `example` options, or its defaults."""
        missing = [name for name, info in self.target.model_fields.items() if info.is_required()]
        lacking = set(missing) - set(self.example)
        ensure(not lacking, f"options {', '.join(sorted(lacking))} have no default: give them in `example`")
        return self.target.model_validate(self.example)

    @property
    def example(self) -> Mapping[str, Any]:
        """The class's own `example`: one that it inherits was made for its parent."""
        return dict(vars(self.target).get("example", {}))

    @property
    def conformance(self) -> Mapping[str, str]:
        """The class's own `conformance`: checks that do not apply."""
        return self._declared("conformance")

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The class's own `known_failures`: checks that it does not pass as yet."""
        return self._declared("known_failures")

    def _declared(self, name: str) -> Mapping[str, str]:
        """A mapping that the class gives itself; empty where there is no class, which fails `resolves`."""
        try:
            return dict(vars(self.target).get(name, {})) if isinstance(self.target, type) else {}
        except DistillError:
            return {}

    def kin(self, kind: str) -> list[Case]:
        """Components of another kind for the same modality, the plugin's own first."""
        mine = self.entry.component.modality or self.entry.name
        entries = [e for e in self.registry.components(kind) if mine in (e.component.modality, e.name)]
        entries.sort(key=lambda e: e.plugin.name != self.entry.plugin.name)
        return [Case(entry, self.registry) for entry in entries]

    def batch(self, size: int) -> Batch:
        """Samples of the component's modality: of a dataset, or in the shape of a denoiser; else points."""
        for source in self.kin("dataset"):
            if "samples" not in source.conformance:
                samples = source.make().open()
                fields = collate([samples[row % len(samples)] for row in range(size)])
                return Batch(size, fields["x"], {name: value for name, value in fields.items() if name != "x"})
        for builder in self.kin("denoiser"):
            return Batch(size, Batch(size, shape=builder.make().build().shape).noise(Rng(0)))
        return toy_batch(size)


Run = Callable[[Case], None]
CHECKS: list[tuple[str, tuple[str, ...], Run]] = []
"""Every check: its name, the kinds of component that it is for, and what it runs."""


def check(name: str, *kinds: str) -> Callable[[Run], Run]:
    """Add a function to the kit, for some kinds of component or for all."""

    def add(run: Run) -> Run:
        CHECKS.append((name, kinds or tuple(BASES), run))
        return run

    return add


def component_checks(plugin: str, registry: Registry | None = None) -> list[tuple[str, Callable[[], None]]]:
    """The checks of a plugin and its components as (id, function).

    A failure raises; what does not apply raises `unittest.SkipTest` with the reason, which pytest reports as
    a skip.
    """
    registry = registry or default_registry()
    record = registry.require(plugin)
    lazy = partial(explained, check_lazy, record.entry_point)
    checks: list[tuple[str, Callable[[], None]]] = [(f"{plugin}: lazy", lazy)]
    for entry in registry.components():
        if entry.plugin.name == plugin:
            case = Case(entry, registry)
            checks += [
                (f"{entry.kind} {entry.name}: {name}", partial(_apply, case, name, run))
                for name, kinds, run in CHECKS
                if entry.kind in kinds
            ]
    return checks


def _apply(case: Case, name: str, run: Run) -> None:
    reason = _reason(case.conformance, name)
    if reason is not None:
        raise unittest.SkipTest(reason)
    expected = _reason(case.known_failures, name)
    try:
        explained(run, case)
    except Failed as error:
        if expected is None:
            raise
        raise unittest.SkipTest(f"fails as expected: {expected}") from error
    if expected is not None:
        raise Failed(f"it passes, and `known_failures` says that it fails ({expected}): take {name!r} out", run)


def _reason(declared: Mapping[str, str], name: str) -> str | None:
    """What is said of a check, or of its group."""
    return declared.get(name, declared.get(name.partition("/")[0]))


def explained(run: Callable[..., None], *given: Any) -> None:
    """Run a check; whatever a component raises is its failure, and says how to mend it."""
    try:
        run(*given)
    except unittest.SkipTest:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise Failed(said if isinstance(error, Unfit) else f"{type(error).__name__}: {said}", run) from error


def check_plugin(plugin: str, *, registry: Registry | None = None) -> Iterator[Result]:
    """Run every check of a plugin; the results come as they are found."""
    for name, run in component_checks(plugin, registry):
        try:
            run()
        except unittest.SkipTest as reason:
            said = str(reason)
            yield Result(f"{name} ({said if said.startswith('fails as') else f'does not apply: {said}'})", "")
        except Failed as error:
            yield Result(name, error.failure, error.remedy)
        else:
            yield Result(name, "")


def check_lazy(entry_point: str) -> None:
    """Importing a plugin's module imports nothing heavy, because every command lists every plugin.

    Mend: import torch and its like in the modules that targets name, and only `hookspecs` in the plugin's
    own.
    """
    module = entry_point.partition(":")[0]
    code = f"import sys, importlib; importlib.import_module({module!r}); print(*sys.modules)"
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    ensure(
        not done.returncode,
        f"{module} cannot be imported on its own: {done.stderr.strip().splitlines()[-1:]}",
    )
    heavy = sorted(set(HEAVY) & set(done.stdout.split()))
    ensure(not heavy, f"importing {module} imports {', '.join(heavy)}: import them where they are used")
