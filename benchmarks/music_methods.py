"""Six methods on one teacher of music, with equally many updates of the student: the table in distill-audio's page."""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file

from distill.core.commands import measure, result_table
from distill.core.recipe import Recipe, Source
from distill.core.registry import default_registry
from distill.core.run import Run, prepare

PAGE = Path(__file__).parents[1] / "plugins" / "audio" / "README.md"
TABLE = re.compile(r"(<!-- measured: made by benchmarks/music_methods.py -->\n).*?(<!-- end -->)", re.DOTALL)
"""The part of the page that is made here."""
END = torch.pi / 2
NETWORK: dict[str, Any] = {
    "name": "audio-dit", "tokens": 16, "patch": 2, "width": 96, "depth": 4, "heads": 4, "classes": 6, "chords": True,
    "path": "trigonometric",
}  # fmt: skip
METRICS = ["frechet-audio", "mel-distance", "pitch-gap", "chord-agreement", "sound-diversity"]
SAME: dict[str, Any] = {
    "data": {"name": "chorales", "tokens": 16, "conditions": ["label", "chords"]}, "metrics": METRICS, "batch_size": 32,
}  # fmt: skip
FIT, UPDATES, CRITIC, SAMPLES = 3000, 400, 3, 256
"""Iterations of the teacher, updates of each student, updates of a critic for one of them, samples measured."""
FOUR = [END, 1.45, 1.2, 0.8]
"""Times of the student that has more than one."""
TRAINING = "training, CPU s"
HIDDEN = ("ms per sample",)
"""What says more of the machine than of the methods."""
LEVELS = {"name": "uniform", "low": 0.02, "high": 0.95}


def rate(lr: float, **options: Any) -> dict[str, Any]:
    """An optimiser as in a recipe, its rate falling to 0."""
    return {"lr": lr, "betas": [0.0, 0.99], "clip": 1.0, "warmup": 50, "schedule": "linear"} | options


def methods(updates: int = UPDATES) -> dict[str, dict[str, Any]]:
    """Recipes of the students; where a critic learns, the iterations count its updates."""
    both = {"student_optimiser": rate(2e-4), "critic_optimiser": rate(4e-4)}
    matching = {
        "name": "dmd2", "times": [END], "steps": CRITIC * updates, "critic_updates": CRITIC, "student_ema": 0.98,
        "score": {"times": LEVELS}, "generator": {"weight": 0.03, "times": LEVELS},
        "discriminator": {"weight": 0.1, "times": LEVELS}, **both,
    }  # fmt: skip
    sid = {
        "name": "sid", "time": END, "steps": updates, "student_ema": 0.98, "identity": {"times": LEVELS, "alpha": 1.0},
        "critic": {"view": "value", "level": "one", "times": {"name": "uniform"}}, **both,
    }  # fmt: skip
    post = {
        "name": "dmd2", "times": [END], "steps": updates, "critic_updates": 1, "student_ema": 0.98,
        "score": {"weight": 0.0}, "critic": {"weight": 0.0}, "generator": {"weight": 1.0, "times": LEVELS},
        "discriminator": {"weight": 1.0, "times": LEVELS, "r1": 10.0},
        "student_optimiser": rate(5e-5), "critic_optimiser": rate(1e-4),
    }  # fmt: skip
    presto = {
        "name": "presto", "times": FOUR, "gamma": 0.0, "steps": CRITIC * updates, "critic_updates": CRITIC,
        "critic_sees_noise": True, "score": {"times": LEVELS}, "critic": {"times": {"name": "uniform"}},
        "law": {"name": "listed", "times": FOUR, "shares": [0.4, 0.2, 0.2, 0.2]},
        "generator": {"weight": 0.03, "times": LEVELS}, "discriminator": {"weight": 0.1, "times": LEVELS}, **both,
    }  # fmt: skip
    routes = {
        "name": "tbcm", "times": [END], "points": 8, "steps": updates, "tangent_warmup": updates // 4,
        "optimiser": rate(3e-4, betas=[0.9, 0.99]),
    }  # fmt: skip
    return {
        "presto": {"method": presto}, "dmd2": {"method": matching}, "tbcm": {"method": routes, "batch_size": 8},
        "progressive-distillation": {
            "method": {"name": "progressive-distillation", "start": 32, "end": 1, "steps": updates, "lr": 4e-4}
        },
        "sid": {"method": sid}, "adversarial post-training": {"method": post},
    }  # fmt: skip


