"""What tests of several packages share: plugins that exist only as folders on `sys.path`, and a browser."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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
QUIET = ["--headless", "--no-sandbox", "--disable-background-networking", "--no-first-run", "--window-size=1200,900"]
SOFT = ["--enable-unsafe-swiftshader", "--use-angle=swiftshader"]


class Page:
    """A page of a browser, over its debugging port."""

    def __init__(self, connection):
        self.connection, self.number, self.asked = connection, 0, []
        for domain in ("Page", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.number += 1
        self.connection.send(json.dumps({"id": self.number, "method": method, "params": params}))
        return self._until(lambda said: said.get("id") == self.number).get("result", {})

    def _until(self, wanted):
        while not wanted(said := json.loads(self.connection.recv(timeout=60))):
            if said.get("method") == "Network.requestWillBeSent":
                self.asked.append(said["params"]["request"]["url"])
        return said

    def open(self, address):
        self.connection.send(json.dumps({"id": 0, "method": "Page.navigate", "params": {"url": address}}))
        self._until(lambda said: said.get("method") == "Page.loadEventFired")

    def find(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression, seconds=60):
        end = time.monotonic() + seconds
        while not self.find(expression):
            assert time.monotonic() < end, f"{expression} did not come: {self.find('document.body.innerText')}"
            time.sleep(0.2)

    def press(self, text):
        found = f"[...document.querySelectorAll('button')].find(b => b.innerText.toLowerCase().includes('{text}'))"
        self.wait(f"!!({found})")
        self.find(f"({found}).click()")

    def picture(self):
        shot = self.call("Page.captureScreenshot")["data"]
        with Image.open(BytesIO(base64.b64decode(shot))) as seen:
            return seen.convert("RGB")

    def share_of_red(self):
        pixels = list(self.picture().resize((120, 90)).get_flattened_data())
        return sum(r > 150 and g < 90 and b < 90 for r, g, b in pixels) / len(pixels)


@contextmanager
def _browser(folder, *options):
    connect = pytest.importorskip("websockets.sync.client", reason="needs websockets: pip install websockets").connect
    if BROWSER is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    command = [BROWSER, *QUIET, *options, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stderr if line.startswith("DevTools listening"))
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        port = line.rpartition(":")[2].partition("/")[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=60) as pages:
            (page,) = (each for each in json.load(pages) if each["type"] == "page")
        try:
            with connect(page["webSocketDebuggerUrl"], max_size=None, open_timeout=60) as connection:
                yield Page(connection)
        finally:
            process.terminate()
            drain.join()


@pytest.fixture
def page(tmp_path):
    """A page of a headless Chromium."""
    with _browser(tmp_path / "profile", "--disable-gpu") as found:
        yield found


@pytest.fixture
def deep_page(tmp_path):
    """One that draws in three dimensions, slowly."""
    with _browser(tmp_path / "profile", *SOFT) as found:
        yield found
