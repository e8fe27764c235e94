"""Guidance in an adapter: who moves, what stays bit for bit, and what merging keeps."""

import copy

import torch

from distill.core import Context, Engine, Rng, Role, Sampler, Samples, assemble, batches
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.lora_guided import LoRAGuided
from distill.methods.transforms import LoRA, merged

DATA = Samples(x=torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), label=torch.arange(64) % 4)


def base():
    torch.manual_seed(0)
    return MLPDenoiser(path="cosine", kind="v", width=16, classes=4).build()


def trained():
    teacher = base()
    before = copy.deepcopy(teacher)
    method = LoRAGuided(w=3, lora=LoRA(rank=4), steps=20, lr=1e-2)
    return before, toys.train(method, {"teacher": teacher}, data=DATA, size=32)


def said(role):
    return role.ask(torch.ones(8, 2), torch.linspace(0.1, 0.9, 8), {"label": torch.arange(8) % 4}).x0


def test_adapter_off_is_the_base_bit_for_bit_and_on_is_not() -> None:
    before, engine = trained()
    assert torch.equal(said(engine.roles["teacher"]), said(Role("before", before)))
    assert not torch.equal(said(engine.roles["student"]), said(engine.roles["teacher"]))


def test_only_the_adapter_is_moved_and_saved() -> None:
    _, engine = trained()
    student = engine.roles["student"]
    assert student.module is engine.roles["teacher"].module
    assert all("lora_" in name for name in student.tensors())
    assert engine.saved_roles() == ["student"]


def test_merged_is_the_adapted_network() -> None:
    _, engine = trained()
    student = engine.roles["student"]
    adapted = said(student)
    merged(student.denoiser.network)
    torch.testing.assert_close(said(Role("merged", student.denoiser)), adapted, atol=1e-5, rtol=0)


def test_sampling_takes_the_teachers_grid_without_its_guidance() -> None:
    sampler = LoRAGuided().plan(Sampler(steps=20, guidance=7.5)).sampler
    path = base().path
    assert sampler.guidance == 1 and sampler.calls(path) * 2 == Sampler(steps=20, guidance=7.5).calls(path)


def test_the_loss_falls_while_its_target_stands_still() -> None:
    seen = []
    method = LoRAGuided(w=3, lora=LoRA(rank=4), steps=60, lr=1e-2)
    roles = assemble(method, {"teacher": Role("teacher", base())})
    start = said(roles["teacher"])
    Engine(
        roles, method.plan(Sampler()), lambda step: batches(DATA, 64, start=step),
        on_step=lambda engine, metrics: seen.append(metrics["cfg_match"]),
    ).run()  # fmt: skip
    assert sum(seen[-10:]) < 0.5 * sum(seen[:10])
    assert torch.equal(said(roles["teacher"]), start)


def test_the_student_starts_as_the_base() -> None:
    roles = Context(assemble(LoRAGuided(), {"teacher": Role("teacher", base())}), Rng(0)).roles
    assert torch.equal(said(roles["student"]), said(roles["teacher"]))
