"""The viewer serves a scene, and a browser draws it."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request

import pytest

from distill.core import Rng
from distill.core.errors import DistillError
from distill.three_d import viewer
from distill.three_d.files import write_ply
from distill.three_d.starts import Surface


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


@pytest.mark.slow
def test_a_browser_draws_the_scene(served, page, red):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served)
    end = time.monotonic() + 120
    while (seen := red(page)) < 0.03:
        assert time.monotonic() < end, f"{seen:.1%} of the page is red"
    assert all(each.startswith((served, "data:", "blob:")) for each in asked)


def test_without_viser_it_says_what_to_install(monkeypatch, scene):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(DistillError, match=r"pip install 'distill-3d\[viewer\]'"):
        viewer.serve(scene())


def test_the_command_refuses_a_file_that_is_no_scene(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        viewer.main([str(tmp_path / "none.ply")])
    assert stopped.value.code == 2 and "is not there" in capsys.readouterr().err
    assert write_ply(Surface(count=3).scene(0, Rng(0)), tmp_path / "a.ply").is_file()
