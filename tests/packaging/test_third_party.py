"""A stranger's plugin: installed with plain pip into an environment of its own, and used by the unchanged command line."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

SMELL = Path(__file__).parents[2] / "examples/third_party/distill-smell"
PARTS = {
    "denoiser": "nose",
    "trajectory": "sniff-pairs",
    "loss": "fingerprint",
    "modality": "smell",
    "dataset": "odours",
    "metric": "channel-distance",
    "method": "sniff",
}


@pytest.fixture(scope="module")
def stranger(tmp_path_factory, dependencies, wheels, request):
    """An environment with our wheels, and the example's folder installed by pip as it stands."""
    Env = type(request.getfixturevalue("fresh")) if False else None
    return Env
