"""TBCM: the route that is harvested, what of it is kept, and that no data are asked for."""

import math

import pytest
import torch

from distill.core import Batch, Context, Denoiser, Rng, Role, Roles, Sampler
from distill.core.paths import Trigonometric
from distill.methods import toys
from distill.methods.claims.tbcm import route_gap
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.tbcm import TBCM
from distill.methods.teacher_paths import Harvest

PATH = Trigonometric(sigma_data=0.5)
LAW = toys.ring(PATH, radius=0.7, std=0.06)


def setting(teacher=LAW):
    return Context(Roles({"teacher": Role("teacher", teacher), "student": Role("student", teacher)}), Rng(0))


def event_of(ctx, batch=None, **options) -> object:
    return next(Harvest(**options).events(batch or Batch(6, shape=(2,)), ctx, attached=False))


def test_the_route_ends_where_the_teachers_sampler_ends() -> None:
    assert route_gap(Role("teacher", LAW), 0) <= 1e-5


def test_all_points_but_the_noise_are_kept_with_the_teachers_velocity() -> None:
    ctx = setting()
    event = event_of(ctx, points=16)
    assert event.x_t.shape == (15 * 6, 2) and event.t.shape == (15 * 6,)
    assert float(event.t.max()) < math.pi / 2
    said = ctx.roles["teacher"].ask(event.x_t, event.t).velocity
    torch.testing.assert_close(event.targets["velocity"], said, atol=1e-5, rtol=1e-4)


def test_one_exact_rotation_leads_from_a_point_to_the_next() -> None:
    event = event_of(setting(), points=4)
    x, t, v = (part.view(3, 6, *part.shape[1:]) for part in (event.x_t, event.t, event.targets["velocity"]))
    step = (t[0] - t[1])[:, None]
    torch.testing.assert_close(step.cos() * x[0] - step.sin() * v[0], x[1], atol=1e-5, rtol=1e-4)


def test_times_fall_one_in_each_interval_and_move_with_every_iteration() -> None:
    ctx, harvest = setting(), Harvest(points=8, shift=2.5)
    routes = torch.tensor([harvest.times(ctx) for _ in range(50)], dtype=torch.float64)
    edges = torch.linspace(1, 0, 8, dtype=torch.float64)
    edges = torch.atan2(2.5 * edges, 1 - edges)
    assert torch.all(routes[:, 0] == math.pi / 2) and torch.all(routes[:, -1] == 0)
    assert torch.all(routes[:, 1:-1] <= edges[:-1]) and torch.all(routes[:, 1:-1] >= edges[1:])
    assert float(routes[:, 1:-1].std(0).min()) > 0


def test_each_sample_keeps_its_guidance_along_the_route_and_the_student_gets_it() -> None:
    torch.manual_seed(0)
    teacher = MLPDenoiser(path="trigonometric", kind="velocity", width=8, classes=2).build()
    teacher.add_scalar("w")
    batch = Batch(6, None, {"label": torch.arange(6) % 2}, (2,))
    event = event_of(setting(teacher), batch, points=4, guidance=(4.0, 4.5, 5.0))
    w = event.scalars["w"].view(3, 6)
    assert torch.equal(w[0], w[2]) and set(w[0].tolist()) <= {4.0, 4.5, 5.0}
    assert torch.equal(event.cond["label"].view(3, 6)[2], batch.cond["label"])


def test_routes_that_end_near_an_empty_sample_are_dropped() -> None:
    still = Denoiser(torch.nn.Identity(), PATH, "x0", shape=(2,))
    still._call = lambda x, t, cond, cache: (torch.zeros_like(x), None)
    assert event_of(setting(still), points=4, blank=0.0).weight.tolist() == [0.0] * 18
    assert event_of(setting(still), points=4, blank=2.0).weight.tolist() == [1.0] * 18


@pytest.mark.parametrize("derivative", ["exact", "difference"])
def test_training_needs_no_data(derivative) -> None:
    student = MLPDenoiser(path="trigonometric", path_options={"sigma_data": 0.5}, kind="velocity", width=8).build()
    method = TBCM(steps=2, points=4, derivative=derivative)
    engine = toys.train(method, {"teacher": LAW, "student": student}, data=None, size=4)
    assert engine.step == 2 and engine.sampler.times == (math.pi / 2, 1.0)


def test_guidance_weights_become_an_input_of_the_student() -> None:
    method = TBCM(guidance=(4.0, 4.5, 5.0))
    assert method.roles()["student"].transforms[0].scalar == "w"
    assert method.plan(Sampler()).sampler.scalars == {"w": 4.5}
