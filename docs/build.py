"""Write the generated pages: one a method, their index, and the command line's help.

    python docs/build.py            # writes docs/methods/*.md and docs/cli.md
    python docs/build.py --check    # writes nothing; exit code 1 if a page would change

Pages follow from the registry and from `docs/reproduction.md`, where that exists, and from nothing else.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from distill.core import Method, Options, Plan, Sampler
from distill.core.cli import app
from distill.core.listing import describe
from distill.core.registry import Entry, default_registry

DOCS = Path(__file__).parent
PLUGINS = ("core", "methods", "image", "video", "audio", "three_d")
"""Plugins of this repository: what else is installed has pages of its own elsewhere."""
MADE = "<!-- Made by docs/build.py. Edit the docstrings, not this page. -->"
WIDTH = 100


def pages() -> dict[Path, str]:
    """Every generated page by its path."""
    entries = [entry for entry in default_registry().components("method") if entry.plugin.name in PLUGINS]
    claims = measured(DOCS / "reproduction.md")
    made = {DOCS / "methods" / f"{e.name}.md": method_page(e, claims.get(e.name, "")) for e in entries}
    return {**made, DOCS / "methods" / "index.md": index_page(entries), DOCS / "cli.md": cli_page()}


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
        "## Options",
        table(("option", "type", "default", "what it is"), map(option_row, found["options"])),
        *claim_parts(entry, found["claim_doc"], claim),
    )


def paper(entry: Entry) -> str:
    """A link to the paper: an arXiv id, or a DOI."""
    name = entry.component.paper.removeprefix("arXiv:")
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


# The command line


def cli_page() -> str:
    """Every command's help."""
    group: Any = typer.main.get_command(app)
    top = group.make_context("distill", [], resilient_parsing=True, terminal_width=WIDTH)
    parts = ["# The command line", fenced(group.get_help(top))]
    for name, command in group.commands.items():
        inner = typer.Context(command, info_name=name, parent=top, terminal_width=WIDTH)
        parts += [f"## distill {name}", fenced(command.get_help(inner))]
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
