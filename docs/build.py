"""Write the generated pages: one a method, their index, the measured table, the hooks, the command line's help.

    python docs/build.py            # writes docs/methods/*.md, hooks.md, cli.md, decisions/index.md, a table
    python docs/build.py --check    # writes nothing; exit code 1 if a page would change

Pages follow from the registry, the contracts, the titles of decisions and `docs/reproduction.md`, where that exists,
and from nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer

from distill.core import Method, Options, Plan, Sampler, citing, contracts, hookspecs
from distill.core.cli import app
from distill.core.listing import describe
from distill.core.registry import Entry, default_registry
from distill.core.testing.kit import BASES

DOCS = Path(__file__).parent
PLUGINS = ("core", "methods", "image", "video", "audio", "three_d", "pipeline")
"""Plugins of this repository: what else is installed has pages of its own elsewhere."""
MADE = "<!-- Made by docs/build.py. Edit the docstrings, not this page. -->"
WIDTH = 100
CHOICE = DOCS / "how-to-choose-a-method.md"
TABLE = re.compile(r"(<!-- measured: made by docs/build.py -->\n).*?(<!-- end -->)", re.DOTALL)
"""The part of a written page that is made here."""
VALUES = (contracts.Batch, contracts.Event, contracts.Context, contracts.Outcome)
"""What methods of components get and give."""


def pages() -> dict[Path, str]:
    """Every generated page by its path."""
    entries = [entry for entry in default_registry().components("method") if entry.plugin.name in PLUGINS]
    claims = measured(DOCS / "reproduction.md")
    made = {DOCS / "methods" / f"{e.name}.md": method_page(e, claims.get(e.name, "")) for e in entries}
    return {
        **made,
        DOCS / "methods" / "index.md": index_page(entries),
        DOCS / "cli.md": cli_page(),
        DOCS / "hooks.md": hooks_page(),
        DOCS / "decisions" / "index.md": decisions_page(),
        CHOICE: TABLE.sub(lambda part: f"{part[1]}\n{measured_table(entries, claims)}\n\n{part[2]}", content(CHOICE)),
    }


def measured(path: Path) -> dict[str, str]:
    """The sections of the reproduction page, by method."""
    sections = re.split(r"^## ", content(path), flags=re.MULTILINE)[1:]
    return {name.strip(): body.strip() for name, _, body in (each.partition("\n") for each in sections)}


# Methods


def index_page(entries: Sequence[Entry]) -> str:
    """All methods in a table."""
    rows = [[f"[{e.name}]({e.name}.md)", e.component.summary, paper(e), e.plugin.distribution] for e in entries]
    text = "How to choose among them: [how-to-choose-a-method](../how-to-choose-a-method.md)."
    return page("# Methods", text, table(("method", "what it does", "paper", "package"), rows))


def method_page(entry: Entry, claim: str) -> str:
    """What there is to know of one method."""
    target: Any = entry.load()
    found: Any = describe(entry)
    about = [f"Paper: {paper(entry)}." if entry.component.paper else "", f"In `{entry.plugin.distribution}`."]
    method = None if any(option["required"] for option in found["options"]) else target()
    return page(
        f"# {entry.name}",
        f"{entry.component.summary}. {' '.join(filter(None, about))}",
        found["doc"],
        *(plan_parts(method) if method else ("It has required options, so its plan depends on the recipe.",)),
        *(equations(method) if method else ()),
        "## Options",
        table(("option", "type", "default", "what it is"), map(option_row, found["options"])),
        *claim_parts(entry, found["claim_doc"], claim),
        "## Sources",
        "\n".join(map(source, dict.fromkeys(citing.of_entry(entry, default_registry())))),
        f"`distill cite {entry.name}` prints them as BibTeX.",
    )


def source(paper: str) -> str:
    """A line of a list: authors, year, title, link."""
    fields = dict(re.findall(r"^\s*(\w+) = \{(.*?)\},?$", bibliography()[paper], re.MULTILINE))
    plain = {name: re.sub(r"[{}]", "", text) for name, text in fields.items()}
    who = plain.get("author", "").replace(" and others", " et al.").replace(" and ", " & ")
    return f"- {f'{who} ' if who else ''}{plain['year']}: {plain['title']}. {link(paper)}."


@cache
def bibliography() -> dict[str, str]:
    """BibTeX entries by their papers."""
    return citing.described(default_registry())[1]


def paper(entry: Entry) -> str:
    """A link to the component's paper."""
    return link(entry.component.paper.removeprefix("arXiv:"))


def link(name: str) -> str:
    """A link to a paper: an arXiv id, or a DOI."""
    arxiv = re.fullmatch(r"\d{4}\.\d{4,5}", name)
    site, shown = ("https://arxiv.org/abs/", f"arXiv:{name}") if arxiv else ("https://doi.org/", name)
    return f"[{shown}]({site}{name})" if name else ""


