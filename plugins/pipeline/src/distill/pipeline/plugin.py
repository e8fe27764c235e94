"""What distill-pipeline provides."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1

LENSES = {
    "frames": ("Frames", "Clips as their pictures, or some of them", "video"),
    "relief": ("Relief", "Pictures as reliefs of Gaussians, bulging to both sides", "image"),
    "resample": ("Resample", "Sounds at another rate", "audio"),
    "retime": ("Retime", "Clips at another frame rate, as long as before", "video"),
    "score": ("Score", "Chords, tempo and length of music that follows a clip", "video"),
    "sprite": ("Sprite", "Pictures as light on a dark canvas that drifts: what a clip begins with", "image"),
    "turntable": ("Turntable", "Scenes of Gaussians as clips of one turn around them", "3d"),
    "upscale": ("Upscale", "Pictures at several times their size, by any network for super-resolution", "image"),
    "upscale-clip": ("UpscaleClip", "Clips at several times their size, frame by frame under one noise", "video"),
    "zoom": ("Zoom", "Pictures as clips that move closer", "image"),
}


@hookimpl
def distill_commands() -> Sequence[Component]:
    return [
        Component(
            name="pipeline",
            summary="Run several models, lenses and writers as one checked graph",
            target="distill.pipeline.command:pipeline",
        )
    ]


@hookimpl
def distill_modalities() -> Sequence[Component]:
    return [
        Component(
            name="film",
            summary="A clip and its sound, written as one MP4",
            target="distill.pipeline.film:Film",
            modality="film",
        )
    ]


@hookimpl
def distill_lenses() -> Sequence[Component]:
    return [
        Component(name=name, summary=summary, target=f"distill.pipeline.lenses:{target}", modality=modality)
        for name, (target, summary, modality) in LENSES.items()
    ]
