"""Negative prompts for networks of one or few steps: subtracted inside the attention to text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distill.core import DistillError, Roles, Transform

TEXT_KEYS = "add_k_proj"
"""The part by which a layer is known that attends to picture and text jointly: keys of the text alone."""


class Enough(Exception):
    """All that a layer hears of the negative prompt is known; the rest of the call is spared."""


@dataclass
class Heard:
    """What hooks of one network tell each other within a call."""

    overhearing: bool = False
    listening: bool = False
    said: dict[nn.Module | None, dict[str, Any]] = field(default_factory=dict)
    values: dict[nn.Module, Tensor] = field(default_factory=dict)


class NegativeAttention(Transform):
    """NASA: every attention to text gives `Z⁺ − α Z⁻`, queries and projections being the same (arXiv:2412.02687).

    Z± are the attended values before the output projection. Where picture and text are attended to jointly, Z⁻ is what
    the negative text adds to the picture's values under the joint softmax: the share of `Σ p V` that falls on its
    tokens, which are those of a call with the negative prompt. The negative prompt is one more condition, a tensor in
    the place of the text or a mapping of all that an encoder says; without it the network answers as before, bit for
    bit. Layers with one stream for picture and text are not reached.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy has no attention to text"}
    alpha: float = 0.3
    """α, how much is taken away; 0 is nothing."""
    negative: str = "negative"
    """Name of the condition that is taken away."""
    text: str = "text"
    """Name of the condition in whose place a negative tensor is heard."""
    sites: tuple[str, ...] = ("attn2",)
    """Ends of the names of cross-attention layers, in networks without joint attention."""
    outlet: str = "to_out"
    """The layers' output projection, or a list that begins with it."""

    def apply(self, roles: Roles, name: str) -> None:
        """Hook the layers; copies of the network are hooked with it."""
        network, heard = roles[name].denoiser.network, Heard()
        parts = dict(network.named_modules())
        joint = [part for part in parts.values() if TEXT_KEYS in dict(part.named_children())]
        layers = joint or [part for key, part in parts.items() if key.endswith(self.sites)]
        if not layers:
            raise DistillError(
                f"role '{name}' cannot hear a negative prompt: it has no layer whose name ends in "
                f"{' or '.join(self.sites)} and none that attends to picture and text with projections of their own"
            )
        network.register_forward_pre_hook(self._take(heard))
        network.register_forward_hook(lambda *_: heard.said.clear())
        for layer in layers:
            layer.register_forward_pre_hook(_listen(heard, bool(joint)), with_kwargs=True)
            outlet = layer.get_submodule(self.outlet)
            first = outlet[0] if isinstance(outlet, nn.ModuleList) else outlet
            first.register_forward_pre_hook(self._steer(heard))
        for layer in joint:
            layer.get_submodule("to_v").register_forward_hook(_silence(heard))

    def _take(self, heard: Heard) -> Any:
        """Takes the negative condition away, and asks the network what its layers hear of it."""

        def take(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x, t, cond, *rest = args
            heard.said.clear()
            given = cond.get(self.negative) if self.alpha else None
            cond = {key: value for key, value in cond.items() if key != self.negative}
            if given is not None:
                heard.overhearing = True
                try:
                    negative = given if isinstance(given, Mapping) else {self.text: given}
                    module.forward(x, t, {**cond, **negative}, *rest)
                except Enough:
                    pass
                finally:
                    heard.overhearing = False
            return (x, t, cond, *rest)

        return take

    def _steer(self, heard: Heard) -> Any:
        """Subtracts what was heard before the output projection."""

        def steer(outlet: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if heard.listening:
                heard.values[outlet] = args[0]
                return None
            away = heard.values.pop(outlet, None)
            return None if away is None else (args[0] - self.alpha * away, *args[1:])

        return steer


def _listen(heard: Heard, joint: bool) -> Any:
    """Lets a layer attend to the negative prompt first; cross-attention layers all hear the same of it."""

    def listen(layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        key = layer if joint else None
        if heard.overhearing:
            heard.said[key] = options
            if not joint:
                raise Enough
        elif key in heard.said:
            own = {name: options[name] for name in ("hidden_states",) if name in options}
            heard.listening = True
            try:
                layer.forward(*args[:1], **{**heard.said[key], **own})
            finally:
                heard.listening = False

    return listen


def _silence(heard: Heard) -> Any:
    """While listening, the picture's own values are nothing: what is attended to is the text's share."""
    return lambda part, args, out: torch.zeros_like(out) if heard.listening else None
