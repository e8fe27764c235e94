"""Measuring what papers claim: `distill reproduce`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from distill.core.claims import Claim
from distill.core.commands import console, plain_table
from distill.core.errors import ClaimFailed, RecipeError
from distill.core.registry import Entry, Registry, default_registry


def reproduce(names: Sequence[str], all_: bool = False, seeds: str = "0", out: Path | None = None) -> None:
    """Measure the claims of methods; every table is printed, every outcome written as JSON.

    Raises:
        ClaimFailed: a threshold was missed.
    """
    registry = default_registry()
    entries = _claimed(registry, names, all_)
    folder, claims = out or Path("reproduction"), []
    for entry in entries:
        measure_claim: Any = entry.load_claim()
        for seed in map(int, seeds.split(",")):
            started = time.perf_counter()
            claim: Claim = measure_claim(seed)
            claims.append(claim)
            claim.write(folder / f"{entry.name}-seed{seed}.json")
            seconds = time.perf_counter() - started
            console.print(claim_table(claim, f"{entry.name}, seed {seed}, {seconds:.0f} s"))
    if all_:
        page = (Path("docs") if Path("docs").is_dir() else folder) / "reproduction.md"
        page.write_text(claims_page(claims), encoding="utf-8")
        console.print(f"table of all: {page}")
    if missed := [f"{claim.method}: {row.what}" for claim in claims for row in claim.rows if not row.holds]:
        raise ClaimFailed(f"{len(missed)} thresholds do not hold: {'; '.join(missed)}")


def _claimed(registry: Registry, names: Sequence[str], all_: bool) -> list[Entry]:
    if all_:
        return [entry for entry in registry.components("method") if entry.component.claim]
    if not names:
        raise RecipeError("name a method, such as `distill reproduce dmd2`, or --all")
    return [registry.find("method", name) for name in names]


def claim_table(claim: Claim, title: str) -> Table:
    """A claim's thresholds for the terminal."""
    table = plain_table("what", "measured", "must be", "baseline", "holds", title=title)
    for row in claim.rows:
        holds = "[green]yes[/]" if row.holds else "[red]NO[/]"
        table.add_row(row.what, f"{row.value:.4g}", f"{row.relation} {row.bound:.4g}", row.baseline, holds)
    return table


def claims_page(claims: Sequence[Claim]) -> str:
    """All outcomes as Markdown."""
    lines = [
        "# Reproduction",
        "",
        "Made by `distill reproduce --all`. One table a method: measured, threshold, baseline.",
    ]
    for name in dict.fromkeys(claim.method for claim in claims):
        runs = [claim for claim in claims if claim.method == name]
        lines += [
            "",
            f"## {name}",
            "",
            runs[0].statement,
            "",
            _markdown(runs),
            "",
            f"Broken on purpose: {runs[0].broken}",
        ]
    return "\n".join(lines) + "\n"


def _markdown(runs: Sequence[Claim]) -> str:
    header = ["what", *(f"run {index}" for index in range(len(runs))), "must be", "baseline", "holds"]
    rows = [
        [first.what, *(f"{row.value:.4g}" for row in same), f"{first.relation} {first.bound:.4g}", first.baseline,
         "yes" if all(row.holds for row in same) else "**no**"]
        for first, *others in zip(*(claim.rows for claim in runs), strict=True)
        for same in [[first, *others]]
    ]  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])
