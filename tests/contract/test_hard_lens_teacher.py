"""An image teacher teaches a student of clips: a lens shows frames, and conditions follow it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.core import (
    Context,
    Denoiser,
    Engine,
    Lens,
    Method,
    Mixture,
    Optimiser,
    Plan,
    Rng,
    Role,
    RoleSpec,
    Samples,
    Update,
    assemble,
    batches,
)  # fmt: skip
from distill.core.paths import Flow
from distill.core.plan import one_phase
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.networks import MLPDenoiser
from distill.methods.trajectories import Generate

FRAMES, SIZE = 3, 2
MEANS = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])


class Frames(Lens):
    """Clips [B, 3, 2] as images [3 B, 2]; each frame has its clip's conditions."""

    def __call__(self, state):
        return state.flatten(0, 1)

    def conditions(self, cond, state):
        return {name: value.repeat_interleave(state.shape[1], 0) for name, value in cond.items()}


class Clip(nn.Module):
    """A perceptron over all frames at once."""

    def __init__(self):
        super().__init__()
        self.label = nn.Embedding(3, 8)
        self.layers = nn.Sequential(nn.Linear(FRAMES * SIZE + 9, 64), nn.SiLU(), nn.Linear(64, FRAMES * SIZE))

    def forward(self, x, t, cond):
        features = torch.cat([x.flatten(1), self.label(cond["label"]), t[:, None] / 1000], 1)
        return self.layers(features).view_as(x)


class FromImages(Method):
    """Distribution matching of single frames; the critic is an image network."""

    def roles(self):
        return {"critic": RoleSpec(build=MLPDenoiser(shape=(SIZE,), classes=2, width=64))}

    def plan(self, teacher):
        updates = [
            Update(trajectory=Generate(), loss=ScoreDifference(units="x0"), every=2),
            Update(trajectory=Generate(), loss=Denoise(view="x0")),
        ]
        optimisers = {"student": Optimiser(lr=3e-3, schedule="cosine"), "critic": Optimiser(lr=4e-3)}
        return Plan(phases=one_phase(updates, self.steps, optimisers))


@pytest.fixture(scope="module")
def image_teacher():
    """Class 0 lies at +1, class 1 at −1."""
    return Mixture(MEANS, 0.2, Flow(), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))


def clip_student():
    torch.manual_seed(0)
    return Denoiser(Clip(), Flow(), "x0", shape=(FRAMES, SIZE), null={"label": 2})


def engine(teacher, steps):
    method = FromImages(steps=steps)
    roles = assemble(method, {"teacher": Role("teacher", teacher), "student": Role("student", clip_student())})
    data = Samples(label=torch.arange(64) % 2)
    source = lambda start: batches(data, 64, start=start, shape=(FRAMES, SIZE))  # noqa: E731
    return Engine(roles, method.plan(None), source, lens=Frames())


def test_the_event_is_in_the_teachers_modality(image_teacher):
    run = engine(image_teacher, 1)
    batch = next(run.data(0))
    event = next(Generate().events(batch, run.ctx, attached=True))
    assert event.x.shape == (64 * FRAMES, SIZE) and event.x_t.shape == (64, FRAMES, SIZE)
    assert torch.equal(event.cond["label"].view(64, FRAMES), batch.cond["label"][:, None].expand(-1, FRAMES))


def test_gradient_goes_back_through_the_lens_to_every_frame(image_teacher):
    """By the chain rule: the gradient of the clip is the score difference of each of its frames, seen
    alone.
    """
    run = engine(image_teacher, 1)
    event = next(Generate().events(next(run.data(0)), run.ctx, attached=True))
    clip = event.prediction.x0
    loss = ScoreDifference(units="x0")
    grad = torch.autograd.grad(loss.terms(event, run.ctx)["score_difference"].sum(), clip)[0]
    twin, rng = Context(run.roles, Rng(0)), Rng(0)
    t = loss.times.draw(image_teacher.path, 64 * FRAMES, rng, "score/time")
    x_t = image_teacher.path.noised(event.x, rng.normal(64 * FRAMES, SIZE, stream="score/noise"), t)
    fake, real = (twin.roles[name].ask(x_t, t, event.cond).x0 for name in ("critic", "teacher"))
    torch.testing.assert_close(grad, ((fake - real) / SIZE).view_as(clip))


def test_the_clips_frames_become_the_teachers_images(image_teacher):
    run = engine(image_teacher, 300).run()
    label = torch.arange(512) % 2
    clips = run.roles["student"].ask(Rng(9).normal(512, FRAMES, SIZE), 1.0, {"label": label}).x0
    for name, mean in enumerate(MEANS):
        found = clips[label == name].flatten(0, 1)
        assert (found.mean(0) - mean).abs().max() < 0.1 and found.std(0).mean() == pytest.approx(0.2, abs=0.1)


def test_without_a_lens_conditions_stay(image_teacher):
    cond = {"label": torch.zeros(2)}
    assert Context({}, Rng(0)).conditions(cond, torch.zeros(2, 3)) is cond
