"""What distill-smell provides. Names only: torch is imported when something is used."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


def _one(name: str, summary: str, target: str, **more: str) -> Sequence[Component]:
    return [Component(name=name, summary=summary, target=f"smell.{target}", modality="smell", **more)]


@hookimpl
def distill_modalities() -> Sequence[Component]:
    return _one("smell", "Readings of 16 gas sensors, written as CSV", "modality:Smell")


@hookimpl
def distill_datasets() -> Sequence[Component]:
    return _one("odours", "Four odours before a simulated electronic nose", "odours:Odours")


@hookimpl
def distill_denoisers() -> Sequence[Component]:
    return _one("nose", "A perceptron on readings, time and odour", "nose:Nose")


@hookimpl
def distill_trajectories() -> Sequence[Component]:
    return _one("sniff-pairs", "The teacher's reading and the student's, from one noise", "sniff:SniffPairs")


@hookimpl
def distill_losses() -> Sequence[Component]:
    return _one("fingerprint", "The angle between two readings", "sniff:Fingerprint")


@hookimpl
def distill_methods() -> Sequence[Component]:
    return _one("sniff", "One call, by regression and fingerprint", "sniff:Sniff", claim="smell.claim:claim")


@hookimpl
def distill_metrics() -> Sequence[Component]:
    return _one("channel-distance", "Fréchet distance, channel by channel", "odours:ChannelDistance")
