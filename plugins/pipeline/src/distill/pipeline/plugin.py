"""What distill-pipeline provides."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1

THROUGH = "distill.pipeline.mixed.across:ThroughLens"

LENSES = {
    "frames": ("Frames", "Clips as their pictures, or some of them", "video"),
    "mel-picture": ("MelPicture", "Waveforms as pictures of their mel spectra", "audio"),
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

DENOISERS = {
    "bouncing-teacher": ("teachers:BouncingTeacher", "A small trained joint-mlp: bouncing digits and sounds", "film"),
    "joint-mlp": ("networks:JointMLP", "A perceptron on joint states, each modality with its path and time", "film"),
    "mel-teacher": ("teachers:MelTeacher", "A small trained perceptron: mel spectra of music as pictures", "image"),
    "remembered": ("exact:RememberedData", "The exact denoiser of a dataset's samples", ""),
}

DATASETS = {
    "bouncing-digits": (
        "bouncing:BouncingDigits",
        "Digits that bounce, with the sound of it: clips, sounds, or both",
        "film",
    ),
    "labels": ("across:LabelData", "Labels alone, each equally often", ""),
    "short-music": ("sounds:ShortMusic", "Quarters of a second of chorales at 4 kHz, or their mel spectra", "audio"),
    "turning-digits": ("turning:TurningDigits", "Clips in which a digit turns into another of its kind", "video"),
}

METHODS = {
    "audio-video": ("distill.methods.papers.dmd2:DMD2", "DMD2 of clips with their sounds", "2405.14867", "film"),
    "picture-to-sound": (THROUGH, "through-lens with a teacher of mel spectra", "2311.18828", "audio"),
    "picture-to-video": (THROUGH, "through-lens with a teacher of digits", "2311.18828", "video"),
}
"""Mixed training with a claim each, in the module of that name."""


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
def distill_denoisers() -> Sequence[Component]:
    return [
        Component(name=name, summary=summary, target=f"distill.pipeline.mixed.{target}", modality=modality)
        for name, (target, summary, modality) in DENOISERS.items()
    ]


@hookimpl
def distill_datasets() -> Sequence[Component]:
    return [
        Component(name=name, summary=summary, target=f"distill.pipeline.mixed.{target}", modality=modality)
        for name, (target, summary, modality) in DATASETS.items()
    ]


@hookimpl
def distill_methods() -> Sequence[Component]:
    measured = [
        Component(
            name=name, summary=summary, target=target, modality=modality, paper=paper,
            claim=f"distill.pipeline.mixed.claims.{name.replace('-', '_')}:claim",
        )
        for name, (target, summary, paper, modality) in METHODS.items()
    ]  # fmt: skip
    plain = Component(
        name="through-lens", summary="A teacher of another modality through a lens, and the few samples that there are",
        target=THROUGH, paper="2311.18828",
    )  # fmt: skip
    return [*measured, plain]


@hookimpl
def distill_lenses() -> Sequence[Component]:
    return [
        Component(
            name=name,
            summary=summary,
            target=f"distill.pipeline.lenses:{target}",
            modality=modality,
        )
        for name, (target, summary, modality) in LENSES.items()
    ]
