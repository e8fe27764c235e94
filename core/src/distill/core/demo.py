"""The main job from end to end: a slow teacher, a method, a few-step student, and a table that compares them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from distill.core import tree
from distill.core.commands import console, fit, measure, result_table, way, write_report
from distill.core.contracts import Modality, Streaming, Subject, Way
from distill.core.errors import RecipeError
from distill.core.recipe import Recipe, Source, load_recipe
from distill.core.registry import Registry, default_registry
from distill.core.roles import Role
from distill.core.run import Run, open_run, prepare
from distill.core.sampling import Sampler

MARK = ".demo"
"""The file by which a demo knows its own folder."""
PICTURES = 10
"""Samples of each way that is shown."""
STREAMED = 10.0
"""Seconds of the stream that is shown."""


def demo(modality: str | None = None, out: Path = Path("runs/demo"), quick: bool = False) -> None:
    """Distil the teacher that a modality ships, or show it beside its student where it ships both and no recipe."""
    registry = default_registry()
    shown = _modality(registry, modality, lambda known: known.has_demo or (modality is not None and bool(known.pair)))
    if shown.has_demo:
        _distil(shown, out, quick)
    else:
        show(None, modality, out)


def _distil(shown: Modality, out: Path, quick: bool) -> None:
    started = time.perf_counter()
    overrides = ["method.steps=20"] if quick else []
    recipe, source = load_recipe(shown.demo_recipe(), overrides)
    _make_room(out)
    run = prepare(recipe, source, default_registry())
    out.mkdir(parents=True)
    (out / MARK).touch()
    slow = run.sampler
    fit(run, out)
    if isinstance(run.result.module, Subject):
        pictures = _files(run, out)
    else:
        rows, pictures = _rows(run, slow, 200 if quick else 1797, out)
        (out / "metrics.json").write_text(json.dumps(rows, indent=1) + "\n")
        console.print(result_table(rows))
    path = write_report(out, run, pictures)
    for picture, text in pictures:
        console.print(f"{text}:")
        console.print(f"  {picture}", soft_wrap=True)
    console.print(f"report: {path}   ({time.perf_counter() - started:.0f} s)", soft_wrap=True)


def show(
    prompt: str | None, modality: str | None = None, out: Path = Path("runs/demo"), folder: Path | None = None
) -> None:
    """Draw what a teacher, with all its steps, and its student, with few, make of a prompt, and put both on one sheet.

    They are those of the run in `folder`, or the pair that a modality ships. Without a prompt they are told what their
    data tell.
    """
    registry = default_registry()
    slow, fast = _shipped(registry, modality) if folder is None else _of_run(registry, folder)
    cond = slow.conditions(PICTURES) if prompt is None else _repeated(slow.encode([prompt]))
    _make_room(out)
    rows: dict[str, dict[str, float]] = {}
    drawn: dict[str, Way] = {}
    for name, (run, role, sampler) in _ways(slow, fast).items():
        started = time.perf_counter()
        samples = run.draw(role, sampler, PICTURES, cond=cond, inference=True)
        took = 1000 * (time.perf_counter() - started) / PICTURES
        rows[name] = {"calls": sampler.calls(role.denoiser.path), "ms per sample": took}
        rows[name]["speed-up"] = next(iter(rows.values()))["ms per sample"] / took
        drawn[name] = Way(role, sampler, partial(tree.first, samples), partial(tree.first, cond))
    console.print(result_table(rows))
    assert slow.modality is not None
    every = tree.concatenate([each.draw(PICTURES) for each in drawn.values()])
    sheet = slow.modality.preview(every, out / ("together.png" if prompt is None else "prompt.png"))
    (out / MARK).touch()
    console.print(f"from top to bottom: {'; '.join(rows)}:\n  {sheet}", soft_wrap=True)
    for file, said in slow.modality.side_by_side(drawn, out).items():
        console.print(f"{said}:\n  {out / file}", soft_wrap=True)
    if slow.modality.streams:
        request = Streaming(out / f"stream{slow.modality.suffix}", STREAMED, [(0.0, tree.first(cond, 1))], fast.sampler)
        console.print(slow.modality.stream(fast.result, request), soft_wrap=True)


def _repeated(cond: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.expand(PICTURES, *value.shape[1:]) for name, value in cond.items()}


def _ways(slow: Run, fast: Run) -> dict[str, tuple[Run, Role, Sampler]]:
    """The teacher with all its steps, and the student with as few as it knows."""
    assert fast.modality is not None
    known = len(fast.sampler.times or (1,))
    ways = {way("teacher", slow.sampler.steps): (slow, slow.roles["teacher"], slow.sampler)}
    students = {k: fast.sampler.with_steps(k) for k in fast.modality.pair_steps if known % k == 0}
    return ways | {way("student", k): (fast, fast.result, sampler) for k, sampler in students.items()}


def _shipped(registry: Registry, modality: str | None) -> tuple[Run, Run]:
    """Teacher and student that a modality ships, each as a run that trains nothing."""
    found = _modality(registry, modality, lambda known: known.pair is not None)
    recipes = (Recipe(method="frozen", teacher=name, data=found.pair_data) for name in found.pair or ())
    slow, fast = (prepare(recipe, Source("the demo"), registry) for recipe in recipes)
    return slow, fast


def _of_run(registry: Registry, folder: Path) -> tuple[Run, Run]:
    """Teacher and student of a run."""
    run = open_run(folder, registry)
    if "teacher" not in run.roles:
        raise RecipeError(f"{folder} has no teacher to show beside its student: give a run that distilled one")
    return replace(run, sampler=run.builder.sampler()), run


def _make_room(out: Path) -> None:
    """Delete what an earlier demo left, and nothing else."""
    if out.is_dir() and (out / MARK).exists():
        shutil.rmtree(out)
    elif out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    elif out.exists():
        raise RecipeError(f"{out} exists, and no demo made it: choose another folder with --out, or move it away")


def _files(run: Run, out: Path) -> list[tuple[Path, str]]:
    """A picture of a subject, which no number compares with its teacher, after it was written to files."""
    if run.modality is None:
        return []
    samples = run.draw(run.result, run.sampler, 1)
    written = run.modality.write(samples, out / "samples")
    told = "what was made; as files: " + ", ".join(str(path) for path in written)
    return [(run.modality.preview(samples, out / "previews" / "made.png"), told)]


def _rows(run: Run, slow: Sampler, n: int, out: Path) -> tuple[dict[str, dict[str, float]], list[tuple[Path, str]]]:
    """Numbers and a picture of the teacher, and of the student at each number of steps that it knows."""
    ways = {way("teacher", slow.steps): (run.roles["teacher"], slow)}
    known = len(run.sampler.times or (1,))
    ways |= {way("student", k): (run.result, run.sampler.with_steps(k)) for k in (1, 2, 4) if known % k == 0}
    rows: dict[str, dict[str, float]] = {}
    for name, (role, sampler) in ways.items():
        rows[name] = measure(run, role, sampler, n, run.metrics)
        rows[name]["speed-up"] = next(iter(rows.values()))["ms per sample"] / rows[name]["ms per sample"]
    return rows, _pictures(run, ways, out / "previews")


def _pictures(run: Run, ways: Mapping[str, tuple[Role, Sampler]], folder: Path) -> list[tuple[Path, str]]:
    """All ways on one sheet, the same noises and conditions row by row, then a larger sheet of each."""
    if run.modality is None:
        return []
    drawn = {name: run.draw(role, sampler, 40) for name, (role, sampler) in ways.items()}
    few = torch.arange(20)
    together = tree.concatenate([tree.index(samples, few) for samples in drawn.values()])
    sheet = run.modality.preview(together, folder / "together.png")
    sheets = [(sheet, f"from top to bottom: {'; '.join(ways)}")]
    for name, samples in drawn.items():
        stem = name.replace(", ", "-").replace(" ", "-")
        sheets.append((run.modality.preview(samples, folder / f"{stem}.png"), name))
    return sheets


def _modality(registry: Registry, name: str | None, fits: Callable[[Modality], bool]) -> Modality:
    """The modality of that name, or of those that fit the one that goes before others."""
    entries = registry.components("modality") if name is None else [registry.find("modality", name)]
    kinds = [kind for kind in (entry.load() for entry in entries) if isinstance(kind, type)]
    found: list[Modality] = [known for known in (kind() for kind in kinds if issubclass(kind, Modality)) if fits(known)]
    if not found:
        raise RecipeError("no installed plugin has such a demo: pip install distill-image")
    return max(found, key=lambda known: known.precedence)
