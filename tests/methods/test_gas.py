"""GAS: it starts as DPM-Solver++, gradient reaches every number of it, and what is written down is what was learnt."""

from __future__ import annotations

import pytest
import torch

from distill.core import Context, Denoiser, DistillError, Event, Rng, Role, Roles, Sampler, tree
from distill.core.paths import Flow, Joint, Karras
from distill.core.sampling import DPM, Grid, Tabulated, finish, rollout
from distill.methods import toys
from distill.methods.learned_solver import LearnedSolver, SolverParameters, travel
from distill.methods.losses import RelativisticDiscriminator, RelativisticGenerator
from distill.methods.networks import FeatureHeads, MLPDenoiser
from distill.methods.papers.gas import GAS

PATH, KARRAS = Karras(t_min=0.006, t_max=20.0), Grid(spacing="karras")
NETWORK = MLPDenoiser(width=16, depth=2)
ALONE = RelativisticGenerator(role="solver", features="teacher", weight=0)


def method(**options) -> GAS:
    return GAS(**{"pairs": 64, "steps": 2, "pair_sampler": Sampler(steps=4), "adversarial": ALONE} | options)


def parameters(path=PATH, moves=4, grid=KARRAS, **options) -> SolverParameters:
    roles = Roles({"student": Role("student", toys.ring(path))})
    return LearnedSolver(moves=moves, grid=grid, **options).build(roles)


@pytest.mark.parametrize("path, grid", [(PATH, KARRAS), (Flow(), Grid())])
def test_untrained_it_is_dpm_solver_of_order_three(path, grid) -> None:
    role, noise = Role("t", toys.ring(path)), Rng(0).normal(16, 2)
    ours = travel(parameters(path, grid=grid), role, noise, None)
    walk = rollout(role, path.prior(noise), grid.times(path, 4), solver=DPM(order=3))
    torch.testing.assert_close(ours, finish(walk), atol=1e-3, rtol=1e-3)


def test_without_theory_all_weights_begin_at_nothing() -> None:
    role, noise = Role("t", toys.ring(PATH)), Rng(0).normal(4, 2)
    assert not travel(parameters(theory=False), role, noise, None).any()


def test_the_stick_breaks_at_the_grids_times() -> None:
    times = parameters().times()
    torch.testing.assert_close(times, torch.tensor(KARRAS.times(PATH, 4), dtype=torch.float64), rtol=1e-5, atol=0)
    assert times.dtype == torch.float64 and bool((times.diff() < 0).all())


@torch.no_grad()
def test_weights_follow_the_times() -> None:
    """Weights that stay those of the first times would not feel θ."""
    module = parameters()
    before = [float(weights.pulls[0]) for weights, _ in module.table()]
    module.theta += 0.5
    assert all(float(weights.pulls[0]) != old for (weights, _), old in zip(module.table(), before, strict=True))


@pytest.mark.parametrize("sparing", [False, True])
def test_gradient_reaches_every_number(sparing) -> None:
    module, role = parameters(), Role("t", toys.ring(PATH))
    travel(module, role, Rng(0).normal(32, 2), None, sparing=sparing).square().sum().backward()
    lower = torch.tril(torch.ones(4, 4)).bool()
    assert module.theta.grad.all() and module.keeps.grad.all() and module.shifts.grad[1:].all()
    assert module.pulls.grad[lower].all() and not module.pulls.grad[~lower].any()


@torch.no_grad()
def test_moments_change_what_is_asked_and_not_the_weights() -> None:
    module = parameters()
    module.shifts += 0.1
    for (weights, moment), (plain, time) in zip(module.table(), parameters().table(), strict=True):
        assert float(weights.keep) == float(plain.keep)
        assert float(moment) == pytest.approx(min(float(time) + 0.1, PATH.t_max))


