"""A run on disk and in memory: a recipe resolved into roles, plan and data; a folder that can be opened again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from pydantic import ValidationError
from torch.utils.data import Dataset

from distill.core import checkpoint, scale, tree
from distill.core.contracts import (
    Batch,
    Builder,
    DataSource,
    Lens,
    Method,
    Metric,
    Modality,
    Outcome,
    RoleSpec,
    Subject,
    Transform,
)
from distill.core.data import batches, captions_of, joined
from distill.core.denoiser import Denoiser
from distill.core.engine import Engine
from distill.core.errors import CheckpointError, DistillError, RecipeError, nearest
from distill.core.measuring import require_reference
from distill.core.plan import Plan
from distill.core.probe import as_in_use, probe
from distill.core.recipe import Recipe, Reference, Resolver, RoleRecipe, Source, load_recipe
from distill.core.registry import Registry, default_registry
from distill.core.rng import Rng
from distill.core.roles import Role, Roles
from distill.core.sampling import Sampler
from distill.core.setup import assemble

ORIGINS = {"copy_of", "shares", "build"}


@dataclass
class Run:
    """Everything that a recipe names, built and ready."""

    recipe: Recipe
    method: Method
    roles: Roles
    plan: Plan
    builder: Builder
    sampler: Sampler
    dataset: Dataset[Any] | None = None
    lens: Lens | None = None
    modality: Modality | None = None
    metrics: list[tuple[str, Metric]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    judges: list[Builder] = field(default_factory=list)

    def encode(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Conditions for prompts, one of each a prompt: those of the network, and those that judges need besides."""
        return {**_judged(self.judges, prompts), **self.builder.encode(prompts)}

    @property
    def result(self) -> Role:
        """The role that is the outcome."""
        return self.roles[self.plan.result]

    @property
    def shape(self) -> Any:
        """Shape of the student's samples, where it declares one."""
        module = self.roles["student" if "student" in self.roles else self.plan.result].module
        return module.shape if isinstance(module, Denoiser) else None

    @property
    def identity(self) -> dict[str, str]:
        """What must be equal for a run to be resumed."""
        return {"recipe": self.recipe.digest(), **self.versions}

    def alone(self) -> Run:
        """Itself, for who takes its result without its other roles.

        Raises:
            RecipeError: its samples are made by several roles.
        """
        if self.sampler.needs:
            names = ", ".join((self.plan.result, *self.sampler.needs))
            raise RecipeError(
                f"the samples of this {type(self.method).__name__} run are made by several roles ({names}): "
                "take the run that one of them comes from"
            )
        return self

    def engine(self, folder: Path | None, **options: Any) -> Engine:
        """The engine that trains this run."""
        recipe = self.recipe
        try:
            accelerator = Accelerator(
                mixed_precision=recipe.precision, cpu=not torch.cuda.is_available(),
                log_with=_trackers(recipe.trackers), project_dir=folder,
            )  # fmt: skip
        except ValueError as error:
            raise RecipeError(f"precision '{recipe.precision}' is not to be had here: {error}") from error
        source = partial(
            _source,
            self.dataset,
            recipe.batch_size // recipe.accumulate,
            recipe.seed,
            accelerator,
            recipe.workers,
            self.shape,
        )
        return Engine(
            self.roles, self.plan, source, seed=recipe.seed, accumulate=recipe.accumulate, accelerator=accelerator,
            lens=self.lens, folder=folder, checkpoint_every=recipe.checkpoint_every, identity=self.identity,
            dataset=self.dataset, checkpoint_activations=recipe.checkpoint_activations, shard=recipe.shard,
            **options,
        )  # fmt: skip

    def conditions(self, n: int, seed: int = 0) -> dict[str, Any]:
        """Conditions of n samples, drawn from the dataset; without one, those of an unconditional sample."""
        if self.dataset is None:
            return self.result.denoiser.example(n)[2] if self.shape is not None else {}
        return dict(next(batches(self.dataset, n, seed=seed + 1_000)).cond)

    def captions(self, n: int, seed: int = 0) -> list[str] | None:
        """The texts of `conditions(n, seed)`, where the data have captions."""
        return captions_of(self.dataset, n, seed=seed + 1_000)

    def reference(self, n: int | None = None) -> Any:
        """Real samples to measure against: all of them, or n where there are so many."""
        if self.dataset is None:
            raise RecipeError("there is no data to measure against: name a dataset under 'data:' in the recipe")
        every = len(self.dataset)  # type: ignore[arg-type]
        size = every if n is None else min(n, every)
        return next(batches(self.dataset, size)).x

    def probe(self) -> None:
        """Ask the student and the teacher once about a few samples.

        Raises:
            DataError: the data are empty, or not what the networks take.
        """
        student = self.roles["student"] if "student" in self.roles else self.result
        probe(student, self.roles["teacher"] if "teacher" in self.roles else None, self.dataset, self.lens)

    def draw(
        self, role: Role, sampler: Sampler, n: int, *,
        seed: int = 0, cond: Mapping[str, Any] | None = None, inference: bool = False,
    ) -> Any:  # fmt: skip
        """n samples of a role, in portions, for the noise of a seed.

        With `inference` torch skips its bookkeeping: faster, for a process that trains nothing afterwards, since
        what a network may keep between calls could not be differentiated through.
        """
        device = next(iter(role.module.parameters()), torch.zeros(0)).device
        rng, cond = Rng(seed, device=device), self.conditions(n, seed) if cond is None else dict(cond)
        parts = []
        used = [role, *(self.roles[name] for name in sampler.needs)]
        with ExitStack() as stack:
            for each in used:
                stack.enter_context(as_in_use(each))
            stack.enter_context(torch.inference_mode(inference))
            for start in range(0, n, 500):
                rows = torch.arange(start, min(n, start + 500))
                share = {name: tree.to(tree.index(value, rows), device) for name, value in cond.items()}
                noise = Batch(len(rows), shape=role.denoiser.shape).noise(rng, "sample/start")
                parts.append(tree.to(sampler.sample(role, noise, share, rng, self.roles), "cpu"))
        return tree.concatenate(parts)


