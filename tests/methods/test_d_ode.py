"""D-ODE: closed-form factors against a slow twin, and what the fitted sampler is bound to."""

import pytest
import torch

from distill.core import Batch, Context, DistillError, Rng, Role, Roles, Sampler
from distill.core.paths import Karras
from distill.core.sampling import DPM, Consistency, Corrected, Grid, Heun
from distill.methods import toys
from distill.methods.papers.d_ode import DODE, FitCorrections

PATH = Karras(t_min=0.006, t_max=20)
PLAIN = Sampler(steps=4, grid=Grid(spacing="karras"))


def fitted(sampler=PLAIN, size=100, **options):
    return toys.train(DODE(sampler=sampler, **options), {"teacher": toys.ring(PATH)}, size=size).sampler


def twin(size=100):
    """Euler in σ, written out: factors and end points."""
    law, x = toys.ring(PATH), 20 * Rng(0).normal(size, 2, stream="fit/noise")
    times = torch.tensor(Grid(spacing="karras").times(PATH, 40), dtype=torch.float32)
    route = [x]
    for t, s in zip(times[:-1], times[1:], strict=True):
        route.append(route[-1] + (s - t) / t * (route[-1] - law.predict(route[-1], float(t)).x0))
    factors, before = [], None
    for k in range(4):
        t, s = times[10 * k], times[10 * k + 10]
        said = law.predict(x, float(t)).x0
        x = x + (s - t) / t * (x - said)
        if before is not None:
            change = (1 - s / t) * (said - before)
            factor = float((change * (route[10 * k + 10] - x)).sum() / change.square().sum())
            factors.append(factor)
            x = x + factor * change
        before = said
    return factors, x


def test_factors_are_the_slow_twins() -> None:
    assert fitted().solver.factors[0] == 0
    assert fitted().solver.factors[1:] == pytest.approx(twin()[0], rel=1e-3)


def test_the_fitted_sampler_walks_the_corrected_route() -> None:
    noise = Rng(0).normal(100, 2, stream="fit/noise")
    end = fitted().sample(Role("t", toys.ring(PATH)), noise)
    torch.testing.assert_close(end, twin()[1], atol=1e-4, rtol=1e-4)


def test_held_out_error_is_halved_for_a_multistep_base_too() -> None:
    role, base = Role("t", toys.ring(PATH)), PLAIN.model_copy(update={"solver": DPM(order=2)})
    truth = toys.draw(role, Sampler(steps=200, grid=PLAIN.grid, solver=Heun()), 1000, 9)
    errors = [toys.rmse(toys.draw(role, sampler, 1000, 9), truth) for sampler in (base, fitted(base))]
    assert errors[1] < 0.7 * errors[0]


def test_factors_belong_to_one_number_of_steps() -> None:
    with pytest.raises(DistillError, match="fitted for 4 steps"):
        fitted().with_steps(8).sample(Role("t", toys.ring(PATH)), torch.zeros(1, 2))


@pytest.mark.parametrize("odd", [{"solver": Consistency()}, {"grid": Grid(end=0.0)}, {"times": (2.0, 1.0)}])
def test_samplers_that_cannot_be_refined_are_refused(odd) -> None:
    ctx = Context(Roles({"student": Role("student", toys.ring(PATH))}), Rng(0))
    with pytest.raises(DistillError, match="ddim and dpm"):
        FitCorrections().fit(Batch(4, shape=(2,)), ctx, PLAIN.model_copy(update=odd))


def test_the_artefact_survives_json() -> None:
    sampler = fitted(size=20)
    assert Sampler.model_validate_json(sampler.model_dump_json()) == sampler
    assert isinstance(sampler.solver, Corrected)


def test_the_network_is_the_teachers_and_costs_no_more_calls() -> None:
    engine = toys.train(DODE(sampler=PLAIN), {"teacher": toys.ring(PATH)}, size=20)
    assert engine.roles["student"].module is engine.roles["teacher"].module
    assert engine.sampler.calls(PATH) == PLAIN.calls(PATH) == 4
