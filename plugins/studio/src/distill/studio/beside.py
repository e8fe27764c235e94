"""A teacher beside its student: pairs that ship, and runs that distilled one."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from distill.core import Builder, Modality, tree
from distill.core.commands import conditions_of, prompted, way
from distill.core.contracts import Subject, Way
from distill.core.errors import DistillError
from distill.core.recipe import Recipe, Source
from distill.core.registry import Registry, default_registry
from distill.core.roles import Role
from distill.core.run import Run, open_run, prepare
from distill.core.sampling import Sampler
from distill.core.store import digest_of

SHOWN, PLAYED, KEPT = 8, 3, 30
"""Samples of each way, how many of them become files, and how many answers are kept."""
STILL = (".png", ".jpg")
"""Files of samples that a sheet shows as well."""


@dataclass(frozen=True)
class Pair:
    """A teacher and its student, each as a run, and what one may ask them."""

    slow: Run
    fast: Run

    @property
    def steps(self) -> list[int]:
        """Numbers of steps that the student knows; none where a run optimised a subject, which takes none."""
        if isinstance(self.fast.result.module, Subject):
            return []
        known = len(self.fast.sampler.times or ())
        return [k for k in range(1, known + 1) if known % k == 0] or [self.fast.sampler.steps]

    @property
    def usual(self) -> list[int]:
        """Those that it is shown with where nobody chooses."""
        likes = self.fast.modality.pair_steps if self.fast.modality is not None else ()
        return [k for k in self.steps if k in likes] or self.steps[-1:]

    @property
    def reads(self) -> bool:
        """Whether it can be told what to show in words."""
        try:
            return bool(self.slow.encode(["a word"]))
        except DistillError:
            return False

    @property
    def conditions(self) -> dict[str, int]:
        """Conditions that are one number, with the one of the first sample."""
        every = self.slow.conditions(1)
        return {name: int(v[0]) for name, v in every.items() if isinstance(v, torch.Tensor) and v.shape == (1,)}


@dataclass(frozen=True)
class Asked:
    """What somebody wants to see.

    Attributes:
        pair: a name of `pairs`.
        seed: of the noise, and of the conditions that are drawn from the data.
        teacher: its number of steps; its own if 0.
        students: numbers of steps of the student.
        hurried: the teacher with the student's fewest steps as well.
        prompt: what to show; as in the data if empty.
        cond: conditions such as `label=3`.
    """

    pair: str
    seed: int = 0
    teacher: int = 0
    students: tuple[int, ...] = ()
    hurried: bool = False
    prompt: str = ""
    cond: tuple[str, ...] = ()


@dataclass
class Answer:
    """What came of it: numbers and files of each way, and pictures of all with their captions; paths in the folder."""

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)


def pairs(root: Path, registry: Registry) -> dict[str, str]:
    """What can be shown side by side, and what it is called: pairs that ship, and runs with a teacher."""
    known = {f"{slow}:{fast}": f"{slow} · {fast}" for slow, fast in _modalities(registry)}
    taught = [path.parent for path in _recipes(root) if "teacher:" in path.read_text(encoding="utf-8")]
    return known | {str(folder): f"run {folder.relative_to(root)}" for folder in taught}


def demos(registry: Registry) -> list[str]:
    """The modalities whose demonstration trains something."""
    return [entry.name for entry, kind in registry.loaded("modality") if kind.has_demo]


def _recipes(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("**/recipe.yaml") if any((path.parent / "checkpoints").glob("step-*")))


@lru_cache
def _modalities(registry: Registry) -> dict[tuple[str, str], Modality]:
    """The modalities that ship a pair, by its names: those that are registered, and those that a network brings."""
    return {known.pair: known for known in _known(registry) if known.pair}


def _known(registry: Registry) -> Iterator[Modality]:
    yield from (kind() for _, kind in registry.loaded("modality"))
    for _, kind in registry.loaded("denoiser"):
        if isinstance(kind, type) and issubclass(kind, Builder) and kind.modality is not Builder.modality:
            with suppress(ValueError, DistillError):  # it needs options
                if own := kind().modality():
                    yield own


@lru_cache(maxsize=4)
def opened(name: str) -> Pair:
    """The pair of that name, in memory.

    Raises:
        DistillError: a run is damaged, or a plugin that it needs is not there.
    """
    registry, source = default_registry(), Source("the studio")
    frozen = partial(prepare, source=source, registry=registry)
    slow, _, fast = name.rpartition(":")
    if (shipped := _modalities(registry).get((slow, fast))) is not None:
        each = (frozen(Recipe(method="frozen", teacher=model, data=shipped.pair_data)) for model in (slow, fast))
        return Pair(*each)
    run = open_run(Path(name), registry)
    return Pair(frozen(Recipe(method="frozen", teacher=run.recipe.teacher, data=run.recipe.data)), run)


def shown(asked: Asked, root: Path) -> tuple[Path, Answer]:
    """The answer and its folder; the same question is answered once.

    Raises:
        DistillError: the pair cannot do what is asked.
    """
    pair = opened(asked.pair)
    folder = root / digest_of({"asked": repr(asked), "run": _age(Path(asked.pair))})[:16]
    about = folder / "answer.json"
    if not about.exists():
        shutil.rmtree(folder, ignore_errors=True)
        answer = _drawn(pair, asked, folder)
        about.write_text(json.dumps(vars(answer)), encoding="utf-8")
        for old in sorted(root.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    return folder, Answer(**json.loads(about.read_text(encoding="utf-8")))


def _age(run: Path) -> float:
    return (run / "checkpoints").stat().st_mtime if (run / "checkpoints").is_dir() else 0.0


def _drawn(pair: Pair, asked: Asked, folder: Path) -> Answer:
    answer, drawn = Answer(), dict[str, tuple[Run, Way]]()
    folder.mkdir(parents=True)
    for name, (run, role, sampler) in _ways(pair, asked).items():
        drawn_of = partial(conditions_of, run, asked.cond, SHOWN, asked.seed)
        cond = prompted(run, [asked.prompt], SHOWN) if asked.prompt else drawn_of()
        started = time.perf_counter()
        samples = run.draw(role, sampler, SHOWN, seed=asked.seed, cond=cond, inference=True)
        took = 1000 * (time.perf_counter() - started) / SHOWN
        drawn[name] = run, Way(role, sampler, partial(tree.first, samples), partial(tree.first, cond))
        free = isinstance(role.module, Subject)  # it is there, however often one looks
        answer.files[name] = _files(run.modality, tree.first(samples, 1 if free else PLAYED), folder / str(len(drawn)))
        slow = next(iter(answer.rows.values()), {"ms per sample": took})["ms per sample"]
        told = {
            "calls": 0 if free else sampler.calls(role.denoiser.path),
            "ms per sample": took,
            "speed-up": slow / took,
        }
        answer.rows[name] = {} if free else told
    answer.pictures = _pictures(drawn, folder)
    return answer


def _ways(pair: Pair, asked: Asked) -> dict[str, tuple[Run, Role, Sampler]]:
    slow, fast, steps = pair.slow, pair.fast, list(asked.students) or pair.usual
    counts = dict.fromkeys([asked.teacher or slow.sampler.steps, *([min(steps)] if asked.hurried and steps else [])])
    ways = {way("teacher", n): (slow, slow.result, slow.sampler.with_steps(n)) for n in counts}
    students = {way("student", k): (fast, fast.result, fast.sampler.with_steps(k)) for k in steps}
    return ways | (students or {"what was optimised": (fast, fast.result, fast.sampler)})


def _pictures(drawn: Mapping[str, tuple[Run, Way]], folder: Path) -> dict[str, str]:
    """Those on which a modality puts all ways side by side, or a sheet of each way."""
    kinds = {type(run.modality): run.modality for run, _ in drawn.values()}
    one = kinds.popitem()[1] if len(kinds) == 1 else None
    said = one.side_by_side({name: each for name, (_, each) in drawn.items()}, folder) if one is not None else {}
    sheets: dict[str, str] = {}
    for number, (name, (run, each)) in enumerate(drawn.items() if not said else (), 1):
        if run.modality is not None:
            sheets[run.modality.preview(each.draw(SHOWN), folder / f"sheet-{number}.png").name] = name
    return said or sheets


def _files(modality: Modality | None, samples: Any, folder: Path) -> list[str]:
    """Files to play or to turn; pictures are on the sheets."""
    if modality is None or modality.suffix in STILL:
        return []
    return [f"{folder.name}/{path.name}" for path in modality.write(samples, folder)]
