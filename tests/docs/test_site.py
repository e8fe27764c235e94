"""The site: it builds strictly, loads nothing from elsewhere, its links lead somewhere, its commands parse."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
import typer

from distill.core.cli import _split, app
from distill.core.registry import default_registry

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
READMES = [*ROOT.glob("*.md"), *ROOT.glob("plugins/*/README.md"), *ROOT.glob("core/README.md")]
STRANGERS = list(ROOT.glob("examples/third_party/*/README.md"))
PAGES = sorted([*DOCS.rglob("*.md"), *READMES, ROOT / "benchmarks/README.md", *STRANGERS])
INVENTED = [*STRANGERS, DOCS / "writing-a-plugin.md"]
"""Pages that speak of plugins and methods which a reader is to make."""
FENCED = re.compile(r"^```(?:\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\.venv/bin/)?(distill|make|python|pip install)(?: (.*))?$")
CODE = re.compile(r"`([^`\n]+)`")
sys.path.insert(0, str(DOCS))


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def name(path):
    return str(path.relative_to(ROOT))


# The built pages


class Page(HTMLParser):
    """The links, sources and anchors of a page, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        self.links += [given["href"]] if tag == "a" and given.get("href") else []
        self.loads += [
            given[key] for key in ("src", "href") if given.get(key) and tag in ("img", "audio", "script", "link")
        ]


def missing(pages, path, link):
    """Whether a link of a page leads nowhere on the site."""
    parts = urlsplit(link)
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    anchored = parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors
    return not file.is_file() or bool(anchored)


