"""Hyper-SD: its stages, who teaches whom, and the GAN at the level where a jump ends."""

import torch

from distill.core import Batch, Context, Copy, Rng, Role, Sampler, Samples, assemble
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.hyper_sd import HyperSD, Stage

DATA = Samples(x=torch.randn(64, 2, generator=torch.Generator().manual_seed(0)))


def teacher():
    torch.manual_seed(0)
    return MLPDenoiser(path="cosine", kind="v", width=8).build()


def jumps_of(plan):
    return [phase.updates[0].trajectory for phase in plan.phases]


def test_stages_have_fewer_segments_and_share_the_iterations() -> None:
    plan = HyperSD(steps=400).plan(Sampler())
    assert [jump.target.count for jump in jumps_of(plan)] == [8, 4, 2, 1]
    assert [phase.steps for phase in plan.phases] == [100] * 4
    assert all(phase.at_end == (Copy(target="previous"),) for phase in plan.phases)


def test_the_guided_teacher_hands_over_to_its_unguided_students() -> None:
    taught = [(jump.teacher, jump.guidance) for jump in jumps_of(HyperSD(guidance=5.0).plan(Sampler()))]
    assert taught == [("teacher", 5.0), *[("previous", 1.0)] * 3]
    kept = [(jump.teacher, jump.guidance) for jump in jumps_of(HyperSD(guidance=5.0, hand_over=False).plan(Sampler()))]
    assert kept == [("teacher", 5.0)] * 4


def test_the_weight_moves_from_regression_to_the_gan() -> None:
    phases = HyperSD().plan(Sampler()).phases
    regression = [phase.updates[0].loss.weight for phase in phases]
    gan = [phase.updates[1].loss.weight for phase in phases[1:]]
    assert regression == sorted(regression, reverse=True) and gan == sorted(gan)
    assert len(phases[0].updates) == 1


def test_the_gan_takes_targets_for_real_at_the_level_where_jumps_end() -> None:
    method, seen = HyperSD(stages=(Stage(segments=2, adversarial=1.0),)), []
    roles = assemble(method, {"teacher": Role("teacher", teacher())})
    trajectory, losses = jumps_of(method.plan(Sampler()))[0], method.plan(Sampler()).phases[0].updates[1:]
    ctx = Context(roles, Rng(0))
    event = next(trajectory.events(Batch(64, DATA.tensors["x"]), ctx, attached=True))
    roles["teacher"].module.network.register_forward_hook(lambda module, args, out: seen.append(args[:2]))
    for update in losses:
        update.loss.terms(event, ctx)
    assert all(torch.equal(t, 1000 * event.meta["level"]) for _, t in seen)
    assert [torch.equal(x, event.x) for x, _ in seen] == [True, False, True]
    assert torch.equal(seen[1][0], event.targets["x"])


def test_every_stage_and_the_single_step_train() -> None:
    method = HyperSD(steps=10, one_step=2, one_step_time=0.8, optimiser={"lr": 1e-3})
    engine = toys.train(method, {"teacher": teacher()}, data=DATA, size=16)
    assert engine.step == 10 and engine.sampler.times == (0.8,)
    weights = [torch.cat([p.flatten() for p in engine.roles[n].parameters()]) for n in ("teacher", "student", "target")]
    assert torch.equal(weights[0], torch.cat([p.flatten() for p in teacher().parameters()]))
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