def test_what_is_written_down_is_what_was_learnt() -> None:
    run = toys.train(method(decay=0.0), {"teacher": NETWORK.build()}, size=8)
    assert isinstance(run.sampler.solver, Tabulated)
    role, noise = run.roles["student"], Rng(1).normal(8, 2)
    ours = travel(run.roles["solver_ema"].module, role, noise, None)
    torch.testing.assert_close(run.sampler.sample(role, noise), ours, atol=1e-5, rtol=1e-5)
    assert run.sampler.calls(Flow()) == 4 and run.roles["student"].module is run.roles["teacher"].module
    assert Sampler.model_validate_json(run.sampler.model_dump_json()) == run.sampler


def test_discriminator_first_then_the_solver_on_the_same_events() -> None:
    plan = GAS().plan(Sampler(guidance=3.0))
    ((route, updates),) = plan.phases[1].groups(0)
    assert [update.loss.moves[0] for update in updates] == ["discriminator", "solver", "solver"]
    assert route.guidance == 3 and route.fresh
    assert not method().plan(Sampler()).phases[1].groups(0)[0][0].fresh


def test_the_discriminator_learns_and_its_features_stay() -> None:
    teacher = NETWORK.build()
    adversarial = RelativisticGenerator(role="solver", features="teacher", times=None, weight=0.1)
    run = toys.train(method(adversarial=adversarial), {"teacher": teacher}, size=8)
    assert not any(p.requires_grad and p.grad is not None for p in run.roles["teacher"].parameters())
    start = toys.train(method(adversarial=adversarial, steps=1), {"teacher": teacher}, size=8).roles["discriminator"]
    moved = zip(run.roles["discriminator"].parameters(), start.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)


def roles() -> Roles:
    torch.manual_seed(0)
    built = Roles({"teacher": Role("teacher", NETWORK.build())})
    built.add(Role("discriminator", FeatureHeads(features="teacher").build(built)))
    return built


def test_relativistic_terms_are_those_of_the_equations() -> None:
    ctx, rng = Context(roles(), Rng(0)), Rng(1)
    x, real, fake = (rng.normal(6, 2).requires_grad_() for _ in range(3))
    loss = RelativisticDiscriminator(features="teacher", times=None, gamma=0.3)
    terms = loss.terms(Event(x, targets={"real": real, "fake": fake}), ctx)

    def judge(y):
        said = ctx.roles["teacher"].predict(y, 0.0, taps=ctx.roles["teacher"].denoiser.taps)
        return ctx.roles["discriminator"](said.features)

    torch.testing.assert_close(
        terms["discriminator"], torch.nn.functional.softplus(-(judge(real) - judge(fake))), atol=1e-6, rtol=1e-5
    )
    for name, y in {"r1": real, "r2": fake}.items():
        slope = torch.autograd.grad(judge(y).sum(), y)[0]
        torch.testing.assert_close(terms[name], 0.15 * slope.square().sum(1), atol=1e-7, rtol=1e-4)
    ours = RelativisticGenerator(features="teacher", times=None).terms(Event(x, targets={"real": real}), ctx)[
        "relativistic"
    ]
    torch.testing.assert_close(ours, torch.nn.functional.softplus(-(judge(x) - judge(real))), atol=1e-6, rtol=1e-5)


def test_a_joint_state_is_refused() -> None:
    teacher = NETWORK.build()
    teacher.path = Joint(paths={"a": Flow(), "b": Flow()})
    with pytest.raises(DistillError, match="one path"):
        LearnedSolver().build(Roles({"student": Role("student", teacher)}))


def test_states_may_be_mappings() -> None:
    class Halves(torch.nn.Module):
        def forward(self, x, t, cond):
            return tree.tree_map(lambda leaf: 0.5 * leaf, x)

    role = Role("t", Denoiser(Halves(), Flow(), "x0", shape={"a": (2,), "b": (3,)}))
    noise = {"a": torch.ones(2, 2), "b": torch.ones(2, 3)}
    assert travel(parameters(Flow(), grid=Grid()), role, noise, None)["b"].shape == (2, 3)
