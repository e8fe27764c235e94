"""Solvers against diffusers' schedulers on an exact denoiser in double precision, and the roll-out's
promises."""

from __future__ import annotations

import functools
import math

import diffusers
import pytest
import torch
from torch import nn

from distill.core import Denoiser, Mixture, Rng, Role, Sampler, cfg, rollout
from distill.core.errors import RecipeError
from distill.core.guidance import PLAIN
from distill.core.paths import Cosine, Discrete, Flow, Joint, Karras, Trigonometric
from distill.core.sampling import DDIM, DPM, Calibrated, Consistency, Corrected, Grid, Heun, Tabulated, finish

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, with NumPy 2
STEPS, COSINE = 10, Cosine()
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def exact(path, std=0.3):
    means = torch.tensor([[1.0, 0.0], [-0.7, 0.6], [0.2, -1.1]], dtype=torch.float64)
    return Role("teacher", Mixture(means, std, path).double())


def table(scheduler):
    return Discrete(alphas_cumprod=tuple(scheduler.alphas_cumprod.tolist()))


def gap(a, b):
    return float((a - b).abs().max())


def walk(role, start, times, solver, **options):
    return finish(rollout(role, start, tuple(times), solver=solver, **options))


class Given:
    """Noise from one generator, for both sides of a comparison."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(1)

    def normal_like(self, x, stream=""):
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


def by_scheduler(scheduler, role, **options):
    """The loop of a diffusers pipeline with an ε-network on a table of ᾱ."""
    scheduler.set_timesteps(STEPS)
    x = NOISE
    for t in scheduler.timesteps:
        eps = role.predict(x, (t.double() + 1) / 1000).eps
        x = scheduler.step(eps, t, x, **options).prev_sample
    return x


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_that_of_diffusers(eta):
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing="trailing")
    role, ours, theirs = exact(table(scheduler)), Given(), Given()
    times = Grid().times(role.denoiser.path, STEPS)
    out = walk(role, NOISE, times, DDIM(eta=eta), rng=ours)
    assert gap(out, by_scheduler(scheduler, role, eta=eta, generator=theirs.generator)) < 1e-5


@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_is_that_of_diffusers_on_a_table(order):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS,
        solver_order=order,
        lower_order_final=False,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    role = exact(table(scheduler))
    times = Grid().times(role.denoiser.path, STEPS)
    assert gap(walk(role, NOISE, times, DPM(order=order)), by_scheduler(scheduler, role)) < 1e-5


def by_edm(scheduler, role):
    """The loop of a k-diffusion pipeline; the network is what EDM's preconditioning wraps."""
    scheduler.set_timesteps(STEPS)
    x = NOISE * 80
    for index, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[index].double()
        scheduler.scale_model_input(x, t)
        norm = (sigma**2 + 0.25).sqrt()
        inner = (role.predict(x, sigma).x0 - 0.25 / norm**2 * x) * norm / (0.5 * sigma)
        x = scheduler.step(inner, t, x).prev_sample
    return x


def test_euler_is_that_of_diffusers_on_edm_levels():
    role = exact(Karras())
    times = Grid(spacing="karras", end=0.0).times(Karras(), STEPS)
    assert gap(walk(role, NOISE * 80, times, DDIM()), by_edm(diffusers.EDMEulerScheduler(), role)) < 1e-5


@pytest.mark.parametrize("order", [2, 3])
def test_dpm_is_that_of_diffusers_on_edm_levels(order):
    role, times = exact(Karras()), Grid(spacing="karras", end=0.0).times(Karras(), STEPS)
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(solver_order=order, lower_order_final=False)
    assert gap(walk(role, NOISE * 80, times, DPM(order=order)), by_edm(scheduler, role)) < 1e-5


def test_heun_is_that_of_diffusers():
    scheduler = diffusers.HeunDiscreteScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(STEPS)
    role, x = exact(Karras()), NOISE * 80
    for index, t in enumerate(scheduler.timesteps):
        x = scheduler.step(role.predict(x, scheduler.sigmas[index].double()).eps, t, x).prev_sample
    times = [*dict.fromkeys(scheduler.sigmas.double().tolist())]
    assert gap(walk(role, NOISE * 80, times, Heun()), x) < 1e-5


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_is_that_of_diffusers(shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / STEPS, STEPS).tolist())
    role, x = exact(Flow()), NOISE
    for index, t in enumerate(scheduler.timesteps):
        x = scheduler.step(role.predict(x, scheduler.sigmas[index].double()).velocity, t, x).prev_sample.double()
    times = Grid(shift=shift).times(Flow(), STEPS)
    assert times == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)
    assert gap(walk(role, NOISE, times, DDIM()), x) < 1e-5


