"""Networks that hardly fit: activations computed again, frozen weights held small, weights spread over processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from distill.core.denoiser import SCOPES, Denoiser, within
from distill.core.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    from distill.core.roles import Roles


def blocks(network: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """The repeated parts of a network by name: the outermost members of its lists that have parts of their own."""
    found: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        listed = isinstance(network, nn.ModuleList | nn.Sequential) and not isinstance(child, nn.ModuleList)
        if listed and any(True for _ in child.children()):
            found[prefix + name] = child
        else:
            found |= blocks(child, f"{prefix}{name}.")
    return found


class Checkpointed(nn.Module):
    """A block that computes its activations again in the backward pass, in the scopes of its call: arXiv:1604.06174."""

    def forward(self, *args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            return super().forward(*args, **options)
        scopes = SCOPES.get()
        again: Any = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), within(*scopes))}
        return checkpoint(super().forward, *args, **again, **options)


def extend(block: nn.Module, mixin: type[nn.Module]) -> None:
    """Put a mixin before the block's class; a deep copy keeps it, and its weights are the copy's."""
    if not isinstance(block, mixin):
        block.__class__ = type(f"{mixin.__name__}{type(block).__name__}", (mixin, type(block)), {})


def checkpoint_activations(module: nn.Module) -> None:
    """Keep what enters each block of a denoiser, and none of what is computed in it."""
    if isinstance(module, Denoiser):
        for block in blocks(module.network).values():
            extend(block, Checkpointed)


# ---------------------------------------------------------------- frozen weights held small


def eight_bit(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers of 8 bits, and the scale of each row by which they are multiplied: its largest weight / 127."""
    scale = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round().to(torch.int8), scale


class EightBit(nn.Module):
    """A frozen linear layer in whole numbers of 8 bits with one scale a row."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        whole, scale = eight_bit(layer.weight.detach())
        self.weight, self.scale = (nn.Parameter(value, requires_grad=False) for value in (whole, scale))
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype), self.bias)


class Offloaded(nn.Module):
    """A block whose frozen weights, `lent` by name, lie on the CPU and are where its inputs are while it runs."""

    lent: tuple[str, ...]

    @contextmanager
    def swapped(self, change: Callable[[nn.Parameter], nn.Parameter | None]) -> Iterator[None]:
        """Other values, or none, in the place of what is lent."""
        paths = [name.rpartition(".") for name in self.lent]
        kept = [(self.get_submodule(path), leaf, self.get_parameter(f"{path}{dot}{leaf}")) for path, dot, leaf in paths]
        for part, leaf, parameter in kept:
            setattr(part, leaf, change(parameter))
        try:
            yield
        finally:
            for part, leaf, parameter in kept:
                setattr(part, leaf, parameter)

    def forward(self, *args: Any, **options: Any) -> Any:
        device = next(leaf.device for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor))
        with self.swapped(lambda p: nn.Parameter(p.to(device, non_blocking=True), requires_grad=False)):
            return super().forward(*args, **options)

    def _apply(self, *args: Any, **options: Any) -> Any:
        with self.swapped(lambda p: None):
            return super()._apply(*args, **options)  # type: ignore[no-untyped-call]


def _quantise(network: nn.Module, adapters: set[nn.Parameter]) -> None:
    for part in list(network.modules()):
        for name, layer in part.named_children():
            # subclasses are there for whoever reads the weights himself; a scale for a few weights saves nothing
            if type(layer) is nn.Linear and layer.in_features >= 32 and layer.weight not in adapters:
                setattr(part, name, EightBit(layer))


def _offload(network: nn.Module, adapters: set[nn.Parameter]) -> None:
    for block in list(blocks(network).values()) or [network]:
        lent = {name: p for name, p in block.named_parameters() if p not in adapters}
        for parameter in lent.values() if torch.cuda.is_available() else ():
            parameter.data = parameter.data.pin_memory()
        extend(block, Offloaded)
        block.lent = tuple(lent)  # type: ignore[assignment]


HOLDS: dict[str, Callable[[nn.Module, set[nn.Parameter]], None]] = {"8bit": _quantise, "offload": _offload}


def hold(roles: Roles, name: str, how: str, changed: Iterable[str]) -> None:
    """Hold the frozen weights of a role, and of those that share its module, in a way that needs less memory."""
    network = roles[name].denoiser.network
    sharing = {each: role for each, role in roles.items() if role.module is roles[name].module}
    if trained := [each for each, role in sharing.items() if each in changed and role.own is None]:
        raise RecipeError(f"the weights of {name} cannot be held as '{how}': this method changes those of {trained[0]}")
    HOLDS[how](network, {p for role in sharing.values() for p in (role.own or {}).values()})


def resident(module: nn.Module) -> int:
    """Bytes of a module's weights that lie on the device at once: of offloaded blocks, those of the largest."""
    lent = [
        sum(block.get_parameter(name).nbytes for name in block.lent)
        for block in module.modules() if isinstance(block, Offloaded)
    ]  # fmt: skip
    return sum(p.nbytes for p in module.parameters()) - sum(lent) + max(lent, default=0)


