"""SCott: stochastic moves with fresh noise each, the student's guidance input, and the adapter that discriminates."""

import torch

from distill.core import Batch, Context, Rng, Role, Sampler, Samples, assemble
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.scott import SCott

DATA = Samples(x=torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), label=torch.arange(64) % 4)


def teacher():
    torch.manual_seed(0)
    return MLPDenoiser(path="cosine", kind="v", width=8, classes=4).build()


def trajectory_of(method):
    ctx = Context(assemble(method, {"teacher": Role("teacher", teacher())}), Rng(0))
    return method.plan(Sampler()).phases[0].updates[0].trajectory, ctx


BATCH = Batch(64, DATA.tensors["x"], {"label": DATA.tensors["label"]})


def test_the_teacher_takes_three_guided_moves_with_one_w_and_its_own_noise_each() -> None:
    jumps, ctx = trajectory_of(SCott(points=50, skip=6, w=(2.0, 9.0)))
    asked, drawn = [], []
    ctx.roles["teacher"].module.network.register_forward_pre_hook(lambda module, args: asked.append(args))
    normal = ctx.rng.normal_like
    ctx.rng.normal_like = lambda *args, **named: drawn.append(normal(*args, **named)) or drawn[-1]
    w, t, u = torch.full((64,), 3.0), torch.full((64,), 0.8), torch.full((64,), 0.5)
    jumps.lead(BATCH.x, t, u, BATCH.cond, {"w": w}, ctx)
    assert [round(float(call[1][0])) for call in asked] == [800, 800, 700, 700, 600, 600]
    assert len(drawn) == 3 and not torch.equal(drawn[0], drawn[1])


def test_the_target_is_the_averages_answer_with_the_same_w() -> None:
    jumps, ctx = trajectory_of(SCott(points=50, skip=5))
    torch.nn.init.normal_(ctx.roles["target"].denoiser.scalars["w"].out.weight)
    event = next(jumps.events(BATCH, ctx, attached=True))
    answer = ctx.roles["target"].ask(event.meta["x_next"], event.meta["next"], event.cond, w=event.scalars["w"]).x0
    inside = event.meta["next"] > 0
    torch.testing.assert_close(event.targets["x"][inside], answer[inside], atol=2e-3, rtol=2e-3)
    assert float(event.scalars["w"].min()) >= 3 and float(event.scalars["w"].max()) <= 15


def test_the_adapter_discriminates_and_the_teacher_answers_as_before() -> None:
    method = SCott(steps=3, points=50, skip=5, discriminator_optimiser={"lr": 1e-2})
    roles = toys.train(method, {"teacher": teacher()}, data=DATA, size=16).roles
    x, cond = torch.randn(8, 2), {"label": torch.arange(8) % 4}
    ours, before = roles["teacher"].ask(x, 0.5, cond).x0, teacher().eval().predict(x, 0.5, cond).x0
    assert torch.equal(ours, before)
    assert not torch.equal(roles["discriminator_trunk"].ask(x, 0.5, cond).x0, ours)


def test_both_sides_see_noised_answers_and_data() -> None:
    method = SCott(points=50, skip=5)
    _, generator, discriminator = (update.loss for update in method.plan(Sampler()).phases[0].updates)
    jumps, ctx = trajectory_of(method)
    event = next(jumps.events(BATCH, ctx, attached=True))
    adversarial = generator.terms(event, ctx)["adversarial"].mean()
    inputs = ctx.roles["student"].parameters()
    slopes = torch.autograd.grad(adversarial, inputs, allow_unused=True, retain_graph=True)
    assert any(slope is not None and float(slope.abs().sum()) > 0 for slope in slopes)
    assert discriminator.moves == ("discriminator_trunk", "discriminator")
    assert torch.equal(event.real, BATCH.x)


def test_without_a_gan_and_guidance_there_is_neither_trunk_nor_input() -> None:
    method = SCott(w=None, generator={"weight": 0.0})
    assert set(method.roles()) == {"student", "target"} and not method.roles()["student"].transforms
    assert len(method.plan(Sampler()).phases[0].updates) == 1


def test_the_sampler_renoises_between_its_times() -> None:
    sampler = SCott().plan(Sampler()).sampler
    assert sampler.times == (1.0, 0.5) and sampler.solver.name == "consistency" and sampler.scalars == {"w": 8.0}
