"""What the commands do. `cli.py` holds their options; everything here may import torch."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from distill.core import checkpoint, report, tree
from distill.core.contracts import Metric, Outcome
from distill.core.engine import Engine, Metrics
from distill.core.errors import CheckpointError, RecipeError
from distill.core.recipe import Recipe, Resolver, Source, dump, load_recipe
from distill.core.registry import default_registry
from distill.core.roles import Role
from distill.core.run import Run, checkpoint_of, is_folder, metrics_of, open_run, prepare
from distill.core.sampling import Sampler

console = Console()
GRADIENT = "_grad_norm"
"""How the engine's metrics end that are no losses."""

# ---------------------------------------------------------------- train


class Journal:
    """What a run tells while it trains: a progress bar, metrics.jsonl, trackers and previews."""

    def __init__(self, run: Run, folder: Path, progress: Progress) -> None:
        self.run, self.folder, self.progress = run, folder, progress
        self.bar = progress.add_task("training", total=run.plan.steps, losses="")
        self.file: Any = None
        self.losses: Metrics = {}

    def begin(self, engine: Engine) -> None:
        """Open the journal at the engine's step; lines beyond it belong to what a crash undid."""
        path = self.folder / "metrics.jsonl"
        kept = [line for line in metrics_of(self.folder) if line["step"] <= engine.step]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self.file = path.open("a", buffering=1)
        self.progress.update(self.bar, completed=engine.step)
        if self.run.recipe.trackers:
            engine.accelerator.init_trackers(self.folder.name)

    def __call__(self, engine: Engine, metrics: Metrics) -> None:
        if not engine.accelerator.is_main_process:
            return
        self.file.write(json.dumps({"step": engine.step, **metrics}) + "\n")
        self.losses |= {name: value for name, value in metrics.items() if not name.endswith(GRADIENT)}
        told = "  ".join(f"{name} {value:.3g}" for name, value in list(self.losses.items())[:3])
        self.progress.update(self.bar, completed=engine.step, losses=told)
        if self.run.recipe.trackers:
            engine.accelerator.log(metrics, step=engine.step)
        if self.run.recipe.preview_every and engine.step % self.run.recipe.preview_every == 0:
            preview(
                self.run,
                self.run.result,
                engine.sampler,
                self.folder / "previews" / f"step-{engine.step}.png",
            )

    def end(self, engine: Engine) -> None:
        """Close files, trackers and the group of processes, which none may leave while another still uses it."""
        if engine.accelerator.is_main_process:
            self.file.close()
        engine.accelerator.wait_for_everyone()
        engine.accelerator.end_training()


def progress_bar() -> Progress:
    """A bar with steps and time left; the losses take what is left of the line, and never more."""
    losses = TextColumn(
        "{task.fields[losses]}", style="dim", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
    )
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)), BarColumn(bar_width=16),
        MofNCompleteColumn(), TimeRemainingColumn(), losses, console=console, expand=True,
    )  # fmt: skip


def train(
    recipe: Path,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
    resume_from: str | None = None,
    resume_anyway: bool = False,
) -> None:
    """Train what a recipe says, into a run folder."""
    values, source = load_recipe(recipe, overrides)
    folder = out or Path("runs") / recipe.stem
    start = None if dry_run else _start(folder, resume, resume_from)
    run = prepare(values, source, default_registry())
    if dry_run:
        run.probe()
        describe(run)
        return
    fit(run, folder, start, anyway=resume_anyway)
    if run.metrics and run.dataset is not None:
        evaluate(folder, "", 1000)


def _start(folder: Path, resume: bool, step: str | None) -> Path | None:
    """The checkpoint to go on from, if any; a folder in use is refused before anything is built."""
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is a file, and a run needs a folder: choose another with --out")
    if step is not None:
        return checkpoint_of(folder, step)
    if not checkpoint.steps(folder / "checkpoints"):
        if resume:
            console.print(f"{folder} has no checkpoint yet: this run starts from the beginning", soft_wrap=True)
        return None
    if not resume:
        raise RecipeError(f"{folder} holds a run already: go on with --resume, or choose another folder with --out")
    return checkpoint_of(folder)


