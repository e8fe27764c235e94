"""A run on disk and in memory: a recipe resolved into roles, plan and data; a folder that can be opened again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from distill.core import checkpoint, tree
from distill.core.contracts import Batch, Builder, DataSource, Lens, Method, Metric, Modality, RoleSpec, Transform
from distill.core.data import batches
from distill.core.denoiser import Denoiser
from distill.core.engine import Engine
from distill.core.errors import CheckpointError, RecipeError
from distill.core.plan import Plan
from distill.core.recipe import Recipe, Reference, Resolver, Source, load_recipe
from distill.core.registry import Registry
from distill.core.rng import Rng
from distill.core.roles import Role, Roles
from distill.core.sampling import Sampler
from distill.core.setup import assemble


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
    metrics: dict[str, Metric] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

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

    def engine(self, folder: Path | None, **options: Any) -> Engine:
        """The engine that trains this run."""
        recipe = self.recipe
        trackers: Any = list(recipe.trackers)
        accelerator = Accelerator(
            mixed_precision=recipe.precision, cpu=not torch.cuda.is_available(), log_with=trackers or None,
            project_dir=folder,
        )  # fmt: skip
        source = partial(
            _source, self.dataset, recipe.batch_size // recipe.accumulate, recipe.seed, accelerator, recipe.workers, self.shape
        )
        return Engine(
            self.roles, self.plan, source, seed=recipe.seed, accumulate=recipe.accumulate, accelerator=accelerator,
            lens=self.lens, folder=folder, checkpoint_every=recipe.checkpoint_every, identity=self.identity, **options,
        )  # fmt: skip

    def conditions(self, n: int, seed: int = 0) -> dict[str, Any]:
        """Conditions of n samples, drawn from the dataset; without one, those of an unconditional sample."""
        if self.dataset is None:
            return self.result.denoiser.example(n)[2] if self.shape is not None else {}
        return dict(next(batches(self.dataset, n, seed=seed + 1_000)).cond)

    def reference(self, n: int | None = None) -> Any:
        """Real samples to measure against: all of them, or n."""
        if self.dataset is None:
            raise RecipeError("there is no data to measure against: name a dataset under 'data:' in the recipe")
        size = n or len(self.dataset)  # type: ignore[arg-type]
        return next(batches(self.dataset, size)).x

    def draw(self, role: Role, sampler: Sampler, n: int, *, seed: int = 0, cond: Mapping[str, Any] | None = None) -> Any:
        """n samples of a role, in portions, for the noise of a seed."""
        device = next(iter(role.module.parameters()), torch.zeros(0)).device
        rng, cond = Rng(seed, device=device), self.conditions(n, seed) if cond is None else dict(cond)
        role.module.eval()
        parts = []
        for start in range(0, n, 500):
            rows = torch.arange(start, min(n, start + 500))
            share = {name: tree.to(tree.index(value, rows), device) for name, value in cond.items()}
            noise = Batch(len(rows), shape=role.denoiser.shape).noise(rng, "sample/start")
            parts.append(tree.to(sampler.sample(role, noise, share, rng), "cpu"))
        return tree.concatenate(parts)


def _source(
    dataset: Dataset[Any] | None, size: int, seed: int, accelerator: Accelerator, workers: int, shape: Any, start: int
) -> Iterator[Batch]:
    return batches(
        dataset, size, seed=seed, start=start, rank=accelerator.process_index, world=accelerator.num_processes,
        workers=workers, device=accelerator.device, shape=shape,
    )  # fmt: skip


def prepare(recipe: Recipe, source: Source, registry: Registry) -> Run:
    """Build everything that a recipe names.

    Raises:
        RecipeError: something does not fit; nothing was written.
    """
    resolve = Resolver(registry, source)
    torch.manual_seed(recipe.seed)
    method = resolve(recipe.method, "method", Method, "method")  # type: ignore[type-abstract]
    teacher, builder, sampler = _teacher(recipe, resolve, registry)
    specs = {name: _role_spec(name, role, resolve) for name, role in recipe.roles.items()}
    if recipe.student is not None:
        builder = resolve(recipe.student, "denoiser", Builder, "student")  # type: ignore[type-abstract]
        specs["student"] = RoleSpec(build=builder)
    if builder is None:
        raise RecipeError(f"{source.name}: name a 'teacher:' to distil, or a 'student:' to train from nothing")
    roles = assemble(method, {"teacher": teacher} if teacher else {}, specs)
    plan = method.plan(sampler or builder.sampler())
    plan.check(roles)
    lens = resolve(recipe.lens, "lens", Lens, "lens") if recipe.lens else None  # type: ignore[type-abstract]
    data = resolve(recipe.data, "dataset", DataSource, "data") if recipe.data else None  # type: ignore[type-abstract]
    metrics = {
        _name(reference): resolve(reference, "metric", Metric, "metrics", str(index))  # type: ignore[type-abstract]
        for index, reference in enumerate(recipe.metrics)
    }
    return Run(
        recipe, method, roles, plan, builder, sampler or builder.sampler(), data.open() if data else None, lens,
        _modality(recipe, registry), metrics, registry.requirements(),
    )  # fmt: skip


def _name(reference: Reference) -> str:
    return reference if isinstance(reference, str) else str(reference.get("name"))


def _teacher(recipe: Recipe, resolve: Resolver, registry: Registry) -> tuple[Role | None, Builder | None, Sampler | None]:
    if recipe.teacher is None:
        return None, None, None
    if isinstance(recipe.teacher, str) and (Path(recipe.teacher) / "recipe.yaml").exists():
        run = open_run(Path(recipe.teacher), registry)
        return Role("teacher", run.result.module), run.builder, run.sampler
    builder = resolve(recipe.teacher, "denoiser", Builder, "teacher")  # type: ignore[type-abstract]
    return Role("teacher", builder.build()), builder, builder.sampler()


def _role_spec(name: str, role: Any, resolve: Resolver) -> RoleSpec:
    transforms = [
        resolve(reference, "transform", Transform, "roles", name, "transforms", str(index))  # type: ignore[type-abstract]
        for index, reference in enumerate(role.transforms)
    ]
    build = resolve(role.build, "denoiser", Builder, "roles", name, "build") if role.build else None  # type: ignore[type-abstract]
    return RoleSpec(
        copy_of=role.copy_of, shares=role.shares, build=build, transforms=tuple(transforms), frozen=role.frozen,
        guidance=role.guidance,
    )  # fmt: skip


def _modality(recipe: Recipe, registry: Registry) -> Modality | None:
    shown = recipe.student or recipe.teacher
    names = {entry.name for entry in registry.components("modality")}
    known = {e.name: e.component.modality for e in registry.components("denoiser")}
    name = known.get(_name(shown).rpartition(":")[2], "") if shown else ""
    if name not in names:
        return None
    found: Any = registry.load("modality", name)
    return found()  # type: ignore[no-any-return]


def open_run(folder: Path, registry: Registry, step: str | None = None) -> Run:
    """A run from its folder, with the weights and the sampler of its newest checkpoint (or of `step`, "step-N")."""
    recipe, source = load_recipe(folder / "recipe.yaml")
    run = prepare(recipe, source, registry)
    known = checkpoint.steps(folder / "checkpoints")
    if not known:
        raise CheckpointError(f"{folder} has no finished checkpoint: train it first")
    path = folder / "checkpoints" / (step or f"step-{known[-1]}")
    files, state = checkpoint.read(path)
    for name, tensors in files.items():
        if name.startswith("role-"):
            run.roles[name.removeprefix("role-")].load(tensors)
    run.sampler = Sampler.model_validate(state["sampler"])
    return run


def metrics_of(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
