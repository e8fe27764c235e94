"""Two modalities in one state, each with a path, a time and a grid of its own: pictures [2, 2] and sounds
[5].
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.core import (
    Denoiser,
    Engine,
    Event,
    Optimiser,
    Plan,
    Prediction,
    Rng,
    Role,
    Roles,
    Sampler,
    Trajectory,
    Update,
    batches,
    tree,
)  # fmt: skip
from distill.core.paths import Cosine, Flow, Joint, Karras
from distill.core.plan import one_phase
from distill.core.sampling import DPM, finish, rollout
from distill.methods.losses import Denoise, Match
from distill.methods.trajectories import Data

SHAPES = {"picture": (2, 2), "sound": (5,)}
PATH = Joint(paths={"picture": Cosine(t_min=0.01, t_max=0.98), "sound": Karras(t_min=0.02, t_max=10.0)})


class Both(nn.Module):
    """A perceptron over both modalities, and the native time of each."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(11, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 9))

    def forward(self, x, t, cond):
        scaled = x["sound"] / (1 + torch.exp(8 * t["sound"])).sqrt()[:, None]  # Karras' native time is ln σ / 4
        times = torch.stack([t["picture"] / 1000, t["sound"]], 1)
        said = self.layers(torch.cat([x["picture"].flatten(1), scaled, times], 1))
        return {"picture": said[:, :4].view_as(x["picture"]), "sound": said[:, 4:]}


class Apart(Trajectory):
    """Data noised to a time for each modality."""

    def events(self, batch, ctx, *, attached):
        u = {key: ctx.rng.uniform(batch.size, stream=f"time/{key}") ** 2 for key in PATH.paths}
        t = {key: path.t_min + (path.t_max - path.t_min) * u[key] for key, path in PATH.paths.items()}
        noise = batch.noise(ctx.rng, "joint/noise")
        x_t = PATH.noised(batch.x, noise, t)
        prediction = ctx.roles["student"].predict(x_t, t)
        yield Event(batch.x, t=t, x_t=x_t, noise=noise, prediction=prediction, targets={"x0": batch.x})


def denoiser():
    torch.manual_seed(0)
    return Denoiser(Both(), PATH, "x0", shape=SHAPES)


class Scenes(torch.utils.data.Dataset):
    """A sign decides both what is seen and what is heard, so that one tells the other."""

    def __len__(self):
        return 512

    def __getitem__(self, row):
        sign, rng = 2.0 * (row % 2) - 1, Rng(row)
        x = {key: sign + 0.1 * rng.normal(*shape, stream=key) for key, shape in SHAPES.items()}
        return {"x": x}


def run(trajectory, loss, steps, student, on_step=None):
    plan = Plan(
        phases=one_phase(
            [Update(trajectory=trajectory, loss=loss)],
            steps,
            {"student": Optimiser(lr=5e-3, schedule="cosine")},
        )
    )
    roles = Roles({"student": Role("student", student)})
    return Engine(roles, plan, lambda start: batches(Scenes(), 128, start=start), on_step=on_step).run()


@pytest.fixture(scope="module")
def trained():
    return run(Apart(), Match(), 200, denoiser()).roles["student"]


@pytest.fixture
def noised():
    x = next(batches(Scenes(), 6)).x
    t = {
        "picture": torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.2]),
        "sound": torch.tensor([5.0, 0.1, 3.0, 1.0, 0.5, 9.0]),
    }
    noise = Rng(1).normal_like(x)
    return x, noise, t, PATH.noised(x, noise, t)


def assert_same(a, b, **options):
    for key in SHAPES:
        torch.testing.assert_close(a[key], b[key], **options)


@pytest.mark.parametrize("key", SHAPES)
def test_each_modality_is_noised_by_its_own_path(noised, key):
    x, noise, t, x_t = noised
    torch.testing.assert_close(x_t[key], PATH.paths[key].noised(x[key], noise[key], t[key]))