def fit(run: Run, folder: Path, start: Path | None = None, *, anyway: bool = False) -> Engine:
    """Train a prepared run in a folder, from the beginning or from a checkpoint."""
    progress = progress_bar()
    journal = Journal(run, folder, progress)
    engine = run.engine(folder, on_step=journal)
    progress.disable = not engine.accelerator.is_main_process
    run.probe()
    if start is not None:
        if anyway:
            engine.identity = checkpoint.read(start)[1]["identity"]
        engine.resume(start)
    with progress:
        if engine.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "recipe.yaml").write_text(dump(run.recipe), encoding="utf-8")
            (folder / "versions.json").write_text(json.dumps(run.versions, indent=1) + "\n")
            journal.begin(engine)
        try:
            engine.run()
        finally:
            journal.end(engine)
    run.sampler = engine.sampler
    if engine.accelerator.is_main_process:
        preview(run, run.result, engine.sampler, folder / "previews" / f"step-{engine.step}.png")
        console.print(f"run: {folder}   report: {write_report(folder, run)}", soft_wrap=True)
    return engine


def preview(run: Run, role: Role, sampler: Sampler, path: Path, n: int = 40) -> list[Path]:
    """One picture of samples, where the modality can draw one."""
    if run.modality is None:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    return [run.modality.preview(run.draw(role, sampler, n), path)]


def describe(run: Run) -> None:
    """Print the plan, and what each role costs."""
    plan = plain_table("phase", "iterations", "trajectory", "loss", "moves", "every")
    for phase in run.plan.phases:
        for update in phase.updates:
            moves = "\n".join(update.loss.moves)
            names = type(update.trajectory).__name__, type(update.loss).__name__
            plan.add_row(phase.name, f"{phase.steps:,}", *names, moves, str(update.every))
        if phase.fit is not None:
            plan.add_row(phase.name, "fit", type(phase.fit).__name__, "", "", "")
    table = plain_table("role", "parameters", "own", "trained", "weights, MiB", "training, MiB")
    for name, cost in costs(run).items():
        sizes = [f"{size / 2**20:.2f}" for size in (cost.weights, cost.training)]
        table.add_row(name, f"{cost.parameters:,}", f"{cost.own:,}", "yes" if cost.training else "no", *sizes)
    console.print(plan, "", table)


class Cost(NamedTuple):
    """What a role holds: parameters, its own among them, bytes of weights, and bytes of gradients and AdamW."""

    parameters: int
    own: int
    weights: int
    training: int


def costs(run: Run) -> dict[str, Cost]:
    """Each role's share of the memory, activations not counted; a module that roles share counts for the first."""
    moved, seen, found = run.plan.changed(), set[int](), {}
    for name, role in run.roles.items():
        every, own = list(role.module.parameters()), list(role.parameters())
        weights = 0 if id(role.module) in seen else sum(p.nbytes for p in every)
        seen.add(id(role.module))
        training = 3 * sum(p.nbytes for p in own) if name in moved and not role.frozen else 0
        found[name] = Cost(sum(p.numel() for p in every), sum(p.numel() for p in own), weights, training)
    return found


