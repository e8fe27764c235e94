"""Guided distillation: the w input, the two-call target, and w kept through the halving."""

import torch

from distill.core import Batch, Context, Rng, Role, Sampler, Samples, assemble, cfg
from distill.core.paths import Cosine
from distill.core.sampling import Overshoot
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.guided_distillation import GuidedDistillation, MatchGuided
from distill.methods.teacher_paths import GridJumps
from distill.methods.trajectories import NoisedData

LABELS = torch.arange(32) % 4


def setting(method=None, size=32):
    torch.manual_seed(0)
    teacher = Role("teacher", MLPDenoiser(path="cosine", kind="v", width=16, classes=4).build())
    ctx = Context(assemble(method or GuidedDistillation(), {"teacher": teacher}), Rng(0))
    return ctx, Batch(size, torch.randn(size, 2), {"label": LABELS[:size]})


def test_the_student_starts_as_the_conditional_teacher_for_every_w() -> None:
    ctx, batch = setting()
    t, w = torch.full((32,), 0.5), torch.linspace(1, 5, 32)
    ours = ctx.roles["student"].ask(batch.x, t, batch.cond, w=w).x0
    assert torch.equal(ours, ctx.roles["teacher"].ask(batch.x, t, batch.cond).x0)


def test_the_target_is_p0_plus_w_times_the_difference() -> None:
    ctx, batch = setting()
    event = next(NoisedData(scalars={"w": (1.0, 5.0)}).events(batch, ctx, attached=True))
    teacher, w = ctx.roles["teacher"], event.scalars["w"]
    with_c = teacher.ask(event.x_t, event.t, batch.cond).x0
    without = teacher.ask(event.x_t, event.t, {"label": torch.full((32,), 4)}).x0
    target = without + w[:, None] * (with_c - without)
    ours = MatchGuided(level="one").terms(event, ctx)["cfg_match"]
    torch.testing.assert_close(ours, ((event.x - target) ** 2).mean(1), atol=1e-5, rtol=1e-4)


def test_w_of_one_asks_for_nothing_new() -> None:
    ctx, batch = setting()
    event = next(NoisedData().events(batch, ctx, attached=True))
    assert MatchGuided(w=1.0).terms(event, ctx)["cfg_match"].abs().max() == 0


def test_teacher_and_student_of_a_halving_get_the_same_w() -> None:
    ctx, batch = setting()
    asked = []
    for name in ("student", "previous"):
        ctx.roles[name].module.scalars["w"].register_forward_hook(lambda module, args, out: asked.append(args[0]))
    next(GridJumps(steps=4, teacher="previous", scalars={"w": (1.0, 5.0)}).events(batch, ctx, attached=True))
    assert len(asked) == 3
    assert all(torch.equal(w, asked[0]) for w in asked)


def test_phases_match_first_and_then_halve_the_matched_student() -> None:
    phases = GuidedDistillation(start=16, end=4, match=0.2, steps=50).plan(Sampler()).phases
    assert [phase.name for phase in phases] == ["match", "8-steps", "4-steps"]
    assert all(phase.updates[0].trajectory.teacher == "previous" for phase in phases[1:])
    assert [phase.steps for phase in phases] == [10, 20, 20]


def test_the_student_samples_with_one_call_a_step() -> None:
    method = GuidedDistillation(steps=4, start=4, end=2)
    teacher = MLPDenoiser(path="cosine", kind="v", width=8, classes=4).build()
    data = Samples(x=torch.randn(64, 2), label=torch.arange(64) % 4)
    engine = toys.train(method, {"teacher": teacher}, data=data, size=16)
    assert engine.sampler.calls(teacher.path) == 2
    assert engine.sampler.scalars == {"w": 3.0}
    x = toys.draw(engine.roles["student"], engine.sampler, 8, 0, {"label": LABELS[:8]})
    assert x.isfinite().all()


def test_the_stochastic_sampler_jumps_two_steps_and_renoises_one() -> None:
    path, times = Cosine(), (1.0, 0.75, 0.5, 0.25, 0.0)
    plan = GuidedDistillation(stochastic=True, end=2).plan(Sampler())
    assert plan.sampler.steps == 4 and isinstance(plan.sampler.solver, Overshoot)
    rng = Rng(0)
    x0, noise = torch.ones(20000, 1), rng.normal(20000, 1)
    for n in range(3):
        t, s = torch.tensor(times[n]), torch.tensor(times[n + 1])
        step = Overshoot().weights(path, times, n)
        x_s = (
            step.keep * path.noised(x0, noise, t.expand(20000)) + step.pulls[0] * x0 + step.fresh * rng.normal(20000, 1)
        )
        assert abs(float(x_s.mean() - path.alpha(s))) < 0.03
        assert abs(float(x_s.std() - path.sigma(s))) < 0.03
    assert Overshoot().weights(path, times, 3).fresh == 0


def test_guidance_of_the_mixture_is_what_the_claim_asks_for() -> None:
    law = toys.ring(Cosine(), std=0.3, weights=toys.class_weights((0, 1), (2, 3), (4, 5), (6, 7)))
    role, x, label = Role("t", law), torch.randn(4, 2), {"label": torch.arange(4)}
    plain, guided = role.ask(x, 0.5, label).x0, role.ask(x, 0.5, label, guidance=cfg(3.0)).x0
    nothing = role.ask(x, 0.5).x0
    torch.testing.assert_close(guided, nothing + 3 * (plain - nothing))
