"""Measure speed, memory and quality, print a table, and write it to `benchmarks/README.md`."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from dmd2 import overhead, peer
from gaussians import gaussians
from memory import memory
from music import music
from quality import quality
from rich.console import Console
from rich.table import Table
from sampling import sampling
from streams import streams
from table import PAIRS, Row

CORES = os.cpu_count() or 1
README = Path(__file__).with_name("README.md")
BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "overhead": overhead, "peer": peer, "sampling": sampling, "memory": memory, "streams": streams,
    "gaussians": gaussians, "music": music, "demo": quality,
}  # fmt: skip
HEADINGS = ("what", "ours", "theirs", "number", "bar", "", "note")
DISTRIBUTIONS = ("torch", "diffusers", "accelerate", "peft", "nvidia-modelopt", "gsplat")


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return f"no {distribution}"


def machine() -> str:
    """What the numbers were measured on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(map(_version, DISTRIBUTIONS))
    return (
        f"{_processor()}, {CORES} cores, {torch.get_num_threads()} threads (load average {load}); Python "
        f"{platform.python_version()}, {versions}."
    )


def page(rows: Sequence[Row]) -> str:
    """The rows as a page of Markdown."""
    lines = [" | ".join(row.cells()) for row in rows]
    head = f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}\n"
    return (
        "# Speed, memory and quality\n\n"
        "`make bench` measures this and rewrites the page. Times are ratios, ours over theirs, taken in\n"
        f"one run: the two sides take turns call by call, {PAIRS} each, and the number is the median of the\n"
        "pairs' ratios in wall time. Networks have about a million parameters and random weights; where\n"
        "they train, both sides clip and use the same fused AdamW, and student and critic both move in\n"
        "every iteration.\n\n"
        f"Measured on {machine()}\n\n{head}" + "".join(f"| {line} |\n" for line in lines)
    )


def main() -> None:
    """Parse the command line, measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    some = "measure these, and leave the page alone"
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHMARKS), help=some)
    parser.add_argument("--skip-demo", action="store_true", help="leave out the demo unless it has been run")
    parser.add_argument("--threads", type=int, default=CORES, help="threads of torch; all cores by default")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    chosen = {**BENCHMARKS, "demo": partial(quality, asked.skip_demo)}
    console, rows = Console(), []
    for name in asked.only or chosen:
        console.print(f"measuring {name} ...")
        rows += chosen[name]()
    table = Table(*HEADINGS[:-1])
    for row in rows:
        table.add_row(*row.cells()[:-1], style="" if row.met else "yellow")
    console.print(table)
    if not asked.only:
        README.write_text(page(rows))


if __name__ == "__main__":
    main()
