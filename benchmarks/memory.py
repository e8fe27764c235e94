"""Memory of DMD2 with adapters on one frozen base, against three full copies of the network."""

from __future__ import annotations

from collections.abc import Iterator

from dmd2 import engine
from table import Row
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from distill.core import Denoiser, Engine, RoleSpec
from distill.image.networks import DiT
from distill.methods.transforms import LoRA

MIB = 2**20


def network(layers: int = 8, heads: int = 6) -> Denoiser:
    """A DiT; 25 million parameters unless told otherwise."""
    return DiT(config={
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "num_attention_heads": heads,
        "attention_head_dim": 64, "num_layers": layers, "patch_size": 2, "num_embeds_ada_norm": 10,
        "norm_num_groups": 1,
    }).build()  # fmt: skip


def _tensors(run: Engine) -> Iterator[Tensor]:
    for role in run.roles.values():
        for parameter in role.module.parameters():
            yield parameter
            if parameter.grad is not None:
                yield parameter.grad
    for optimiser in run.optimisers.values():
        for state in optimiser.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))


def held(run: Engine) -> int:
    """Bytes of parameters, gradients and optimiser state now; what roles share counts once."""
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in _tensors(run)}.values())


def peak(adapters: bool, denoiser: Denoiser, iterations: int = 2) -> int:
    """The most that was held when an optimiser stepped."""
    lora = RoleSpec(shares="teacher", transforms=(LoRA(rank=8),))
    run = engine(denoiser, size=2, **({"student": lora, "critic": lora} if adapters else {}))
    seen: list[int] = []
    handle = register_optimizer_step_post_hook(lambda *_: seen.append(held(run)))
    try:
        run.run(iterations)
    finally:
        handle.remove()
    return max(seen)


def memory() -> list[Row]:
    """Peak of parameters, gradients and optimiser state."""
    few, many = peak(True, network()), peak(False, network())
    what = "peak memory of student and critic as LoRA on one base, against three full copies"
    note = "parameters, gradients and optimiser state of a DiT with 25 M parameters, rank 8"
    return [Row(what, 0.5, few / many, f"{few / MIB:.0f} MiB", f"{many / MIB:.0f} MiB", note)]
