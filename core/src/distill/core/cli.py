"""The command line: thin commands, and one place in which errors become messages.

Only what every command needs is imported at the top: `distill plugins` must stay as quick as typing it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from distill.core.errors import DistillError, UnknownName
from distill.core.hookspecs import KINDS
from distill.core.registry import Registry, default_registry, plural


class _PlainHelp:
    """Gives `--help` a bool for a default: typer imports pydantic to coerce any other, even an unset one."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]  # a mix-in for typer's classes
        if option is not None:
            option.default = False
        return option


class _Command(_PlainHelp, TyperCommand):
    pass


class _Plugged(_Command):
    """A plugin's command by its name and summary; its function is imported when it is called."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        target: Any = default_registry().load("command", str(self.name))
        alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        alone.command(self.name, cls=_Command)(target)
        return typer.main.get_command(alone).make_context(info_name, args, parent=parent, **extra)


class _Group(_PlainHelp, TyperGroup):
    """The core's commands, and those of plugins once somebody asks for one, or for all."""

    def list_commands(self, ctx: Any) -> list[str]:
        self._plug()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands:
            self._plug()
            hint = "" if cmd_name in self.commands else default_registry().hint(cmd_name)
            if hint:
                raise UnknownName("command", cmd_name, self.commands, hint=hint)
        return super().get_command(ctx, cmd_name)

    def _plug(self) -> None:
        for entry in default_registry().components("command"):
            self.commands.setdefault(entry.name, _Plugged(entry.name, help=entry.component.summary))
            self.commands.setdefault(entry.qualified, _Plugged(entry.qualified, hidden=True))


app = typer.Typer(
    name="distill",
    cls=_Group,
    help="Turn a slow diffusion or flow model of any modality into a fast one.",
    epilog="Anywhere: --debug shows tracebacks; --no-plugin NAME leaves a plugin or distribution out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would cost more than discovery
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Run = Annotated[Path, typer.Argument(help="The folder of a run.")]


def _out(text: str) -> Any:
    """The option that says where a command writes."""
    return typer.Option("--out", "-o", help=text)


# What is installed


@app.command(cls=_Command)
def plugins(
    json: Json = False,
    check: Annotated[bool, typer.Option("--check", help="Diagnose; exit code 2 if anything is wrong.")] = False,
    requirements: Annotated[bool, typer.Option("--requirements", help="Print name==version lines.")] = False,
    time: Annotated[bool, typer.Option("--time", help="Show what importing each plugin costs.")] = False,
) -> None:
    """What is installed, and what is broken. Says from which distribution, and why."""
    from distill.core import listing

    registry = default_registry()
    if requirements:
        pins = sorted(registry.requirements().items())
        typer.echo("\n".join(f"{name}=={version}" for name, version in pins))
    elif json:
        typer.echo(listing.to_json([listing.plugin_json(record) for record in registry.plugins()]))
    else:
        typer.echo(listing.plugin_table(registry, time=time))
    problems = listing.problems(registry) if check else [str(fault) for fault in registry.faults()]
    for problem in problems:
        typer.echo(f"problem: {problem}", err=True)
    if check and problems:
        raise typer.Exit(2)
    if check:
        typer.echo("No problem found.", err=True)


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(map(plural, KINDS))}.")] = None,
    modality: Annotated[str | None, typer.Option(help="Only what is made for this modality, or suits any.")] = None,
    json: Json = False,
) -> None:
    """The components that plugins provide."""
    from distill.core import listing

    registry = default_registry()
    entries = registry.components(_singular(kind) if kind else None, modality)
    if json:
        typer.echo(listing.to_json([listing.facts(entry) for entry in entries]))
    else:
        typer.echo(listing.component_table(entries, registry.conflicts()) or "None.")


