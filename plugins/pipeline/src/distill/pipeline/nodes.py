"""The kinds of nodes: what a file says of each, what its ports carry, and how its result is made."""

from __future__ import annotations

import re
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from distill.core import Builder, DataSource, Lens, Modality, Options, State, tree
from distill.core.contracts import Ports, Streaming
from distill.core.data import collate
from distill.core.errors import DistillError, PluginLoadError, RecipeError
from distill.core.recipe import Recipe, Reference, Resolver, Source, load_recipe, split
from distill.core.registry import Entry, Registry
from distill.core.run import Run, checkpoint_of, is_folder, prepare

EDGE = re.compile(r"\$([A-Za-z][\w-]*)(?:\.([\w-]+))?")
LONGEST = 3600.0
"""Most seconds of a result."""


@dataclass(frozen=True)
class Edge:
    """Where an input comes from: a node, and one part of what it gives."""

    node: str
    part: str = ""

    def __str__(self) -> str:
        return f"${self.node}.{self.part}" if self.part else f"${self.node}"

    @classmethod
    def of(cls, text: object) -> Edge | None:
        """The edge that a value means, if it means one: `$clip`, or `$score.chords`."""
        found = EDGE.fullmatch(text) if isinstance(text, str) else None
        return cls(found[1], found[2] or "") if found else None


def _edge(value: Any) -> Any:
    if isinstance(value, str) and Edge.of(value) is None:
        raise ValueError("an input is a '$' and the name of a node, such as $clip")
    return value


EdgeText = Annotated[str, AfterValidator(_edge)]


@dataclass(frozen=True)
class Port:
    """What an edge carries: a modality or a condition, and how it is to be read."""

    type: str
    units: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        said = ", ".join(f"{value:g} {self.words.get(name, name)}" for name, value in self.units.items())
        return f"{self.type} ({said})" if said else self.type


@dataclass
class World:
    """What names in a file mean: the plugins that are installed, and the lines of the file."""

    registry: Registry
    source: Source

    @cached_property
    def modalities(self) -> dict[str, type[Modality]]:
        """The classes of all modalities, by name; one that cannot be imported is left out."""
        return {entry.name: target for entry, target in self._loaded("modality") if issubclass(target, Modality)}

    @cached_property
    def lenses(self) -> dict[str, type[Lens]]:
        """The classes of all lenses that say what they take and give."""
        found = {entry.name: target for entry, target in self._loaded("lens") if issubclass(target, Lens)}
        return {name: target for name, target in found.items() if target.takes and target.gives}

    def _loaded(self, kind: str) -> Iterator[tuple[Entry, type]]:
        for entry in self.registry.components(kind):
            try:
                target = entry.load()
            except PluginLoadError:
                continue
            if isinstance(target, type):
                yield entry, target

    def resolve(self, reference: Reference, kind: str, base: Any, *at: str) -> Any:
        """The component that a reference names."""
        return Resolver(self.registry, self.source)(reference, kind, base, *at)

    def type_of(self, modality: Modality) -> str:
        """The name of a modality, or of the one that its class derives from.

        Raises:
            RecipeError: no plugin provides it under a name.
        """
        names = {target: name for name, target in self.modalities.items()}
        known = next((names[kind] for kind in type(modality).__mro__ if kind in names), "")
        if not known:
            raise RecipeError(f"{self.source.name}: no plugin gives the modality {type(modality).__name__} a name")
        return known