# ---------------------------------------------------------------- weights spread over processes


def check(roles: Roles) -> None:
    """Raise RecipeError where weights cannot be spread."""
    if torch.__version__ < "2.9":
        raise RecipeError(f"'shard' needs torch 2.9 or newer, and this is {torch.__version__}: leave it out")
    for role in roles.values():
        if single := [
            name for name, p in role.named_parameters().items() if isinstance(role.module, Denoiser) and not p.ndim
        ]:
            raise RecipeError(
                f"role '{role.name}' cannot be sharded: its parameter {single[0]} is a single number, which has no "
                "shares; leave out 'shard'"
            )


def shard(roles: Roles, mesh: DeviceMesh) -> dict[nn.Parameter, nn.Parameter]:
    """Leave a share of every denoiser's weights on each process (FSDP2, arXiv:2304.11277), blocks gathered as they run.

    Returns:
        the leaf of autograd's graph for each share: what a backward pass is asked for, whose gradient the share gets.
    """
    leaves: dict[nn.Parameter, nn.Parameter] = {}
    for module in {id(role.module): role.module for role in roles.values()}.values():
        if isinstance(module, Denoiser):
            names = {parameter: name for name, parameter in module.named_parameters()}
            _shard(module, mesh)
            shares = dict(module.named_parameters())
            for role in roles.values():
                if role.module is module and role.own is not None:
                    role.own = {name: shares[names[parameter]] for name, parameter in role.own.items()}
            leaves |= _leaves(module, shares)
    return leaves


def _shard(denoiser: Denoiser, mesh: DeviceMesh) -> None:
    touched = (*denoiser.taps, *denoiser.scalar_sites)
    for name, block in blocks(denoiser.network).items():
        # nothing gathers the weights of a block for who begins in its midst; such a block stays with the root
        if not any(site.startswith(f"{name}.") for site in touched):
            fully_shard(block, mesh=mesh)
    for root in _roots(denoiser):
        fully_shard(root, mesh=mesh)
        # a backward pass may start at any block, or be one of several: `settle` ends what is gathered here
        root.set_reshard_after_backward(False, recurse=False)
        # nobody writes in the place of what a network says
        warnings.filterwarnings("ignore", rf"FSDP2-wrapped module \({type(root).__name__}\)")


def _roots(denoiser: Denoiser) -> list[Any]:
    return [denoiser.network, *denoiser.scalars.values()]


def _leaves(denoiser: Denoiser, shares: dict[str, nn.Parameter]) -> dict[nn.Parameter, nn.Parameter]:
    found: dict[nn.Parameter, nn.Parameter] = {}
    for part in denoiser.modules():
        if isinstance(part, FSDPModule):
            part.unshard()
            found |= {shares[name]: p for name, p in denoiser.named_parameters() if p is not shares[name]}
            part.reshard()
    return found


def settle(module: nn.Module) -> None:
    """Let go of the weights that are still gathered, before somebody reads or writes the shares."""
    for root in _roots(module) if isinstance(module, Denoiser) else ():
        if isinstance(root, FSDPModule):
            root.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself; gathered, where processes hold shares of it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """The tensor itself, or this process's share of it, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a value that every process has whole, or a share of it, into a tensor or a share."""
    if isinstance(tensor, DTensor) and not isinstance(value, DTensor):
        value = distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)
    tensor.copy_(value)


# ---------------------------------------------------------------- checkpoints of shares


def save(folder: Path, files: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write shares, one safetensors file of each process, by torch.distributed.checkpoint; every process calls this."""
    dcp: Any = import_module("torch.distributed.checkpoint")
    tensors = {f"{file}/{name}": value for file, own in files.items() for name, value in own.items()}
    try:
        dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except dcp.CheckpointException as error:
        raise CheckpointError(f"the shares of a checkpoint were not written to {folder}: {error}") from error


def load(folder: Path, place: Callable[[str, Tensor], Tensor | None]) -> dict[str, dict[str, Tensor]]:
    """The files that were saved, whatever the number of processes was and is.

    `place` gives the tensor or share that the one of this name and size belongs in; None leaves it out.
    """
    dcp: Any = import_module("torch.distributed.checkpoint")
    about = dcp.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    empty = {key: torch.empty(of.size, dtype=of.properties.dtype) for key, of in about.items()}
    places = {key: place(key, like) for key, like in empty.items()}
    found = {key: mine for key, mine in places.items() if mine is not None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is")  # every process reads what it needs by itself
        dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=True)
    files: dict[str, dict[str, Tensor]] = {}
    for key, value in found.items():
        file, _, name = key.partition("/")
        files.setdefault(file, {})[name] = value
    return files