def plan_parts(method: Method) -> Iterator[str]:
    """Roles, phases and sampler, as they are with the default options."""
    roles = [[f"`{name}`", code(short(spec))] for name, spec in method.roles().items()]
    plan = method.plan(Sampler())
    yield "## Roles"
    yield "Besides the teacher:" if roles else "None besides the teacher."
    yield table(("role", "made from"), roles)
    yield "## Plan"
    yield "With the default options, for a teacher with the default sampler."
    yield table(("phase", "iterations", "trajectory", "loss or step", "moves", "every"), plan_rows(plan))
    yield f"The outcome is the role `{plan.result}`, sampled with {code(short(plan.sampler))}."


def plan_rows(plan: Plan) -> Iterator[list[str]]:
    """One row for each update, fit and action."""
    for phase in plan.phases:
        head = [phase.name, str(phase.steps)]
        if phase.fit is not None:
            yield [phase.name, "fit", "", code(short(phase.fit)), "", "once"]
        for update in phase.updates:
            moves = ", ".join(update.loss.moves)
            names = [code(short(update.trajectory)), code(short(update.loss))]
            yield [*head, *names, moves, str(update.every)]
        actions = [(a, str(a.every)) for a in phase.actions] + [(a, "at the end") for a in phase.at_end]
        for action, when in actions:
            yield [*head, "", code(short(action)), ", ".join(action.changes), when]


def equations(method: Method) -> Iterator[str]:
    """What the parts of the plan compute, in the words and formulas of their docstrings."""
    plan = method.plan(Sampler())
    parts: list[Any] = []
    for phase in plan.phases:
        for update in phase.updates:
            parts += [update.trajectory, update.loss]
        parts += [each for each in (phase.fit, *phase.actions, *phase.at_end) if each is not None]
    specs = method.roles().values()
    parts += [transform for spec in specs for transform in spec.transforms]
    parts += [spec.build for spec in specs if spec.build is not None]
    kinds = dict.fromkeys(type(part) for part in [*parts, plan.sampler, plan.sampler.solver])
    yield "## Equations"
    for kind in kinds:
        yield f"**{kind.__name__}.** {documented(kind)}"


def documented(kind: type) -> str:
    """A class's docstring, or that of the nearest class above it which has one."""
    return next(inspect.cleandoc(each.__doc__) for each in kind.__mro__ if each.__dict__.get("__doc__"))


def option_row(option: dict[str, Any]) -> list[str]:
    """Name, type, default and description of an option."""
    default = "required" if option["required"] else short(option["default"])
    kind = code(plain_type(option["type"]))
    return [code(option["name"]), kind, code(default), cell(option["description"])]


def plain_type(text: str) -> str:
    """A type without what only pydantic needs to know."""
    text = re.sub(r",? ?FieldInfo\([^)]*\)", "", text)
    return re.sub(r"Annotated\[((?:[^\[\]]|\[[^\[\]]*\])*)\]", r"\1", text).replace("Union[", "[")


def short(value: Any) -> str:
    """A value on one line; of options only those that differ from their defaults."""
    if isinstance(value, tuple):
        return f"({', '.join(map(short, value))}{',' if len(value) == 1 else ''})"
    if not isinstance(value, Options):
        return repr(value)
    fields = type(value).model_fields.items()
    given = [(name, getattr(value, name)) for name, info in fields if getattr(value, name) != info.default]
    return f"{type(value).__name__}({', '.join(f'{name}={short(each)}' for name, each in given)})"


def claim_parts(entry: Entry, doc: str, claim: str) -> Iterator[str]:
    """What is claimed, and what was measured."""
    if not entry.component.claim:
        return
    yield "## Claim"
    yield doc
    yield claim
    yield f"`distill reproduce {entry.name}` measures it."


def measured_table(entries: Sequence[Entry], claims: dict[str, str]) -> str:
    """The first row of every claim, as it was measured."""
    rows = []
    for entry in entries:
        lines = [line.split(" | ") for line in claims.get(entry.name, "").splitlines() if line.startswith("| ")]
        if len(lines) > 2:
            numbers = ", ".join(lines[2][1:-2])
            failed = "**" in claims[entry.name].partition("Settings.")[0]
            name = f"[{entry.name}](methods/{entry.name}.md)"
            rows.append(
                [name, lines[2][0].removeprefix("| "), numbers, lines[2][-2], "not all of it" if failed else "yes"]
            )
    return table(("method", "first row of its claim", "seeds 0, 1, 2", "must be", "the claim holds"), rows)


# Hooks