def test_consistency_sampling_is_that_of_diffusers():
    """The scheduler's own boundary scaling is made nothing by a huge `timestep_scaling`: the network has its
    own."""
    scheduler = diffusers.LCMScheduler(**BETAS, timestep_scaling=1e8, clip_sample=False)
    scheduler.set_timesteps(4)
    role, ours, theirs, x = exact(table(scheduler)), Given(), Given(), NOISE
    for t in scheduler.timesteps:
        eps = role.predict(x, (t.double() + 1) / 1000).eps
        x = scheduler.step(eps, t, x, generator=theirs.generator).prev_sample
    times = [*((scheduler.timesteps.double() + 1) / 1000).tolist(), 0.0]
    assert gap(walk(role, NOISE, times, Consistency(), rng=ours), x) < 1e-5


def test_a_consistency_sampler_without_noise_is_ddim():
    role, times = exact(Flow()), Grid().times(Flow(), 6)
    assert gap(walk(role, NOISE, times, Consistency(gamma=0), rng=Given()), walk(role, NOISE, times, DDIM())) < 1e-12


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_a_consistency_step_has_the_law_of_its_level(gamma):
    path = Cosine()
    weights = Consistency(gamma=gamma).weights(path, (0.9, 0.4), 0)
    a, s = (float(c(torch.tensor(0.9, dtype=torch.float64))) for c in (path.alpha, path.sigma))
    assert weights.keep * a + weights.pulls[0] == pytest.approx(math.cos(0.2 * math.pi))
    assert (weights.keep * s) ** 2 + weights.fresh**2 == pytest.approx(math.sin(0.2 * math.pi) ** 2)


def reached(solver, n, path):
    times = torch.linspace(0.85, 0.1, n + 1, dtype=torch.float64).tolist()
    return walk(exact(path, 0.6), NOISE, times, solver)


@functools.cache
def truth(path):
    return reached(DPM(order=3), 600, path)


@pytest.mark.parametrize("path", [COSINE, Flow()], ids=["cosine", "flow"])
@pytest.mark.parametrize("solver, order", [
    (DDIM(), 1), (DPM(order=1), 1), (DPM(order=2), 2), (Heun(), 2), (DPM(order=3), 2),
], ids=["ddim", "dpm1", "dpm2", "heun", "dpm3"])  # fmt: skip
def test_solvers_converge_with_their_order(solver, order, path):
    """The third-order multistep is of order 2 in the limit: its first step is Euler's, and its D₂ is half of
    h² x0''."""
    coarse, fine = (float((reached(solver, n, path) - truth(path)).norm()) for n in (40, 80))
    assert math.log2(coarse / fine) > order - 0.25


def test_the_third_order_is_closer_than_the_second():
    third, second = (gap(reached(DPM(order=order), 40, COSINE), truth(COSINE)) for order in (3, 2))
    assert third < 0.7 * second


# ---------------------------------------------------------------- grids


def test_karras_levels_are_those_of_diffusers():
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(STEPS)
    times = Grid(spacing="karras", end=0.0).times(Karras(), STEPS)
    assert times == pytest.approx(scheduler.sigmas.tolist(), rel=1e-5)


