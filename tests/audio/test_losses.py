"""Every loss of distill-methods works on sound as it is: no loss knows what its states are."""

from __future__ import annotations

import pytest
import torch

from distill.audio.networks import AudioDiT
from distill.core import Batch, Context, Event, Rng, Role, Roles
from distill.core.registry import default_registry
from distill.methods.consistency import VarianceHead
from distill.methods.layers import LayerBudget
from distill.methods.networks import FeatureHeads, JumpHeads

SIZE = 3
NETWORK = AudioDiT(**AudioDiT.example, path="trigonometric")
LOSSES = [e.name for e in default_registry().components("loss") if e.component.target.startswith("distill.methods")]


class Judge(torch.nn.Module):
    """A number for each sound, which depends on a weight: [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, t, cond):
        return self.weight * x.square().mean((1, 2))


def network():
    denoiser = NETWORK.build()
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return denoiser


def judge():
    denoiser = network()
    denoiser.network, denoiser.kind = Judge(), "logits"
    return denoiser


@pytest.fixture
def cast():
    """Every role that some loss asks for."""
    torch.manual_seed(0)
    made = {name: network() for name in ("teacher", "student", "critic", "trunk", "pruned")}
    made |= {name: judge() for name in ("oracle", "oracle-2")}
    roles = Roles({name: Role(name, denoiser) for name, denoiser in made.items()})
    LayerBudget(levels=(0.01,), drops=(0, 1)).apply(roles, "pruned")
    roles.add(Role("full", roles["pruned"].module))
    roles.add(Role("discriminator", FeatureHeads().build(roles)))
    roles.add(Role("jumps", JumpHeads().build(roles)))
    roles.add(Role("variance", VarianceHead().build(roles)))
    return roles


INPUTS = {"route-score", "route-denoise", "jump-generator", "jump-discriminator"}
"""Losses that ask where the student's step ends."""
OPTIONS = {
    "jump-generator": {"heads": "jumps"}, "jump-discriminator": {"heads": "jumps"}, "self-teacher": {"role": "pruned"},
}  # fmt: skip


def event(roles, ends):
    """A sound's latents, noised, with the student's answer and all that a loss may look for."""
    student, rng = roles["student"], Rng(1)
    x, _, cond = student.denoiser.example(SIZE)
    batch = Batch(SIZE, rng.normal_like(x, stream="data"), cond)
    t, noise = torch.tensor([0.3, 0.8, 1.3]), rng.normal_like(x, stream="noise")
    x_t = student.denoiser.path.noised(batch.x, noise, t)
    said = student.predict(x_t, t, cond)
    answer = student.predict(x_t, t, cond).x0
    end = said.x0.detach() + 0.1
    return Event(
        said.x0, cond, t, x_t, noise, said, meta={"paired": answer},
        scalars={"next_time": t / 2} if ends else {},
        targets={"real": batch.x, "x0": end, "x": end, "next": end, "end": end},
    )  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_no_modality_moves_networks_of_sound(cast, name):
    loss = default_registry().find("loss", name).load()(**OPTIONS.get(name, {}))
    terms = loss.terms(event(cast, name in INPUTS), Context(cast, Rng(0)))
    weights = [weight for role in loss.moves for weight in cast[role].module.parameters()]
    before = [weight.detach().clone() for weight in weights]
    sum(value.mean() for value in terms.values()).backward()
    torch.optim.SGD(weights, lr=0.1).step()
    assert all(value.shape == (SIZE,) and value.isfinite().all() for value in terms.values())
    assert any(not torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
