"""Roles: whose parameters are whose, saved and put back, and clear words for what is missing."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from distill.core import Denoiser, Role, Roles
from distill.core.errors import RecipeError
from distill.core.paths import Flow


class Adapted(nn.Module):
    """`scale · adapter(x) + x`: one module for two roles."""

    def __init__(self):
        super().__init__()
        self.base, self.adapter, self.scale = nn.Linear(2, 2), nn.Linear(2, 2), 0.0

    def forward(self, x, t, cond):
        return self.base(x) + self.scale * self.adapter(x)


@pytest.fixture
def pair():
    net = Adapted()

    @contextmanager
    def on():
        net.scale = 1.0
        yield
        net.scale = 0.0

    shared = Denoiser(net, Flow(), "x0", shape=(2,))
    own = {name: p for name, p in shared.named_parameters() if "adapter" in name}
    return Role("teacher", shared), Role("critic", shared, scope=on, own=own)


def test_an_adapter_is_on_for_its_own_role_only(pair):
    teacher, critic = pair
    x = torch.ones(1, 2)
    said = teacher.predict(x, 0.5).x0
    assert not torch.equal(critic.predict(x, 0.5).x0, said) and torch.equal(teacher.predict(x, 0.5).x0, said)


def test_a_sharing_role_owns_and_saves_its_adapter_only(pair):
    teacher, critic = pair
    assert set(critic.tensors()) == {"network.adapter.weight", "network.adapter.bias"}
    assert len(critic.parameters()) == 2 and len(teacher.parameters()) == 4
    critic.load({name: torch.zeros_like(value) for name, value in critic.tensors().items()})
    assert teacher.module.network.adapter.weight.abs().sum() == 0 < teacher.module.network.base.weight.abs().sum()


def test_asking_leaves_no_graph(pair):
    assert not pair[0].ask(torch.ones(1, 2), 0.5).x0.requires_grad
    assert pair[0].predict(torch.ones(1, 2), 0.5).x0.requires_grad


@pytest.mark.parametrize("change", [
    lambda saved: saved.pop("network.base.bias"),
    lambda saved: saved.update(extra=torch.zeros(1)),
    lambda saved: saved.update({"network.base.bias": torch.zeros(1)}),
], ids=["missing", "extra", "shape"])  # fmt: skip
def test_weights_that_do_not_fit_are_refused_before_anything_changes(pair, change):
    saved = {name: torch.full_like(value, 9.0) for name, value in pair[0].tensors().items()}
    change(saved)
    with pytest.raises(RecipeError, match=r"role 'teacher' do not fit: .*(bias|extra)"):
        pair[0].load(saved)
    assert not (pair[0].module.network.base.weight == 9).any()


def test_a_role_that_is_not_there_is_named_with_those_that_are(pair):
    roles = Roles({"teacher": pair[0]})
    with pytest.raises(RecipeError, match="no role 'critic'; it has teacher"):
        _ = roles["critic"]
    assert roles.add(pair[1]) is roles["critic"] and list(roles) == ["teacher", "critic"]


def test_a_role_that_is_no_denoiser_says_so():
    with pytest.raises(RecipeError, match="role 'heads' is a Linear"):
        Role("heads", nn.Linear(1, 1)).predict(torch.ones(1), 0.5)


def test_standing_scalars_are_passed_and_can_be_overridden(pair):
    teacher = pair[0]
    teacher.module.scalar_sites = ("base",)
    teacher.module.add_scalar("w")
    teacher.scalars["w"] = torch.ones(1)
    nn.init.normal_(teacher.module.scalars["w"].out.weight)
    x = torch.ones(1, 2)
    assert not torch.equal(teacher.predict(x, 0.5).x0, teacher.predict(x, 0.5, w=torch.zeros(1)).x0)
