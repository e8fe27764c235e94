"""Large networks: activations computed again, frozen weights held small. Shares are tested in test_distributed."""

from __future__ import annotations

import copy

import pytest
import torch

from distill.core import Role, Roles, scale
from distill.core.commands import costs
from distill.core.errors import RecipeError
from distill.core.recipe import load_recipe
from distill.core.registry import default_registry
from distill.core.run import prepare
from distill.image.networks import DiT, MMDiT, UNet2D, UNet2DCondition
from distill.methods.networks import MLPDenoiser
from distill.methods.transforms import LoRA

NETWORKS = [each(**each.example) for each in (DiT, MMDiT, UNet2D, UNet2DCondition)]


def gradients(role, again):
    """Gradients of a step through a role, and the bytes that its forward pass kept."""
    if again:
        scale.checkpoint_activations(role.module)
    torch.manual_seed(0)
    kept, generator = {}, torch.Generator().manual_seed(0)

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(8, *role.denoiser.shape, generator=generator, requires_grad=True)
    t, cond = torch.rand(8, generator=generator), role.denoiser.example(8)[2]
    weights = {p.untyped_storage().data_ptr() for p in role.module.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = (role.predict(x, t, cond).x0 ** 2).mean()
    role.module.zero_grad()
    total.backward()
    sums = [x.grad, *(p.grad for p in role.parameters() if p.grad is not None)]
    return sums, sum(size for place, size in kept.items() if place not in weights)


@pytest.mark.parametrize("builder", [MLPDenoiser(depth=5), *NETWORKS], ids=lambda builder: type(builder).__name__)
def test_activations_computed_again_give_the_same_gradients_from_fewer_bytes(builder):
    whole = Role("student", builder.build())
    again = Role("student", copy.deepcopy(whole.module))
    (expected, most), (got, least) = gradients(whole, False), gradients(again, True)
    assert least < 0.75 * most
    assert all(torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(expected, got, strict=True))


def lora_roles():
    torch.manual_seed(0)
    teacher = Role("teacher", MLPDenoiser(depth=4).build().requires_grad_(False))
    roles = Roles(
        {"teacher": teacher, "student": Role("student", teacher.module), "critic": Role("critic", teacher.module)}
    )
    for name in ("student", "critic"):
        LoRA(rank=2).apply(roles, name)
        for parameter in roles[name].parameters():
            torch.nn.init.normal_(parameter)
    return roles


def test_what_is_computed_again_asks_the_adapter_that_was_asked():
    """The backward pass comes when the role's scope is over, and another role was asked since."""
    found = []
    for again in (False, True):
        roles, x = lora_roles(), torch.ones(3, 2)
        if again:
            scale.checkpoint_activations(roles["teacher"].module)
        said = roles["student"].predict(x, 0.5).x0
        total = (said - roles["critic"].predict(said, 0.3).x0 + roles["teacher"].ask(x, 0.5).x0).square().mean()
        found.append(torch.autograd.grad(total, roles["student"].parameters() + roles["critic"].parameters()))
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*found, strict=True))


def test_a_copy_of_such_a_network_computes_with_its_own_weights():
    denoiser = MLPDenoiser(depth=3).build()
    scale.checkpoint_activations(denoiser)
    other = copy.deepcopy(denoiser)
    before = denoiser.predict(torch.ones(2, 2), 0.5).x0
    torch.nn.init.zeros_(other.network.hidden[0][1].weight)
    assert torch.equal(denoiser.predict(torch.ones(2, 2), 0.5).x0, before)
    assert not torch.equal(other.predict(torch.ones(2, 2), 0.5).x0, before)


def test_what_is_computed_again_gets_the_extra_input_that_was_given():
    torch.manual_seed(0)
    role, found = Role("student", NETWORKS[0].build()), []
    role.denoiser.add_scalar("w")
    torch.nn.init.normal_(role.denoiser.scalars["w"].out.weight)
    x, t, cond = role.denoiser.example(2)
    for again in (False, True):
        if again:
            scale.checkpoint_activations(role.module)
        total = role.predict(x + 1, t / 2, cond, w=torch.ones(2)).x0.square().mean()
        found.append(torch.autograd.grad(total, role.parameters(), allow_unused=True))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True) if a is not None)


def linear_bytes(network):
    kinds = (torch.nn.Linear, scale.EightBit)
    return sum(
        p.nbytes for part in network.modules() if isinstance(part, kinds) for p in part.parameters(recurse=False)
    )


