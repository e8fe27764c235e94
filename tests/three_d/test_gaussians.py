"""Scenes grow, shrink and are fitted to pictures; their optimiser keeps what it knows."""

from __future__ import annotations

import pytest
import torch

from distill.core import Batch, Engine, Optimiser, Plan, Rng, Role, Roles, Update, batches
from distill.core.errors import CollapsedError
from distill.core.plan import one_phase
from distill.methods.trajectories import View
from distill.three_d.cameras import VIEW, Orbit
from distill.three_d.datasets import MeshViews
from distill.three_d.files import read_ply, write_ply
from distill.three_d.gaussians import Densify, Gaussians, GaussianScene
from distill.three_d.losses import Photometric, psnr
from distill.three_d.papers.gaussian_splatting import GaussianSplatting
from distill.three_d.render import PARTS, SCREEN, Render
from distill.three_d.starts import Noise

LENS = Render(size=(16, 16))


@pytest.fixture(scope="module")
def pictures():
    return MeshViews(count=8, size=(16, 16), smooth=1).open()


def engine(subject, pictures, steps, folder=None, **options):
    plan = Plan(
        phases=one_phase([Update(trajectory=View(), loss=Photometric())], steps, {"student": Optimiser(lr=0.01)}),
        sampler=GaussianScene().sampler(),
    )
    roles = Roles({"student": Role("student", subject)})
    return Engine(roles, plan, lambda start: batches(pictures, 2, start=start), lens=LENS, folder=folder, **options)


def growing(**options):
    plan = Densify(**{"start": 4, "every": 4, "pull": 1e-9, "small": 0.3, "most": 200, **options})
    return GaussianScene(start=Noise(count=60), densify=plan, degree=1).build()


def moments(run):
    state = run.optimisers["student"].optimizer.state
    return {part: state[value]["exp_avg"] for part, value in run.roles["student"].module.scene.items()}


def test_a_scene_shows_itself_to_the_cameras_of_the_data_or_to_its_own(scene):
    subject = Gaussians(scene(7), Orbit(radius=(2.0, 2.0)))
    data = Orbit().draw(3, 8, 8, Rng(1)).fields()
    assert torch.equal(subject.materialise(Batch(3, cond=data), Rng(0))[VIEW][0], data[VIEW])
    own = subject.materialise(Batch(5), Rng(0))
    assert own[VIEW].shape == (1, 5, 4, 4) and own["means"].shape == (1, 7, 3) and SCREEN not in own


def test_it_is_sampled_as_what_it_is(scene):
    subject = Gaussians(scene(7))
    start = Batch(2, shape=subject.shape).noise(Rng(0))
    said = GaussianScene().sampler().sample(Role("student", subject), start, {}, Rng(0))
    for part in PARTS:
        torch.testing.assert_close(said[part], scene(7)[part].expand(2, *scene(7)[part].shape))


def test_cloning_splitting_and_pruning_say_where_each_comes_from(scene):
    subject, mask = Gaussians(scene(5)), torch.tensor([True, False, False, True, False])
    subject.clone(mask)
    assert len(subject) == 7 and torch.equal(subject.scene["means"][5:], scene(5)["means"][mask])
    subject.split(torch.tensor([False] * 6 + [True]))
    assert len(subject) == 8 and torch.equal(subject.scene["sh0"][6], subject.scene["sh0"][7])
    assert (subject.scene["scales"][6:] < scene(5)["scales"][3]).all()
    subject.prune(torch.tensor([True] + [False] * 7))
    assert subject.carry("network.means", torch.arange(1.0, 6)).tolist() == [2, 3, 4, 5, 0, 0, 0]
    assert subject.shape["means"] == (7, 3)


def test_halves_lie_within_the_gaussian_that_was_split():
    place = {
        part: value.repeat(4000, *[1] * (value.ndim - 1)) for part, value in Noise(count=2).scene(0, Rng(0)).items()
    }
    place["scales"] = torch.tensor([0.5, 0.1, 0.02]).log().repeat(8000, 1)
    place["means"] = torch.zeros(8000, 3)
    subject = Gaussians(place)
    subject.split(torch.ones(8000, dtype=torch.bool))
    torch.testing.assert_close(subject.scene["means"].std(0), torch.tensor([0.5, 0.1, 0.02]), rtol=0.05, atol=0)


