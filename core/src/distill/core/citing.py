"""What to cite: the papers of components, of everything inside their options, and of all that a run used.

A component says its sources in its record (`paper`) and in its docstrings (`arXiv:` and an id). Their titles and
authors stand in `references.bib`, beside the plugin's module; a source that no plugin describes becomes an entry with
its id alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.core.contracts import Method
from distill.core.denoiser import Denoiser
from distill.core.errors import CheckpointError, UnknownName
from distill.core.options import Options
from distill.core.recipe import Recipe
from distill.core.registry import Entry, Registry
from distill.core.sampling import Sampler

if TYPE_CHECKING:
    from distill.core.run import Run

ARXIV = re.compile(r"\barXiv:\s?(\d{4}\.\d{4,5})")
ENTRY = re.compile(r"^@\w+\{.*?^\}", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^\s*(?:eprint|doi) = \{([^}]*)\}", re.MULTILINE)
FILE = "references.bib"
"""Beside a plugin's module what it describes, and in a run's folder what the run used."""


def bibtex(papers: Iterable[str], registry: Registry) -> str:
    """BibTeX of distill itself and of papers, arXiv ids or DOIs."""
    own, known = described(registry)
    return "\n\n".join([own, *(known.get(paper) or bare(paper) for paper in sorted(set(papers)))]) + "\n"


def described(registry: Registry) -> tuple[str, dict[str, str]]:
    """The entry of distill itself, and those of all plugins by their paper."""
    found: dict[str, str] = {}
    for record in registry.plugins():
        package = record.entry_point.partition(":")[0].rpartition(".")[0]
        for entry in entries(package) if record.usable and package else ():
            field = FIELD.search(entry)
            found.setdefault(field[1] if field else "", entry)
    return found.pop("", ""), found


def entries(package: str) -> list[str]:
    """What a package's `references.bib` holds; nothing where it has none."""
    file = files(package) / FILE
    return ENTRY.findall(file.read_text(encoding="utf-8")) if file.is_file() else []


def bare(paper: str) -> str:
    """An entry that knows nothing but the paper's id."""
    if "/" in paper:
        return f"@misc{{doi:{paper},\n  doi = {{{paper}}}\n}}"
    fields = {"year": f"20{paper[:2]}", "eprint": paper, "archivePrefix": "arXiv"}
    return f"@misc{{arXiv:{paper},\n" + ",\n".join(f"  {key} = {{{value}}}" for key, value in fields.items()) + "\n}"


def sources(value: Any, records: Mapping[str, str]) -> Iterator[str]:
    """Papers of a value's class and of all that its options hold; `records` has those of targets."""
    for kind in type(value).__mro__:
        yield from ARXIV.findall(kind.__dict__.get("__doc__") or "")
        yield records.get(f"{kind.__module__}:{kind.__qualname__}", "")
    for inner in _inside(value):
        yield from sources(inner, records)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Options):
        return [each for _, each in value]
    if isinstance(value, Denoiser):
        return value.path, value.network
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, tuple | list) else ()


def by_target(registry: Registry) -> dict[str, str]:
    """The papers of all records, by what they name."""
    return {entry.component.target: entry.component.paper.removeprefix("arXiv:") for entry in registry.components()}


def of_run(run: Run, registry: Registry) -> str:
    """BibTeX of everything that a run used: its method and plan, its networks, its data, what measured it."""
    roles = [role.module for role in run.roles.values()]
    parts = [run.plan, run.method.roles(), run.builder, run.sampler, run.lens, run.modality, run.metrics, run.judges]
    papers = set(sources([*parts, roles], by_target(registry)))
    papers.update(*(own(entry) for entry in named(run.recipe, registry)))
    teacher = run.recipe.teacher
    if isinstance(teacher, str) and (Path(teacher) / FILE).is_file():
        papers.update(noted(Path(teacher)))
    return bibtex(papers - {""}, registry)


def named(recipe: Recipe, registry: Registry) -> list[Entry]:
    """The components that a recipe names."""
    roles = recipe.roles.values()
    references: dict[str, Sequence[Any]] = {
        "method": [recipe.method],
        "denoiser": [recipe.teacher, recipe.student, *(role.build for role in roles)],
        "dataset": [recipe.data],
        "lens": [recipe.lens],
        "transform": [each for role in roles for each in role.transforms or ()],
        "metric": recipe.metrics,
    }
    names = {
        (kind, each.get("name") if isinstance(each, dict) else each) for kind in references for each in references[kind]
    }
    return [e for e in registry.components() if {(e.kind, e.name), (e.kind, e.qualified)} & names]


def own(entry: Entry) -> list[str]:
    """Papers of a component alone: its record's, and those of its docstring."""
    paper, target = entry.component.paper.removeprefix("arXiv:"), entry.load()
    return [*filter(None, [paper]), *ARXIV.findall(target.__doc__ or "")]


def of_entry(entry: Entry, registry: Registry) -> list[str]:
    """Papers of a component with its default options, where it has defaults for all; of a method also its plan's."""
    target: Any = entry.load()
    if not isinstance(target, type) or not issubclass(target, Options):
        return own(entry)
    if any(info.is_required() for info in target.model_fields.values()):
        return own(entry)
    value: Any = target()
    parts = [value.roles(), value.plan(Sampler())] if isinstance(value, Method) else [value]
    return [*own(entry), *filter(None, sources(parts, by_target(registry)))]


def cite(names: Sequence[str], registry: Registry) -> str:
    """BibTeX of runs' folders and of components."""
    papers: set[str] = set()
    for name in names:
        found = [entry for entry in registry.components() if name in (entry.name, entry.qualified)]
        if not found and Path(name).is_dir():
            papers.update(noted(Path(name)))
        elif not found:
            raise UnknownName("run or component", name, {entry.name for entry in registry.components()})
        papers |= {paper for entry in found for paper in of_entry(entry, registry)}
    return bibtex(papers, registry)


def noted(folder: Path) -> list[str]:
    """The papers that a run has noted when it ended."""
    if not (folder / FILE).is_file():
        raise CheckpointError(f"{folder} has no {FILE}: give the folder of a finished run, or name its components")
    return FIELD.findall((folder / FILE).read_text(encoding="utf-8"))