def test_eight_bits_say_nearly_the_same_from_a_quarter_of_the_bytes():
    """Within 1 % of what whole weights say, in the mean square; gradient runs through to the inputs."""
    torch.manual_seed(0)
    roles = Roles({"teacher": Role("teacher", MLPDenoiser(width=128, depth=4).build())})
    x, network = torch.randn(64, 2, requires_grad=True), roles["teacher"].denoiser.network
    whole, most = roles["teacher"].predict(x, 0.5).x0, linear_bytes(network)
    before = torch.autograd.grad(whole.square().sum(), x)[0]
    scale.hold(roles, "teacher", "8bit", ())
    held = roles["teacher"].predict(x, 0.5).x0
    after = torch.autograd.grad(held.square().sum(), x)[0]
    assert (held - whole).norm() < 0.01 * whole.norm() and (after - before).norm() < 0.02 * before.norm()
    assert most / linear_bytes(network) >= 3.5


@pytest.mark.parametrize("builder", NETWORKS, ids=lambda builder: type(builder).__name__)
@pytest.mark.parametrize("how", ["8bit", "offload"])
def test_held_networks_of_diffusers_answer(builder, how):
    torch.manual_seed(0)
    roles = Roles({"teacher": Role("teacher", builder.build().eval())})
    x, t, cond = roles["teacher"].denoiser.example(2)
    x = torch.randn_like(x)
    before = roles["teacher"].ask(x, t, cond).value
    scale.hold(roles, "teacher", how, ())
    after = roles["teacher"].ask(x, t, cond).value
    assert (after - before).norm() <= (0.02 if how == "8bit" else 0) * before.norm()


def test_offloaded_weights_are_where_the_inputs_are_while_a_block_runs():
    """The device `meta` stands for an accelerator; an adapter lies there for good."""
    roles, seen = lora_roles(), []
    block = roles["teacher"].denoiser.network.hidden[0]
    scale.hold(roles, "teacher", "offload", ())
    block[1].register_forward_hook(lambda layer, args, output: seen.append(layer.base_layer.weight.device.type))
    weight = block[1].base_layer.weight
    block.to("meta")
    with roles["student"].scope():
        assert block(torch.ones(2, 128, device="meta")).device.type == "meta"
    assert seen == ["meta"] and block[1].base_layer.weight is weight and weight.device.type == "cpu"
    assert {p.device.type for name, p in block.named_parameters() if ".lora_" in name} == {"meta"}


@pytest.fixture
def held(recipe):
    def make(*changes, **options):
        again = ["checkpoint_every=0", "method.generator.weight=0", *changes]
        return prepare(*load_recipe(recipe, again), default_registry(), **options)

    return make


@pytest.mark.parametrize("how, error", [("offload", 0), ("8bit", 1e-3)])
def test_a_student_learns_the_same_from_a_teacher_that_is_held(held, how, error):
    shared = "roles.critic={shares: teacher, transforms: [{name: lora, rank: 2}]}"
    runs = [held(shared), held(shared, f"roles.teacher.hold={how}", "checkpoint_activations=true")]
    weights = []
    for run in runs:
        engine = run.engine(None).run(4)
        weights.append(torch.cat([value.flatten() for value in engine.roles["student"].tensors().values()]))
    assert (weights[1] - weights[0]).norm() <= (error or 1e-6) * weights[0].norm()
    assert isinstance(runs[1].roles["teacher"].denoiser.network.net.transformer_blocks[0], scale.Checkpointed)


def test_the_estimate_of_memory_follows(held):
    whole, lent, small = (costs(held(*said))["teacher"] for said in ((), ["roles.teacher.hold=offload"],
                          ["roles.teacher.hold=8bit"]))  # fmt: skip
    run = held("roles.teacher.hold=8bit")
    assert small.weights == sum(p.nbytes for p in run.roles["teacher"].module.parameters()) < 0.5 * whole.weights
    assert lent.weights < 0.6 * whole.weights and lent.parameters == whole.parameters


@pytest.mark.parametrize("said, message", [
    ("roles.student.hold=8bit", "of student cannot be held as '8bit': this method changes those of student"),
    ("roles.nobody.hold=8bit", "this run has no role 'nobody'"),
    ("roles.teacher.hold=4bit", "roles.teacher.hold: Input should be '8bit' or 'offload'"),
])  # fmt: skip
def test_what_cannot_be_held_is_said(held, said, message):
    with pytest.raises(RecipeError, match=message):
        held(said)


def test_what_cannot_be_sharded_is_said(held):
    with pytest.raises(RecipeError, match="sharded or held as roles.teacher says, not both"):
        held("shard=true", "roles.teacher.hold=8bit")
    role = Role("student", MLPDenoiser().build())
    role.module.factor = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(RecipeError, match="role 'student' cannot be sharded: its parameter factor is a single number"):
        scale.check(Roles({"student": role}))


def test_a_run_is_opened_with_whole_weights(held):
    run = held("roles.teacher.hold=8bit", hold=False)
    assert not any(isinstance(part, scale.EightBit) for part in run.roles["teacher"].module.modules())
