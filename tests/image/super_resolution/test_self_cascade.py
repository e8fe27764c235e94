import pytest
import torch
from torch import nn

from distill.core import Batch, Context, DistillError, Rng, Role, Roles, Sampler, Samples, assemble
from distill.image.super_resolution.cascade import Cascade, PivotData, PivotUpsamplers, shrunk
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.papers.self_cascade import SelfCascade
from distill.image.super_resolution.paths import Tempered
from distill.methods.networks import MLPDenoiser
from distill.methods.toys import train

SIZE = 16


def base():
    torch.manual_seed(0)
    role = Role("teacher", RestorerDenoiser(width=8, blocks=3, size=SIZE // 2).build(), frozen=True)
    nn.init.normal_(role.denoiser.network.outlet.weight, std=0.1)
    return role


def pictures(count=8):
    low = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Samples(x=0.1 * low.flip(1), low=low)


def seen(roles, data):
    ctx = Context(roles, Rng(0))
    return next(PivotData().events(Batch(8, data.tensors["x"], {"low": data.tensors["low"]}), ctx, attached=False))


def test_untrained_modules_change_nothing_and_only_they_belong_to_the_role():
    roles, data = assemble(SelfCascade(), Roles({"teacher": base()})), pictures()
    event = seen(roles, data)
    assert event.cond["pivot"].shape == (8, 3, 8, 8) and event.cond["pivot_low"].shape == (8, 3, 8, 8)
    a, b = (roles[name].ask(event.x_t, event.t, event.cond).x0 for name in ("student", "teacher"))
    assert torch.equal(a, b) and all("upsamplers" not in name for name in roles["student"].own)
    assert roles["student"].module is roles["teacher"].module
    assert not {id(p) for p in roles["student"].parameters()} & {
        id(p) for p in roles["teacher"].denoiser.network.inner.parameters()
    }


def test_training_moves_the_modules_alone_and_the_pivot_matters():
    data, first = pictures(32), base()
    before = {name: value.clone() for name, value in first.denoiser.state_dict().items()}
    method = SelfCascade(steps=5, optimiser={"lr": 1e-2})
    roles = train(method, Roles({"teacher": first}), data=data, size=8).roles
    after = {name.replace("inner.", ""): value for name, value in first.denoiser.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    event = seen(roles, pictures())
    other = {**event.cond, "pivot": event.cond["pivot"].roll(1, 0)}
    said = [roles["student"].ask(event.x_t, event.t, cond).x0 for cond in (event.cond, other)]
    assert (said[0] - said[1]).abs().max() > 1e-6
    assert torch.equal(*(roles["teacher"].ask(event.x_t, event.t, cond).x0 for cond in (event.cond, other)))


def test_the_pivots_call_has_no_graph():
    roles, data = assemble(SelfCascade(), Roles({"teacher": base()})), pictures()
    event = seen(roles, data)
    pivot = event.cond["pivot"].clone().requires_grad_()
    x = event.x_t.clone().requires_grad_()
    said = roles["student"].predict(x, event.t, {**event.cond, "pivot": pivot})
    for role in roles["student"].denoiser.network.upsamplers:
        nn.init.normal_(role.outlet.weight)
    said = roles["student"].predict(x, event.t, {**event.cond, "pivot": pivot})
    said.x0.square().sum().backward()
    assert pivot.grad is None and x.grad.abs().sum() > 0


def test_a_larger_sample_begins_at_the_enlarged_pivot():
    role, data = base(), pictures()
    low, noise = data.tensors["low"], torch.randn(8, 3, SIZE, SIZE)
    sampler = Cascade(steps=10, strength=0.5, below=Tempered(steps=2))
    times = sampler.grid_for(role.denoiser.path)
    assert times[0] == pytest.approx(0.5) and len(times) == 6 and sampler.needs == ("teacher",)
    found = sampler.pivot(noise, {"low": low}, Rng(0), Roles({"teacher": role}))
    large = sampler.enlarged(found, low) + low
    assert (shrunk(large, 2) - found["pivot"] - found["pivot_low"]).abs().mean() < 0.1
    made = [sampler.sample(role, noise, {"low": low}, Rng(0), {"teacher": role}) for _ in range(2)]
    assert torch.equal(*made) and made[0].shape == low.shape
    first = next(sampler.walk(role, torch.zeros_like(noise), {"low": low}, Rng(0), {"teacher": role})).x
    kept = role.denoiser.path.alpha(torch.tensor(0.5))
    assert torch.allclose(first, kept * sampler.enlarged(found, low), atol=1e-5)


def test_without_tuning_nothing_is_trained_and_networks_without_maps_are_refused():
    plan = SelfCascade(tuned=False).plan(Sampler())
    assert plan.result == "teacher" and not plan.phases and not SelfCascade(tuned=False).roles()
    with pytest.raises(DistillError):
        PivotUpsamplers().apply(Roles({"student": Role("student", MLPDenoiser().build())}), "student")
