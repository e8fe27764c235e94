"""Pipelines that run in a second: those that ship, with small networks of random weights for the large ones."""

from __future__ import annotations

from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml

from distill.core.cli import main
from distill.pipeline import Pipeline

torch.set_num_threads(1)

SHIPPED = {file.stem: file for file in Path(str(files("distill.pipeline") / "pipelines")).glob("*.yaml")}
SMALL = {
    "picture": {"model": {"name": "digits-teacher", "steps": 2}},
    "clip": {
        "model": {
            "name": "video-dit", "frames": 8, "size": [8, 8], "width": 24, "depth": 1, "heads": 2, "classes": 3,
            "reach": {"chunk": 4}, "steps": 2,
        },
        "start": "$opening", "seconds": 1.5, "cond": {"label": 1},
    },
    "music": {
        "model": {"name": "audio-dit", "width": 24, "depth": 1, "heads": 2, "chords": True, "patch": 2, "steps": 2},
        "seconds": "$score.seconds", "cond": {"chords": "$score.chords"},
    },
    "scene": {"lens": {"name": "relief", "side": 8}, "of": "$picture"},
    "turn": {"lens": {"name": "turntable", "size": 16, "frames": 4}, "of": "$scene"},
    "large": {"lens": {"name": "upscale", "model": "restorer", "steps": 1, "tile": 64}, "of": "$picture"},
    "closer": {"lens": {"name": "zoom", "frames": 4}, "of": "$large"},
}  # fmt: skip
"""What takes the place of a node of that name, where a shipped pipeline has it."""


class Result(NamedTuple):
    code: int
    out: str
    err: str


def _small(name):
    """The values of a shipped pipeline with small networks."""
    values = yaml.safe_load(SHIPPED[name].read_text())
    swapped = {node: deepcopy(SMALL.get(node, said)) for node, said in values["nodes"].items()}
    if "clip" in swapped and "write" in values["nodes"]["clip"]:
        swapped["clip"] = values["nodes"]["clip"]
    return {**values, "nodes": swapped}


def _contents(folder):
    """Every file of a folder, with its bytes; what a kill may leave aside is not one."""
    every = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in every}


@pytest.fixture(params=sorted(SHIPPED))
def name(request):
    """Each shipped pipeline in turn."""
    return request.param


@pytest.fixture(scope="session")
def small():
    """The function that makes the values of a shipped pipeline, by its name, with small networks."""
    return _small


@pytest.fixture(scope="session")
def contents():
    """The function that reads all files of a folder."""
    return _contents


@pytest.fixture
def film() -> Pipeline:
    """The film with small networks."""
    return Pipeline.of(_small("film"))


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """The command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        return Result(int(leaving.value.code or 0), *capsys.readouterr())

    return run
