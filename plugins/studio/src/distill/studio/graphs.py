"""Pipelines as the page has them: texts, what they will do, and where their results go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from distill.core.errors import RecipeError
from distill.core.recipe import parse
from distill.pipeline import Pipeline
from distill.pipeline.plan import drawn, table
from distill.pipeline.results import Results

FOLDER = "pipelines"


def known(root: Path) -> dict[str, Path]:
    """Pipelines by their names: those that ship, and those that were saved."""
    shipped = Path(str(files("distill.pipeline") / "pipelines"))
    return {path.stem: path for folder in (shipped, root / FOLDER) for path in sorted(folder.glob("*.yaml"))}


def told(text: str, root: Path, name: str) -> tuple[str, str]:
    """A pipeline's picture, as SVG, and its plan.

    Raises:
        DistillError: something in it does not fit.
    """
    values, source = parse(text, "the pipeline")
    found, out = Pipeline.of(values, source), StringIO()
    Console(file=out, width=118).print(*table(found, Results(found, _out(root, name))), sep="\n")
    return drawn(found), out.getvalue().rstrip()


def save(text: str, root: Path, name: str) -> tuple[Path, Path]:
    """The file of a text, and the folder of its results."""
    out = _out(root, name)
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_suffix(".yaml")
    file.write_text(text, encoding="utf-8")
    return file, out


def _out(root: Path, name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,60}", name):
        raise RecipeError(f"'{name[:60]}' is no name for a result: write letters, digits, - and _")
    return root / FOLDER / name


def replaced(text: str, name: str, node: Mapping[str, Any]) -> str:
    """A pipeline's text with another node of that name.

    Raises:
        RecipeError: it has none.
    """
    values, _ = parse(text, "the pipeline")
    nodes = values.get("nodes") or {}
    if name not in nodes:
        raise RecipeError(f"the pipeline has no node '{name}': it has {', '.join(nodes)}")
    nodes[name] = dict(node)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
