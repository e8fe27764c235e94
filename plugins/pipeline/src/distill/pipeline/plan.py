"""What a pipeline will do, as a table and as a picture."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from distill.core import scale, tree
from distill.core.commands import plain_table
from distill.pipeline.graph import Pipeline, Step
from distill.pipeline.nodes import Model, ModelNode, failed
from distill.pipeline.results import Results

WIDE, HIGH, ACROSS, DOWN, DIP = 190, 52, 70, 40, 96
"""Pixels of a node's box, between boxes, and of an edge's way around boxes."""
COLOURS = {"model": "#1f6feb", "lens": "#8250df", "data": "#57606a", "write": "#1a7f37"}


@dataclass(frozen=True)
class Cost:
    """What a node takes.

    Attributes:
        weights: bytes of the network that is loaded for it, and let go after it.
        results: bytes of its inputs and of what it makes, as far as that is known; activations are not counted.
        calls: network calls of a sample; of each chunk where a network makes a sample chunk by chunk.
    """

    weights: int = 0
    results: int = 0
    calls: float = 0.0


def costs(pipeline: Pipeline, results: Results) -> dict[str, Cost]:
    """What each node that is due takes: its network is built for that, and let go."""
    known = {name: (results.cache / file) for name, file in results.names.items()}
    made = {name: file.stat().st_size for name, file in known.items() if file.exists()}
    found = {}
    for name in results.due:
        step = pipeline.steps[name]
        own = _cost(pipeline, step) if isinstance(step.part, Model) else Cost()
        held = sum(made.get(edge.node, 0) for edge in step.node.inputs.values())
        made[name] = own.results
        found[name] = Cost(own.weights, own.results + held, own.calls)
    return found


def _cost(pipeline: Pipeline, step: Step) -> Cost:
    node: Any = step.node
    assert isinstance(node, ModelNode)
    try:
        run = step.part.load(pipeline.world)
        node.told(run, {})
        denoiser = run.result.denoiser
        bytes_ = sum(leaf.nbytes for leaf in tree.leaves(denoiser.example()[0])) if denoiser.shape is not None else 0
        calls = run.sampler.with_steps(node.steps).calls(denoiser.path)
        return Cost(scale.resident(run.result.module), node.n * bytes_, calls)
    except Exception as error:  # whatever a component raises is told with its place
        raise failed(pipeline.place(step.name), step.name, error) from error


def table(pipeline: Pipeline, results: Results) -> tuple[Table, str]:
    """The plan, node by node in the order in which they run, and a line on the most memory at any time."""
    found, rows = costs(pipeline, results), plain_table("node", "is", "of", "gives", "loads, MiB", "calls", "result")
    for name, step in pipeline.steps.items():
        cost = found.get(name)
        due = "to be made" if cost else "there" if (results.cache / results.names[name]).exists() else "not needed"
        loads = f"{cost.weights / 2**20:.1f}" if cost and cost.weights else ""
        chunked = getattr(step.node, "seconds", None) is not None
        calls = f"{cost.calls:g}{' each' if chunked else ''}" if cost and cost.calls else ""
        of = "\n".join(str(edge) for edge in step.node.inputs.values())
        rows.add_row(name, _is(step), of, _gives(step), loads, calls, due)
    peak = max(found.items(), key=lambda each: each[1].weights + each[1].results, default=None)
    if peak is None:
        return rows, "nothing to make: every result is there"
    most = (peak[1].weights + peak[1].results) / 2**20
    return rows, f"most memory: {most:.1f} MiB of weights and results at '{peak[0]}', activations not counted"


def _is(step: Step) -> str:
    reference = step.node.reference
    name = reference if isinstance(reference, str) else str(reference.get("name", reference.get("model", "")))
    return f"{step.node.key} {name}"


def _gives(step: Step) -> str:
    return "\n".join(
        f"{part}: {port}" if part and part != port.type else str(port) for part, port in step.gives.items()
    )


# ---------------------------------------------------------------- the picture


def drawn(pipeline: Pipeline) -> str:
    """The graph as SVG: every node in a column right of those that it needs, and on each edge what it carries."""
    steps, column = pipeline.steps, dict[str, int]()
    for name, step in steps.items():
        column[name] = 1 + max((column[edge.node] for edge in step.node.inputs.values()), default=-1)
    row = {name: [n for n in steps if column[n] == column[name]].index(name) for name in steps}
    places = {n: (20 + column[n] * (WIDE + ACROSS), 20 + row[n] * (HIGH + DOWN)) for n in steps}
    width = max(x for x, _ in places.values()) + WIDE + 20
    height = max(y for _, y in places.values()) + HIGH + DIP
    edges = "".join(_lines(pipeline, name, places) for name in steps)
    boxes = "".join(_box(step, *places[name]) for name, step in steps.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui,sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{edges}{boxes}</svg>\n"
    )


def _lines(pipeline: Pipeline, name: str, places: Mapping[str, tuple[int, int]]) -> str:
    """The edges into a node, one below the other; one that passes a column dips under its boxes."""
    (x1, y1), inputs, found = places[name], pipeline.steps[name].node.inputs, []
    for number, edge in enumerate(inputs.values(), 1):
        x0, y0 = places[edge.node][0] + WIDE, places[edge.node][1] + HIGH // 2
        y, dip = y1 + HIGH * number // (len(inputs) + 1), DIP if x1 - x0 > ACROSS else 0
        said = html.escape(pipeline.steps[edge.node].gives[edge.part].type)
        found.append(
            f'<path d="M{x0} {y0}C{x0 + ACROSS} {y0 + dip} {x1 - ACROSS} {y + dip} {x1} {y}" fill="none" '
            f'stroke="#8c959f"/><text x="{x1 - 6}" y="{y - 4}" text-anchor="end" fill="#57606a">{said}</text>'
        )
    return "".join(found)


def _box(step: Step, x: int, y: int) -> str:
    colour, is_ = COLOURS[step.node.key], html.escape(_is(step))
    return (
        f'<g><rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="6" fill="#fff" stroke="{colour}"/>'
        f'<text x="{x + 10}" y="{y + 21}" font-weight="600">{html.escape(step.name[:26])}</text>'
        f'<text x="{x + 10}" y="{y + 39}" fill="{colour}">{is_[:30]}</text></g>'
    )


def draw(pipeline: Pipeline, path: Path) -> Path:
    """Write the picture, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(drawn(pipeline), encoding="utf-8")
    aside.replace(path)
    return path
