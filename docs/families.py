"""Take every family the whole way at toy size and write docs/families.md.

    python docs/families.py            # writes docs/families.md
    python docs/families.py NAME ...   # prints the rows of some families

A cell is "yes" where it worked, and otherwise what was said instead.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from distill.core.errors import DistillError
from distill.core.recipe import Recipe, Source
from distill.core.registry import default_registry
from distill.core.run import Run, prepare
from distill.image import toys
from distill.image.families import FAMILIES
from distill.image.pipeline import Pipeline
from distill.image.refused import others
from distill.image.trial import Trial

PAGE = Path(__file__).parent / "families.md"
METHODS: dict[str, dict[str, Any]] = {
    "dmd2": {"times": [1.0], "shares": [1.0], "generator": {"weight": 0}, "critic_updates": 1, "steps": 2},
    "tbcm": {"points": 3, "derivative": "difference", "optimiser": {"lr": 1e-3}, "tangent_warmup": 1, "steps": 2},
    "ladd": {"synthetic": 2, "warmup": 0, "synthetic_sampler": {"steps": 1}},
    "progressive-distillation": {"start": 2, "end": 1},
}
"""The four methods of the table, as small as they get. A student that is its teacher learns from the second step on."""
EXTRA: dict[str, dict[str, Any]] = {"tbcm": {"path": "trigonometric"}}
"""What a method asks of the teacher."""
DATA_FREE = {"tbcm"}
HEAD = (
    "family", "loads", *METHODS, "exports", "reloads", "same picture, 1 step", "same picture, 4 steps, guided",
)  # fmt: skip
TEXT = """<!-- Made by docs/families.py. -->
# Families of text-to-image pipelines

`teacher: {model: FOLDER_OR_HUB_ID}` loads any pipeline of these families. Each was built from its config with random
weights at toy size, saved with `save_pretrained`, and taken the whole way: loaded and trained a step or two with each
of four methods; then DMD2's student was exported with `--to diffusers`, loaded with a plain
`DiffusionPipeline.from_pretrained` and asked for a picture from the same latents. The last columns are the largest
difference of a pixel in [0, 1] to `distill sample`, or what export says instead: safetensors are left then.

"""
REFUSED = """
## Pipelines that are no teachers here

What else diffusers has from text to pictures is refused with a sentence that says why; so is what makes films or sound,
and what cannot go without a picture. `distill.image.refused` holds the sentences.

"""
ADDING = """
## Adding a family

A plugin adds one with a denoiser of its own: a subclass of `distill.image.pipeline.Pipeline` whose `families` has a row
for the pipeline's class (`distill.image.families.Family`). `{model: ...}` then finds it without a name:

```python
from distill.image.families import Family
from distill.image.pipeline import Pipeline


class Mine(Pipeline):
    \"\"\"Pipelines of the class MyPipeline.\"\"\"

    families = {"MyPipeline": Family(("text", "-text"), {"text": "encoder_hidden_states"})}
```
"""


def row(name: str, folder: Path) -> list[str]:
    """One family's cells."""
    toys.save(name, folder / "teacher")
    loads = _cell(lambda: Trial.of(folder / "teacher").denoiser)
    runs: dict[str, Run] = {}
    trained = [_cell(lambda method=m: runs.update({method: step(folder / "teacher", method)})) for m in METHODS]
    if loads != "yes":
        return [name, loads, *trained, *[""] * 4]
    trial = Trial.of(folder / "teacher")
    if "dmd2" in runs:
        trial.denoiser = runs["dmd2"].result.denoiser.eval()
    exports = _cell(lambda: trial.export(folder / "exported", steps=1))
    reloads = _cell(lambda: trial.reload(folder / "exported"))
    guided = {"steps": 4, "guidance": trial.guidance}
    same = [_difference(trial, folder / f"same-{n}", said) for n, said in enumerate(({"steps": 1}, guided))]
    return [name, loads, *trained, exports, reloads, *same]


def step(teacher: Path, method: str) -> Run:
    """One training step of a method."""
    name = Pipeline(model=str(teacher)).pipeline.__name__
    given = {"name": method, "steps": 1} | METHODS[method]
    options = {"model": str(teacher), "size": toys.SIZES.get(name, toys.SIZE), "steps": 1, "guidance": 1.0}
    recipe = Recipe(method=given, teacher=options | EXTRA.get(method, {}), batch_size=2)
    run = prepare(recipe, Source("families"), default_registry())
    trial = Trial.of(teacher, **EXTRA.get(method, {}))
    run.dataset = trial.dataset(pictures=method not in DATA_FREE)
    before = [p.detach().clone() for p in run.result.parameters()]
    engine = run.engine(None)
    engine.run()
    if not any((a != b).any() for a, b in zip(before, run.result.parameters(), strict=True)):
        raise DistillError("nothing moved")
    return run


def _difference(trial: Trial, folder: Path, options: dict[str, Any]) -> str:
    try:
        trial.export(folder, **options)
        return f"{trial.difference(folder):.0e}"
    except DistillError as error:
        return str(error).partition(":")[0]


def _cell(work: Callable[[], Any]) -> str:
    try:
        work()
    except (DistillError, RuntimeError, ValueError, TypeError) as error:
        return str(error).splitlines()[0][:80]
    return "yes"


def page(rows: Sequence[Sequence[str]]) -> str:
    """The page."""
    lines = [HEAD, ("---",) * len(HEAD), *rows]
    return TEXT + table(lines) + REFUSED + table([("pipeline", "why"), ("---", "---"), *others().items()]) + ADDING


def table(lines: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(names: Sequence[str]) -> None:
    """Rows of some families on the screen, or all on the page."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name in names or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DISTILL_CACHE"] = f"{folder}/cache"
            rows.append(row(name, Path(folder)))
        print("  ".join(rows[-1]), flush=True)
    if not names:
        PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
