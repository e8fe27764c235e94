"""What this plugin provides. Names only: torch is imported when something is used."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1
MODALITY = "sprout"


def _mine(name: str, summary: str, target: str, claim: str = "") -> Sequence[Component]:
    place, claim = f"{__package__}.{target}", claim and f"{__package__}.{claim}"
    return [Component(name=name, summary=summary, target=place, modality=MODALITY, claim=claim)]


@hookimpl
def distill_modalities() -> Sequence[Component]:
    return _mine(MODALITY, "Closed curves of 32 radii, written as SVG", "modality:Curves")


@hookimpl
def distill_lenses() -> Sequence[Component]:
    return _mine("sprout-picture", "Curves as filled pictures", "modality:Picture")


@hookimpl
def distill_datasets() -> Sequence[Component]:
    return _mine("sprout-curves", "Outlines with 2, 3 or 5 lobes", "data:Outlines")


@hookimpl
def distill_metrics() -> Sequence[Component]:
    return _mine("sprout-distance", "Fréchet distance, radius by radius", "data:Distance")


@hookimpl
def distill_denoisers() -> Sequence[Component]:
    return _mine("sprout-net", "A perceptron on radii, time and lobes", "network:Net")


@hookimpl
def distill_losses() -> Sequence[Component]:
    return _mine("sprout-smooth", "A penalty on rough curves", "method:Smooth")


@hookimpl
def distill_methods() -> Sequence[Component]:
    return _mine("sprout-step", "Smooth curves in one step", "method:Step", "method:claim")
