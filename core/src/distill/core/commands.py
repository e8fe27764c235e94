"""What the commands do. `cli.py` holds their options; everything here may import torch."""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from distill.core import checkpoint, citing, measuring, report, scale, tree
from distill.core.contracts import Metric, Outcome, Streaming, Transform, Way
from distill.core.denoiser import Denoiser
from distill.core.engine import Engine, Metrics
from distill.core.errors import CheckpointError, RecipeError
from distill.core.recipe import Recipe, Resolver, Source, dump, load_recipe, parse, recipe_of, split
from distill.core.registry import default_registry
from distill.core.roles import Role
from distill.core.run import Run, checkpoint_of, is_folder, metrics_of, open_run, prepare
from distill.core.sampling import Sampler

console = Console()
GRADIENT = "_grad_norm"
"""How the engine's metrics end that are no losses."""
PROMPTS, WORST, SHOWN = "prompts.csv", 10, 100
"""The table of prompts in a run's folder, and how many of its rows terminal and report show."""
BESIDE = "beside.json"
"""Names and captions of the previews that show teacher and student side by side."""

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
        if engine.accelerator.is_main_process:
            self._tell(engine, metrics)
        if self.run.recipe.preview_every and engine.step % self.run.recipe.preview_every == 0:
            self.preview(engine)

    def preview(self, engine: Engine) -> None:
        """A picture of what the result makes now; where weights are sharded, every process helps to draw it."""
        main, path = engine.accelerator.is_main_process, self.folder / "previews" / f"step-{engine.step}.png"
        if main or engine.sharded:
            preview(self.run, self.run.result, engine.sampler, path if main else None)

    def _tell(self, engine: Engine, metrics: Metrics) -> None:
        self.file.write(json.dumps({"step": engine.step, **metrics}) + "\n")
        self.losses |= {name: value for name, value in metrics.items() if not name.endswith(GRADIENT)}
        told = "  ".join(f"{name} {value:.3g}" for name, value in list(self.losses.items())[:3])
        self.progress.update(self.bar, completed=engine.step, losses=told)
        if self.run.recipe.trackers:
            engine.accelerator.log(metrics, step=engine.step)

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
            engine.identity = checkpoint.read(start, gather=False)[1]["identity"]
        engine.resume(start)
    with progress:
        if engine.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "recipe.yaml").write_text(dump(run.recipe), encoding="utf-8")
            (folder / "versions.json").write_text(json.dumps(run.versions, indent=1) + "\n")
            journal.begin(engine)
        slow = run.sampler
        try:
            engine.run()
            run.sampler = engine.sampler
            journal.preview(engine)
            if engine.accelerator.is_main_process and not engine.sharded:
                side_by_side(run, slow, folder / "previews")
        finally:
            journal.end(engine)
    if engine.accelerator.is_main_process:
        (folder / citing.FILE).write_text(citing.of_run(run, default_registry()), encoding="utf-8")
        console.print(f"run: {folder}   report: {write_report(folder, run)}", soft_wrap=True)
        console.print(f"what it stands on, as BibTeX: distill cite {folder}", soft_wrap=True)
    return engine


def preview(run: Run, role: Role, sampler: Sampler, path: Path | None, n: int = 40) -> list[Path]:
    """One picture of samples, where the modality can draw one; without a path they are only drawn."""
    if run.modality is None:
        return []
    samples = run.draw(role, sampler, n)
    if path is None:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    return [run.modality.preview(samples, path)]


def side_by_side(run: Run, slow: Sampler, folder: Path) -> None:
    """Pictures of teacher and student on the same noises and conditions, where the modality draws some."""
    student, teacher = run.result, run.roles["teacher"] if "teacher" in run.roles else None
    if run.modality is None or not isinstance(student.module, Denoiser) or student.module.shape is None:
        return
    ways = {way("student", _fewer(run.sampler)[-1]): (student, run.sampler)}
    if teacher is not None and run.lens is None and teacher is not student:
        ways = {way("teacher", _fewer(slow)[-1]): (teacher, slow), **ways}
    said = run.modality.side_by_side(
        {name: Way(*each, partial(run.draw, *each), run.conditions) for name, each in ways.items()}, folder
    )
    if said:
        (folder / BESIDE).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


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
        weights = 0 if id(role.module) in seen else scale.resident(role.module)
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


def _open(source: str, overrides: Sequence[str] = ()) -> Run:
    registry = default_registry()
    if not is_folder(source, registry):
        return _as_it_is(source, source, None, overrides)
    if (Path(source) / "recipe.yaml").exists() or not Path(source).is_dir():
        run = open_run(Path(source), registry)
        return _as_it_is(source, source, run.recipe.data, overrides) if overrides else run
    return _as_it_is(source, {"model": source}, None, overrides)


