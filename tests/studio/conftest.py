"""A studio of a small folder, and a browser that looks at it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from PIL import Image

pytest.importorskip("nicegui", reason="the studio is optional: pip install distill-studio")


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
