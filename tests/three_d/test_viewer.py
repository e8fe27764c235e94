"""The viewer serves a scene, and a browser draws it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from io import BytesIO

import pytest
from PIL import Image

from distill.core import Rng
from distill.core.errors import DistillError
from distill.three_d import viewer
from distill.three_d.files import write_ply
from distill.three_d.starts import Surface

connect = pytest.importorskip(
    "websockets.sync.client", reason="viser is optional: pip install 'distill-3d[viewer]'"
).connect
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address at which the command shows a scene in red."""
    pytest.importorskip("viser", reason="viser is optional: pip install 'distill-3d[viewer]'")
    scene = Surface(count=400, opacity=0.99).scene(0, Rng(0))
    scene["sh0"][:] = scene["sh0"].new_tensor([1.7, -1.7, -1.7])
    path = write_ply(scene, tmp_path_factory.mktemp("viewer") / "red.ply")
    command = [sys.executable, "-m", "distill.three_d.viewer", str(path), "--port", "8765"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shown:
        line = next(line for line in shown.stdout if " at http" in line)
        yield line.partition(" at ")[2].partition(";")[0]
        shown.terminate()


def test_the_page_is_served(served):
    with urllib.request.urlopen(served, timeout=30) as page:
        assert page.status == 200 and b"<html" in page.read().lower()


@contextmanager
def browser(folder, address):
    """A headless Chromium at an address, and the connection over which it is asked for pictures."""
    command = [BROWSER, "--headless=new", "--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
    command += ["--window-size=800,500", f"--user-data-dir={folder}", "--remote-debugging-port=0", address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stderr if line.startswith("DevTools listening"))
        port = line.rpartition(":")[2].partition("/")[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=60) as pages:
            (page,) = (each for each in json.load(pages) if each["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None, open_timeout=60) as connection:
            yield connection
        process.terminate()
        process.stderr.close()


def red_in(connection):
    """Share of pixels that are red now."""
    connection.send(json.dumps({"id": 1, "method": "Page.captureScreenshot"}))
    answer = json.loads(connection.recv(timeout=120))
    with Image.open(BytesIO(base64.b64decode(answer["result"]["data"]))) as page:
        pixels = list(page.convert("RGB").get_flattened_data())
    return sum(r > 150 and g < 90 and b < 90 for r, g, b in pixels) / len(pixels)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium: apt-get install chromium")
def test_a_browser_draws_the_scene(served, tmp_path):
    with browser(tmp_path, served) as connection:
        seen = []
        while len(seen) < 40 and max(seen, default=0) < 0.03:
            time.sleep(3)
            seen.append(red_in(connection))
    assert max(seen) > 0.03


def test_without_viser_it_says_what_to_install(monkeypatch, scene):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(DistillError, match=r"pip install 'distill-3d\[viewer\]'"):
        viewer.serve(scene())


def test_the_command_refuses_a_file_that_is_no_scene(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        viewer.main([str(tmp_path / "none.ply")])
    assert stopped.value.code == 2 and "is not there" in capsys.readouterr().err
    assert write_ply(Surface(count=3).scene(0, Rng(0)), tmp_path / "a.ply").is_file()