def plain_table(first: str, *names: str, title: str | None = None) -> Table:
    """Columns under headings that are cut at their spaces, so that eight of them fit into 80 characters."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        title=title,
        title_justify="left",
    )
    table.add_column(first, no_wrap=True, vertical="bottom")
    for name in names:
        heading = textwrap.fill(name.replace("-", " "), 7, break_long_words=False)
        table.add_column(heading, vertical="bottom")
    return table


# ---------------------------------------------------------------- sample, eval, compare


def _open(source: str) -> Run:
    registry = default_registry()
    if not is_folder(source, registry):
        return prepare(Recipe(method="frozen", teacher=source), Source(source), registry)
    if (Path(source) / "recipe.yaml").exists() or not Path(source).is_dir():
        return open_run(Path(source), registry)
    return prepare(Recipe(method="frozen", teacher={"model": source}), Source(source), registry)


def sample(
    source: str, steps: int | None = None, n: int = 16, out: Path = Path("samples"), seed: int = 0,
    cond: Sequence[str] = (), prompts: Sequence[str] = (),
) -> None:  # fmt: skip
    """Draw samples from a run's student or from a model, and write them in their modality's format."""
    run = _open(source)
    sampler = run.sampler.with_steps(steps)
    if run.modality is None:
        raise RecipeError(f"{source} has no modality that could write samples; its denoiser names none")
    given = _prompted(run, prompts, n) if prompts else _conditions(run, cond, n, seed)
    try:
        samples = run.draw(run.result, sampler, n, seed=seed, cond=given, inference=True)
    except IndexError as error:
        raise RecipeError(f"{source} does not know {', '.join(cond)}: {error}") from error
    files = run.modality.write(samples, out)
    grid, calls = run.modality.preview(samples, out / "grid.png"), sampler.calls(run.result.denoiser.path)
    made = f"{len(files)} samples" if len(files) > 1 else "1 sample"
    console.print(
        f"{made} in {out}, {calls:g} call{'s' if calls > 1 else ''} each; all in one picture: {grid}",
        soft_wrap=True,
    )


def _prompted(run: Run, prompts: Sequence[str], n: int) -> dict[str, Any]:
    """Conditions of n samples, the prompts in turn."""
    found = run.builder.encode(prompts)
    rows = torch.arange(n) % len(prompts)
    return {name: tree.index(value, rows) for name, value in found.items()}


def _conditions(run: Run, given: Sequence[str], n: int, seed: int) -> dict[str, Any]:
    cond = run.conditions(n, seed)
    for text in given:
        name, _, value = text.partition("=")
        if name not in cond:
            raise RecipeError(f"there is no condition '{name}'; known: {', '.join(cond) or 'none'}")
        try:
            cond[name] = torch.full((n,), json.loads(value))
        except (ValueError, TypeError) as error:
            raise RecipeError(f"'{text}' is no condition: write name=number, such as label=3") from error
    return cond


def measure(run: Run, role: Role, sampler: Sampler, n: int, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Metrics, calls and milliseconds per sample of one way of sampling."""
    cond = run.conditions(n)
    run.draw(role, sampler, min(n, 50), inference=True)
    started = time.perf_counter()
    samples = run.draw(role, sampler, n, cond=cond, inference=True)
    seconds = time.perf_counter() - started
    reference = run.reference()
    if run.modality is not None:
        samples, reference = run.modality.decode(samples), run.modality.decode(reference)
    values = {name: metric.measure(samples, reference, cond) for name, metric in metrics.items()}
    return values | {"calls": sampler.calls(role.denoiser.path), "ms per sample": 1000 * seconds / n}


def evaluate(run: Path, metrics: str = "", n: int = 1000) -> None:
    """Measure a run's student at its own number of steps and at fewer; written to metrics.json in the run."""
    opened = open_run(run, default_registry())
    chosen = _metrics(opened, metrics)
    rows = {way("student", s): measure(opened, opened.result, opened.sampler.with_steps(s), n, chosen)
            for s in _fewer(opened.sampler)}  # fmt: skip
    (run / "metrics.json").write_text(json.dumps(rows, indent=1) + "\n")
    console.print(result_table(rows))
    write_report(run, opened)


def way(role: str, steps: int) -> str:
    """What a row of results is called."""
    return f"{role}, {steps} step{'s' if steps > 1 else ''}"


def _fewer(sampler: Sampler) -> list[int]:
    if sampler.times is None:
        return [sampler.steps]
    return [n for n in range(1, len(sampler.times) + 1) if len(sampler.times) % n == 0]