def hooks_page() -> str:
    """Every hook with what its targets derive from: signatures as the code has them."""
    parts = []
    for kind, hook in hookspecs.KINDS.items():
        spec = getattr(hookspecs, hook)
        parts += [f"## {hook}", signed(hook, spec), inspect.getdoc(spec) or ""]
        parts += described(BASES[kind]) if kind in BASES else ()
    record = [
        [code(each.name), code(str(each.type)), code(default(each))] for each in dataclasses.fields(hookspecs.Component)
    ]
    return page(
        "# Hooks",
        f"A plugin's module declares `DISTILL_SPEC = {hookspecs.SPEC}` and answers any of these with `@hookimpl`. "
        "Each answer is a sequence of records; their targets are classes that derive from the ones below.",
        "## The record",
        documented(hookspecs.Component),
        table(("field", "type", "default"), record),
        *parts,
        "## What they get and give",
        *(text for value in VALUES for text in (f"### {value.__name__}", documented(value), *fields(value))),
    )


def described(base: type) -> Iterator[str]:
    """A base class: what it is, its options, and its methods, those first that have to be written."""
    yield f"### {base.__name__}"
    yield documented(base)
    inherited = set(Options.model_fields)
    options = {name: info for name, info in getattr(base, "model_fields", {}).items() if name not in inherited}
    rows = [[code(name), code(short(info.default)), cell(info.description or "")] for name, info in options.items()]
    yield table(("option", "default", "what it is"), rows)
    own = {name: each for name, each in vars(base).items() if not name.startswith("_") or name == "__call__"}
    for name, each in sorted(own.items(), key=lambda item: item[0] not in base.__abstractmethods__):
        function = inspect.unwrap(each.fget if isinstance(each, property) else getattr(each, "__func__", each))
        if inspect.isfunction(function):
            must = " To be written." if name in base.__abstractmethods__ else ""
            yield signed(name, function, isinstance(each, property))
            yield " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split()) + must


def signed(name: str, function: Any, attribute: bool = False) -> str:
    """A function's signature as a block of code."""
    signature = re.sub(r"'([^']*)'", r"\1", str(inspect.signature(function)))
    text = f"{name}: {signature.partition(' -> ')[2]}" if attribute else f"def {name}{signature}"
    return f"```python\n{text}\n```"


def fields(value: type) -> Iterator[str]:
    """The fields of a dataclass."""
    rows = [[code(each.name), code(str(each.type)), code(default(each))] for each in dataclasses.fields(value)]
    yield table(("field", "type", "default"), rows)


def default(field: dataclasses.Field[Any]) -> str:
    """A field's default, in words where there is none."""
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return "required" if field.default_factory is dataclasses.MISSING else repr(field.default_factory())


def decisions_page() -> str:
    """All decisions."""
    listed = []
    for path in sorted((DOCS / "decisions").glob("0*.md")):
        title = content(path).partition("\n")[0].removeprefix("# ")
        listed.append(f"- [{title}]({path.name})")
    return page("# Decisions", "Why things are as they are, half a page each.", "\n".join(listed))


# The command line


def cli_page() -> str:
    """Every command's help."""
    group: Any = typer.main.get_command(app)
    top = group.make_context("distill", [], resilient_parsing=True, terminal_width=WIDTH)
    parts = ["# The command line", fenced(group.get_help(top))]
    for name, command in group.commands.items():
        if not command.hidden:
            inner = command.make_context(name, [], parent=top, resilient_parsing=True, terminal_width=WIDTH)
            parts += [f"## distill {name}", fenced(inner.command.get_help(inner))]
    return page(*parts)


# Markdown


def page(title: str, *parts: str) -> str:
    """Parts with an empty line between them, under the title."""
    return "\n\n".join([title, MADE, *filter(None, parts)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; nothing for no rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else ""


def cell(text: str) -> str:
    """Text that does not end a table's cell."""
    return text.replace("|", "\\|")


def code(text: str) -> str:
    """Text as code in a table's cell."""
    return f"`{cell(text)}`"


def fenced(text: str) -> str:
    """A block of text as it is, without trailing spaces."""
    return "\n".join(["```", *map(str.rstrip, text.strip().splitlines()), "```"])


def changes(made: dict[Path, str]) -> list[Path]:
    """Pages that are missing, stale or left over."""
    left = [path for path in (DOCS / "methods").glob("*.md") if path not in made]
    return sorted([*left, *(path for path, text in made.items() if content(path) != text)])


def content(path: Path) -> str:
    """What a page holds now; nothing if there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main() -> int:
    """Write what changed, or say what would."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a page would change")
    check = parser.parse_args().check
    made = pages()
    changed = changes(made)
    for path in changed:
        done = "stale" if check else "written" if path in made else "removed"
        print(f"{done}: {path.relative_to(DOCS.parent)}")
        if not check and path in made:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
        elif not check:
            path.unlink()
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
