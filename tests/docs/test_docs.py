"""The documentation: generated pages are current, links resolve, and what is shown runs."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from distill.core.hookspecs import KINDS, Component
from distill.core.recipe import parse, validate
from distill.core.registry import default_registry

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
READMES = [*ROOT.glob("plugins/*/README.md"), *ROOT.glob("examples/**/README.md"), ROOT / "benchmarks/README.md"]
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *READMES])
WRITTEN = [page for page in PAGES if page.parent != DOCS / "methods"]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)")
BLOCK = re.compile(r"^```(\w+) (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def load(path):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name(path):
    return str(path.relative_to(ROOT))


def blocks(page, kind):
    """The blocks of a page marked so, each with the line on which it begins."""
    text = page.read_text(encoding="utf-8")
    found = [m for m in BLOCK.finditer(text) if f"{m[1]} {m[2]}" == kind]
    return [(text[: match.start(3)].count("\n"), match[3]) for match in found]


def anchor(heading):
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page):
    """The anchors of a page's headings."""
    return set(map(anchor, re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)))


@pytest.fixture(scope="module")
def build():
    return load(DOCS / "build.py")


@pytest.fixture(scope="module")
def made(build):
    return build.pages()


def test_generated_pages_are_current(build, made):
    stale = [name(path) for path in build.changes(made)]
    assert not stale, f"run `make docs`: {', '.join(stale)}"


def test_pages_are_made_the_same_twice(build, made):
    assert build.pages() == made


def test_check_says_what_is_stale_and_writes_nothing(build, monkeypatch, capsys, tmp_path):
    page = build.DOCS / "methods" / "nothing.md"
    monkeypatch.setattr(build, "pages", lambda: {page: "text"})
    monkeypatch.setattr(build, "DOCS", tmp_path)
    monkeypatch.setattr(build, "changes", lambda made: [tmp_path / "methods" / "nothing.md"])
    monkeypatch.setattr(sys, "argv", ["build.py", "--check"])
    assert build.main() == 1 and "stale: " in capsys.readouterr().out and not page.exists()


def test_every_method_has_a_page_with_its_options(build):
    for entry in default_registry().components("method"):
        if entry.plugin.name in build.PLUGINS:
            text = (DOCS / "methods" / f"{entry.name}.md").read_text(encoding="utf-8")
            assert all(f"| `{option}` |" in text for option in entry.load().model_fields)


def test_short_shows_what_differs_from_the_defaults(build):
    from distill.core import Optimiser

    assert build.short((Optimiser(lr=1.0),)) == "(Optimiser(lr=1.0),)"


def test_every_command_is_documented():
    from distill.core.cli import app

    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert all(f"## distill {command}\n" in text for command in commands)


@pytest.mark.parametrize("word", [*KINDS.values(), *(each.name for each in dataclasses.fields(Component))])
def test_hooks_and_record_are_explained(word):
    pages = [DOCS / "architecture.md", DOCS / "writing-a-plugin.md"]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert re.search(rf"\b{word}\b", text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    for target, place in LINK.findall(page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            file = page.parent / target
            assert file.exists(), f"{name(page)} links to {target}"
            assert not place or place in anchors(file), f"{name(page)}: no heading #{place} in {target}"


@pytest.mark.parametrize("page", [p for p in WRITTEN if blocks(p, "python run")], ids=name)
def test_python_runs(page):
    namespace = {"__name__": "docs"}
    for line, source in blocks(page, "python run"):
        exec(compile("\n" * line + source, str(page), "exec", dont_inherit=True), namespace)


RECIPES = [(page, line, text) for page in WRITTEN for line, text in blocks(page, "yaml recipe")]


@pytest.mark.parametrize(("page", "line", "text"), RECIPES, ids=[f"{name(p)}:{n}" for p, n, _ in RECIPES])
def test_recipes_resolve(page, line, text):
    from distill.core.recipe import Recipe
    from distill.core.run import prepare

    values, source = parse("\n" * line + text, name(page))
    run = prepare(validate(Recipe, values, source), source, default_registry())
    run.probe()
    assert run.plan.steps


def test_what_the_page_on_citing_shows_is_printed():
    from distill.core.citing import cite

    _, shown = blocks(DOCS / "citing.md", "bibtex cite")[0]
    assert shown == cite(["dmd2"], default_registry())


def test_hooks_and_signatures_are_those_of_the_code(build):
    text = (DOCS / "hooks.md").read_text(encoding="utf-8")
    assert text == build.hooks_page()
    assert all(f"## {hook}\n" in text for hook in KINDS.values())
    assert "def terms(self, event: Event, ctx: Context) -> Terms" in text


def test_every_method_has_its_sources_and_its_equations(build):
    for entry in default_registry().components("method"):
        if entry.plugin.name in build.PLUGINS and entry.component.paper:
            text = (DOCS / "methods" / f"{entry.name}.md").read_text(encoding="utf-8")
            assert "\n## Equations\n" in text or "required options" in text
            sources = text.partition("\n## Sources\n")[2]
            assert entry.component.paper.removeprefix("arXiv:") in sources


def test_the_measured_table_has_every_claim(build):
    text = (DOCS / "how-to-choose-a-method.md").read_text(encoding="utf-8")
    table = text.partition("<!-- measured")[2].partition("<!-- end -->")[0]
    assert all(f"[{name}](methods/{name}.md)" in table for name in build.measured(DOCS / "reproduction.md"))


def test_recipes_page_names_every_key():
    from distill.core.recipe import Recipe

    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert all(f"| `{key}` |" in text for key in Recipe.model_fields)


def test_every_decision_has_its_three_parts():
    for page in (DOCS / "decisions").glob("0*.md"):
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(page.name[:4])}. ")
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Consequences"))


def test_the_tutorial_prints_before_and_after(capsys):
    before, after = load(ROOT / "examples" / "distill_2d.py").main(steps=8, fit_steps=8)
    printed = capsys.readouterr().out
    assert before > 0 and f"{after:.5f}" in printed and "64 steps" in printed