@pytest.mark.parametrize("kind", ["x0", "eps", "v", "velocity"])
def test_every_view_leads_back_to_the_state(noised, kind):
    x, noise, t, x_t = noised
    truth = Prediction("x0", x, x_t, t, PATH)
    back = Prediction(kind, getattr(truth, kind), x_t, t, PATH)
    assert_same(back.x0, x, atol=1e-4, rtol=1e-3)
    assert_same(back.eps, noise, atol=1e-3, rtol=1e-3)


def test_a_jump_to_the_same_time_is_the_identity_in_one_modality_alone(noised):
    x, _, t, x_t = noised
    moved = PATH.jump(x_t, x, t, {**t, "sound": t["sound"] / 2})
    assert torch.equal(moved["picture"], x_t["picture"]) and not torch.equal(moved["sound"], x_t["sound"])


def test_the_weight_of_a_level_is_that_of_each_modality(noised):
    x, _, t, x_t = noised
    said = Prediction("x0", tree.tree_map(lambda v: v + 1, x), x_t, t, PATH)
    ours = Match(level="snr").terms(Event(x, prediction=said, targets={"x0": x}), None)["match"]
    snr = {key: (path.alpha(t[key]) / path.sigma(t[key])) ** 2 for key, path in PATH.paths.items()}
    torch.testing.assert_close(ours, (4 * snr["picture"] + 5 * snr["sound"]) / 9)


def test_a_loss_with_one_time_for_all_trains_it_too():
    path = Joint(paths={"picture": Cosine(t_min=0.01), "sound": Flow(t_min=0.01)})
    torch.manual_seed(0)
    notes, loss = [], Denoise(role="student")
    student = Denoiser(Both(), path, "x0", shape=SHAPES)
    run(Data(), loss, 40, student, lambda _, metrics: notes.append(metrics["denoise_student"]))
    assert notes[-1] < 0.7 * notes[0]


def test_one_modality_tells_the_other(trained):
    """The sound is almost lost, the picture is clear: what is expected of the sound follows the picture."""
    x = next(batches(Scenes(), 128)).x
    t = {"picture": torch.full((128,), 0.05), "sound": torch.full((128,), 9.0)}
    said = trained.ask(PATH.noised(x, Rng(3).normal_like(x), t), t).x0
    assert (said["sound"].mean(1).sign() == x["sound"].mean(1).sign()).float().mean() > 0.97


@pytest.mark.parametrize("solver", [None, DPM()], ids=["ddim", "dpm"])
def test_a_roll_out_walks_each_modality_down_its_own_grid(trained, solver):
    sampler = Sampler(steps=12, **({"solver": solver} if solver else {}))
    grid = sampler.grid_for(PATH)
    assert grid[0] == {"picture": pytest.approx(0.98), "sound": pytest.approx(10.0)} and len(grid) == 13
    noise = {key: Rng(5).normal(256, *shape, stream=key) for key, shape in SHAPES.items()}
    x = sampler.sample(trained, noise)
    agree = (x["picture"].mean((1, 2)).sign() == x["sound"].mean(1).sign()).float().mean()
    assert agree > 0.95 and (x["sound"].abs() - 1).abs().mean() < 0.3


def test_a_modality_alone_moves_as_if_the_other_were_not_there(noised):
    """One step of the joint roll-out against the step of a single path, for an x0 that is given."""
    x, _, _, x_t = noised

    class Known(nn.Module):
        def forward(self, state, t, cond):
            return x

    role = Role("teacher", Denoiser(Known(), PATH, "x0", shape=SHAPES))
    times = ({"picture": 0.6, "sound": 4.0}, {"picture": 0.2, "sound": 1.0})
    joint = finish(rollout(role, x_t, times))
    for key, path in PATH.paths.items():
        t, s = (torch.full((6,), u[key]) for u in times)
        torch.testing.assert_close(joint[key], path.jump(x_t[key], x[key], t, s))


def test_samples_of_two_modalities_are_collated():
    batch = next(batches(Scenes(), 4))
    assert {key: tuple(value.shape) for key, value in batch.x.items()} == {
        "picture": (4, 2, 2),
        "sound": (4, 5),
    }
