"""No student network: 2-D Gaussians moved through a renderer by an image teacher (score distillation, CFD,
DSD).
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from distill.core import (
    Batch,
    Engine,
    Lens,
    Loss,
    Mixture,
    Optimiser,
    Plan,
    Rng,
    Role,
    Roles,
    Subject,
    Update,
)  # fmt: skip
from distill.core.paths import Flow
from distill.core.plan import one_phase
from distill.methods.losses import ScoreDifference, surrogate
from distill.methods.times import UniformTimes
from distill.methods.trajectories import View

PIXELS = 12


class Splats(Lens):
    """Renders Gaussians of one width to images [B, 12, 12]: `Σ_i colour_i exp(−|pixel − place_i|² / 2w²)`."""

    width: float = 0.15
    """Standard deviation in units of half an image."""

    def __call__(self, state):
        axis = torch.linspace(-1, 1, PIXELS)
        pixels = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).flatten(0, 1)
        square = (state["place"][:, None] - pixels[None, :, None]).square().sum(-1)
        image = (state["colour"][:, None] * (-square / (2 * self.width**2)).exp()).sum(-1)
        return image.unflatten(1, (PIXELS, PIXELS))


class Gaussians(Subject):
    """Places and colours, and the noise that belongs to them (one seed gives one object)."""

    def __init__(self, place, colour, seed=0):
        super().__init__()
        self.place, self.colour = nn.Parameter(place), nn.Parameter(colour)
        self.register_buffer("noise", Rng(seed).normal(1, PIXELS, PIXELS))
        self.register_buffer("steps", torch.zeros(()))

    def materialise(self, batch, rng):
        return {
            "place": self.place[None].expand(batch.size, -1, -1),
            "colour": self.colour[None].expand(batch.size, -1),
        }


class Splitting(Gaussians):
    """Gaussians of which the brightest becomes two, once."""

    def on_step_end(self):
        self.steps += 1
        if self.steps != 5:
            return False
        brightest = int(self.colour.argmax())
        self.place = nn.Parameter(torch.cat([self.place.data, self.place.data[brightest, None] + 0.05]))
        self.colour = nn.Parameter(torch.cat([self.colour.data, self.colour.data[brightest, None] / 2]))
        return True


class CleanFlow(Loss):
    """The score difference against one noise that stays with the subject, at times that fall: a diffusion
    ODE (CFD).
    """

    def terms(self, event, ctx):
        teacher = ctx.roles["teacher"]
        noise = ctx.roles["student"].module.noise.expand_as(event.x)
        t = torch.full((len(event.x),), 0.97 - 0.9 * ctx.progress)
        said = teacher.ask(teacher.denoiser.path.noised(event.x.detach(), noise, t), t)
        return {"clean_flow": surrogate(event.x, event.x.detach() - said.x0)}


SCENES = [
    {"place": torch.tensor([[-0.5, -0.5], [0.5, 0.5]]), "colour": torch.tensor([1.0, 1.0])},
    {"place": torch.tensor([[-0.5, 0.5], [0.5, -0.5]]), "colour": torch.tensor([1.0, 1.0])},
]


@pytest.fixture(scope="module")
def teacher():
    """The exact denoiser of two scenes, seen as images."""
    images = torch.cat([Splats()({k: v[None] for k, v in scene.items()}) for scene in SCENES])
    return Mixture(images, 0.05, Flow())


def gaussians(kind=Gaussians, seed=0):
    place = torch.tensor([[-0.35, -0.3], [0.3, 0.35]]) + 0.02 * Rng(seed).normal(2, 2)
    return kind(place, torch.full((2,), 0.6), seed)


def engine_for(subject, teacher, steps, loss, folder=None):
    updates = [Update(trajectory=View(), loss=loss)]
    plan = Plan(phases=one_phase(updates, steps, {"student": Optimiser(lr=0.02, schedule="cosine")}))
    roles = Roles({"student": Role("student", subject), "teacher": Role("teacher", teacher)})
    return Engine(roles, plan, lambda start: iter(lambda: Batch(4), None), lens=Splats(), folder=folder)


def run(subject, teacher, steps, loss):
    return engine_for(subject, teacher, steps, loss).run()


def shown(subject):
    return Splats()(subject.materialise(Batch(1), Rng(0))).detach()[0]


SDS = ScoreDifference(critic="", units="x0", times=UniformTimes(low=0.1, high=0.7))


def test_the_renderer_is_moved_by_the_vector_jacobian_product_of_the_score_difference(teacher):
    subject = gaussians()
    engine = run(subject, teacher, 0, SDS)
    event = next(View().events(Batch(1), engine.ctx, attached=True))
    SDS.terms(event, engine.ctx)["score_difference"].sum().backward()
    rng, path = Rng(0), teacher.path
    t = SDS.times.draw(path, 1, rng, "score/time")
    residual = (
        event.x - teacher.predict(path.noised(event.x, rng.normal(1, PIXELS, PIXELS, stream="score/noise"), t), t).x0
    )
    twin = gaussians()
    by_hand = torch.autograd.grad(
        Splats()(twin.materialise(Batch(1), rng)),
        [twin.place, twin.colour],
        residual.detach() / residual.numel(),
    )
    torch.testing.assert_close([subject.place.grad, subject.colour.grad], list(by_hand))


def test_a_score_difference_moves_the_gaussians_to_a_scene_of_the_teacher(teacher):
    subject = gaussians()
    before = (shown(subject) - teacher.means[0]).square().mean()
    run(subject, teacher, 150, SDS)
    after = (shown(subject) - teacher.means[0]).square().mean()
    assert after < 0.02 * before
    assert (subject.place - SCENES[0]["place"]).abs().max() < 0.05


def test_the_noise_of_the_subject_decides_the_scene(teacher):
    """From one symmetric start, each seed ends in the scene that the teacher's own ODE finds from that
    noise (CFD).
    """
    found, expected = [], []
    for seed in range(6):
        corners = torch.cat([scene["place"] for scene in SCENES])
        subject = Gaussians(0.9 * corners, torch.full((4,), 0.5), seed)
        run(subject, teacher, 150, CleanFlow())
        found.append(int((teacher.means - shown(subject)).square().mean((1, 2)).argmin()))
        walk = subject.noise
        times = torch.linspace(1, 0, 41)
        for t, s in zip(times[:-1], times[1:], strict=True):
            walk = teacher.path.jump(walk, teacher.predict(walk, float(t)).x0, t, s)
        expected.append(int((teacher.means - walk).square().mean((1, 2)).argmin()))
    assert found == expected and set(found) == {0, 1}


class Remembering(Splitting):
    """The same, and what its optimiser knew of those that stay is not lost; places move at half the pace."""

    rates: ClassVar[dict[str, float]] = {"place": 0.5}

    def carry(self, name, value):
        return torch.cat([value, torch.zeros_like(value[:1])])


def test_an_optimiser_remembers_what_a_subject_carries_over(teacher):
    kept, lost = (engine_for(gaussians(kind), teacher, 30, SDS).run(5) for kind in (Remembering, Splitting))
    first = {group["factor"]: state for group in kept.optimisers["student"].param_groups for state in [
        kept.optimisers["student"].optimizer.state[group["params"][0]]
    ]}  # fmt: skip
    assert set(first) == {0.5, 1.0} and first[0.5]["exp_avg"].shape == (3, 2)
    assert first[0.5]["exp_avg"][:2].all() and not first[0.5]["exp_avg"][2].any() and float(first[1.0]["step"]) == 5
    assert not lost.optimisers["student"].optimizer.state
    assert kept.run(5).step == 10


def test_gaussians_may_split_between_two_steps_and_the_run_resumes(teacher, tmp_path):
    whole = engine_for(gaussians(Splitting), teacher, 30, SDS).run().roles["student"].module
    half = engine_for(gaussians(Splitting), teacher, 30, SDS, tmp_path)
    half.run(15)
    saved = half.save()
    born = half.roles["student"].module.place.detach().clone()
    again = engine_for(gaussians(Splitting), teacher, 30, SDS, tmp_path).resume(saved).run().roles["student"].module
    assert len(born) == 3 and (again.place - born).abs().amax(1).min() > 0.01
    assert torch.equal(again.place, whole.place) and torch.equal(again.colour, whole.colour)
