"""Score distillation of scenes: what the loss pulls, and short runs of SDS and VSD through a renderer."""

from __future__ import annotations

import torch

from distill.core import Context, Event, Optimiser, Rng, Role
from distill.core.roles import Roles
from distill.methods.losses import Denoise, ScoreDifference, surrogate
from distill.methods.networks import MLPDenoiser
from distill.methods.transforms import LoRA
from distill.three_d import toys
from distill.three_d.losses import Levels, ViewScore
from distill.three_d.papers.sds import SDS
from distill.three_d.papers.vsd import VSD


def context(seed=0, progress=0.0, teacher=None):
    role = Role("teacher", teacher or toys.ring())
    return Context(Roles({"teacher": role}), Rng(seed), progress=progress)


def test_without_noise_of_its_own_a_view_is_moved_as_by_the_cores_surrogate():
    x = torch.randn(6, 2)
    mine = ViewScore(guidance=1).gradient(Event(x), context(), 1.0)
    core = ScoreDifference(critic="", units="eps", times=ViewScore().times).gradient(Event(x), context(), 1.0)
    assert torch.equal(mine, core)


def test_the_gradient_is_sigma_squared_times_the_difference_of_noises():
    x, noise = torch.randn(6, 2), torch.randn(6, 2)
    ctx, levels = context(), Levels(high=((0.0, 0.4),))
    got = ViewScore(levels=levels).gradient(Event(x, noise=noise), ctx, 1.0)
    role, t = ctx.roles["teacher"], torch.full((6,), 0.4)
    path = role.denoiser.path
    wanted = path.sigma(t)[:, None] ** 2 * (role.predict(path.noised(x, noise, t), t).eps - noise)
    assert torch.allclose(got, wanted, atol=1e-5)


def test_levels_follow_their_knots():
    levels = Levels(high=((0.0, 0.9), (0.5, 0.5), (1.0, 0.3)), low=((0.0, 0.1),))
    path = toys.ring().path
    assert [round(levels.at(levels.high, path, p), 3) for p in (0, 0.25, 0.5, 1.0)] == [0.9, 0.7, 0.5, 0.3]
    drawn = levels.draw(path, 500, context(progress=0.5), "t")
    assert 0.1 <= drawn.min() and drawn.max() <= 0.5 and drawn.std() > 0.05


def test_one_end_gives_one_level_to_all_and_a_power_hurries():
    path, levels = toys.ring().path, Levels(power=0.5)
    drawn = levels.draw(path, 5, context(progress=0.25), "t")
    assert torch.allclose(drawn, torch.full((5,), 0.98 - 0.96 * 0.5))


def test_gradient_reaches_the_view_and_nothing_else():
    x = torch.randn(4, 2, requires_grad=True)
    term = ViewScore().terms(Event(x, noise=torch.randn(4, 2)), context())["score_difference"]
    term.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_sds_paints_a_ball_that_the_teacher_knows():
    teacher = toys.balls()
    start, end = (
        toys.painted(SDS(steps=n, score=ScoreDifference(critic="", units="eps"), optimiser=toys.QUICK), teacher, 0)
        for n in (1, 25)
    )
    nearest = [torch.cdist(x.flatten(1), teacher.means.flatten(1)).amin(1).mean() for x in (start, end)]
    assert nearest[1] < 0.6 * nearest[0]


def test_the_ball_is_painted_as_the_renderer_draws_it():
    scene = toys.ball(torch.rand(toys.DOTS, 3))
    drawn = toys.render(scene, toys.cameras()).over(torch.full((3,), 0.5))
    assert torch.allclose(2 * drawn - 1, toys.pictures(scene), atol=1e-5)


def test_vsd_trains_an_adapter_on_the_teacher_and_leaves_the_teacher_alone():
    teacher = MLPDenoiser(shape=(2,), width=16, depth=1).build()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    fast = Optimiser(lr=0.01)
    method = VSD(views=toys.View(), adapter=LoRA(rank=2), steps=3, critic=Denoise(view="eps"), critic_optimiser=fast)
    roles = Roles({"teacher": Role("teacher", teacher), "student": Role("student", toys.Points(torch.zeros(8, 2)))})
    engine = toys.plain.train(method.model_copy(update={"optimiser": fast}), roles, size=8)
    adapter = engine.roles["critic"].named_parameters()
    assert any("lora_B" in name and bool(value.abs().sum() > 0) for name, value in adapter.items())
    after = dict(teacher.named_parameters())
    assert all(torch.equal(before[n], v) for n, v in after.items() if n in before and "lora" not in n)
    assert surrogate(torch.ones(2, 2), torch.zeros(2, 2)).sum() == 0
