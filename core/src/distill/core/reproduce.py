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


def reproduce(
    names: Sequence[str], all_: bool = False, seeds: str = "0", out: Path | None = None, page: Path | None = None
) -> None:
    """Measure the claims of methods; every table is printed, every outcome written as JSON.

    `page` becomes one Markdown page of all outcomes that the folder holds, those of earlier calls too.

    Raises:
        ClaimFailed: a threshold was missed.
    """
    folder, missed = out or Path("reproduction"), []
    for entry in _claimed(default_registry(), names, all_, page):
        measure_claim: Any = entry.load_claim()
        for seed in map(int, seeds.split(",")):
            started = time.perf_counter()
            claim: Claim = measure_claim(seed)
            claim.write(folder / f"{entry.name}-seed{seed}.json")
            title = f"{entry.name}, seed {seed}"
            console.print(claim_table(claim, f"{title}, {time.perf_counter() - started:.0f} s"))
            missed += [f"{title}: {row.what}" for row in claim.rows if not row.holds]
    if page is not None:
        page.write_text(claims_page([Claim.read(path) for path in sorted(folder.glob("*-seed*.json"))]), "utf-8")
        console.print(f"table of all: {page}", soft_wrap=True)
    if missed:
        raise ClaimFailed(f"not every threshold holds: {'; '.join(missed)}")


def _claimed(registry: Registry, names: Sequence[str], all_: bool, page: Path | None) -> list[Entry]:
    if all_:
        return [entry for entry in registry.components("method") if entry.component.claim]
    if not names and page is None:
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
    """All outcomes as Markdown: what holds, then a section for each method."""
    names = dict.fromkeys(claim.method for claim in claims)
    runs = {name: [claim for claim in claims if claim.method == name] for name in names}
    summary = [[f"[{name}](#{name})", each[0].statement, _told(each)] for name, each in runs.items()]
    parts = [
        "# Reproduction",
        "Measured by `distill reproduce`: each method beside its baseline, with equal seeds and budget, in one run.",
        _table(["method", "claim", "holds"], summary),
    ]
    for name, each in runs.items():
        parts += [f"## {name}", each[0].statement, _rows(each), f"Settings. {_settings(each[0])}."]
        parts += [f"Broken on purpose: {each[0].broken}"]
        parts += [f"Not confirmed: {each[0].open}"] * bool(each[0].open)
    return "\n\n".join(parts) + "\n"


def _told(runs: Sequence[Claim]) -> str:
    failed = [claim for claim in runs if not claim.holds]
    return f"**not on seeds {_seeds(failed)}**" if failed else f"on seeds {_seeds(runs)}"


def _seeds(claims: Sequence[Claim]) -> str:
    return ", ".join(str(claim.settings.get("seed", "?")) for claim in claims)


def _settings(claim: Claim) -> str:
    return "; ".join(f"{name}: {value}" for name, value in claim.settings.items() if name != "seed")


def _rows(runs: Sequence[Claim]) -> str:
    rows = [
        [first.what, *(f"{row.value:.4g}" if row.holds else f"**{row.value:.4g}**" for row in same),
         f"{first.relation} {'; '.join(dict.fromkeys(f'{row.bound:.4g}' for row in same))}", first.baseline]
        for same in zip(*(claim.rows for claim in runs), strict=True)
        for first in same[:1]
    ]  # fmt: skip
    return _table(["what", *(f"seed {_seeds([claim])}" for claim in runs), "must be", "baseline, first run"], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
