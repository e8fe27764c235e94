"""What distill-studio provides."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


@hookimpl
def distill_commands() -> Sequence[Component]:
    return [
        Component(
            name="studio",
            summary="Open a local page: teacher beside student, runs, scenes, sound, pipelines",
            target="distill.studio.command:studio",
        )
    ]