def _trackers(names: Sequence[str]) -> Any:
    known = [tracker.value for tracker in get_available_trackers()]
    if missing := [name for name in names if name not in known]:
        raise RecipeError(
            f"the tracker {missing[0]} is not installed: pip install {missing[0]}, or leave it out of 'trackers:'"
        )
    return list(names) or None


def _source(
    dataset: Dataset[Any] | None,
    size: int,
    seed: int,
    accelerator: Accelerator,
    workers: int,
    shape: Any,
    start: int,
) -> Iterator[Batch]:
    return batches(
        dataset, size, seed=seed, start=start, rank=accelerator.process_index, world=accelerator.num_processes,
        workers=workers, device=accelerator.device, shape=shape,
    )  # fmt: skip


@dataclass(frozen=True)
class Taught:
    """The teacher, how it was built, how it is sampled, and what it makes where a run knows that."""

    role: Role
    builder: Builder
    sampler: Sampler
    modality: Modality | None = None


def prepare(recipe: Recipe, source: Source, registry: Registry, *, hold: bool = True) -> Run:
    """Build everything that a recipe names; `hold` frozen weights as it says, or whole.

    Raises:
        RecipeError: something does not fit; nothing was written.
    """
    resolve = Resolver(registry, source)
    recipe = _named(recipe, resolve)
    torch.manual_seed(recipe.seed)
    method = resolve(recipe.method, "method", Method, "method")  # type: ignore[type-abstract]
    data = resolve(recipe.data, "dataset", DataSource, "data") if recipe.data else None  # type: ignore[type-abstract]
    lens = resolve(recipe.lens, "lens", Lens, "lens") if recipe.lens else None  # type: ignore[type-abstract]
    metrics = [
        (_name(reference), resolve(reference, "metric", Metric, "metrics", str(index)))  # type: ignore[type-abstract]
        for index, reference in enumerate(recipe.metrics)
    ]
    specs = _specs(recipe, method, resolve)
    judges = [spec.build for spec in specs.values() if isinstance(spec.build, Builder) and spec.build.adds_conditions]
    dataset = data.open() if data else None
    dataset = joined(dataset, partial(_judged, judges)) if judges else dataset
    for index, (name, metric) in enumerate(metrics):
        require_reference(name, metric, dataset, f"{source.place(('metrics', index))}: metrics.{index}", registry)
    taught = _teacher(recipe, resolve, registry)
    own = specs["student"].build if "student" in specs else None
    known = own.sampler() if isinstance(own, Builder) else taught.sampler if taught else None
    method = method.knowing(known) if known is not None else method
    builder = own if isinstance(own, Builder) else taught.builder if taught else None
    if builder is None:
        raise RecipeError(f"{source.name}: name a 'teacher:' to distil, or a 'student:' to train from nothing")
    sampler = taught.sampler if taught else builder.sampler()
    with _blaming(source.place(("method",))):
        roles = assemble(method, {"teacher": taught.role} if taught else {}, specs)
        plan = method.plan(sampler)
    run = Run(
        recipe, method, roles, plan, builder, sampler, dataset, lens,
        _modality(recipe, registry, taught, builder, lens), metrics, registry.requirements(), judges,
    )  # fmt: skip
    _check(run)
    for name, role in recipe.roles.items() if hold else ():
        if role.hold is not None:
            if recipe.shard:
                raise RecipeError(
                    f"{source.place(('shard',))}: weights are sharded or held as roles.{name} says, not both"
                )
            scale.hold(roles, name, role.hold, plan.changed())
    return run


