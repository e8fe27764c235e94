"""The pipelines that ship, with the networks that ship, as a user runs them."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from distill.core.errors import DistillError
from distill.image.super_resolution.upscale import model_of, ready
from distill.pipeline import Pipeline
from distill.pipeline.lenses import Upscale


def command(name, *arguments, stdout=subprocess.DEVNULL):
    """The command line in a process of its own."""
    code = "from distill.core.cli import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, "pipeline", name, *arguments], stdout=stdout, text=True)


@pytest.fixture
def known(name):
    """The name of a pipeline whose networks are all there."""
    try:
        for step in Pipeline.read(name).steps.values():
            if step.node.key == "model":
                step.part.options.build()
            if isinstance(step.part, Upscale):
                ready(model_of(step.part.model), None)
    except (DistillError, FileNotFoundError) as error:
        pytest.skip(f"its weights are not there: {error}")
    return name


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_kills_change_nothing(known, tmp_path, contents):
    started = time.perf_counter()
    assert command(known, "-o", str(tmp_path / "whole")).wait() == 0
    took = time.perf_counter() - started
    draw = random.Random(known)
    for _ in range(5):
        run = command(known, "-o", str(tmp_path / "killed"))
        time.sleep(draw.uniform(0.3, 0.9) * took)
        run.kill()
        run.wait()
        (tmp_path / "killed").mkdir(exist_ok=True)
        assert contents(tmp_path / "killed").items() <= contents(tmp_path / "whole").items()
    assert command(known, "-o", str(tmp_path / "killed")).wait() == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_another_prompt_makes_what_depends_on_it_and_another_chord_the_music_alone(tmp_path):
    music = "nodes.music.model={name: audio-dit, chords: true, patch: 2, text: 32, words: 6, steps: 2, width: 24}"

    def made(*changes):
        run = command("film", "-o", str(tmp_path), music, *changes, stdout=subprocess.PIPE)
        said, _ = run.communicate()
        assert run.returncode == 0
        return {line.split("  ")[1].split(":")[0] for line in said.splitlines() if "made in" in line}

    assert made() == {"picture", "opening", "clip", "score", "music", "film"}
    assert made("nodes.score.lens.chords=[G, C]") == {"score", "music", "film"}
    assert made("nodes.picture.prompt=a blue fish") == {"picture", "opening", "clip", "score", "music", "film"}
    assert made() == set()
