"""What the site adds to the pages: starred names in the navigation, the benchmarks, formulas, what media exist."""

from __future__ import annotations

import re
import sys
from html import unescape
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
from formulas import MARKS, mathml  # noqa: E402 -- a script beside this one

CODE = re.compile(r"<code>([^<\n]*)</code>")
OPTIONAL = re.compile(r"<!-- with (\S+) -->\n(.*?)<!-- end -->\n", re.DOTALL)
"""A part of a page that is shown where a file exists."""


def on_config(config: Any) -> Any:
    """Starred names of the navigation become pages."""
    config.nav = [_expanded(item) for item in config.nav]
    return config


def _expanded(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    return {title: [page for each in pages for page in _pages(each, pages)] for title, pages in item.items()}


def _pages(name: str, beside: list[str]) -> list[str]:
    """The pages that a name stands for, without those that are named beside it."""
    if "*" not in name:
        return [name]
    found = (path.relative_to(DOCS).as_posix() for path in sorted(DOCS.glob(name)))
    return [page for page in found if page not in beside]


def on_files(files: Files, config: Any) -> Files:
    """The benchmarks belong to the site and lie beside the programs that measure them."""
    folder = DOCS.parent / "benchmarks"
    for name, source in {"benchmarks.md": "README.md", "gaussians.svg": "gaussians.svg"}.items():
        files.append(File.generated(config, name, abs_src_path=str(folder / source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Parts that want a file, where it exists; links to what has moved here."""
    markdown = markdown.replace("(../benchmarks/README.md)", "(benchmarks.md)")
    return OPTIONAL.sub(lambda part: part[2] if (DOCS / part[1]).exists() else "", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Formulas, which the sources write in plain characters, as MathML."""
    return CODE.sub(lambda found: mathml(unescape(found[1])) if MARKS.search(found[1]) else found[0], html)