def trained(options: Mapping[str, Any]) -> Run:
    """A recipe's run, trained in memory."""
    run = prepare(Recipe.model_validate({**SAME, **options}), Source("the benchmark"), default_registry())
    run.sampler = run.engine(None).run().sampler
    return run


def taught(folder: Path, fit: int = FIT) -> Path:
    """A teacher of one-second pieces, trained here: its weights."""
    method = {"name": "denoising", "steps": fit, "warmup": 100, "drop": 0.1, "decay": 0.999}
    torch.manual_seed(0)
    run = trained({"method": method, "student": NETWORK})
    weights = {name: value.detach().contiguous() for name, value in run.result.denoiser.state_dict().items()}
    save_file(weights, folder / "teacher.safetensors")
    return folder / "teacher.safetensors"


def way(steps: int) -> str:
    """So many steps."""
    return f"{steps} step{'s' * (steps > 1)}"


def rows(fit: int = FIT, updates: int = UPDATES, samples: int = SAMPLES) -> dict[str, dict[str, float]]:
    """The teacher with all its steps and with one, and the five students: metrics, calls, times."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        teacher = {**NETWORK, "weights": str(taught(Path(folder), fit))}
        slow = prepare(
            Recipe.model_validate({**SAME, "method": "frozen", "teacher": teacher}), Source("here"), default_registry()
        )
        for steps in (64, 1):
            found[f"the teacher, {way(steps)}"] = measure(
                slow, slow.result, slow.sampler.with_steps(steps), samples, slow.metrics
            )
        for name, options in methods(updates).items():
            started = time.process_time()
            run = trained({**options, "teacher": teacher})
            took = time.process_time() - started
            for sampler in {run.sampler.steps: run.sampler, 1: run.sampler.with_steps(1)}.values():
                row = measure(run, run.result, sampler, samples, run.metrics) | {TRAINING: took}
                found[f"{name}, {way(sampler.steps)}"] = row
    return found


def table(
    found: Mapping[str, Mapping[str, float]], fit: int = FIT, updates: int = UPDATES, samples: int = SAMPLES
) -> str:
    """The rows as Markdown, and what was measured."""
    names = [*(name for name in next(iter(found.values())) if name not in HIDDEN), TRAINING]
    lines = [
        f"| {name} | " + " | ".join(f"{row[key]:.3g}" if key in row else "" for key in names) + " |"
        for name, row in found.items()
    ]
    return (
        "The teacher that ships is too slow for six trainings in one run on a CPU, so a smaller one is trained first:\n"
        f"the same chorales, 1.02 s each, by instrument and chords, {fit:,} iterations. Each student has\n"
        f"{updates:,} updates of 32 samples (TBCM: 8 routes of 7 points); critics of presto and DMD2\n"
        f"have {CRITIC} updates for one of the student. Adversarial post-training (Lin et al. 2025, arXiv:2501.08316)\n"
        "is DMD2 without score and critic: a discriminator that starts from the teacher, and the approximate R1\n"
        "penalty. No guidance; one seed; rates and weights are first guesses: others may order the methods otherwise.\n"
        f"{samples} samples against 512 windows of the data.\n\n"
        f"| | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}\n" + "\n".join(lines)
    )


def main() -> None:
    """Parse the command line, measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    for name, value in (("fit", FIT), ("updates", UPDATES), ("samples", SAMPLES)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"instead of {value:,}")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    size = (asked.fit, asked.updates, asked.samples)
    found = rows(*size)
    Console().print(result_table(found))
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda part: f"{part[1]}{table(found, *size)}\n{part[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