class Node(Options):
    """One node of a pipeline."""

    kind: ClassVar[str]
    """The kind of component that it names, under the key `key`."""
    key: ClassVar[str]
    seed: NonNegativeInt | None = None
    """Of its random draws; one that follows from the pipeline's seed and the node's name if None."""

    @property
    def reference(self) -> Reference:
        """The component that it names."""
        return getattr(self, self.key)

    @property
    def inputs(self) -> dict[str, Edge]:
        """Its inputs by the names of their ports."""
        return {}

    @abstractmethod
    def open(self, world: World, *at: str) -> Any:
        """The component, without anything that is large."""

    def takes(self, world: World, part: Any) -> Mapping[str, Sequence[str]]:
        """What each port may carry."""
        return {}

    def units(self, part: Any) -> Mapping[str, str]:
        """Options of the component that say how its inputs are to be read, with their units in words."""
        return {}

    @abstractmethod
    def gives(self, world: World, part: Any) -> Mapping[str, Port]:
        """What it gives, as a whole under an empty name, or part by part."""

    @abstractmethod
    def make(self, world: World, part: Any, given: Mapping[str, Any], seed: int) -> Any:
        """The result, of the results that its inputs carry."""

    def said(self) -> dict[str, Any]:
        """What its result depends on besides its component and inputs."""
        return self.model_dump(mode="json", exclude={self.key, "of", "seed"})


def _inputs(of: str | Mapping[str, str]) -> dict[str, Edge]:
    named = {"of": of} if isinstance(of, str) else {f"of.{name}": text for name, text in of.items()}
    return {port: edge for port, text in named.items() if (edge := Edge.of(text))}


def _ports(ports: Ports) -> dict[str, tuple[str, ...]]:
    return {"of": (ports,)} if isinstance(ports, str) else {f"of.{name}": (port,) for name, port in ports.items()}


def _state(given: Mapping[str, Any]) -> Any:
    """The input of a lens or a writer: one state, or a joint one."""
    return given["of"] if "of" in given else {port.removeprefix("of."): state for port, state in given.items()}


def _port(world: World, modality: Modality) -> Port:
    return Port(
        world.type_of(modality), {name: getattr(modality, name) for name in modality.units}, modality.units
    )  # fmt: skip


class LensNode(Node):
    """A lens on what other nodes give."""

    kind, key = "lens", "lens"
    lens: Reference
    """The lens, by name, with its options."""
    of: EdgeText | dict[str, EdgeText]
    """What it looks at."""

    @property
    def inputs(self) -> dict[str, Edge]:
        return _inputs(self.of)

    def open(self, world: World, *at: str) -> Lens:
        lens: Lens = world.resolve(self.lens, "lens", Lens, *at, "lens")
        if not (lens.takes and lens.gives):
            raise RecipeError(
                f"{world.source.place((*at, 'lens'))}: the lens '{split(self.lens, world.source, at)[0]}' does not say "
                "what it takes and gives, so it fits no pipeline: its plugin has to declare both"
            )
        return lens

    def takes(self, world: World, part: Lens) -> Mapping[str, Sequence[str]]:
        return _ports(part.takes)

    def units(self, part: Lens) -> Mapping[str, str]:
        return part.units

    def gives(self, world: World, part: Lens) -> Mapping[str, Port]:
        named = {"": part.gives} if isinstance(part.gives, str) else part.gives
        words = {name: word for known in world.modalities.values() for name, word in known.units.items()}
        return {name: Port(what, part.carried, words) for name, what in named.items()}

    @torch.inference_mode()
    def make(self, world: World, part: Lens, given: Mapping[str, Any], seed: int) -> Any:
        return part(_state(given))


class WriteNode(Node):
    """Files of what other nodes give."""

    kind, key = "modality", "write"
    write: Reference
    """The modality whose files are written, by name, with its options."""
    of: EdgeText | dict[str, EdgeText]
    """What is written."""

    @property
    def inputs(self) -> dict[str, Edge]:
        return _inputs(self.of)

    def open(self, world: World, *at: str) -> Modality:
        modality: Modality = world.resolve(self.write, "modality", Modality, *at, "write")
        return modality

    def takes(self, world: World, part: Modality) -> Mapping[str, Sequence[str]]:
        return _ports(part.parts or world.type_of(part))

    def units(self, part: Modality) -> Mapping[str, str]:
        return part.units

    def gives(self, world: World, part: Modality) -> Mapping[str, Port]:
        return {"": Port("files")}

    def make(self, world: World, part: Modality, given: Mapping[str, Any], seed: int) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            part.write(_state(given), Path(folder), stem="file")
            files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            contents = {path.name.removeprefix("file"): path.read_bytes() for path in files}
        return {name: torch.frombuffer(bytearray(content), dtype=torch.uint8) for name, content in contents.items()}


