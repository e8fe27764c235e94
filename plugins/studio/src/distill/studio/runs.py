"""Runs in a folder: where they stand, their curves and pictures."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from distill.core.commands import GRADIENT as GRADIENT
from distill.core.report import smooth
from distill.core.run import metrics_of

ALIVE, POINTS = 20.0, 300
"""Seconds after which a run that says nothing is not training any more, and most points of a curve."""
Curves = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Stand:
    """A run, as its folder tells it."""

    folder: Path
    name: str
    method: str
    teacher: str
    step: int
    of: int
    training: bool


def runs(root: Path) -> list[Stand]:
    """Every run below a folder, the one that said something last first."""
    found = [path.parent for path in root.glob("**/recipe.yaml") if not path.is_relative_to(root / ".studio")]
    return [_stand(folder, root) for folder in sorted(found, key=_told, reverse=True)]


def _told(folder: Path) -> float:
    journal = folder / "metrics.jsonl"
    return (journal if journal.exists() else folder / "recipe.yaml").stat().st_mtime


def _stand(folder: Path, root: Path) -> Stand:
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError):
        recipe = {}
    method, lines = recipe.get("method", {}), _lines(folder, _told(folder))
    of = int(method.get("steps", 0)) if isinstance(method, dict) else 0
    step = int(lines[-1]["step"]) if lines else 0
    alive = time.time() - _told(folder) < ALIVE and step < (of or math.inf)
    return Stand(folder, str(folder.relative_to(root)), _name(method), _name(recipe.get("teacher")), step, of, alive)


def _name(reference: Any) -> str:
    said = reference.get("name", reference.get("model", "")) if isinstance(reference, dict) else reference
    return str(said or "")


@lru_cache(maxsize=64)
def _lines(folder: Path, told: float) -> list[dict[str, float]]:
    try:
        return metrics_of(folder)
    except ValueError:  # being written
        return []


def curves(folder: Path) -> Curves:
    """Every number that a run wrote while it trained, over its steps."""
    found: Curves = {}
    for line in _lines(folder, _told(folder)):
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, []).append((line["step"], value))
    return {name: smooth(points, POINTS) for name, points in found.items()}


def previews(folder: Path) -> list[Path]:
    """Pictures of a run's progress, the newest last; in motion where there is such a file."""
    stills = sorted((folder / "previews").glob("step-*.png"), key=lambda path: (len(path.name), path.name))
    return [next((f for s in (".mp4", ".gif") if (f := still.with_suffix(s)).exists()), still) for still in stills]


def made(folder: Path) -> list[tuple[Path, str]]:
    """What else a run left to look at: pictures with captions, and samples as files."""
    listed = folder / "previews" / "beside.json"
    said = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {}
    samples = sorted(path for path in (folder / "samples").glob("*") if path.is_file())[:12]
    return [(folder / "previews" / name, caption) for name, caption in said.items()] + [(p, p.name) for p in samples]


def results(folder: Path) -> dict[str, dict[str, float]]:
    """What was measured of it, by way of sampling."""
    path = folder / "metrics.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