@pytest.mark.parametrize("path", [Flow(), Cosine(), Karras(), Discrete.scaled_linear()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("spacing", ["uniform", "karras", "logsnr"])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_every_grid_descends_from_the_first_time_to_the_last(path, spacing, steps):
    times = Grid(spacing=spacing).times(path, steps)
    assert len(times) == steps + 1 and all(a > b for a, b in zip(times, times[1:], strict=False))
    assert times[0] == pytest.approx(path.t_max, abs=1.1e-4) and times[-1] == pytest.approx(path.t_min, abs=1.1e-4)


@pytest.mark.parametrize("path", [Flow(), Cosine(), Karras()], ids=lambda p: type(p).__name__)
def test_logsnr_grids_are_even_in_it(path):
    level = path.logsnr(torch.tensor(Grid(spacing="logsnr").times(path, 40), dtype=torch.float64))
    assert float(level.diff().std() / level.diff().mean()) < 1e-6


def test_a_grid_without_steps_is_refused():
    with pytest.raises(RecipeError, match="at least one step"):
        Grid().times(Flow(), 0)


# ---------------------------------------------------------------- roll-outs


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.calls, self.grad = nn.Parameter(torch.tensor(0.5)), 0, []

    def forward(self, x, t, cond):
        self.calls += 1
        self.grad.append(torch.is_grad_enabled())
        return self.scale * x


def student(path=None):
    return Role("student", Denoiser(Counted(), path or Flow(), "x0", shape=(2,), null={"label": 0}))


SAMPLERS = [
    Sampler(steps=3), Sampler(steps=1, free_first=True), Sampler(steps=4, free_first=True), Sampler(steps=5,
    solver=DPM()),
    Sampler(steps=4, solver=Heun()), Sampler(steps=1, solver=Heun()), Sampler(steps=3, solver=Heun(),
    free_first=True),
    Sampler(times=(1.0, 0.5), solver=Consistency()), Sampler(steps=3, guidance=2.0),
    Sampler(steps=3, guidance=2.0, solver=Heun(), free_first=True),
    Sampler(steps=4, solver=Heun(), grid=Grid(spacing="karras", end=0.0)),
    Sampler(steps=5, guidance=2.0, interval=(0.3, 0.7)),
    Sampler(steps=5, guidance=2.0, interval=(0.3, 0.7), solver=Heun()),
    Sampler(steps=3, guidance=2.0, rescale=0.7, negative={"label": 1}),
]  # fmt: skip


@pytest.mark.parametrize("path", [Flow(), Karras()], ids=["flow", "karras"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_counts_its_calls(sampler, path):
    role = student(path)
    sampler.sample(role, NOISE.float(), {"label": torch.ones(16, dtype=torch.long)}, Rng(0))
    assert role.denoiser.network.calls == sampler.calls(path)


def test_the_sampler_s_guidance_is_used_and_not_the_role_s():
    role = student()
    role.guidance = cfg(3.0)
    Sampler(steps=2).sample(role, NOISE.float(), {"label": torch.ones(16, dtype=torch.long)})
    assert role.denoiser.network.calls == 2


@pytest.mark.parametrize("path", [Flow(), Cosine(), Trigonometric(), Joint(paths={"a": Flow(), "b": Karras()})])
def test_a_free_first_step_follows_the_noise(path):
    class Must(nn.Module):
        def forward(self, x, t, cond):
            raise AssertionError("called")

    role = Role("student", Denoiser(Must(), path, "x0"))
    noise = {"a": NOISE, "b": NOISE} if isinstance(path, Joint) else NOISE
    out = Sampler(steps=1, free_first=True).sample(role, noise)
    assert all(leaf.abs().max() < 1e-2 * 80 for leaf in (out.values() if isinstance(out, dict) else [out]))


def test_gradient_runs_through_attached_steps_only():
    role, x = student(), NOISE.float()
    moves = list(rollout(role, x, (1.0, 0.7, 0.4, 0.1), attach={1, 2}))
    assert role.denoiser.network.grad == [False, True, True]
    assert not moves[1].x.requires_grad and moves[2].x.requires_grad
    assert [move.next.requires_grad for move in moves] == [False, True, True]


def test_a_detached_step_forgets_the_gradient_of_earlier_predictions():
    """A multistep solver looks back; what it sees from before a detached step must carry none."""
    role = student()
    moves = list(rollout(role, NOISE.float(), (0.9, 0.7, 0.5, 0.3), attach={0, 2}, solver=DPM(order=3)))
    grad = torch.autograd.grad(moves[2].next.sum(), role.denoiser.network.scale, retain_graph=True)[0]
    again = torch.autograd.grad(moves[2].prediction.x0.sum(), role.denoiser.network.scale, retain_graph=True)[0]
    weights = DPM(order=3).weights(Flow(), (0.9, 0.7, 0.5, 0.3), 2)
    torch.testing.assert_close(grad, weights.pulls[0] * again)


def test_what_is_sent_replaces_the_next_state():
    role = student()
    steps = rollout(role, NOISE.float(), (1.0, 0.5, 0.0))
    next(steps)
    move = steps.send(torch.full((16, 2), 7.0))
    assert (move.x == 7).all()


def test_noise_comes_from_the_rng_that_is_given():
    role, sampler = student(), Sampler(times=(1.0, 0.5), solver=Consistency())
    a, b, c = (sampler.sample(role, NOISE.float(), None, Rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    with pytest.raises(RecipeError, match="give the roll-out an rng"):
        sampler.sample(role, NOISE.float())


def test_a_joint_state_is_sampled_key_by_key():
    class Halves(nn.Module):
        def forward(self, x, t, cond):
            return {key: 0.5 * part for key, part in x.items()}

    role = Role("student", Denoiser(Halves(), Joint(paths={"a": Flow(), "b": Karras()}), "x0"))
    for solver in (DDIM(), DPM(), Heun()):
        out = Sampler(steps=4, solver=solver).sample(role, {"a": NOISE, "b": NOISE})
        alone = Role("student", Denoiser(Counted(), Karras(), "x0"))
        torch.testing.assert_close(out["b"], Sampler(steps=4, solver=solver).sample(alone, NOISE))


# ---------------------------------------------------------------- samplers as data


@pytest.mark.parametrize("sampler", [
    *SAMPLERS, Sampler(steps=2, solver=Corrected(base=DPM(order=3), factors=(0.0, 0.3)), scalars={"w": 2.5}),
])  # fmt: skip
def test_a_sampler_survives_json(sampler):
    assert Sampler.model_validate_json(sampler.model_dump_json()) == sampler


def test_a_corrected_solver_extrapolates_the_prediction():
    role, times = exact(Flow()), (1.0, 0.5, 0.0)
    moves = list(rollout(role, NOISE, times, solver=Corrected(base=DDIM(), factors=(0.0, 0.3))))
    old, new = (move.prediction.x0 for move in moves)
    torch.testing.assert_close(
        moves[1].next, Flow().jump(moves[1].x, new + 0.3 * (new - old), torch.tensor(0.5), torch.tensor(0.0))
    )


def test_factors_belong_to_one_number_of_steps():
    sampler = Sampler(steps=3, solver=Corrected(base=DDIM(), factors=(0.0, 0.3)))
    with pytest.raises(RecipeError, match="fitted for 2 steps, not 3"):
        sampler.sample(exact(Flow()), NOISE)


def test_trained_times_are_thinned_evenly_or_refused():
    sampler = Sampler(times=(1.0, 0.75, 0.5, 0.25), steps=4)
    assert sampler.with_steps(2).grid_for(Flow()) == (1.0, 0.5, 0.0) and sampler.with_steps(None) is sampler
    for steps in (3, 0, 8, -1):
        with pytest.raises(RecipeError, match=r"\[1, 2, 4\]"):
            sampler.with_steps(steps)
    assert Sampler(steps=4).with_steps(7).steps == 7


def test_a_calibrated_solver_maps_each_state():
    role, solver = exact(Flow()), Calibrated(scales=(1.1, 0.5), offsets=(0.0, 2.0))
    for move in rollout(role, NOISE, (1.0, 0.5, 0.0), solver=solver):
        plain = Flow().jump(move.x, move.prediction.x0, torch.tensor(move.t), torch.tensor(move.s))
        torch.testing.assert_close(move.next, solver.scales[move.n] * plain + solver.offsets[move.n])


def test_a_tabulated_solver_has_all_predictions_and_its_own_moments():
    table = Tabulated(
        keeps=(0.9, 0.8, 0.7, 0.6),
        pulls=((1.0,), (0.5, 0.4), (0.3, 0.2, 0.1), (0.4, 0.3, 0.2, 0.1)),
        moments=(0.95, 0.7, 0.5, 0.2),
    )
    role, said = exact(Flow()), []
    for move in rollout(role, NOISE, (1.0, 0.75, 0.5, 0.25, 0.0), solver=table):
        said.insert(0, role.predict(move.x, table.moments[move.n]).x0)
        expected = table.keeps[move.n] * move.x + sum(
            pull * x0 for pull, x0 in zip(table.pulls[move.n], said, strict=True)
        )
        torch.testing.assert_close(move.next, expected)


def test_a_table_of_a_solvers_weights_is_that_solver():
    path, times = Karras(t_min=0.01, t_max=20.0), Grid(spacing="karras").times(Karras(t_min=0.01, t_max=20.0), 5)
    steps = [DPM(order=3).weights(path, times, n) for n in range(5)]
    table = Tabulated(keeps=tuple(w.keep for w in steps), pulls=tuple(w.pulls for w in steps), moments=times[:-1])
    role = exact(path)
    assert gap(walk(role, 20 * NOISE, times, table), walk(role, 20 * NOISE, times, DPM(order=3))) == 0


@pytest.mark.parametrize("solver", [
    Calibrated(scales=(1.0,) * 3, offsets=(0.0,) * 3), Tabulated(keeps=(1.0,), pulls=((0.0,),), moments=(1.0,)),
])  # fmt: skip
def test_fitted_solvers_belong_to_one_number_of_steps(solver):
    with pytest.raises(RecipeError, match="fit it again"):
        Sampler(steps=2, solver=solver).sample(exact(Flow()), NOISE)
    assert Sampler.model_validate_json(Sampler(solver=solver).model_dump_json()).solver == solver


def test_a_list_of_times_may_end_above_zero():
    sampler = Sampler(times=(1.0, 0.5), end=0.1)
    assert sampler.grid_for(Flow()) == (1.0, 0.5, 0.1) and list(sampler.walk(exact(Flow()), NOISE))[-1].s == 0.1
    with pytest.raises(RecipeError, match="end above 0.6"):
        Sampler(times=(1.0, 0.5), end=0.6).check(Flow())


# ---------------------------------------------------------------- what samplers of several roles are made of


def test_a_revised_prediction_moves_the_state_and_is_remembered():
    role, times = exact(Flow()), (1.0, 0.6, 0.3, 0.1)

    def revise(n, said):
        return said.replace_x0(said.x0 + 1) if n == 1 else said

    plain, moves = (list(rollout(role, NOISE, times, solver=DPM(), revise=each)) for each in (None, revise))
    weights = [DPM().weights(Flow(), times, n) for n in range(3)]
    torch.testing.assert_close(moves[1].next, plain[1].next + weights[1].pulls[0])
    state = role.predict(moves[1].next, 0.3).x0
    expected = weights[2].keep * moves[1].next + weights[2].pulls[0] * state
    torch.testing.assert_close(moves[2].next, expected + weights[2].pulls[1] * moves[1].prediction.x0)


def test_a_walk_is_a_descent_in_two_parts():
    role, sampler = exact(Flow()), Sampler(steps=6, free_first=True)
    times = sampler.grid_for(Flow())
    half = finish(sampler.descend(role, sampler.start(role, NOISE), times[:4]))
    torch.testing.assert_close(finish(sampler.descend(role, half, times[3:])), sampler.sample(role, NOISE))
    parts = [sampler.calls_on(Flow(), times[:4]), sampler.calls_on(Flow(), times[3:])]
    assert parts == [2, 3] and sampler.calls(Flow()) == 5


def test_a_sampler_says_what_guidance_it_gives():
    sampler = Sampler(guidance=3.0, interval=(0.2, 0.8), rescale=0.7, negative={"label": 1})
    assert sampler.guide == cfg(3.0, interval=(0.2, 0.8), rescale=0.7, null={"label": 1})
    assert Sampler(interval=(0.2, 0.8), rescale=0.7).guide is PLAIN


def test_what_is_said_in_part_leaves_the_rest():
    own = Sampler(times=(1.0, 0.5), guidance=3.0, grid=Grid(shift=3.0))
    other = own.but_for(Sampler(interval=(0.1, 0.6), grid=Grid(spacing="karras")))
    assert (other.times, other.guidance, other.interval) == ((1.0, 0.5), 3.0, (0.1, 0.6))
    assert other.grid == Grid(shift=3.0, spacing="karras") and own.but_for(None) is own
    assert own.but_for(Sampler(steps=7)).times is None and own.but_for(Sampler(steps=1, times=(1.0,))).times == (1.0,)
    assert own.negated({"text": 1}).negative == {"text": 1} and own.negative == {}
