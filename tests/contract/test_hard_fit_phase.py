"""A phase that fits instead of training: its artefact belongs to the student, is saved with it and resumed
(D-ODE).
"""

from __future__ import annotations

import pytest
import torch

from distill.core import Batch, Engine, Fit, Optimiser, Phase, Plan, Rng, Role, Roles, Sampler, Update
from distill.core.paths import Karras
from distill.core.sampling import Corrected, Grid, finish, rollout
from distill.core.tree import combine
from distill.methods.losses import Denoise
from distill.methods.toys import ring, rmse
from distill.methods.trajectories import Data

BASE = Sampler(steps=6, grid=Grid(spacing="karras", end=0.0))
FINER = 10


class FitCorrection(Fit):
    """λ_k of `D_k + λ_k (D_k − D_{k−1})` by least squares along a finer roll-out, each from the corrected
    state before.
    """

    def fit(self, batch, ctx, sampler):
        role = ctx.roles["teacher"]
        path = role.denoiser.path
        noise = batch.noise(ctx.rng, "fit/noise")
        times = sampler.grid_for(path)
        fine = sampler.with_steps(FINER * sampler.steps).grid_for(path)
        route = [move.next for move in rollout(role, path.prior(noise), fine)]
        x, factors, before = path.prior(noise), [], None
        for n, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            move = next(rollout(role, x, (t, s), solver=sampler.solver))
            now = move.prediction.x0
            level = sampler.solver.weights(path, times, n).pulls[0]
            change = torch.zeros_like(now) if before is None else level * (now - before)
            wanted = route[_nearest(fine, s) - 1] - move.next
            factors.append(float((change * wanted).sum() / change.square().sum().clamp_min(1e-12)))
            x, before = combine((1.0, move.next), (factors[-1], change)), now
        return sampler.model_copy(update={"solver": Corrected(base=sampler.solver, factors=tuple(factors))})


def _nearest(times, t):
    return min(range(len(times)), key=lambda k: abs(times[k] - t))


def teacher():
    return ring(Karras(t_min=0.006, t_max=20.0), std=0.2)


def engine(folder=None, *more):
    plan = Plan(phases=(Phase(name="calibrate", fit=FitCorrection()), *more), sampler=BASE)
    roles = Roles({name: Role(name, teacher()) for name in ("teacher", "student")})
    return Engine(roles, plan, lambda start: iter(lambda: Batch(256, shape=(2,)), None), folder=folder)


@pytest.fixture(scope="module")
def fitted():
    return engine().run().sampler


def error(sampler):
    """Distance to the end of a roll-out of 400 steps, on noise that the fit has not seen."""
    role, noise = Role("teacher", teacher()), Rng(77).normal(512, 2)
    exact = BASE.with_steps(400).sample(role, noise)
    return rmse(sampler.sample(role, noise), exact)


def test_the_artefact_halves_the_error_on_unseen_noise(fitted):
    assert isinstance(fitted.solver, Corrected) and fitted.solver.factors[0] == 0 and len(fitted.solver.factors) == 6
    assert error(fitted) < 0.5 * error(BASE)


def test_other_factors_of_the_same_size_make_it_worse(fitted):
    turned = tuple(-factor for factor in fitted.solver.factors)
    broken = fitted.model_copy(update={"solver": fitted.solver.model_copy(update={"factors": turned})})
    assert error(broken) > error(BASE)


def test_the_artefact_costs_no_call(fitted):
    assert fitted.calls(teacher().path) == BASE.calls(teacher().path) == 6


def test_the_artefact_survives_a_save_and_a_resume(fitted, tmp_path):
    run = engine(tmp_path).run()
    again = engine(tmp_path).resume(run.last_checkpoint())
    assert again.sampler == run.sampler == fitted
    role, noise = Role("teacher", teacher()), Rng(1).normal(8, 2)
    assert torch.equal(again.sampler.sample(role, noise), fitted.sample(role, noise))
    assert again.run().sampler == fitted


def test_a_run_that_stopped_in_the_phase_after_keeps_it(fitted, tmp_path):
    from distill.methods.networks import MLPDenoiser

    def two_phases():
        updates = (Update(trajectory=Data(), loss=Denoise(role="student")),)
        later = Phase(name="train", steps=4, updates=updates, optimisers={"student": Optimiser()})
        run = engine(tmp_path, later)
        torch.manual_seed(0)
        run.roles.add(Role("student", MLPDenoiser(path="karras", width=8).build()))
        run.data = lambda start: iter(lambda: Batch(256, torch.zeros(256, 2), shape=(2,)), None)
        return run

    stopped = two_phases()
    stopped.run(2)
    again = two_phases().resume(stopped.save())
    assert (again.phase_index, again.phase_step) == (1, 2) and again.run().sampler == stopped.sampler


def test_a_corrected_roll_out_is_what_the_solver_says(fitted):
    """One step by hand: the prediction is pushed along its last change, and the base solver moves the
    state.
    """
    role = Role("teacher", teacher())
    x, times = role.denoiser.path.prior(Rng(3).normal(4, 2)), fitted.grid_for(role.denoiser.path)
    moves = list(rollout(role, x, times, solver=fitted.solver))
    d0, d1 = (move.prediction.x0 for move in moves[:2])
    pushed = d1 + fitted.solver.factors[1] * (d1 - d0)
    expected = role.denoiser.path.jump(moves[1].x, pushed, *(torch.tensor(u).expand(4) for u in times[1:3]))
    torch.testing.assert_close(moves[1].next, expected)
    assert torch.equal(finish(rollout(role, x, times, solver=fitted.solver)), moves[-1].next)
