import pytest
import torch
from torch import nn

from distill.core import DistillError, Role, Roles, Samples
from distill.core.sampling import Sampler
from distill.image.super_resolution.losses import Perceptual
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.papers.tinysr import TinySR
from distill.image.super_resolution.slimming import Slimmed, narrow, separable
from distill.methods.pruning import LearnedDepth, gates_of
from distill.methods.toys import train

SMALL = RestorerDenoiser(width=8, blocks=4, size=16)


def teacher():
    torch.manual_seed(0)
    role = Role("teacher", SMALL.build(), frozen=True)
    nn.init.normal_(role.denoiser.network.outlet.weight, std=0.1)
    return role


def count(module):
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def test_slim_convolutions_begin_as_the_nearest_of_their_form():
    conv, x = nn.Conv2d(6, 5, 3, padding=1), torch.randn(2, 6, 8, 8)
    assert torch.allclose(narrow(conv, 6)(x), conv(x), atol=1e-5)
    assert (narrow(conv, 3)(x) - conv(x)).square().mean() < conv(x).var()
    conv.weight.copy_(torch.randn(5, 6, 1, 1) * torch.randn(1, 6, 3, 3))
    assert torch.allclose(separable(conv)(x), conv(x), atol=1e-5)


def test_units_with_the_largest_weights_stay():
    role = teacher()
    with torch.no_grad():
        for block in role.denoiser.network.blocks:
            block.outlet.weight[:, 5:] = 0
    x, cond = torch.randn(2, 3, 16, 16), {"low": torch.randn(2, 3, 16, 16)}
    before = role.ask(x, 1.0, cond).x0
    Slimmed(separable=(), narrow=(), units=5).apply(Roles({"student": role}), "student")
    assert torch.allclose(role.ask(x, 1.0, cond).x0, before, atol=1e-6)
    with pytest.raises(DistillError, match="no plain convolution"):
        Slimmed(separable=("blocks.0.spatial",)).apply(Roles({"student": role}), "student")


def test_a_student_with_fewer_layers_comes_nearer_to_its_teacher_and_stands_alone():
    low = torch.rand(32, 3, 16, 16) * 2 - 1
    data, known, noise = Samples(x=0.1 * low.flip(1), low=low), teacher(), torch.randn(32, 3, 16, 16)
    method = TinySR(
        steps=30, masking=6, distilling=20, depth=LearnedDepth(groups=2, keep=1), slim=Slimmed(width=6),
        perceptual=Perceptual(weight=0), optimiser={"lr": 3e-3}, heads_optimiser={"lr": 1e-3},
    )  # fmt: skip
    role = train(method, {"teacher": known}, data=data, size=8).roles["student"]
    gates, sampler = gates_of(role), method.plan(Sampler()).sampler
    assert gates.decided and gates.kept.sum() == 2 and (gates.logits != 0.02).any()
    alone = Role("alone", role.alone())
    wanted, *made = (sampler.sample(each, noise, {"low": low}) for each in (known, alone, role))
    assert torch.allclose(*made, atol=1e-5) and (made[0] - wanted).abs().mean() < 0.9 * wanted.abs().mean()
    assert count(alone.module) < 0.6 * count(known.module) and len(alone.denoiser.network.blocks) == 2


def test_the_phases_are_the_papers():
    masking, distilling, restoring = TinySR().plan(None).phases
    assert [phase.steps for phase in (masking, distilling, restoring)] == [350, 400, 250]
    assert [update.loss.target for update in masking.updates] == ["x", "real"]
    assert [update.loss.weight for update in restoring.updates] == [5, 1, 0.3, 1] and masking.at_end
    assert "discriminator" in TinySR().roles()
