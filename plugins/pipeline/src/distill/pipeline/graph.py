"""A pipeline: read, checked before anything loads, planned, run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field

from distill.core import Lens, Options
from distill.core.errors import RecipeError, UnknownName, nearest
from distill.core.recipe import Source, change, parse, validate
from distill.core.registry import Registry, default_registry
from distill.pipeline.nodes import NODES, Edge, Node, Port, World
from distill.pipeline.results import Results


class Graph(Options):
    """What a pipeline's file says."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of every random draw."""
    nodes: dict[str, dict[str, Any]] = Field(min_length=1, max_length=1000)
    """The nodes by name, each with one of the keys `model`, `lens`, `data` and `write`."""


@dataclass(frozen=True)
class Step:
    """A node whose component was found and whose inputs fit."""

    name: str
    node: Node
    part: Any
    gives: Mapping[str, Port]


@dataclass
class Pipeline:
    """A graph of models, lenses and writers, checked: every edge carries what both of its ends mean by it."""

    graph: Graph
    world: World

    @classmethod
    def read(cls, path: Path | str, overrides: Sequence[str] = (), registry: Registry | None = None) -> Pipeline:
        """A pipeline from its file, or one that ships, by its name.

        Raises:
            DistillError: there is none, or something in it does not fit; nothing was loaded.
        """
        file = _found(Path(path))
        try:
            values, source = parse(file.read_text(encoding="utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: not a text file. Give the path of a pipeline, a YAML file.") from error
        return cls.of(values, source, overrides, registry)

    @classmethod
    def of(
        cls, values: dict[str, Any], source: Source | None = None, overrides: Sequence[str] = (),
        registry: Registry | None = None,
    ) -> Pipeline:  # fmt: skip
        """A pipeline from plain values."""
        source = source or Source("the pipeline")
        values = deepcopy(values)
        for override in overrides:
            change(values, source, override)
        made = cls(validate(Graph, values, source), World(registry or default_registry(), source))
        made.steps  # noqa: B018  # a pipeline that exists is one that fits
        return made

    @cached_property
    def steps(self) -> dict[str, Step]:
        """All nodes, each after those that it needs."""
        nodes = {name: self._node(name, values) for name, values in self.graph.nodes.items()}
        steps: dict[str, Step] = {}
        for name in self._order(nodes):
            steps[name] = self._step(name, nodes[name], steps)
        return steps

    def place(self, name: str, *key: str) -> str:
        """Where something was said of a node."""
        return self.world.source.place(("nodes", name, *key))

    def run(self, out: Path | str, tell: Callable[[str], None] = lambda said: None) -> dict[str, list[Path]]:
        """Make every result that is not there, and write the files; those of each writer, by its name."""
        return Results(self, Path(out)).make(tell)

    # ------------------------------------------------------------ what is checked

    def _node(self, name: str, values: Mapping[str, Any]) -> Node:
        if not name.replace("-", "_").isidentifier() or not name.isascii() or len(name) > 100:
            raise RecipeError(f"{self.place(name)}: '{name[:60]}' is no name of a node: write letters, digits, - and _")
        keys = [key for key in NODES if key in values]
        if len(keys) != 1:
            said = " and ".join(f"'{key}'" for key in keys) or "none of them"
            raise RecipeError(
                f"{self.place(name)}: node '{name}' has one of the keys {', '.join(NODES)}: it has {said}"
            )
        return validate(NODES[keys[0]], dict(values), self.world.source, ("nodes", name))

    def _order(self, nodes: Mapping[str, Node]) -> Iterator[str]:
        needs = {name: [edge.node for edge in node.inputs.values()] for name, node in nodes.items()}
        for name, node in nodes.items():
            for port, edge in node.inputs.items():
                if edge.node not in nodes:
                    close = nearest(edge.node, nodes)
                    hint = f"did you mean '${close}'?" if close else f"there are {', '.join(nodes)}"
                    raise RecipeError(f"{self.place(name, *port.split('.'))}: there is no node '{edge.node}'; {hint}")
        try:
            return iter(list(TopologicalSorter(needs).static_order()))
        except CycleError as error:
            circle = error.args[1]
            raise RecipeError(f"{self.place(circle[0])}: nodes need each other: {' -> '.join(circle)}") from error

    def _step(self, name: str, node: Node, steps: Mapping[str, Step]) -> Step:
        part = node.open(self.world, "nodes", name)
        takes, units = node.takes(self.world, part), {}
        for port, edge in node.inputs.items():
            if port not in takes:
                raise RecipeError(
                    f"{self.place(name, *port.split('.'))}: node '{name}' has no input '{port}'; it takes "
                    f"{_listed(takes) or 'none'}"
                )
            given = self._given(name, port, edge, steps[edge.node])
            if given.type not in takes[port]:
                raise RecipeError(self._misfit(name, port, takes[port][0], edge, given))
            units[port] = given
        lacking = [port for port in takes if port.startswith("of") and port not in node.inputs]
        if lacking:
            raise RecipeError(f"{self.place(name)}: node '{name}' lacks its input '{lacking[0]}': {_listed(takes)}")
        part = self._read(name, node, part, units)
        return Step(name, node, part, node.gives(self.world, part))

    def _given(self, name: str, port: str, edge: Edge, step: Step) -> Port:
        """What an edge carries."""
        if edge.part in step.gives:
            return step.gives[edge.part]
        known = [f"'{Edge(edge.node, part)}'" for part in step.gives]
        raise RecipeError(
            f"{self.place(name, *port.split('.'))}: '{edge}' is nothing that node '{edge.node}' gives: "
            f"write {' or '.join(known)}"
        )

    def _misfit(self, name: str, port: str, wanted: str, edge: Edge, given: Port) -> str:
        return (
            f"{self.place(name, *port.split('.'))}: '{port}' of node '{name}' takes {wanted}, and node '{edge.node}' "
            f"({self.place(edge.node)}) gives {given}: {self._remedy(edge, given.type, wanted)}"
        )

    def _remedy(self, edge: Edge, given: str, wanted: str) -> str:
        """The lenses that would make the one of the other."""
        ways = [names for names in _ways(self.world.lenses, given, wanted) if names]
        if ways:
            fitting = " or ".join(dict.fromkeys(f"'{' then '.join(names)}'" for names in ways))
            return f"put the lens {fitting} between them, such as {{lens: {ways[0][0]}, of: {edge}}}"
        leads = [f"{' and '.join(_given(lens))} ('{name}')" for name, lens in self.world.lenses.items()
                 if lens.takes == given]  # fmt: skip
        return f"no lens that is installed leads there; from {given} they lead to {', '.join(leads) or 'nothing'}"

    def _read(self, name: str, node: Node, part: Any, given: Mapping[str, Port]) -> Any:
        """The component with the units of what it takes; those that it was told otherwise are refused."""
        update: dict[str, Any] = {}
        for option, words in node.units(part).items():
            for port, each in given.items():
                unit = option if port == "of" else option.removeprefix(f"{port.removeprefix('of.')}_")
                if unit not in each.units:
                    continue
                if option in part.model_fields_set and getattr(part, option) != each.units[unit]:
                    raise RecipeError(self._unequal(name, node, port, f"{getattr(part, option):g} {words}", each))
                update[option] = each.units[unit]
        return part.model_copy(update=update) if update else part

    def _unequal(self, name: str, node: Node, port: str, said: str, given: Port) -> str:
        edge = node.inputs[port]
        between = [f"'{each}'" for each, lens in self.world.lenses.items() if lens.takes == lens.gives == given.type]
        remedy = f"leave it out, or put the lens {' or '.join(between)} between them" if between else "leave it out"
        return (
            f"{self.place(name, node.key)}: node '{name}' reads {said}, and node '{edge.node}' "
            f"({self.place(edge.node)}) gives {given}: {remedy}"
        )


def _found(path: Path) -> Path:
    """A pipeline's file: the path itself, or that of one that ships."""
    if path.suffix in (".yaml", ".yml") or path.is_file() or len(path.parts) > 1:
        return path
    folder = Path(str(files("distill.pipeline") / "pipelines"))
    known = {file.stem: file for file in folder.glob("*.yaml")}
    if str(path) not in known:
        raise UnknownName("pipeline", str(path), known, hint="Give one of these, or the path of a YAML file.")
    return known[str(path)]


def _given(lens: type[Lens]) -> list[str]:
    return [lens.gives] if isinstance(lens.gives, str) else list(lens.gives.values())


def _ways(lenses: Mapping[str, type[Lens]], given: str, wanted: str) -> list[tuple[str, ...]]:
    """The shortest chains of lenses from one type to another."""
    ways: dict[str, list[tuple[str, ...]]] = {given: [()]}
    while wanted not in ways:
        further: dict[str, list[tuple[str, ...]]] = {}
        for name, lens in lenses.items():
            before = ways.get(lens.takes, []) if isinstance(lens.takes, str) else []
            for made in _given(lens):
                further.setdefault(made, []).extend((*way, name) for way in before)
        further = {made: found for made, found in further.items() if found and made not in ways}
        if not further:
            return []
        ways |= further
    return ways[wanted]


def _listed(takes: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"'{port}' ({kinds[0]})" for port, kinds in takes.items())
