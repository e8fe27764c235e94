"""Small scenes and cameras."""

from __future__ import annotations

import math

import pytest
import torch

from distill.core import Rng

torch.set_num_threads(1)


def _scene(count=60, harmonics=3, seed=0, dtype=torch.float32, size=0.1):
    rng = Rng(seed)
    parts = {
        "means": 0.35 * rng.normal(count, 3, stream="means"),
        "quats": rng.normal(count, 4, stream="quats"),
        "scales": math.log(size) + 0.5 * rng.normal(count, 3, stream="scales"),
        "opacities": rng.normal(count, stream="opacities"),
        "sh0": rng.normal(count, 1, 3, stream="sh0"),
        "shN": 0.3 * rng.normal(count, harmonics, 3, stream="shN"),
    }
    return {part: value.to(dtype) for part, value in parts.items()}


@pytest.fixture(scope="session")
def scene():
    """Makes scenes of random Gaussians."""
    return _scene
