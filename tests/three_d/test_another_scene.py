"""A stranger's kind of scene, a radiance field: found by its entry point, distilled as Gaussians are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill.core import Role, commands
from distill.core.discovery import discover
from distill.core.registry import default_registry
from distill.core.roles import Roles
from distill.core.testing import component_checks
from distill.methods import toys as plain
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.networks import MLPDenoiser
from distill.three_d import toys
from distill.three_d.papers.cfd import CFD
from distill.three_d.papers.dsd import DSD
from distill.three_d.papers.headartist import HeadArtist
from distill.three_d.papers.sds import SDS
from distill.three_d.papers.vsd import VSD
from distill.three_d.trajectories import DirectedView

ROOT = Path(__file__).parents[2] / "examples/third_party/distill-radiance"
LENS = {"size": (toys.SIDE, toys.SIDE), "background": (0.5, 0.5, 0.5), "samples": 12}


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """Its folder on `sys.path`, and the metadata that an installer would write."""
    info = tmp_path / "site" / "distill_radiance-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: distill-radiance\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[distill]\nradiance = radiance.plugin\n")
    for folder in (tmp_path / "site", ROOT / "src"):
        monkeypatch.syspath_prepend(folder)
    for cached in (discover, default_registry):
        cached.cache_clear()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "radiance"]:
        del sys.modules[name]
    for cached in (discover, default_registry):
        cached.cache_clear()


def field(**options):
    return default_registry().load("denoiser", "radiance-field")(**options)


def lens(**options):
    return default_registry().load("lens", "march")(**{**LENS, **options})


def test_it_has_less_than_100_lines():
    lines = [line for path in ROOT.rglob("src/**/*.py") for line in path.read_text().splitlines() if line.strip()]
    assert 20 < len(lines) < 100


def test_it_conforms():
    for name, check in component_checks("radiance", default_registry()):
        try:
            check()
        except Exception as reason:
            assert type(reason).__name__ == "SkipTest", f"{name}: {reason}"


def test_rays_add_up_to_a_picture_with_its_distances():
    cameras, scene = toys.cameras(), {part: value.detach() for part, value in field().build().scene.items()}
    solid = {**scene, "hidden": 0 * scene["hidden"]}  # softplus(-1) everywhere
    drawn = lens(samples=200).draw(solid, cameras.resized(41, 41))
    through = 1 - torch.exp(-4 * torch.nn.functional.softplus(torch.tensor(-1.0)))
    assert abs(float(drawn.alpha[0, 0, 20, 20] - through)) < 0.01 and float(drawn.alpha[0, 0, 0, 0]) == 0
    assert 2.4 < float(drawn.depth[0, 0, 20, 20]) < 3.0
    torch.testing.assert_close(drawn.images, 0.5 * drawn.alpha.expand_as(drawn.images))


OPTIONS = {
    HeadArtist: {"views": DirectedView(landmarks=None)},
    VSD: {"score": ScoreDifference(units="eps"), "critic": Denoise(view="eps")},
}


@pytest.mark.parametrize("method", [SDS, CFD, DSD, HeadArtist, VSD])
def test_every_score_distillation_of_ours_moves_it(method):
    chosen = method(steps=2, optimiser=toys.QUICK, **OPTIONS.get(method, {}))
    subject = field(resolution=8).build()
    before = {part: value.detach().clone() for part, value in subject.scene.items()}
    teacher = MLPDenoiser(shape=(3, toys.SIDE, toys.SIDE), width=8, depth=1).build() if method is VSD else toys.balls()
    roles = Roles({"teacher": Role("teacher", teacher), "student": Role("student", subject)})
    plain.train(chosen, roles, size=2, data=toys.sides(method is not VSD), lens=lens())
    assert all(not torch.equal(value, subject.scene[part]) for part, value in before.items())


def test_it_becomes_what_the_same_teacher_knows_from_the_same_cameras():
    subject, teacher = field(resolution=8).build(), toys.balls()
    method = SDS(steps=60, score=ScoreDifference(critic="", units="eps"), optimiser=toys.QUICK)
    roles = Roles({"teacher": Role("teacher", teacher), "student": Role("student", subject)})

    def astray():
        with torch.no_grad():
            drawn = lens().draw(subject.scene, toys.cameras()).over(torch.full((3,), 0.5))
        return toys.astray(2 * drawn - 1, teacher)

    before = astray()
    plain.train(method, roles, size=8, data=toys.sides(), lens=lens())
    assert astray() < 0.6 * before


RECIPE = """
method: {name: sds, steps: 2, score: {guidance: 1}}
teacher: {name: mlp, shape: [3, 8, 8], width: 8, depth: 1}
student: {name: radiance-field, resolution: 6}
lens: {name: march, size: [8, 8], samples: 6}
data: {name: cameras, count: 8}
batch_size: 2
"""


def test_a_recipe_names_it_and_its_run_is_sampled(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    commands.train(tmp_path / "recipe.yaml", out=tmp_path / "run")
    commands.sample(str(tmp_path / "run"), n=1, out=tmp_path / "out")
    assert load_file(tmp_path / "out" / "sample-0000.safetensors")["planes"].shape == (3, 16, 6, 6)
    assert (tmp_path / "out" / "sample-0000.mp4").stat().st_size > 0