def _judged(judges: Sequence[Builder], prompts: Sequence[str]) -> dict[str, Any]:
    return {name: value for judge in judges for name, value in judge.encode(prompts).items()}


def _named(recipe: Recipe, resolve: Resolver) -> Recipe:
    """The recipe with the names of those networks that it calls by their model only."""
    networks = {"teacher": recipe.teacher, "student": recipe.student}
    return recipe.model_copy(
        update={key: resolve.named(value, "denoiser", key) for key, value in networks.items() if value is not None}
    )


@contextmanager
def _blaming(place: str) -> Iterator[None]:
    """Errors of a method's options that show only when its plan is made, with their place."""
    try:
        yield
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise RecipeError(f"{place}: the method's {key}: {problem['msg'].removeprefix('Value error, ')}") from error
    except ValueError as error:
        raise RecipeError(f"{place}: {error}") from error


def _check(run: Run) -> None:
    """What can be known to go wrong before anything is trained."""
    run.plan.check(run.roles)
    if run.recipe.shard:
        scale.check(run.roles)
    shapes = {
        n: role.module.shape for n, role in run.roles.items() if isinstance(role.module, Denoiser) and role.module.shape
    }
    mine, theirs = (shapes.get(name) for name in ("student", "teacher"))
    if run.lens is None and mine and theirs and mine != theirs:
        raise RecipeError(
            f"the student makes {mine} and the teacher knows {theirs}: choose equal shapes, or add a 'lens:'"
        )
    if isinstance(run.result.module, Denoiser):
        run.plan.sampler.check(run.result.module.path)


def _name(reference: Reference) -> str:
    return reference if isinstance(reference, str) else str(reference.get("name"))


def _teacher(recipe: Recipe, resolve: Resolver, registry: Registry) -> Taught | None:
    if recipe.teacher is None:
        return None
    if isinstance(recipe.teacher, str) and is_folder(recipe.teacher, registry):
        run = open_run(Path(recipe.teacher), registry).alone()
        module = run.result.module if run.result.fold is None else run.result.alone()
        return Taught(Role("teacher", module), run.builder, run.sampler, run.modality)
    builder = resolve(recipe.teacher, "denoiser", Builder, "teacher")  # type: ignore[type-abstract]
    return Taught(Role("teacher", builder.build()), builder, builder.sampler())


def is_folder(name: str, registry: Registry) -> bool:
    """Whether a teacher's name means a run's folder: a component of that name comes first."""
    known = {each for entry in registry.components("denoiser") for each in (entry.name, entry.qualified)}
    return name not in known and ("/" in name or Path(name).exists())


def _specs(recipe: Recipe, method: Method, resolve: Resolver) -> dict[str, RoleSpec]:
    """The method's roles, with the student's own network and what the recipe says about each."""
    specs = method.roles()
    if recipe.student is not None:
        specs["student"] = RoleSpec(build=resolve(recipe.student, "denoiser", Builder, "student"))  # type: ignore[type-abstract]
    given = {name: role for name, role in recipe.roles.items() if _said(role)}
    for name, role in given.items():
        if name not in specs and not (role.copy_of or role.shares or role.build):
            close = nearest(name, specs)
            hint = f"did you mean '{close}'?" if close else f"it has {', '.join(specs)}."
            place = resolve.source.place(("roles", name))
            raise RecipeError(
                f"{place}: the method has no role '{name}'; {hint} A new role needs copy_of, shares or build."
            )
    return specs | {name: _spec(name, role, specs.get(name), resolve) for name, role in given.items()}


def _said(role: RoleRecipe) -> dict[str, Any]:
    """What a recipe says about how a role is made."""
    return {key: value for key, value in role if value is not None and key != "hold"}


