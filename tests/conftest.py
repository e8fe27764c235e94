"""What tests of several packages share: plugins that exist only as folders on `sys.path`, and a browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from distill.core.discovery import Source, discover
from distill.core.registry import Registry, default_registry

torch.set_num_threads(1)

PLUGIN = """
from distill.core.hookspecs import Component, hookimpl
DISTILL_SPEC = {spec}

@hookimpl
def {hook}():
    return [{components}]
"""


@dataclass
class Site:
    """A folder like site-packages, in which a test installs tiny distributions by writing their metadata."""

    path: Path
    modules: list[str] = field(default_factory=list)

    def install(self, dist: str, source: str, *, plugin: str = "", version: str = "1.0", module: str = "") -> str:
        """One distribution with one plugin module; returns the module's name."""
        module = module or dist.replace("-", "_")
        self.modules.append(module)
        (self.path / f"{module}.py").write_text(source)
        info = self.path / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        (info / "RECORD").write_text(f"{module}.py,,\n")
        (info / "entry_points.txt").write_text(f"[distill]\n{plugin or dist} = {module}\n")
        return module

    def plugin(
        self,
        dist: str,
        *names: str,
        plugin: str = "",
        hook: str = "distill_losses",
        spec: object = 1,
        target: str = "",
    ) -> str:
        """A distribution whose plugin answers one hook with components of these names."""
        target = target or f"{dist.replace('-', '_')}:hookimpl"
        listed = ", ".join(f"Component(name={n!r}, summary='a {n}', target={target!r})" for n in names)
        return self.install(dist, PLUGIN.format(spec=spec, hook=hook, components=listed), plugin=plugin)

    def sources(self) -> list[Source]:
        """What discovery finds in this folder, and nothing of the environment that runs the tests."""
        discover.cache_clear()
        return [source for source in discover() if source.location == str(self.path)]

    def registry(self, **settings: object) -> Registry:
        """A registry of this folder's plugins alone."""
        return Registry(self.sources(), **settings)  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty folder on `sys.path`; its modules are forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    for name in ("DISTILL_PLUGINS", "DISTILL_BLOCK", "DISTILL_STRICT"):
        monkeypatch.setenv(name, "")
    site = Site(folder)
    yield site
    for module in site.modules:
        sys.modules.pop(module, None)
    discover.cache_clear()
    default_registry.cache_clear()


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-background-networking", "--no-first-run"]
SOFT = ["--enable-unsafe-swiftshader", "--use-angle=swiftshader"]


@pytest.fixture
def page():
    """A page of a headless Chromium with a new profile, which draws in three dimensions too, slowly."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if BROWSER is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=[*QUIET, *SOFT])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(120_000)
        yield page
        browser.close()


@pytest.fixture
def red():
    """Tells what share of a page is red."""

    def share(page):
        with Image.open(BytesIO(page.screenshot())) as seen:
            pixels = list(seen.convert("RGB").get_flattened_data())
        return sum(r > 150 and g < 90 and b < 90 for r, g, b in pixels) / len(pixels)

    return share
