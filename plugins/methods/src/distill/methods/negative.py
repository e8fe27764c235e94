"""Negative prompts for networks of one or few steps: subtracted inside cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from distill.core import DistillError, Roles, Transform


@dataclass
class Heard:
    """What hooks of one network tell each other within a call."""

    tokens: Tensor | None = None
    listening: bool = False
    values: dict[nn.Module, Tensor] = field(default_factory=dict)


class NegativeAttention(Transform):
    """NASA: every cross-attention gives `Z⁺ − α Z⁻`, queries and projections being the same (arXiv:2412.02687).

    Z± are the attended values before the output projection. The negative prompt is one more condition; without it the
    network answers as before, bit for bit. Negative tokens are not masked, and layers that attend to pictures and text
    jointly are not reached.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy has no cross-attention"}
    alpha: float = 0.3
    """α, how much is taken away; 0 is nothing."""
    negative: str = "negative"
    """Name of the condition that is taken away, in the form of the text's."""
    sites: tuple[str, ...] = ("attn2",)
    """Ends of the names of the cross-attention layers."""
    outlet: str = "to_out"
    """Their output projection, or a list that begins with it."""
    through: str = ""
    """Part of the network that makes tokens of the condition; none if empty."""

    def apply(self, roles: Roles, name: str) -> None:
        """Hook the layers; copies of the network are hooked with it."""
        network, heard = roles[name].denoiser.network, Heard()
        layers = [part for key, part in network.named_modules() if key.endswith(self.sites)]
        if not layers:
            raise DistillError(f"role '{name}' has no layer whose name ends in {' or '.join(self.sites)}")

        def take(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x, t, cond, *rest = args
            given = cond.get(self.negative)
            heard.tokens = given if given is None or not self.through else module.get_submodule(self.through)(given)
            return (x, t, _without(cond, self.negative), *rest)

        def listen(layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            if heard.tokens is None or not self.alpha:
                return
            changed: dict[str, Any] = {"encoder_hidden_states": heard.tokens}
            changed |= {"attention_mask": None} if "attention_mask" in options else {}
            heard.listening = True
            layer.forward(*args[:1], **{**options, **changed})
            heard.listening = False

        def steer(outlet: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if heard.listening:
                heard.values[outlet] = args[0]
                return None
            away = heard.values.pop(outlet, None)
            return None if away is None else (args[0] - self.alpha * away, *args[1:])

        network.register_forward_pre_hook(take)
        for layer in layers:
            layer.register_forward_pre_hook(listen, with_kwargs=True)
            outlet = layer.get_submodule(self.outlet)
            (outlet[0] if isinstance(outlet, nn.ModuleList) else outlet).register_forward_pre_hook(steer)


def _without(cond: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in cond.items() if key != name}
