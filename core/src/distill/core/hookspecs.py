"""What a plugin may say to distill: the whole contract.

A plugin is a light module, named by an entry point of the group `distill`. It declares the version of this
contract that it was written for, `DISTILL_SPEC = 1`, and implements any of the ten hooks below with
`@hookimpl`. Each returns `Component` records, which only *name* what the plugin provides: a target
`"module:attribute"` is imported when somebody first uses it, so that listing every plugin on a machine
imports no torch. The classes that targets derive from are those of `distill.core.contracts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pluggy

SPEC = 1
"""The version of this contract: plugins for it and for the one before are accepted. A new hook keeps it."""

GROUP = "distill"
"""The entry-point group in which plugins are found."""

hookspec = pluggy.HookspecMarker("distill")
hookimpl = pluggy.HookimplMarker("distill")
"""Marks a function of a plugin module as its answer to the hook of the same name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One thing that a plugin provides.

    `name` is unique among the plugin's components of one kind; `summary` is one line; `target` and, for a
    method, `claim` are `"module:attribute"`; `modality` is empty for what works with any; `paper` is an
    arXiv id or a DOI.
    """

    name: str
    summary: str
    target: str
    modality: str = ""
    paper: str = ""
    claim: str = ""


@hookspec
def distill_denoisers() -> Sequence[Component]:
    """Networks with a path and a parameterisation. Target: a `Builder`, which makes one."""
    raise NotImplementedError


@hookspec
def distill_trajectories() -> Sequence[Component]:
    """Ways in which states move. Target: a `Trajectory`, which yields the events that losses see."""
    raise NotImplementedError


@hookspec
def distill_losses() -> Sequence[Component]:
    """What is minimised. Target: a `Loss`, which names the roles that its terms may move."""
    raise NotImplementedError


@hookspec
def distill_modalities() -> Sequence[Component]:
    """Kinds of samples. Target: a `Modality`, which writes samples to files and draws previews of them."""
    raise NotImplementedError


@hookspec
def distill_lenses() -> Sequence[Component]:
    """Differentiable maps from one modality to another. Target: a `Lens`, which is called on a state."""
    raise NotImplementedError


@hookspec
def distill_transforms() -> Sequence[Component]:
    """Surgery on roles: adapters, dropped layers. Target: a `Transform`."""
    raise NotImplementedError


@hookspec
def distill_datasets() -> Sequence[Component]:
    """Sources of samples. Target: a `DataSource`, which opens a map-style data set."""
    raise NotImplementedError


@hookspec
def distill_metrics() -> Sequence[Component]:
    """Measures of samples. Target: a `Metric`, which compares samples with a reference."""
    raise NotImplementedError


@hookspec
def distill_methods() -> Sequence[Component]:
    """Papers, as data. Target: a `Method`, roles and a plan; the record's `claim` shows that it works."""
    raise NotImplementedError


@hookspec
def distill_commands() -> Sequence[Component]:
    """Commands of `distill`. Target: a function with typer's annotations, imported when it is called."""
    raise NotImplementedError


KINDS = {
    "denoiser": "distill_denoisers",
    "trajectory": "distill_trajectories",
    "loss": "distill_losses",
    "modality": "distill_modalities",
    "lens": "distill_lenses",
    "transform": "distill_transforms",
    "dataset": "distill_datasets",
    "metric": "distill_metrics",
    "method": "distill_methods",
    "command": "distill_commands",
}
"""The name of each kind of component, and the hook that provides it. The hook's ending is the plural."""