def _metrics(run: Run, names: str) -> dict[str, Metric]:
    if not names:
        if not run.metrics:
            raise RecipeError("the recipe names no metrics: add 'metrics:' to it, or --metrics NAME,NAME")
        return run.metrics
    resolve = Resolver(default_registry(), Source("--metrics"))
    return {name: resolve(name, "metric", Metric, name) for name in names.split(",")}  # type: ignore[type-abstract]


def result_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """Named rows of numbers for the terminal."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = plain_table("", *names)
    for name, row in rows.items():
        table.add_row(name, *(_number(row[key]) if key in row else "" for key in names))
    return table


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"


def write_report(folder: Path, run: Run, pictures: Sequence[tuple[Path, str]] = ()) -> Path:
    """report.html of a run: results, pictures, curves, recipe."""
    losses, gradients = _series(folder)
    shown = list(pictures) or [(path, f"student, {path.stem.replace('-', ' ')}") for path in _previews(folder)[-2:]]
    sections = [_results(found)] if (found := _measured(folder)) else []
    if shown:
        sections.append(report.section("Samples", *(report.picture(path, text) for path, text in shown)))
    sections += [
        report.section("Losses", report.curves(losses)),
        report.folded("Gradient norms", report.curves(gradients)),
        report.folded("Recipe", report.code(dump(run.recipe))),
        report.folded(
            "Versions", report.code("\n".join(f"{name} {version}" for name, version in run.versions.items()))
        ),
    ]
    path = folder / "report.html"
    path.write_text(report.page(f"distill: {folder.name}", *sections), encoding="utf-8")
    return path


def _measured(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _previews(folder: Path) -> list[Path]:
    """Pictures of the run's progress, the newest last."""
    return sorted((folder / "previews").glob("step-*.png"), key=lambda path: (len(path.name), path.name))


def _results(rows: Mapping[str, Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [[title, *(_number(row[key]) if key in row else "" for key in names)] for title, row in rows.items()]
    return report.section("Results", report.table(["", *names], cells))


Series = dict[str, list[tuple[float, float]]]


def _series(folder: Path) -> tuple[Series, Series]:
    """A run's curves: losses, and norms of gradients."""
    series: tuple[Series, Series] = {}, {}
    for line in metrics_of(folder):
        for name, value in line.items():
            if name != "step":
                series[name.endswith(GRADIENT)].setdefault(name, []).append((line["step"], value))
    return series


def compare(runs: Sequence[Path], out: Path) -> None:
    """Several runs side by side: their metrics, samples and curves in one page."""
    rows: dict[str, Any] = {}
    parts = []
    for folder in runs:
        if not (folder / "recipe.yaml").exists():
            raise CheckpointError(f"{folder} is no run: it has no recipe.yaml")
        rows |= {f"{folder.name}: {name}": row for name, row in _measured(folder).items()}
        drawn = [report.picture(path, path.stem.replace("-", " ")) for path in _previews(folder)[-1:]]
        parts.append(report.section(str(folder), *drawn, report.curves(_series(folder)[0])))
    if rows:
        console.print(result_table(rows))
        parts.insert(0, _results(rows))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report.page("distill: comparison", *parts), encoding="utf-8")
    console.print(f"report: {out}", soft_wrap=True)


# ---------------------------------------------------------------- export, schema


def export(run: Path, to: str, out: Path) -> None:
    """Write a run's student for other libraries."""
    opened = open_run(run, default_registry()).alone()
    outcome = Outcome(opened.result, opened.sampler, _facts(run, opened))
    written = opened.builder.export_outcome(outcome, to, out)
    console.print(f"{to}: {', '.join(str(path) for path in written)}", soft_wrap=True)


def _facts(folder: Path, run: Run) -> dict[str, Any]:
    """What is known about a run's result."""
    recipe = run.recipe
    return {
        "method": recipe.method, "teacher": recipe.teacher, "recipe": dump(recipe), "metrics": _measured(folder),
        "versions": run.versions,
    }  # fmt: skip


def schema() -> None:
    """Print the JSON schema of recipes."""
    print(json.dumps(Recipe.model_json_schema(), indent=1))