def _spec(name: str, role: RoleRecipe, method: RoleSpec | None, resolve: Resolver) -> RoleSpec:
    """A role as the method has it, but for what the recipe says; a new origin replaces the old one."""
    said = _said(role)
    if role.build is not None:
        said["build"] = resolve(role.build, "denoiser", Builder, "roles", name, "build")  # type: ignore[type-abstract]
    if role.transforms is not None:
        said["transforms"] = tuple(
            resolve(reference, "transform", Transform, "roles", name, "transforms", str(index))  # type: ignore[type-abstract]
            for index, reference in enumerate(role.transforms)
        )
    base = RoleSpec() if method is None else method
    if said.keys() & ORIGINS:
        base = base.model_copy(update={"copy_of": "", "shares": "", "build": None})
    return base.model_copy(update=said)


def _modality(
    recipe: Recipe, registry: Registry, taught: Taught | None, builder: Builder | None, lens: Lens | None
) -> Modality | None:
    """The modality of the student's network, or what the lens takes of it, or that of the teacher, or of the data."""
    if taught is not None and taught.modality is not None and recipe.student is None:
        return taught.modality
    if builder is not None and (own := builder.modality()) is not None:
        return own
    named = [("denoiser", recipe.student), ("denoiser", recipe.teacher), ("dataset", recipe.data)]
    known = {(e.kind, each): e.component.modality for e in registry.components() for each in (e.name, e.qualified)}
    shown = [known.get((kind, _name(reference)), "") for kind, reference in named if reference]
    taken = lens.takes if lens is not None and recipe.student is not None and isinstance(lens.takes, str) else ""
    name = next(filter(None, [*shown[:1], taken, *shown[1:]] if taken else shown), "")
    if name not in {entry.name for entry in registry.components("modality")}:
        return taught.modality if taught is not None else None
    found: Any = registry.load("modality", name)
    units = {unit: getattr(lens, unit) for unit in lens.units if unit in found.units} if lens and name == taken else {}
    return found(**units)  # type: ignore[no-any-return]


def open_run(folder: Path, registry: Registry, step: str | None = None) -> Run:
    """A run from its folder, with the weights and the sampler of its newest checkpoint (or of `step`, "step-N")."""
    if not (folder / "recipe.yaml").is_file():
        raise CheckpointError(f"{folder} is no run: it has no recipe.yaml. Give the folder that `distill train` made.")
    recipe, source = load_recipe(folder / "recipe.yaml")
    run = prepare(recipe, source, registry, hold=False)
    path = checkpoint_of(folder, step)
    files, state = checkpoint.read(path)
    try:
        for name, tensors in files.items():
            if name.startswith("role-"):
                role = run.roles[name.removeprefix("role-")]
                if isinstance(role.module, Subject):
                    role.module.adopt(tensors)
                role.load(tensors)
        run.sampler = type(run.plan.sampler).model_validate(state["sampler"])
    except (KeyError, RuntimeError, ValueError, DistillError) as error:
        raise checkpoint.damaged(path / "state.json", f"it does not fit {folder / 'recipe.yaml'}: {error}") from error
    return run


class FromRun(Builder):
    """The result of a run: its network, and how that is sampled."""

    example: ClassVar[dict[str, Any]] = {"folder": "runs/digits"}
    conformance: ClassVar[dict[str, str]] = dict.fromkeys(
        ("shape", "times", "permutation", "randomness", "serialisation", "taps"), "its network is that of a run"
    )
    folder: Path
    """The run's folder."""

    @cached_property
    def run(self) -> Run:
        """The run."""
        return open_run(self.folder, default_registry()).alone()

    def build(self) -> Denoiser:
        return self.run.result.alone()

    def sampler(self) -> Sampler:
        return self.run.sampler

    def modality(self) -> Modality | None:
        return self.run.modality

    def encode(self, prompts: Sequence[str]) -> dict[str, Any]:
        return self.run.encode(prompts)

    def export_outcome(self, outcome: Outcome, to: str, folder: Path) -> list[Path]:
        return self.run.builder.export_outcome(outcome, to, folder)

    def exports(self) -> dict[str, Callable[[Denoiser, Any, Path], list[Path]]]:
        return self.run.builder.exports()


def checkpoint_of(folder: Path, step: str | None = None) -> Path:
    """The newest checkpoint of a run's folder, or the one named `step`."""
    known = [f"step-{n}" for n in checkpoint.steps(folder / "checkpoints")]
    if not known:
        raise CheckpointError(f"{folder} has no finished checkpoint: train it first")
    if step is not None and step not in known:
        raise CheckpointError(f"{folder} has no checkpoint '{step}'; it has {', '.join(known)}")
    return folder / "checkpoints" / (step or known[-1])


def metrics_of(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl; one that a crash cut short is left out."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]