class DataNode(Node):
    """Samples of a dataset."""

    kind, key = "dataset", "data"
    data: Reference
    """The dataset, by name, with its options."""
    rows: list[NonNegativeInt] = Field([0], min_length=1, max_length=1000)
    """Which samples."""

    def open(self, world: World, *at: str) -> DataSource:
        source: DataSource = world.resolve(self.data, "dataset", DataSource, *at, "data")
        name = split(self.data, world.source, at)[0]
        if world.registry.find("dataset", name).component.modality not in world.modalities:
            raise RecipeError(f"{world.source.place(at)}: the samples of '{name}' are of no modality that is installed")
        return source

    def gives(self, world: World, part: DataSource) -> Mapping[str, Port]:
        name = split(self.data, world.source, ())[0]
        modality = world.modalities[world.registry.find("dataset", name).component.modality]()
        rate = {key: value for key, value in part if key in modality.units}
        return {"": _port(world, modality.model_copy(update=rate))}

    def make(self, world: World, part: DataSource, given: Mapping[str, Any], seed: int) -> Any:
        samples: Any = part.open()
        if max(self.rows) >= len(samples):
            raise RecipeError(f"there are {len(samples)} samples, and row {max(self.rows)} is asked for")
        return collate([samples[row] for row in self.rows])["x"]


@dataclass(frozen=True)
class Model:
    """A network by its reference, and what its samples look like."""

    reference: Reference
    modality: Modality
    options: Builder | None = None

    def load(self, world: World) -> Run:
        """The network itself, as a run that trains nothing."""
        run = prepare(Recipe(method="frozen", teacher=self.reference), world.source, world.registry)
        run.sampler = run.plan.sampler
        return run


class ModelNode(Node):
    """Samples of a network: one that ships, one that was exported, or the result of a run."""

    kind, key = "denoiser", "model"
    model: Reference
    """The network: its name and options, `{model: ...}` for one that was exported, or the folder of a run."""
    prompt: str | list[str] = Field([], max_length=1000)
    """What the samples show; several take turns."""
    cond: dict[str, Any] = {}
    """Conditions by name: numbers, lists of them, or inputs."""
    n: Annotated[PositiveInt, Field(le=1000)] = 1
    """How many samples."""
    steps: Annotated[PositiveInt, Field(le=100_000)] | None = None
    """Network calls; by default what it was trained for."""
    seconds: Annotated[float, Field(gt=0, le=LONGEST)] | EdgeText | None = None
    """How long the sample lasts; as long as in training if None."""
    start: EdgeText | None = None
    """What the sample goes on from."""

    @property
    def inputs(self) -> dict[str, Edge]:
        told = {"seconds": self.seconds, "start": self.start, **{f"cond.{k}": v for k, v in self.cond.items()}}
        return {port: edge for port, text in told.items() if (edge := Edge.of(text))}

    def open(self, world: World, *at: str) -> Model:
        place = world.source.place(at)
        lasting = self.start is not None or self.seconds is not None
        if self.start is not None and self.seconds is None:
            raise RecipeError(f"{place}: a sample that goes on from another one needs 'seconds', how long it gets")
        if lasting and self.n > 1:
            raise RecipeError(f"{place}: with 'seconds' or 'start' one sample is made at a time: leave 'n' out")
        for name, value in self.cond.items():
            if Edge.of(value) is None and not _numbers(value):
                raise RecipeError(
                    f"{world.source.place((*at, 'cond', name))}: the condition '{name}' is {str(value)[:60]!r}: give a "
                    "number, a list of numbers, or an input such as $score.chords"
                )
        return model_of(world, self.model, *at, "model")

    def takes(self, world: World, part: Model) -> Mapping[str, Sequence[str]]:
        own = {"seconds": ("seconds",), "start": (world.type_of(part.modality),)}
        return own | {f"cond.{name}": (name, *world.modalities) for name in self.cond}

    def gives(self, world: World, part: Model) -> Mapping[str, Port]:
        return {"": _port(world, part.modality)}

    def make(self, world: World, part: Model, given: Mapping[str, Any], seed: int) -> Any:
        run = part.load(world)
        sampler, cond = run.sampler.with_steps(self.steps), self.told(run, given)
        if self.seconds is None:
            samples = run.draw(run.result, sampler, self.n, seed=seed, cond=cond, inference=True)
            return part.modality.decode(samples)
        seconds = float(torch.as_tensor(given.get("seconds", self.seconds)).flatten()[0])
        if not 0 < seconds <= LONGEST:
            raise RecipeError(f"it would last {seconds:g} s: a sample lasts up to {LONGEST:g}")
        request = Streaming(Path(), seconds, [(0.0, cond)], sampler, given.get("start"), seed)
        return part.modality.lasting(run.result, request)

    def told(self, run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
        """The conditions of all samples."""
        cond = run.conditions(self.n)
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if prompts:
            rows = torch.arange(self.n) % len(prompts)
            cond |= {name: tree.index(value, rows) for name, value in run.encode(prompts).items()}
        for name, value in self.cond.items():
            if name not in cond:
                raise RecipeError(f"the network takes no condition '{name}'; it takes {', '.join(cond) or 'none'}")
            if Edge.of(value) is None or f"cond.{name}" in given:
                cond[name] = _rows(given.get(f"cond.{name}", value), self.n)
        return cond


def _numbers(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_numbers, value))
    return isinstance(value, int | float)


