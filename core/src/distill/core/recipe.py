"""What a user writes: a YAML recipe. Every mistake is answered with file, line, key and the nearest valid name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml
from pydantic import ValidationError

from distill.core.errors import DistillError, RecipeError, nearest
from distill.core.options import Options
from distill.core.registry import Registry

T = TypeVar("T", bound=Options)
Reference = str | dict[str, Any]
"""A component: its name, or a mapping with `name` and the component's options."""


class RoleRecipe(Options):
    """What a recipe may change about a role, or a role that it adds."""

    copy_of: str = ""
    """Start from a copy of this role's weights."""
    shares: str = ""
    """Hold the very module of this role."""
    build: Reference | None = None
    """Build a new denoiser."""
    transforms: list[Reference] = []
    """Surgery, in order: `lora`, `scalar-input`, ..."""
    frozen: bool = False
    """Never moved by a gradient."""
    guidance: float = 1.0
    """w of the role's own guidance."""


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
    batch_size: int = 64
    """Samples per optimiser step, over all processes and micro-batches."""
    accumulate: int = 1
    """Micro-batches per optimiser step."""
    seed: int = 0
    """Seed of data order, noise, times and initial weights."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    workers: int = 0
    """Processes that load data."""
    checkpoint_every: int = 0
    """Iterations between checkpoints; 0 keeps the last one only."""
    preview_every: int = 0
    """Iterations between previews; 0 makes one at the end."""
    trackers: list[Literal["tensorboard", "wandb"]] = []
    """Where metrics go besides metrics.jsonl."""

    def digest(self) -> str:
        """A fingerprint of everything that changes the weights."""
        kept = self.model_dump(mode="json", exclude={"metrics", "preview_every", "trackers", "checkpoint_every", "workers"})
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


class Source:
    """Where a recipe's values were written: the file and a line for every key."""

    def __init__(self, name: str, lines: Mapping[tuple[str, ...], int] | None = None) -> None:
        self.name, self.lines = name, dict(lines or {})

    def place(self, key: Sequence[Any]) -> str:
        """`file:line` of a key, or of the nearest key above it."""
        path = tuple(map(str, key))
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path else self.name


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, Source]:
    """Read, override and validate a recipe.

    Raises:
        RecipeError: with file, line, key, what is allowed there, and the nearest valid name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}. Give the path of a YAML file.") from error
    values, source = parse(text, str(path))
    for override in overrides:
        _override(values, override)
    return validate(Recipe, values, source), source


def parse(text: str, name: str) -> tuple[dict[str, Any], Source]:
    """YAML to a mapping, with the line of every key."""
    lines: dict[tuple[str, ...], int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _note_lines(node, (), lines, name)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{name}: a value cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of keys to values, not {type(values).__name__}")
    return {str(key): value for key, value in values.items()}, Source(name, lines)


def _note_lines(node: yaml.Node, path: tuple[str, ...], lines: dict[tuple[str, ...], int], name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*path, str(key.value))
            if place in lines and key.start_mark.line + 1 != lines[place]:
                raise RecipeError(f"{name}:{key.start_mark.line + 1}: the key '{key.value}' was given on line {lines[place]}")
            lines[place] = key.start_mark.line + 1
            _note_lines(value, place, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, str(index))] = value.start_mark.line + 1
            _note_lines(value, (*path, str(index)), lines, name)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"'{override}' is not an override: write key=value, such as method.steps=500")
    *parents, last = key.split(".")
    place = values
    for part in parents:
        inner = place.get(part)
        inner = {"name": inner} if isinstance(inner, str) else inner
        place[part] = inner if isinstance(inner, dict) else {}
        place = place[part]
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"the value of '{override}' is not YAML: {error}") from error


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
        return f"{source.place(place)}: {key}: {problem['msg']}" + _given(problem)
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
            raise RecipeError(f"{self.source.place(at)}: {kind} '{name}' is not a {expected.__name__}: its plugin is wrong")
        return cast(T, validate(target, options, self.source, at))


def split(reference: Reference, source: Source, at: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Name and options of a reference."""
    if isinstance(reference, str):
        return reference, {}
    options = dict(reference)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(f"{source.place(at)}: {'.'.join(at)} needs a 'name'")
    return name, options


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, with the defaults that it left out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
