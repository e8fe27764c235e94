"""The main job from end to end: a slow teacher, a method, a few-step student, and a table that compares them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from distill.core import tree
from distill.core.commands import console, fit, measure, result_table, way, write_report
from distill.core.contracts import Modality
from distill.core.errors import RecipeError
from distill.core.recipe import load_recipe
from distill.core.registry import Registry, default_registry
from distill.core.roles import Role
from distill.core.run import Run, prepare
from distill.core.sampling import Sampler

MARK = ".demo"
"""The file by which a demo knows its own folder."""


def demo(modality: str | None = None, out: Path = Path("runs/demo"), quick: bool = False) -> None:
    """Distil the teacher that a modality ships, and show teacher and student side by side."""
    started = time.perf_counter()
    shown = _modality(default_registry(), modality)
    overrides = ["method.steps=20"] if quick else []
    recipe, source = load_recipe(shown.demo_recipe(), overrides)
    _make_room(out)
    run = prepare(recipe, source, default_registry())
    out.mkdir(parents=True)
    (out / MARK).touch()
    slow = run.sampler
    fit(run, out)
    rows, pictures = _rows(run, slow, 200 if quick else 1797, out)
    (out / "metrics.json").write_text(json.dumps(rows, indent=1) + "\n")
    console.print(result_table(rows))
    path = write_report(out, run, pictures)
    for picture, text in pictures:
        console.print(f"{text}:")
        console.print(f"  {picture}", soft_wrap=True)
    console.print(f"report: {path}   ({time.perf_counter() - started:.0f} s)", soft_wrap=True)


def _make_room(out: Path) -> None:
    """Delete what an earlier demo left, and nothing else."""
    if out.is_dir() and (out / MARK).exists():
        shutil.rmtree(out)
    elif out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    elif out.exists():
        raise RecipeError(f"{out} exists, and no demo made it: choose another folder with --out, or move it away")


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


def _modality(registry: Registry, name: str | None) -> Modality:
    """The modality of that name, or the first that has a demo."""
    entries = registry.components("modality")
    if name is not None:
        entries = [registry.find("modality", name)]
    for entry in entries:
        target = entry.load()
        if isinstance(target, type) and issubclass(target, Modality):
            found: Modality = target()
            if found.has_demo:
                return found
    raise RecipeError("no installed plugin has a demo: pip install distill-image")
