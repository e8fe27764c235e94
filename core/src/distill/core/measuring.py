"""Numbers about samples: of all of them together, and prompt by prompt."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.data import Dataset

from distill.core import tree
from distill.core.contracts import Metric
from distill.core.data import Worded, collate
from distill.core.errors import PluginLoadError, RecipeError
from distill.core.registry import Registry

if TYPE_CHECKING:
    from distill.core.run import Run

Metrics = Sequence[tuple[str, Metric]]
"""Names with their metrics; one name may be there twice, with other options."""
Rows = dict[str, dict[str, float]]


def measured(metrics: Metrics, samples: Any, reference: Any, cond: Mapping[str, Any]) -> dict[str, float]:
    """Every number, under its metric's name and the name of the network in whose features it was taken."""
    found: dict[str, float] = {}
    for name, metric in metrics:
        network = metric.network(samples)
        suffix = f" ({network})" if network else ""
        real: Any = reference if metric.needs_reference else None
        for more, value in metric.numbers(samples, real, cond).items():
            found[f"{name} {more}".strip() + suffix] = value
    return found


def require_reference(name: str, metric: Metric, dataset: Dataset[Any] | None, place: str, registry: Registry) -> None:
    """Refuse a metric that compares with real samples where the data hold none.

    Raises:
        RecipeError: with place, name and remedy.
    """
    if dataset is None or not metric.needs_reference or not len(cast(Any, dataset)) or "x" in dataset[0]:
        return
    raise RecipeError(
        f"{place}: '{name}' compares with real samples, and the data hold prompts alone: name data with "
        f"samples under 'data:', or measure {' or '.join(_without_reference(registry, name)) or 'nothing'}"
    )


def _without_reference(registry: Registry, name: str) -> list[str]:
    """Metrics that are installed and need no real samples, of the modality of the one that does."""
    entries = registry.components("metric")
    shown = {entry.component.modality for entry in entries if name in (entry.name, entry.qualified)}
    found = []
    for entry in entries:
        if entry.component.modality not in shown:
            continue
        try:
            target: Any = entry.load()
        except PluginLoadError:
            continue
        found += [] if target.needs_reference else [entry.name]
    return found


def by_prompt(run: Run, metrics: Metrics, each: int, most: int) -> Rows:
    """Numbers of `each` samples of every prompt of the data, of `most` samples in all; the worst prompts come first.

    What is worst the first of the metrics says.

    Raises:
        RecipeError: the data have no captions, or none of the metrics tells prompts apart.
    """
    telling = [(name, metric) for name, metric in metrics if metric.per_prompt]
    if not telling:
        raise RecipeError("none of these metrics means something for a single prompt: add one, such as agreement")
    if not isinstance(run.dataset, Worded):
        raise RecipeError("the data of this run have no captions, so there are no prompts to tell apart")
    chosen = _spread(run.dataset.captions, max(1, most // each))
    samples = _drawn(run, list(chosen.values()), each)
    rows = {
        prompt: measured(
            telling, tree.index(samples, torch.arange(place * each, (place + 1) * each)), _real(run, mine),
            {"prompt": [prompt] * each},
        )
        for place, (prompt, mine) in enumerate(chosen.items())
    }  # fmt: skip
    first = next(iter(next(iter(rows.values()))))
    return dict(sorted(rows.items(), key=lambda row: row[1][first], reverse=not telling[0][1].higher_is_better))


def _spread(captions: Sequence[str], most: int) -> dict[str, list[int]]:
    """Prompts, evenly spread over the data, and the rows of each."""
    rows: dict[str, list[int]] = {}
    for row, caption in enumerate(captions):
        rows.setdefault(caption, []).append(row)
    count = min(most, len(rows))
    prompts = list(rows)
    return {prompts[index * len(prompts) // count]: rows[prompts[index * len(prompts) // count]]
            for index in range(count)}  # fmt: skip


def _drawn(run: Run, rows: Sequence[Sequence[int]], each: int) -> Any:
    """What people see of the samples of some prompts, one prompt after another."""
    assert run.dataset is not None
    fields = collate([run.dataset[mine[0]] for mine in rows])
    places = torch.arange(len(rows)).repeat_interleave(each)
    cond = {name: tree.index(value, places) for name, value in fields.items() if name != "x"}
    return _seen(run, run.draw(run.result, run.sampler, len(places), cond=cond, inference=True))


def _real(run: Run, rows: Sequence[int]) -> Any:
    """The real samples of a prompt; None where the data have none."""
    assert run.dataset is not None
    fields = collate([run.dataset[row] for row in rows])
    return _seen(run, fields["x"]) if "x" in fields else None


def _seen(run: Run, samples: Any) -> Any:
    return samples if run.modality is None else run.modality.decode(samples)


def write_table(rows: Rows, path: Path) -> Path:
    """The table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", *next(iter(rows.values()))])
        writer.writerows([prompt, *row.values()] for prompt, row in rows.items())
    return path


def read_table(path: Path) -> Rows:
    """A table that `write_table` wrote; empty where there is none."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    return {prompt: dict(zip(header[1:], map(float, values), strict=True)) for prompt, *values in lines}
