"""SFD: one optimiser step per roll-out step, own starts, the teacher's route kept, a free first step."""

import copy

import pytest
import torch

from distill.core import Batch, Context, Engine, Rng, Role, Roles, Sampler, assemble, batches, rollout
from distill.core.paths import Karras
from distill.core.sampling import DPM, Heun
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.sfd import SFD, RouteMatch
from distill.methods.teacher_paths import TeacherRoute

RANGE = {"t_min": 0.006, "t_max": 20.0}
PATH = Karras(**RANGE)


def network():
    torch.manual_seed(0)
    return MLPDenoiser(path="karras", path_options=RANGE, sigma_data=0.7, width=16).build()


def setting(seed=0):
    roles = Roles({"teacher": Role("teacher", toys.ring(PATH)), "student": Role("student", network())})
    return Context(roles, Rng(seed)), Batch(16, shape=(2,))


def changes_per_rollout(**options):
    """How often the student's weights change during one roll-out."""
    method = SFD(steps=1, solver=Heun(), lr=1e-3, **options)
    roles = assemble(method, {"teacher": Role("teacher", toys.ring(PATH)), "student": Role("student", network())})
    weight, seen = next(roles["student"].module.parameters()), set()
    roles["student"].denoiser.network.register_forward_pre_hook(lambda *_: seen.add(float(weight.sum().detach())))
    Engine(roles, method.plan(Sampler()), lambda start: batches(None, 8, start=start, shape=(2,))).run()
    return len(seen | {float(weight.sum().detach())}) - 1


@pytest.mark.parametrize(("options", "times"), [({"counts": (4,)}, 3), ({"counts": (3,), "free_first": False}, 3)])
def test_the_optimiser_steps_at_every_trained_step_of_a_rollout(options, times) -> None:
    assert changes_per_rollout(**options) == times


def test_no_gradient_runs_from_one_step_into_the_next() -> None:
    ctx, batch = setting()
    for event in TeacherRoute(steps=(4,), solver=Heun()).events(batch, ctx, attached=True):
        assert not event.x_t.requires_grad
        assert event.x.requires_grad


def test_targets_stay_on_the_teachers_route_from_the_same_noise() -> None:
    ctx, batch = setting()
    route = TeacherRoute(steps=(3,), refine=4, solver=DPM(order=3))
    fine = route.grid.times(PATH, 12)
    start = PATH.prior(batch.noise(Rng(0), "route/noise"), fine[0])
    states = [move.next for move in rollout(ctx.roles["teacher"], start, fine, solver=DPM(order=3))]
    events = list(route.events(batch, ctx, attached=False))
    assert [event.meta["step"] for event in events] == [1, 2]
    for event in events:
        assert torch.equal(event.targets["x"], states[4 * event.meta["step"] + 3])


def test_the_student_goes_on_from_its_own_state_of_before_the_update() -> None:
    ctx, batch = setting()
    events = TeacherRoute(steps=(4,), solver=Heun()).events(batch, ctx, attached=True)
    first = next(events)
    with torch.no_grad():
        for parameter in ctx.roles["student"].parameters():
            parameter.add_(1.0)
    second = next(events)
    assert torch.equal(second.x_t, first.x.detach())
    assert not torch.equal(second.x, copy.deepcopy(second.targets["x"]))


def test_the_free_step_costs_no_call() -> None:
    calls = []
    student = network()
    student.network.register_forward_hook(lambda *_: calls.append(1))
    sampler = SFD(counts=(3,)).plan(Sampler()).sampler
    sampler.sample(Role("s", student), torch.randn(2, 2, generator=torch.Generator().manual_seed(0)))
    assert len(calls) == sampler.calls(PATH) == 2


def test_the_loss_sums_over_a_samples_values() -> None:
    ctx, batch = setting()
    event = next(TeacherRoute(solver=Heun()).events(batch, ctx, attached=True))
    torch.testing.assert_close(RouteMatch().terms(event, ctx)["l1"], (event.x - event.targets["x"]).abs().sum(1))


def test_one_student_for_several_numbers_of_steps_gets_the_number() -> None:
    method = SFD(counts=(3, 4, 5), steps=6, solver=Heun(), lr=1e-3)
    engine = toys.train(method, {"teacher": network()}, size=8)
    assert engine.sampler.scalars == {"steps": 3.0}
    assert engine.roles["student"].denoiser.scalars["steps"].out.bias.any()
