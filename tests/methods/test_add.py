"""ADD: noise alone at the last time, heads on frozen features, a detached target."""

from __future__ import annotations

import copy

import pytest
import torch

from distill.core import Batch, Context, Denoiser, Rng, Role, Roles, Sampler, Samples, assemble
from distill.core.errors import RecipeError
from distill.core.paths import Discrete, Flow
from distill.methods import digits, toys
from distill.methods.losses import AdversarialGenerator, TeacherTarget
from distill.methods.networks import MLPDenoiser, ProjectionHeads
from distill.methods.papers.add import ADD
from distill.methods.times import ListedTimes
from distill.methods.trajectories import NoisedData

NETWORK = MLPDenoiser(shape=(64,), width=16, depth=2, classes=10, kind="velocity")


def fixed() -> dict[str, Denoiser]:
    torch.manual_seed(0)
    features = Denoiser(digits.Classifier(), Flow(), "logits", shape=(64,), taps=("low", "penultimate"))
    return {"teacher": NETWORK.build(), "features": features}


def data() -> Samples:
    return Samples(x=Rng(0).normal(32, 64), label=torch.arange(32) % 10)


@pytest.mark.parametrize(("pure", "leaks"), [(True, False), (False, True)])
def test_the_last_time_shows_nothing_of_the_data(pure: bool, leaks: bool) -> None:
    """Stable Diffusion's table keeps 7 % of the data at its end; sampling has none of it there."""
    torch.manual_seed(0)
    student = Denoiser(MLPDenoiser(width=16).build().network, Discrete.scaled_linear(), "v", shape=(2,))
    seen = [
        next(
            iter(
                NoisedData(times=ListedTimes(times=(1.0,)), pure_end=pure).events(
                    Batch(8, x), context(student), attached=False
                )
            )
        )
        for x in (torch.zeros(8, 2), torch.ones(8, 2))
    ]
    gap = float((seen[0].x - seen[1].x).abs().max())
    assert (gap > 1e-6) == leaks


def context(student: Denoiser) -> Context:
    return Context(Roles({"student": Role("student", student)}), Rng(0))


def test_the_method_asks_for_pure_noise() -> None:
    trajectory = ADD().plan(Sampler()).phases[0].updates[0].trajectory
    assert trajectory.pure_end and trajectory.times.times == (1.0, 0.75, 0.5, 0.25)


def test_student_and_heads_move_and_nobody_else() -> None:
    start = fixed()
    before = copy.deepcopy({name: module.state_dict() for name, module in start.items()})
    run = toys.train(ADD(steps=3), start, data=data(), size=8)
    for name, kept in before.items():
        assert all(torch.equal(value, kept[key]) for key, value in run.roles[name].module.state_dict().items())
    student = run.roles["student"].tensors()
    assert any(not torch.equal(value, before["teacher"][key]) for key, value in student.items())


def test_either_term_can_be_left_out() -> None:
    alone = ADD(generator=AdversarialGenerator(weight=0))
    assert set(alone.roles()) == {"student"} and alone.plan(Sampler()).phases[0].moved == {"student"}
    gan = ADD(target=TeacherTarget(weight=0)).plan(Sampler()).phases[0]
    assert [update.loss.moves[0] for update in gan.updates] == ["student", "discriminator"]


def test_a_run_without_a_feature_network_says_so() -> None:
    with pytest.raises(RecipeError, match="features"):
        assemble(ADD(), {"teacher": Role("teacher", NETWORK.build())})


def test_heads_hear_the_condition() -> None:
    start = {name: Role(name, module) for name, module in fixed().items()}
    method = ADD(heads=ProjectionHeads(features="features", timed=False, condition="label"))
    roles = assemble(method, start)
    features = roles["features"].ask(torch.zeros(2, 64), 0.0, taps=("low", "penultimate")).features
    said = roles["discriminator"](features, None, {"label": torch.tensor([1, 7])})
    assert said.shape == (2, 64 + 1) and not torch.allclose(said[0], said[1])
