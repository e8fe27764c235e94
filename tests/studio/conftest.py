"""A studio of a small folder, and a browser that looks at it."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from io import BytesIO

import pytest
from PIL import Image

pytest.importorskip("nicegui", reason="the studio is optional: pip install distill-studio")
from websockets.sync.client import connect  # noqa: E402

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


@contextmanager
def _browser(folder, *options):
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
    if BROWSER is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with _browser(tmp_path / "profile", "--disable-gpu") as found:
        yield found


@pytest.fixture
def deep_page(tmp_path):
    """One that draws in three dimensions, slowly."""
    if BROWSER is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with _browser(tmp_path / "profile", *SOFT) as found:
        yield found


@pytest.fixture(scope="session")
def small_run():
    """Makes the folder of a run that trained for 50 steps."""

    def make(folder):
        (folder / "previews").mkdir(parents=True)
        Image.new("RGB", (32, 32), "red").save(folder / "previews" / "step-50.png")
        (folder / "recipe.yaml").write_text("teacher: digits-teacher\nmethod: {name: dmd2, steps: 50}\n")
        lines = [json.dumps({"step": n, "loss": 1 / n, "student_grad_norm": 1.0}) for n in range(1, 51)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        return folder

    return make


@pytest.fixture(scope="session")
def studio(tmp_path_factory, small_run):
    """The address of a studio, and its folder with two runs."""
    root = tmp_path_factory.mktemp("runs")
    small_run(root / "one")
    small_run(root / "two")
    command = [sys.executable, "-m", "distill.core", "studio", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stdout if " at http" in line)
        yield line.partition(" at ")[2].partition(";")[0].rstrip("/"), root
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:  # a browser that still holds on
            process.kill()
