"""What the tests of commands share: a recipe that trains in a second, the run that it makes, the command line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from distill.core.cli import main
from distill.core.commands import fit
from distill.core.recipe import load_recipe
from distill.core.registry import default_registry
from distill.core.run import prepare

torch.set_num_threads(1)

RECIPE = """\
teacher: digits-teacher
data: digits
batch_size: 8
checkpoint_every: 2
metrics: [frechet, recall]
method:
  name: dmd2
  steps: 4
  times: [1.0, 0.75, 0.5, 0.25]
  critic_updates: 2
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe file that trains in a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of that recipe; not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(RECIPE)
    default_registry.cache_clear()
    values, source = load_recipe(folder / "tiny.yaml")
    fit(prepare(values, source, default_registry()), folder / "run")
    return folder / "run"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The command line in this process, on what is installed, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    default_registry.cache_clear()

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        return Result(int(leaving.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def distill(site, monkeypatch, capsys):
    """Runs the command line in this process, on the plugins of `site` alone."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr("distill.core.registry.discover", site.sources)
        default_registry.cache_clear()
        with pytest.raises(SystemExit) as leaving:
            main(list(arguments))
        return Result(int(leaving.value.code or 0), *capsys.readouterr())

    return run
