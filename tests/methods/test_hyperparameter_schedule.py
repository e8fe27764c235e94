"""Cut schedules: the published grids of Stable Diffusion's table, and a last state in the amplitude of data."""

import pytest
import torch

from distill.core import DistillError, Rng, Role, Sampler
from distill.core.paths import Discrete, Flow, Karras
from distill.methods import toys
from distill.methods.papers.hyperparameter_schedule import HyperparameterSchedule
from distill.methods.schedules import CutSteps, between, inverse

PATH = Discrete.scaled_linear()
GRIDS = [
    ({}, (999, 772.5, 556.7, 354.2, 170.0, 18.3), 0.1320),
    ({"moves": 6}, (999, 809.6, 627.3, 453.5, 290.4, 141.7, 18.3), 0.1320),
    ({"moves": 4, "cut": 5}, (999, 760.7, 534.4, 323.4, 134.0), None),
    (
        {"moves": 8, "rho": 7, "points": 12, "cut": 8},
        (999, 868.5, 741.1, 617.3, 497.6, 382.5, 272.9, 170.4, 77.6),
        0.2926,
    ),
    (
        {"moves": 8, "rho": 7, "points": 12, "cut": 9},
        (999, 857.3, 719.4, 585.9, 457.2, 334.3, 218.7, 112.7, 22.7),
        0.1472,
    ),
]


def fitted(**options) -> Sampler:
    method = HyperparameterSchedule(schedule=CutSteps(**options))
    return toys.train(method, {"teacher": toys.ring(PATH)}, size=1).sampler


@pytest.mark.parametrize("options, steps, end", GRIDS)
def test_grids_are_the_published_ones(options, steps, end) -> None:
    times = torch.tensor(CutSteps(**options).times(PATH), dtype=torch.float64)
    assert (times * 1000 - 1).tolist() == pytest.approx(steps, abs=0.1)
    level = float(PATH.sigma(times[-1]) / PATH.alpha(times[-1]))
    assert end is None or level == pytest.approx(end, rel=1e-3)


def test_the_solver_follows_the_number_of_steps() -> None:
    assert fitted().solver.base.name == "ddim"
    assert fitted(moves=8, rho=7, points=12, cut=9).solver.base.order == 2


def test_the_end_keeps_its_noise_in_the_amplitude_of_data() -> None:
    """With an exact x0 the last state is x0 + σ/α ε."""
    role, sampler = Role("t", toys.ring(PATH)), fitted()
    move = list(sampler.walk(role, Rng(0).normal(8, 2)))[-1]
    end = torch.tensor(sampler.end, dtype=torch.float64)
    level = float(PATH.sigma(end) / PATH.alpha(end))
    torch.testing.assert_close(move.next, move.prediction.x0 + level * move.prediction.eps, atol=1e-5, rtol=1e-5)


def test_five_steps_are_five_calls_and_their_times_are_saved() -> None:
    sampler = fitted()
    assert sampler.calls(PATH) == 5 and sampler.grid_for(PATH)[-1] == sampler.end > 0
    assert Sampler.model_validate_json(sampler.model_dump_json()) == sampler


def test_guidance_is_the_teachers_unless_another_is_given() -> None:
    teacher = Sampler(guidance=3.0)
    assert HyperparameterSchedule().plan(teacher).sampler.guidance == 3
    assert HyperparameterSchedule(guidance=5).plan(teacher).sampler.guidance == 5


@pytest.mark.parametrize("path, options", [(Flow(), {}), (Karras(), {}), (PATH, {"cut": 8})])
def test_paths_and_cuts_without_such_a_schedule_are_refused(path, options) -> None:
    with pytest.raises(DistillError, match="cut schedule"):
        CutSteps(**options).times(path)


def test_spacing_and_inverse() -> None:
    assert between(9.0, 1.0, 0.5, 2.0) == pytest.approx(4.0)
    assert inverse(lambda t: float(t) ** 2, 0.25, Flow()) == pytest.approx(0.5)
