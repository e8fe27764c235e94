"""Surgery on a role: low-rank adapters and extra scalar inputs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from distill.core import Denoiser, DistillError, Roles, Transform


class LoRA(Transform):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on a module that roles may share.

    The adapter is off by default and on during this role's calls only: a teacher that shares the module answers as if
    it were not there, bit for bit. The role owns the adapter's parameters and nothing else.
    """

    rank: int = 8
    """Rank of the update."""
    alpha: int | None = None
    """Scale of the update is alpha / rank; alpha = rank if None."""
    targets: tuple[str, ...] = ()
    """Ends of the names of the layers that get an adapter; every linear and convolution layer if empty."""

    def apply(self, roles: Roles, name: str) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        role = roles[name]
        network = role.denoiser.network
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha or self.rank, target_modules=self._targets(network))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are the point here
            inject_adapter_in_model(config, network, adapter_name=name)
        layers = [part for part in network.modules() if isinstance(part, BaseTunerLayer)]
        named = ((f"{key}.", p) for key, p in network.named_parameters())
        mine = {key.replace(f".{name}.", ".").removesuffix("."): p for key, p in named if f".{name}." in key}
        if not mine:
            raise DistillError(f"LoRA found no layer to adapt in role '{name}'; targets: {self.targets or 'all'}")

        def switch(off: bool) -> None:
            for layer in layers:
                # peft's own switches also decide what is trained, of other roles too, whose graphs may still be waiting
                layer._disable_adapters, layer._active_adapter = off, [name]

        @contextmanager
        def scope() -> Iterator[None]:
            switch(off=False)
            try:
                yield
            finally:
                switch(off=True)

        def fold() -> Denoiser:
            with scope():
                alone = copy.deepcopy(role.denoiser)
            alone.network = merged(alone.network)
            return alone

        switch(off=True)
        for parameter in mine.values():
            parameter.requires_grad_(True)
        role.scope, role.own, role.fold = scope, mine, fold

    def _targets(self, network: nn.Module) -> list[str]:
        layers = [key for key, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d)]
        layers = [key.removesuffix(".base_layer") for key in layers if ".lora_" not in key]
        return [key for key in layers if not self.targets or key.endswith(self.targets)]


class ScalarInput(Transform):
    """An extra scalar input that changes nothing until it is trained: a guidance weight, a step size, a step count."""

    scalar: str = "w"
    """Name under which `predict` takes it."""
    scale: float = 1.0
    """Factor before the Fourier features; about 1 / the range of the input."""

    def apply(self, roles: Roles, name: str) -> None:
        roles[name].denoiser.add_scalar(self.scalar, self.scale)


def merged(network: Any) -> Any:
    """The network with its adapters folded into the weights and the adapter layers gone."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for key, part in list(network.named_modules()):
        if isinstance(part, BaseTunerLayer):
            part.enable_adapters(True)
            part.merge()
            parent, _, leaf = key.rpartition(".")
            setattr(network.get_submodule(parent), leaf, part.get_base_layer())
    return network