def test_the_optimiser_keeps_its_moments_for_those_that_stay(pictures):
    run = engine(growing(start=6, every=6, most=60, faint=1e-9), pictures, 20).run(5)
    subject = run.roles["student"].module
    before, parts = moments(run), {part: value.detach().clone() for part, value in subject.scene.items()}
    mask = torch.zeros(60, dtype=torch.bool)
    mask[[2, 5]] = True
    subject.densify = None
    end = subject.on_step_end
    subject.on_step_end = lambda: (end(), subject.prune(mask))[1] is None
    old = subject.scene["means"]
    run._end_step("student", subject)
    after = moments(run)
    for part in PARTS:
        torch.testing.assert_close(after[part], before[part][~mask])
        torch.testing.assert_close(subject.scene[part].detach(), parts[part][~mask])
    assert subject.scene["means"] is not old and {g["factor"] for g in run.optimisers["student"].param_groups} != {1.0}


def test_a_reset_forgets_the_moments_of_opacities_alone(pictures):
    run = engine(growing(start=99, reset_every=5), pictures, 9).run(5)
    state, scene = run.optimisers["student"].optimizer.state, run.roles["student"].module.scene
    assert scene["opacities"].sigmoid().max() <= 0.0101
    assert not state.get(scene["opacities"]) and state[scene["means"]]["exp_avg"].any()


def test_a_scene_grows_where_it_is_pulled_and_not_beyond_its_most(pictures):
    run = engine(growing(most=90), pictures, 12).run()
    assert len(run.roles["student"].module) == 90
    still = engine(growing(pull=1e9), pictures, 8).run()
    assert len(still.roles["student"].module) == 60


def test_the_pull_is_that_of_places_on_the_screen(pictures):
    subject = growing(start=99)
    run = engine(subject, pictures, 2).run(1)
    pull, seen = (subject.parts.get_buffer(name) for name in ("pull", "seen"))
    assert run.step == 1 and bool(seen.any()) and int(seen.max()) <= 2
    assert bool(((pull > 0) == (seen > 0)).all())


def test_a_run_that_grows_resumes_exactly(pictures, tmp_path):
    whole = engine(growing(), pictures, 12).run().roles["student"].module
    half = engine(growing(), pictures, 12, tmp_path)
    half.run(6)
    saved = half.save()
    assert len(half.roles["student"].module) > 60
    again = engine(growing(), pictures, 12, tmp_path).resume(saved).run().roles["student"].module
    for part in PARTS:
        assert torch.equal(again.scene[part], whole.scene[part]), part


def test_a_scene_that_collapses_stops_the_run_and_keeps_the_last_checkpoint(pictures, tmp_path):
    run = engine(growing(start=6, every=6, faint=0.99), pictures, 20, tmp_path, checkpoint_every=4)
    with pytest.raises(CollapsedError, match=r"stopped at step 5: .*all 120.*the last good checkpoint is .*step-4"):
        run.run()
    fresh = engine(growing(), pictures, 20, tmp_path).resume(tmp_path / "checkpoints" / "step-4")
    assert len(fresh.roles["student"].module) == 60


def test_a_scene_is_fitted_to_views_of_a_mesh_and_survives_its_file(tmp_path):
    """3D Gaussian splatting through the engine: held-out views get better, and a PLY brings the picture back."""
    train, test = (MeshViews(count=n, smooth=1).open(split) for n, split in ((16, "train"), (4, "test")))
    method = GaussianSplatting(
        steps=150, scene={"start": {"name": "noise", "count": 300}, "densify": {"start": 40, "every": 40, "most": 600}}
    )
    subject = method.scene.build()
    lens, roles = Render(size=(32, 32)), Roles({"student": Role("student", subject)})
    held = batches(test, 4)

    def quality():
        batch = next(held)
        with torch.no_grad():
            return float(psnr(lens(subject.materialise(batch, Rng(0))), batch.data).mean())

    before = quality()
    Engine(roles, method.plan(None), lambda start: batches(train, 2, start=start), lens=lens).run()
    assert quality() > before + 5 and len(subject) > 300
    parts = {part: value.detach() for part, value in subject.scene.items()}
    torch.testing.assert_close(lens.shown(read_ply(write_ply(parts, tmp_path / "scene.ply"))), lens.shown(parts))