def _as_it_is(source: str, teacher: Any, data: Any, overrides: Sequence[str]) -> Run:
    """A model, or the outcome of a run, as the teacher of a run that trains nothing; overrides say how it is sampled.

    Raises:
        RecipeError: the method that the overrides name has to be trained.
    """
    recipe, place = recipe_of({"method": "frozen", "teacher": teacher, "data": data}, source, overrides)
    run = prepare(recipe, place, default_registry())
    if run.plan.phases:
        raise RecipeError(
            f"{type(run.method).__name__} has to be trained or fitted: distill train, then sample its run"
        )
    run.sampler = run.plan.sampler
    return run


def sample(
    source: str, steps: int | None = None, n: int = 16, out: Path = Path("samples"), seed: int = 0,
    cond: Sequence[str] = (), prompts: Sequence[str] = (), negative: str = "", overrides: Sequence[str] = (),
) -> None:  # fmt: skip
    """Draw samples from a run's student or from a model, and write them in their modality's format."""
    run = _open(source, overrides)
    sampler = run.sampler.with_steps(steps)
    if run.modality is None:
        raise RecipeError(f"{source} has no modality that could write samples; its denoiser names none")
    given = prompted(run, prompts, n) if prompts else conditions_of(run, cond, n, seed)
    if negative:
        sampler, given = _negated(run, sampler, given, negative, n)
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


def stream(
    source: str, steps: int | None, out: Path, seed: int, cond: Sequence[str], prompts: Sequence[str],
    seconds: float, changes: Sequence[str], start: Path | None, files: Mapping[str, Path],
    overrides: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write one sample to a file while it is made; `changes` say what it shows from which second on."""
    run = _open(source, overrides)
    if run.modality is None:
        raise RecipeError(f"{source} has no modality that could write samples; its denoiser names none")
    if len(prompts) > 1:
        raise RecipeError("a stream shows one prompt at a time: give the others with --prompt-at, such as 12s=TEXT")
    shown = [(0.0, prompted(run, prompts, 1) if prompts else conditions_of(run, cond, 1, seed))]
    for text in changes:
        when, said = _moment(text, seconds)
        change = conditions_of(run, [said], 1, seed) if _names(run, said) else prompted(run, [said], 1)
        shown.append((when, {**shown[0][1], **change}))
    file = out if out.suffix else out / f"stream{run.modality.suffix}"
    told, sampler = sorted(shown, key=itemgetter(0)), run.sampler.with_steps(steps)
    request = Streaming(file, seconds, told, sampler, start, seed, files)
    console.print(run.modality.stream(run.result, request), soft_wrap=True)


def _moment(text: str, seconds: float) -> tuple[float, str]:
    """The second and the prompt of `12s=a prompt`, or of `12s=label=3`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)s?=(.+)", text, re.DOTALL)
    if found is None:
        raise RecipeError(f"'{text}' says no moment and prompt: write --prompt-at SECONDSs=TEXT, such as 12s=TEXT")
    if not 0 < float(found[1]) < seconds:
        raise RecipeError(
            f"the prompt at {found[1]}s is out of range: a stream of {seconds:g}s shows --prompt at 0s and others later"
        )
    return float(found[1]), found[2]


def _names(run: Run, text: str) -> bool:
    """Whether a text is a condition, such as label=3, and no prompt."""
    return text.partition("=")[0] in run.conditions(1) and "=" in text


def prompted(run: Run, prompts: Sequence[str], n: int) -> dict[str, Any]:
    """Conditions of n samples, the prompts in turn."""
    found = run.encode(prompts)
    rows = torch.arange(n) % len(prompts)
    return {name: tree.index(value, rows) for name, value in found.items()}


def _negated(run: Run, sampler: Sampler, cond: Mapping[str, Any], text: str, n: int) -> tuple[Sampler, dict[str, Any]]:
    """A sampler whose guidance leads away from a text; where it has none, the network's attention does."""
    said = run.builder.encode([text])
    sampler = sampler.negated({name: value[0] for name, value in said.items()})
    if sampler.guidance != 1:
        return sampler, dict(cond)
    resolve = Resolver(default_registry(), Source("--negative"))
    resolve("negative-attention", "transform", Transform, "transform").apply(run.roles, run.plan.result)  # type: ignore[type-abstract]
    return sampler, {**cond, "negative": {name: value.expand(n, *value.shape[1:]) for name, value in said.items()}}


