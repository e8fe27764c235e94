"""Rows of the table, and a stopwatch for two sides that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

PAIRS = 31
"""Turns of each side; odd, so that the median is one of them."""


LARGEST = "largest difference"
Side = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One measured number against its bar; `why` stands in for the number where it could not be measured."""

    what: str
    bar: float
    value: float | None = None
    ours: str = ""
    theirs: str = ""
    note: str = ""
    at_least: bool = False
    why: str = ""

    @property
    def met(self) -> bool:
        """Whether the number was measured and keeps its bar."""
        if self.value is None:
            return False
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def cells(self) -> tuple[str, ...]:
        """The row as text: what, ours, theirs, number, bar, verdict, note."""
        bar = f"{'≥' if self.at_least else '≤'} {self.bar:g}"
        if self.value is None:
            return (self.what, "", "", "", bar, "not measured", self.why)
        number = f"{self.value:.3f}" if self.value >= 1e-3 else f"{self.value:.1e}"
        return (self.what, self.ours, self.theirs, number, bar, "met" if self.met else "MISSED", self.note)


def _clocked(side: Side) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    side()
    return time.perf_counter() - wall, time.process_time() - cpu


def duel(what: str, bar: float, ours: Side, theirs: Side, note: str = "") -> Row:
    """Time one call of each side, turn by turn; the number is the median ratio of the pairs, in wall time.

    Who goes first alternates, so that drift and whatever else the machine does falls on both sides alike.
    """
    for side in (ours, theirs):
        side()
    first, second = [], []
    for turn in range(PAIRS):
        order = ((ours, first), (theirs, second)) if turn % 2 == 0 else ((theirs, second), (ours, first))
        for side, times in order:
            times.append(_clocked(side))
    wall, cpu = (statistics.median(a[k] / b[k] for a, b in zip(first, second, strict=True)) for k in (0, 1))
    texts = [f"{1e3 * statistics.median(t[0] for t in times):.1f} ms" for times in (first, second)]
    note = "; ".join(filter(None, (note, f"{cpu:.3f} in CPU time")))
    return Row(what, bar, wall, *texts, note=note)