def _singular(word: str) -> str:
    """The kind that a user means by `losses` or `loss`."""
    kinds = {plural(kind): kind for kind in KINDS} | {kind: kind for kind in KINDS}
    if word not in kinds:
        raise UnknownName("kind of component", word, map(plural, KINDS))
    return kinds[word]


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A component: `dmd2`, or `methods:dmd2`.")],
    kind: Annotated[str | None, typer.Option(help="Which kind, if several have a component of that name.")] = None,
    json: Json = False,
) -> None:
    """What a component is, and its options. For a method also its roles, paper and claim."""
    from distill.core import listing

    registry = default_registry()
    kinds = [_singular(kind)] if kind else _kinds_of(registry, name)
    found = listing.describe(registry.find(kinds[0], name))
    typer.echo(listing.to_json(found) if json else listing.as_text(found))
    for other in [] if json else kinds[1:]:
        typer.echo(f"\nThere is also a {other} of this name: distill show {name} --kind {other}")


def _kinds_of(registry: Registry, name: str) -> list[str]:
    """The kinds that have a component of that name, methods first: they are what most people look for."""
    short = name.rpartition(":")[2]
    entries = registry.components()
    kinds = {entry.kind for entry in entries if name in (entry.name, entry.qualified)}
    if not kinds:
        plugin = name.rpartition(":")[0]
        if plugin:
            registry.require(plugin)
        raise UnknownName("component", name, {e.name for e in entries}, hint=registry.hint(short))
    return sorted(kinds, key=lambda kind: (kind != "method", kind))


@app.command()
def check(plugin: Annotated[str, typer.Argument(help="The name of an installed plugin.")]) -> None:
    """Test a plugin with the conformance kit. Looks at every component that it provides."""
    from distill.core.testing import check_plugin

    registry = default_registry()
    registry.require(plugin)
    failed = 0
    for what, failure, remedy in check_plugin(plugin, registry=registry):
        failed += bool(failure)
        typer.echo(f"FAILED  {what}: {failure}\n        {remedy}" if failure else f"ok      {what}")
    if failed:
        raise DistillError(f"plugin {plugin!r} fails {failed} of the checks above.")


# What is done with it; the work is in `commands`, which imports torch


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, in YAML.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Change the recipe.")] = None,
    out: Annotated[Path | None, _out("The run's folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in that folder stopped.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print plan, parameters and memory; train nothing.")
    ] = False,
    resume_from: Annotated[
        str | None, typer.Option("--resume-from", help="Resume from this checkpoint, such as step-200.")
    ] = None,
    resume_anyway: Annotated[
        bool, typer.Option("--resume-anyway", help="Resume although recipe or versions differ.")
    ] = False,
) -> None:
    """Train what a recipe says. On several devices: accelerate launch -m distill.core train RECIPE."""
    from distill.core import commands

    commands.train(recipe, overrides or [], out, resume, dry_run, resume_from, resume_anyway)