def conditions_of(run: Run, given: Sequence[str], n: int, seed: int) -> dict[str, Any]:
    """Conditions of n samples: those that are drawn from the data, but for given ones such as `label=3`."""
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


def measure(run: Run, role: Role, sampler: Sampler, n: int, metrics: measuring.Metrics) -> dict[str, float]:
    """Metrics, calls and milliseconds per sample of one way of sampling."""
    cond = run.conditions(n)
    run.draw(role, sampler, min(n, 50), inference=True)
    started = time.perf_counter()
    samples = run.draw(role, sampler, n, cond=cond, inference=True)
    seconds = time.perf_counter() - started
    most = run.modality.compared if run.modality is not None and run.dataset is not None else None
    reference = run.reference(most) if any(metric.needs_reference for _, metric in metrics) else None
    if run.modality is not None:
        samples = run.modality.decode(samples)
        reference = None if reference is None else run.modality.decode(reference)
    texts = run.captions(n)
    asking = [(name, metric.asking(role)) for name, metric in metrics]
    values = measuring.measured(asking, samples, reference, cond if texts is None else {**cond, "prompt": texts})
    return values | {"calls": sampler.calls(role.denoiser.path), "ms per sample": 1000 * seconds / n}


def evaluate(run: Path, metrics: str = "", n: int = 1000, per_prompt: int = 0) -> None:
    """Measure a run's student at its own number of steps and at fewer; written to metrics.json in the run, and prompt
    by prompt to prompts.csv where so many samples of each are asked for."""
    opened = open_run(run, default_registry())
    chosen = _metrics(opened, metrics)
    prompts = measuring.by_prompt(opened, chosen, per_prompt, n) if per_prompt else {}
    rows = {way("student", s): measure(opened, opened.result, opened.sampler.with_steps(s), n, chosen)
            for s in _fewer(opened.sampler)}  # fmt: skip
    (run / "metrics.json").write_text(json.dumps(rows, indent=1) + "\n")
    console.print(result_table(rows))
    if prompts:
        console.print(result_table(dict(list(prompts.items())[:WORST])))
        console.print(f"the {min(WORST, len(prompts))} worst of {len(prompts)} prompts; all of them: "
                      f"{measuring.write_table(prompts, run / PROMPTS)}", soft_wrap=True)  # fmt: skip
    write_report(run, opened)


def way(role: str, steps: int) -> str:
    """What a row of results is called."""
    return f"{role}, {steps} step{'s' if steps > 1 else ''}"


def _fewer(sampler: Sampler) -> list[int]:
    if sampler.times is None:
        return [sampler.steps]
    return [n for n in range(1, len(sampler.times) + 1) if len(sampler.times) % n == 0]


def _metrics(run: Run, names: str) -> measuring.Metrics:
    """Those of the recipe, or those that are named: names with commas between them, or a list in YAML."""
    if not names:
        if not run.metrics:
            raise RecipeError("the recipe names no metrics: add 'metrics:' to it, or --metrics NAME,NAME")
        return run.metrics
    source = Source("--metrics")
    values, _ = parse(f"metrics: {names}", "--metrics") if names.startswith("[") else ({"metrics": names.split(",")}, 0)
    registry = default_registry()
    resolve, found = Resolver(registry, source), []
    for reference in values["metrics"]:
        name, _ = split(reference, source, ("metrics",))
        metric = resolve(reference, "metric", Metric, name)  # type: ignore[type-abstract]
        measuring.require_reference(name, metric, run.dataset, "--metrics", registry)
        found.append((name, metric))
    return found


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
    if beside := _beside(folder / "previews"):
        shown = [*beside, *shown]
    sections = [_results(found)] if (found := _measured(folder)) else []
    if prompts := measuring.read_table(folder / PROMPTS):
        sections.append(_prompts(prompts))
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


def _beside(folder: Path) -> list[tuple[Path, str]]:
    """Pictures of teacher and student side by side, with their captions."""
    listed = folder / BESIDE
    said = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {}
    return [(folder / name, caption) for name, caption in said.items()]


def _results(rows: Mapping[str, Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [[title, *(_number(row[key]) if key in row else "" for key in names)] for title, row in rows.items()]
    return report.section("Results", report.table(["", *names], cells))


def _prompts(rows: measuring.Rows) -> str:
    """The worst prompts, by the first of the columns."""
    names = list(next(iter(rows.values())))
    cells = [[prompt, *map(_number, row.values())] for prompt, row in list(rows.items())[:SHOWN]]
    title = f"Prompts, the worst by {names[0]} first ({len(cells)} of {len(rows)}; all in {PROMPTS})"
    return report.folded(title, report.table(["", *names], cells))


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
