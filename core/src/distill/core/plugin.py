"""The core's own plugin: an exact teacher, and the method that trains nothing."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


@hookimpl
def distill_denoisers() -> Sequence[Component]:
    return [
        Component(
            name="mixture",
            summary="The exact denoiser of a mixture of Gaussians, in any shape",
            target="distill.core.mixture:MixtureTeacher",
        ),
        Component(name="run", summary="The result of a run, by its folder", target="distill.core.run:FromRun"),
    ]


@hookimpl
def distill_methods() -> Sequence[Component]:
    return [
        Component(
            name="frozen",
            summary="No training: a model as it is, to be sampled and measured",
            target="distill.core.setup:Frozen",
        )
    ]


@hookimpl
def distill_commands() -> Sequence[Component]:
    return [
        Component(
            name="matrix",
            summary="Which loss works with which denoiser, found out by training",
            target="distill.core.testing.matrix:write",
        ),
        Component(
            name="new-plugin",
            summary="Make a plugin that works, trains and passes its checks",
            target="distill.core.scaffold:new_plugin",
        ),
    ]