@app.command()
def sample(
    source: Annotated[str, typer.Argument(help="A run's folder, or a model.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Sample it otherwise, as the teacher of a recipe."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Network calls; by default what it was trained for.")] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many samples.")] = 16,
    out: Annotated[Path, _out("The folder for the samples.")] = Path("samples"),
    seed: Annotated[int, typer.Option(help="The seed of the noise.")] = 0,
    cond: Annotated[
        list[str] | None, typer.Option("--cond", help="A condition of all samples, such as label=3.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="What the samples show; several take turns.")
    ] = None,
    negative: Annotated[str, typer.Option("--negative", help="What the samples do not show.")] = "",
    stream: Annotated[
        bool, typer.Option("--stream", help="One sample, written to the file --out while it is made.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.01, help="With --stream: how long it gets.")] = 10.0,
    prompt_at: Annotated[
        list[str] | None, typer.Option("--prompt-at", help="With --stream: 12s=TEXT shows something else from there.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="With --stream: go on from this file, a picture or a clip.")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option("--audio", help="With --stream: a file of sound that the network hears meanwhile.")
    ] = None,
) -> None:
    """Draw samples from a run or a model."""
    from distill.core import commands

    if stream:
        files = {} if audio is None else {"audio": audio}
        commands.stream(
            source, steps, out, seed, cond or [], prompt or [], seconds, prompt_at or [], start, files, overrides or []
        )
        return
    commands.sample(source, steps, n, out, seed, cond or [], prompt or [], negative, overrides or [])


@app.command("eval")
def evaluate(
    run: Run,
    metrics: Annotated[
        str, typer.Option(help="Names, separated by commas, or a list in YAML; the recipe's when left out.")
    ] = "",
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many samples to measure.")] = 1000,
    per_prompt: Annotated[
        int, typer.Option("--per-prompt", min=0, help="Also a table of prompts, of so many samples each.")
    ] = 0,
) -> None:
    """Measure the samples of a run."""
    from distill.core import commands

    commands.evaluate(run, metrics, n, per_prompt)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="The folders of two runs or more.")],
    out: Annotated[Path, _out("The report.")] = Path("report.html"),
) -> None:
    """Put runs side by side in one report."""
    from distill.core import commands

    commands.compare(runs, out)


@app.command()
def reproduce(
    names: Annotated[list[str] | None, typer.Argument(help="Methods.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every method that has a claim.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    out: Annotated[Path | None, _out("The folder for the outcomes as JSON.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write all outcomes in the folder as Markdown.")] = None,
) -> None:
    """Measure what papers claim. Method against baseline; exit code 1 if a claim does not hold."""
    from distill.core.reproduce import reproduce as run_reproduce

    run_reproduce(names or [], all_, seeds, out, page)


@app.command()
def export(
    run: Run,
    to: Annotated[str, typer.Option(help="The format.")] = "diffusers",
    out: Annotated[Path, _out("The folder for the exported model.")] = Path("export"),
) -> None:
    """Write a student for other libraries."""
    from distill.core import commands

    commands.export(run, to, out)


@app.command()
def cite(names: Annotated[list[str], typer.Argument(help="Folders of runs, or components, such as `dmd2`.")]) -> None:
    """Print the BibTeX of what a run used, or of components."""
    from distill.core import citing

    typer.echo(citing.cite(names, default_registry()), nl=False)


@app.command()
def demo(
    modality: Annotated[str | None, typer.Argument(help="Whose demo; the first one's if left out.")] = None,
    out: Annotated[Path, _out("The folder for pictures and report.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A few steps only, to see that it runs.")] = False,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Train nothing: show what a teacher and its student make of this.")
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", help="With --prompt: the run whose two to show.")] = None,
) -> None:
    """Distil a small teacher, or show one beside its student. Real data, on a CPU, with nothing to download."""
    from distill.core import demo as demos

    if prompt is None:
        demos.demo(modality, out, quick)
    else:
        demos.show(prompt, modality, out, run)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from distill.core import commands

    commands.schema()


# Errors


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error that escapes a command ends here."""
    arguments, debug, blocked = _split(sys.argv[1:] if arguments is None else arguments)
    try:
        _block(blocked)
        app(arguments, prog_name="distill")
    except DistillError as error:
        if debug:
            raise
        _leave(f"error: {error}", error.exit_code)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _leave(f"error: {where}{error.strerror or error}. Check the path, its permissions and the free space.", 2)
    except Exception as error:
        if debug:
            raise
        _leave(f"internal error: {type(error).__name__}: {error}. Use --debug for the traceback.", 1)


def _leave(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(code)


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    """Take the global options out, wherever they stand.

    Not left to typer, which wants them before the command, and imports pydantic for any option with a value.
    """
    rest, blocked = [], []
    todo = iter(arguments)
    for argument in todo:
        option, equals, value = argument.partition("=")
        if option == "--no-plugin":
            blocked.append(value if equals else next(todo, ""))
        elif argument != "--debug":
            rest.append(argument)
    return rest, "--debug" in arguments, blocked


def _block(names: list[str]) -> None:
    """Leave plugins out; through the environment, so that worker processes leave them out as well."""
    if not all(names):
        raise DistillError("--no-plugin needs a name: of a plugin or a distribution, as `distill plugins` lists them.")
    if names:
        os.environ["DISTILL_BLOCK"] = ",".join(filter(None, [os.environ.get("DISTILL_BLOCK"), *names]))
        default_registry.cache_clear()
