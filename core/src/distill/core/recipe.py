"""What a user writes: a YAML recipe. Every mistake is answered with file, line, key and the nearest valid name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from distill.core.errors import DistillError, PluginLoadError, RecipeError, nearest
from distill.core.options import Options
from distill.core.registry import Registry

T = TypeVar("T", bound=Options)
MOST_VALUES = 20_000
"""A recipe with more is no recipe: aliases of aliases can make a few lines of YAML endless."""
PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}


def _reference(value: Any) -> Any:
    if not isinstance(value, str | dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("give a name, or a mapping with 'name' and options")
    return value


HARMLESS = {"metrics", "preview_every", "trackers", "checkpoint_every", "workers", "checkpoint_activations", "shard"}
"""Keys that change no weight: a run may be resumed under others."""
Reference = Annotated[str | dict[str, Any], BeforeValidator(_reference)]
"""A component: its name, or a mapping with `name` and the component's options."""


class RoleRecipe(Options):
    """What a recipe changes about a role of the method, or a role that it adds; what is left out stays as it is."""

    copy_of: str | None = None
    """Start from a copy of this role's weights."""
    shares: str | None = None
    """Hold the very module of this role."""
    build: Reference | None = None
    """Build a new denoiser."""
    transforms: list[Reference] | None = None
    """Surgery, in order: `lora`, `scalar-input`, ..."""
    frozen: bool | None = None
    """Never moved by a gradient."""
    guidance: float | dict[str, float] | None = None
    """w of the role's own guidance; of a joint state each modality may have its own."""
    hold: Literal["8bit", "offload"] | None = None
    """How frozen weights lie in memory while training: `8bit`, linear layers in whole numbers; `offload`, on the CPU,
    block by block on the device while they are needed."""


class Recipe(Options):
    """A run: a teacher, a method, data, and how to train."""

    method: Reference
    """The method, by name, with its options."""
    teacher: Reference | None = None
    """The slow model: a denoiser component, or the folder of a run."""
    student: Reference | None = None
    """A network of its own for the student; a copy of the teacher if left out."""
    data: Reference | None = None
    """The dataset. Methods without data need only the teacher's sample shape."""
    lens: Reference | None = None
    """Map from the student's modality to the teacher's."""
    roles: dict[str, RoleRecipe] = {}
    """Roles that differ from the method's, or that it does not have."""
    metrics: list[Reference] = []
    """What is measured by `distill eval`, and at the end of training."""
    batch_size: PositiveInt = 64
    """Samples per optimiser step, over all processes and micro-batches."""
    accumulate: PositiveInt = 1
    """Micro-batches per optimiser step."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of data order, noise, times and initial weights."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    checkpoint_activations: bool = False
    """Compute the activations of every block again in the backward pass, instead of keeping them: less memory, more
    time, the same weights."""
    shard: bool = False
    """Leave a share of each denoiser's weights, gradients and optimiser states on every process, not all (FSDP2)."""
    workers: NonNegativeInt = 0
    """Processes that load data."""
    checkpoint_every: NonNegativeInt = 0
    """Iterations between checkpoints; 0 keeps the last one only."""
    preview_every: NonNegativeInt = 0
    """Iterations between previews; 0 makes one at the end."""
    trackers: list[Literal["tensorboard", "wandb"]] = []
    """Where metrics go besides metrics.jsonl."""

    @field_validator("accumulate")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        if (size := info.data.get("batch_size", value)) % value:
            raise ValueError(f"the batch_size {size} cannot be cut into {value} equal micro-batches")
        return value

    def digest(self) -> str:
        """A fingerprint of everything that changes the weights."""
        kept = self.model_dump(mode="json", exclude=HARMLESS)
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


