"""From a method to roles: copies, shared modules, built ones, and what cannot be made."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.core import (
    Builder,
    Denoiser,
    HeadBuilder,
    Method,
    Mixture,
    Plan,
    Role,
    RoleSpec,
    Sampler,
    Transform,
    assemble,
)
from distill.core.errors import RecipeError
from distill.core.paths import Flow
from distill.core.setup import Frozen


class Wide(Builder):
    def build(self):
        return Denoiser(nn.Linear(2, 2), Flow(), "x0", shape=(2,))


class Heads(HeadBuilder):
    def build(self, roles):
        return nn.Linear(roles[self.features].denoiser.shape[0], 1)


class Zero(Transform):
    def apply(self, roles, name):
        nn.init.zeros_(roles[name].module.network.weight)


class Made(Method):
    specs: dict[str, RoleSpec]

    def roles(self):
        return self.specs

    def plan(self, teacher):
        return Plan(phases=())


def roles(extra=None, **specs):
    return assemble(Made(specs=specs), {"teacher": Role("teacher", Wide().build())}, extra)


def test_roles_are_made_once_what_they_look_at_exists():
    made = roles(
        heads=RoleSpec(build=Heads(features="critic")), critic=RoleSpec(copy_of="student"),
        student=RoleSpec(copy_of="teacher", transforms=(Zero(),)), lora=RoleSpec(shares="teacher"),
    )  # fmt: skip
    assert made["lora"].module is made["teacher"].module and made["critic"].module is not made["student"].module
    assert made["critic"].module.network.weight.abs().sum() == 0 < made["teacher"].module.network.weight.abs().sum()
    assert made["heads"].module.in_features == 2


def test_a_copy_of_a_frozen_role_can_learn():
    teacher = Role("teacher", Wide().build())
    teacher.module.requires_grad_(False)
    made = assemble(Made(specs={"student": RoleSpec(copy_of="teacher", guidance=3.0)}), {"teacher": teacher})
    assert all(p.requires_grad for p in made["student"].parameters()) and made["student"].guidance.calls == 2


def test_given_roles_stay_and_extra_ones_override():
    extra = {"student": RoleSpec(build=Wide(), frozen=True), "teacher": RoleSpec(build=Wide())}
    made = roles(extra, student=RoleSpec(copy_of="teacher"))
    assert made["student"].frozen and list(made) == ["teacher", "student"]


@pytest.mark.parametrize("spec, says", [
    (RoleSpec(), "says neither"), (RoleSpec(copy_of="nobody"), "no role 'nobody'; it has teacher"),
    (RoleSpec(shares="a"), "the roles a wait for each other"),
], ids=["nothing", "unknown", "itself"])  # fmt: skip
def test_what_cannot_be_made_is_explained(spec, says):
    with pytest.raises(RecipeError, match=says):
        roles(a=spec)


def test_an_exact_teacher_can_be_copied_without_sharing():
    teacher = Mixture(torch.eye(2), 0.1, Flow())
    made = assemble(Made(specs={"student": RoleSpec(copy_of="teacher")}), {"teacher": Role("teacher", teacher)})
    made["student"].module.means.zero_()
    assert teacher.means.sum() == 2
    assert Sampler(steps=2).sample(made["teacher"], torch.zeros(3, 2)).shape == (3, 2)


def test_a_model_that_is_not_trained_can_be_sampled_otherwise():
    own = Sampler(steps=50, guidance=7.5)
    assert Frozen().plan(own).sampler is own
    assert Frozen(sampler=Sampler(guidance=2.0, rescale=0.5)).plan(own).sampler == Sampler(
        steps=50, guidance=2.0, rescale=0.5
    )
