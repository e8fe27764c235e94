"""`distill pipeline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pipeline(
    file: Annotated[str, typer.Argument(help="A pipeline, in YAML, or the name of one that ships.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Change it: nodes.picture.prompt='a cat'.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder for files, and for results in its folder cache.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; make nothing.")] = False,
    graph: Annotated[Path | None, typer.Option("--graph", help="Draw the graph into this SVG; make nothing.")] = None,
) -> None:
    """Run several models, lenses and writers as one graph, checked before anything loads.

    Each result is made once: a second run repeats what depends on what was changed, and one that was killed goes on.
    """
    from distill.core.commands import console
    from distill.pipeline.graph import Pipeline
    from distill.pipeline.plan import draw, table
    from distill.pipeline.results import Results

    found = Pipeline.read(file, overrides or [])
    folder = out or Path("runs") / Path(file).stem
    if graph is not None:
        console.print(f"graph: {draw(found, graph)}", soft_wrap=True)
    if dry_run:
        console.print(*table(found, Results(found, folder)), sep="\n")
    if graph is not None or dry_run:
        return
    for paths in found.run(folder, lambda said: console.print(said, soft_wrap=True)).values():
        console.print(*(str(path) for path in paths), sep="\n", soft_wrap=True)