class Source:
    """Where a recipe's values were written: the file and line, or the override, of every key."""

    def __init__(self, name: str, places: Mapping[tuple[str, ...], str] | None = None) -> None:
        self.name, self.places = name, dict(places or {})

    def place(self, key: Sequence[Any]) -> str:
        """Where a key was written, or the nearest key above it."""
        path = tuple(map(str, key))
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.name)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, Source]:
    """Read, override and validate a recipe.

    Raises:
        RecipeError: with file, line, key, what is allowed there, and the nearest valid name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a text file"
        raise RecipeError(f"{path}: {why}. Give the path of a recipe, a YAML file.") from error
    values, source = parse(text, str(path))
    for override in overrides:
        change(values, source, override)
    return validate(Recipe, values, source), source


def recipe_of(values: dict[str, Any], name: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Source]:
    """A recipe from plain values, changed by overrides; `name` stands in messages."""
    source = Source(name)
    for override in overrides:
        change(values, source, override)
    return validate(Recipe, values, source), source


def parse(text: str, name: str) -> tuple[dict[str, Any], Source]:
    """YAML to a mapping, with the line of every key."""
    source = Source(name)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _note_lines(node, (), source)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{name}: a value cannot be read: {error}") from error
    if not isinstance(values, dict):
        given = "nothing" if values is None else f"a {type(values).__name__}"
        raise RecipeError(
            f"{name}: a recipe is a mapping of keys to values, such as 'method: dmd2', and this is {given}"
        )
    return {str(key): value for key, value in values.items()}, source


def _note_lines(node: yaml.Node, path: tuple[str, ...], source: Source) -> None:
    here = f"{source.name}:{node.start_mark.line + 1}"
    if node.tag not in PLAIN:
        kind = node.tag.rpartition(":")[2]
        raise RecipeError(f"{here}: a {kind} is no value of a recipe: put it in quotes if you mean the text")
    if len(source.places) > MOST_VALUES:
        raise RecipeError(f"{here}: more than {MOST_VALUES:,} values: this is no recipe")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place, line = (*path, str(key.value)), f"{source.name}:{key.start_mark.line + 1}"
            if place in source.places:
                raise RecipeError(f"{line}: the key '{'.'.join(place)}' stands at {source.places[place]} already")
            source.places[place] = line
            _note_lines(value, place, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            source.places[(*path, str(index))] = f"{source.name}:{value.start_mark.line + 1}"
            _note_lines(value, (*path, str(index)), source)


def change(values: dict[str, Any], source: Source, override: str) -> None:
    """Change plain values as `key=value` says, where the key names its place with dots, and note who said so.

    Raises:
        RecipeError: it is no override, or there is no such place.
    """
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise RecipeError(f"'{override}' is no override: write key=value, such as method.steps=500")
    given, _ = parse(f"value: {text}", f"override '{override}'")
    place: Any = values
    for part, following in zip(parts, parts[1:], strict=False):
        place = _options_at(place, part, override, following)
    place[_key(place, parts[-1], override)] = given["value"]
    inside = [known for known in source.places if known[: len(parts)] == tuple(parts)]
    for known in inside:
        del source.places[known]
    source.places[tuple(parts)] = f"override '{override}'"


def _options_at(place: Any, part: str, override: str, following: str) -> Any:
    """What an override goes into: options, a list, or a name that becomes options."""
    at = _key(place, part, override)
    inner = place[at] if isinstance(place, list) else place.get(at)
    if not isinstance(inner, list | dict):
        if not isinstance(inner, str | None):
            raise RecipeError(f"override '{override}': '{part}' is {inner!r} and has no '{following}'")
        place[at] = inner = {} if inner is None else {"name": inner}
    return inner


def _key(place: Any, part: str, override: str) -> Any:
    """The key, or the index into a list."""
    if not isinstance(place, list):
        return part
    if not part.isdecimal() or int(part) >= len(place):
        raise RecipeError(f"override '{override}': a list of {len(place)} has no '{part}'; write 0 for its first")
    return int(part)


def validate(model: type[T], values: Any, source: Source, at: Sequence[Any] = ()) -> T:
    """Options from plain values; mistakes are explained one a line."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_explain(model, dict(problem), source, at) for problem in error.errors()]
        raise RecipeError("\n".join(dict.fromkeys(problems))) from error
    except RecursionError as error:
        raise RecipeError(f"{source.place(at)}: values are nested too deeply") from error


def _explain(model: type[Options], problem: dict[str, Any], source: Source, at: Sequence[Any]) -> str:
    place = [*at, *problem["loc"]]
    key = ".".join(map(str, place))
    if problem["type"] != "extra_forbidden":
        said = f"{key}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")
        return f"{source.place(place)}: {said}" + _given(problem)
    known = _fields_at(model, problem["loc"][:-1])
    close = nearest(str(problem["loc"][-1]), known)
    hint = f"did you mean '{close}'?" if close else f"known: {', '.join(sorted(known))}"
    return f"{source.place(place)}: unknown key '{key}'; {hint}"


def _given(problem: dict[str, Any]) -> str:
    given = problem.get("input")
    return "" if problem["type"] == "missing" or isinstance(given, dict) else f" (given: {str(given)[:60]!r})"


def _fields_at(model: type[Options], loc: Sequence[Any]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(str(part)) if isinstance(model, type) and issubclass(model, Options) else None
        inner = field.annotation if field is not None else model
        choices = [arg for arg in (inner, *getattr(inner, "__args__", ())) if isinstance(arg, type)]
        nested = [choice for choice in choices if issubclass(choice, Options)]
        model = nested[0] if nested else model
    return list(model.model_fields)


class Resolver:
    """Turns references into components' options, with the recipe's places in every message."""

    def __init__(self, registry: Registry, source: Source) -> None:
        self.registry, self.source = registry, source

    def __call__(self, reference: Reference, kind: str, expected: type[T], *at: str) -> T:
        """The options of the component that `reference` names, an instance of `expected`."""
        name, options = split(reference, self.source, at)
        try:
            target = self.registry.load(kind, name)
        except DistillError as error:
            error.args = (f"{self.source.place(at)}: {error}",)
            raise
        if not isinstance(target, type) or not issubclass(target, expected):
            raise RecipeError(
                f"{self.source.place(at)}: {kind} '{name}' is not a {expected.__name__}: its plugin is wrong"
            )
        return validate(target, options, self.source, at)

    def named(self, reference: Reference, kind: str, *at: str) -> Reference:
        """The reference with a name; `{model: ...}` without one gets that of the component that reads the model."""
        if isinstance(reference, str) or "name" in reference or "model" not in reference:
            return reference
        readers, reasons = [], []
        for entry in self.registry.components(kind):
            try:
                target: Any = entry.load()
                readers += [entry.qualified] if target.reads(str(reference["model"])) else []
            except PluginLoadError:
                continue
            except DistillError as error:
                reasons.append(str(error))
        if len(readers) == 1:
            return {"name": readers[0], **reference}
        said = f"{' and '.join(readers)} read it: name one" if readers else "; ".join(dict.fromkeys(reasons))
        raise RecipeError(f"{self.source.place(at)}: {said or 'no denoiser that is installed reads such a model'}")


def split(reference: Reference, source: Source, at: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Name and options of a reference."""
    if isinstance(reference, str):
        return reference, {}
    options = dict(reference)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(f"{source.place(at)}: {'.'.join(at)} needs a 'name', of a component")
    return name, options


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, with the defaults that it left out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
