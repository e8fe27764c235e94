"""What distill-radiance provides. Names only: torch is imported when something is used."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


def _one(name: str, summary: str, attribute: str) -> Sequence[Component]:
    return [Component(name=name, summary=summary, target=f"radiance.field:{attribute}", modality="radiance")]


@hookimpl
def distill_modalities() -> Sequence[Component]:
    return _one("radiance", "Radiance fields, written as safetensors, shown as turntables", "Fields")


@hookimpl
def distill_denoisers() -> Sequence[Component]:
    return _one("radiance-field", "Three planes of features and a perceptron: a small NeRF", "Field")


@hookimpl
def distill_lenses() -> Sequence[Component]:
    return _one("march", "Radiance fields as pictures, summed along rays", "March")
