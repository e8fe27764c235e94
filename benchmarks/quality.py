"""How good and how fast the demo's one-step student is, against its teacher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from table import Row

ROOT = Path(__file__).resolve().parents[1]
METRICS = ROOT / "runs" / "demo" / "metrics.json"
WHATS = {
    "frechet (digits)": ("Fréchet distance of the demo's one-step student, over its teacher's", 1.25, False),
    "recall (digits)": ("recall of the demo's one-step student, over its teacher's", 0.9, True),
    "ms per sample": ("speed-up of the demo's one-step student over its teacher", 25.0, True),
}
"""What is compared, its bar, and whether the bar is a least value."""


def quality(skip: bool = False) -> list[Row]:
    """Read the demo's numbers; run it first where it has not been run."""
    if not METRICS.exists() and not skip:
        subprocess.run([sys.executable, "-m", "distill.core", "demo"], cwd=ROOT, check=True)
    if not METRICS.exists():
        why = "the demo has not been run, and --skip-demo leaves it out"
        return [Row(what, bar, at_least=least, why=why) for what, bar, least in WHATS.values()]
    return rows(json.loads(METRICS.read_text()))


def rows(measured: dict[str, dict[str, float]]) -> list[Row]:
    """The demo's metrics, by network and steps, as rows."""
    slow = next(values for name, values in measured.items() if name.startswith("teacher"))
    fast = measured["student, 1 step"]
    found = []
    for metric, (what, bar, least) in WHATS.items():
        ours, theirs = fast[metric], slow[metric]
        ratio = theirs / ours if metric == "ms per sample" else ours / theirs
        found.append(Row(what, bar, ratio, f"{ours:.3g}", f"{theirs:.3g}", metric, at_least=least))
    return found