def test_it_builds_strictly_and_every_link_leads_somewhere(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = [file.resolve() for file in tmp_path.rglob("*.html") if file.name != "404.html"]
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in files}
    assert len(pages) > 80
    for path, page in pages.items():
        loaded = [each for each in page.loads if urlsplit(each).scheme and not each.startswith("data:")]
        assert not loaded, f"{path.name} loads {loaded}"
        dead = [each for each in page.links + page.loads if not urlsplit(each).scheme and missing(pages, path, each)]
        assert not dead, f"{path.relative_to(tmp_path.resolve())} links to {dead}"
    landing = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert all(f'src="{medium}"' in landing for medium in module(DOCS / "media.py").MEDIA if (DOCS / medium).exists())
    assert "<math>" in (tmp_path / "methods" / "dmd2.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted((DOCS / "methods").glob("*.md")), ids=lambda path: path.stem)
def test_formulas_can_be_drawn(page):
    from formulas import MARKS, mathml

    for formula in filter(MARKS.search, CODE.findall(page.read_text(encoding="utf-8"))):
        drawn = ElementTree.fromstring(mathml(formula))
        assert "".join("".join(drawn.itertext()).split())


def test_formulas_keep_what_they_say():
    from formulas import mathml

    text = mathml("½ ‖x − sg x̂0‖² / √(1 − α_t²)")
    assert "<msqrt>" in text and "<msub><mi>x̂</mi><mrow><mn>0</mn></mrow></msub>" in text
    assert (
        mathml("x_{n−j}")
        == "<math><mrow><msub><mi>x</mi><mrow><mrow><mi>n</mi><mo>−</mo><mi>j</mi></mrow></mrow></msub></mrow></math>"
    )


def test_media_are_small():
    media = module(DOCS / "media.py")
    for medium, made in media.MEDIA.items():
        assert not (DOCS / medium).exists() or (DOCS / medium).stat().st_size <= made.most
        COMMANDS["distill"](made.command, DOCS / "media.py")


# Commands


def commands(page):
    """The commands that a page shows: lines of its blocks, and what stands in its text as code."""
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(FENCED.findall(text)).replace("\\\n", " ").splitlines()
    shown = [*blocks, *CODE.findall(FENCED.sub("", text))]
    return [line.strip() for line in shown if COMMAND.match(line.strip())]


def parse(arguments, page):
    """A command of distill is parsed, and not run."""
    words, _, _ = _split(list(map(str, arguments)))
    group = typer.main.get_command(app)
    top = group.make_context("distill", [], resilient_parsing=True)
    if not words or not re.fullmatch(r"[a-z][a-z-]*", words[0]):
        return
    command = group.get_command(top, words[0])
    assert command is not None, f"no command {words[0]}"
    valued = [option for each in command.params for option in each.opts if not getattr(each, "is_flag", False)]
    given = [*words[1:], *["1" for last in words[-1:] if last.startswith("-") and last in valued]]
    named = all(word.startswith("-") for word in words[1:])  # it is spoken of, and not called
    command.make_context(words[0], given, parent=top, resilient_parsing=named)
    assert all(word in valued or word in flags(command) for word in words[1:] if named)
    for kind in ("method",) if words[0] == "reproduce" else ():
        known = {entry.name for entry in default_registry().components(kind)}
        assert page in INVENTED or {w for w in words[1:] if w.islower()} <= known | {""}


def flags(command):
    """Options that take no value."""
    return ["--help", *(option for each in command.params for option in each.opts if getattr(each, "is_flag", False))]


def made(arguments, page):
    """A target of the Makefile exists."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert not arguments or arguments[0] in targets


def scripted(arguments, page):
    """A script exists."""
    assert not arguments[0].endswith(".py") or (ROOT / arguments[0]).exists()


def installed(arguments, page):
    """A package of this repository exists, and has the extras."""
    projects = [file.read_text() for file in [ROOT / "core/pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]]
    for word in arguments:
        package, _, extras = word.partition("[")
        if package.startswith("distill-") and page not in INVENTED:
            project = next((text for text in projects if f'name = "{package}"' in text), "")
            assert project and all(f"\n{extra} = [" in project for extra in extras.rstrip("]").split(",") if extra)


COMMANDS = {"distill": parse, "make": made, "python": scripted, "pip install": installed}


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_commands_parse(page):
    for line in commands(page):
        program, rest = COMMAND.match(line).groups()
        try:
            words = shlex.split(rest or "", comments=True)
            COMMANDS[program](words[: words.index(">")] if ">" in words else words, page)
        except Exception as error:
            raise AssertionError(f"{name(page)}: `{line}`: {error}") from error


# Numbers


def rows(path):
    """The tables of a page, row by row."""
    lines = re.findall(r"^\| ?(.*?) ?\|$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


def agrees(shown, measured):
    """Whether a number is another one, rounded."""
    digits = len(shown.partition(".")[2])
    return abs(float(shown) - float(measured)) <= 0.5001 * 10**-digits


def test_the_demo_is_as_good_as_the_benchmarks_say():
    shown = {row[0]: row[1:] for row in reversed(rows(ROOT / "README.md"))}  # the demo's table is the first
    measured = {row[0]: row[1:] for row in rows(ROOT / "benchmarks/README.md")}
    for column, title in enumerate(("Fréchet distance of the", "recall of the")):
        ours, theirs = measured[f"{title} demo's one-step student, over its teacher's"][:2]
        assert agrees(shown["student, 1 step"][column], ours) and agrees(shown["teacher, 64 steps"][column], theirs)


def test_the_readme_names_the_claims_that_do_not_hold():
    failed = {re.sub(r"\[(.*)\].*", r"\1", row[0]) for row in rows(DOCS / "reproduction.md") if "**not on" in row[-1]}
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    said = re.search(r"with equal seeds and budget[;:.] ?(.*?)\. \[docs/reproduction", text)[1]
    assert {word for word in re.findall(r"[a-z0-9-]+", said) if word in methods()} == failed


def methods():
    return {entry.name for entry in default_registry().components("method")}


def test_the_summary_of_claims_agrees_with_their_rows():
    text = (DOCS / "reproduction.md").read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        table = [line for line in body.splitlines() if line.startswith("| ")]
        summary = next(row for row in rows(DOCS / "reproduction.md") if row[0].startswith(f"[{title}]"))
        assert any("**" in line for line in table) == ("**not on" in summary[-1]), title


@pytest.mark.parametrize("page", sorted((DOCS / "methods").glob("*.md")), ids=lambda path: path.stem)
def test_the_measured_table_of_a_method_is_that_of_the_reproduction(page):
    sections = dict(
        re.findall(
            r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", (DOCS / "reproduction.md").read_text(encoding="utf-8"), re.M | re.S
        )
    )
    measured = [line for line in sections.get(page.stem, "").splitlines() if line.startswith("| ")]
    assert all(line in page.read_text(encoding="utf-8") for line in measured)