def _rows(value: Any, n: int) -> State:
    """A condition of n samples: of each its own, or the same of all."""
    if isinstance(value, torch.Tensor):
        return value if len(value) == n else value[:1].expand(n, *value.shape[1:])
    one = torch.tensor(value)
    return one.expand(n, *one.shape).clone()


def model_of(world: World, reference: Reference, *at: str) -> Model:
    """The network that a reference names; a run is not opened, its recipe is read.

    Raises:
        RecipeError: there is no such network, or nobody can say what its samples look like.
    """
    registry, place = world.registry, world.source.place(at)
    if isinstance(reference, str) and is_folder(reference, registry):
        folder = Path(reference)
        if (folder / "recipe.yaml").is_file():
            checkpoint_of(folder)
            recipe, source = load_recipe(folder / "recipe.yaml")
            named = recipe.student or recipe.teacher
            if named is None:
                raise RecipeError(f"{place}: the run {folder} names no network")
            inner = model_of(World(registry, source), named, "student" if recipe.student else "teacher")
            return Model(reference, inner.modality)
        if not folder.is_dir():
            raise RecipeError(f"{place}: {folder} is no folder: give that of a run or of an exported model, or a name")
        reference = {"model": reference}
    reference = Resolver(registry, world.source).named(reference, "denoiser", *at)
    builder: Builder = world.resolve(reference, "denoiser", Builder, *at)
    name = split(reference, world.source, at)[0]
    known = registry.find("denoiser", name).component.modality
    modality = builder.modality() or (world.modalities[known]() if known in world.modalities else None)
    if modality is None:
        raise RecipeError(f"{place}: '{name}' has no modality, so nobody knows what its samples look like")
    return Model(reference, modality, builder)


NODES: dict[str, type[Node]] = {node.key: node for node in (ModelNode, LensNode, DataNode, WriteNode)}
"""The kinds of nodes by the key that tells them."""


def failed(place: str, name: str, error: Exception) -> DistillError:
    """Why a node's result could not be made, in one message."""
    said = " ".join(str(error).split()) or "no reason given"
    known = said if isinstance(error, DistillError) else f"{type(error).__name__}: {said}"
    return RecipeError(f"{place}: node '{name}' cannot be made: {known}")
