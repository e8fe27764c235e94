"""What distill-audio provides."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


def _audio(module: str, parts: dict[str, tuple[str, str]]) -> list[Component]:
    return [
        Component(name=name, summary=summary, target=f"distill.audio.{module}:{target}", modality="audio")
        for name, (target, summary) in parts.items()
    ]


@hookimpl
def distill_modalities() -> Sequence[Component]:
    return _audio("modality", {"audio": ("Audio", "Sounds, [B, 1 or 2, T], or latents of them, written as WAV")})


@hookimpl
def distill_denoisers() -> Sequence[Component]:
    return [
        *_audio("networks", {"audio-dit": ("AudioDiT", "A compact transformer over the time of a sound")}),
        *_audio(
            "teachers",
            {
                "music-teacher": ("MusicTeacher", "A small trained audio-dit: chorales by text and chords"),
                "music-student": ("MusicStudent", "music-teacher in four steps with fewer layers"),
            },
        ),
        *_audio(
            "wrapped",
            {
                "stable-audio": ("StableAudio", "diffusers' StableAudioDiTModel, by text and seconds"),
                "stable-audio-3": ("StableAudio3", "diffusers' StableAudio3DiTModel, by text and seconds"),
                "longcat-audio": ("LongCat", "diffusers' LongCatAudioDiTTransformer, by text"),
            },
        ),
    ]


@hookimpl
def distill_datasets() -> Sequence[Component]:
    return _audio(
        "datasets",
        {
            "chorales": ("Chorales", "Bach's chorales on six instruments, with chords, tempo and captions"),
            "audio-folder": ("AudioFolder", "A folder of recordings in windows; captions in text files or metadata"),
        },
    )


@hookimpl
def distill_lenses() -> Sequence[Component]:
    return (
        _audio(
            "spectra",
            {
                "to-spectrum": ("ToSpectrum", "Waveforms to complex spectra, exactly invertible"),
                "from-spectrum": ("FromSpectrum", "Complex spectra to waveforms"),
                "to-mel": ("ToMel", "Waveforms to log mel spectra"),
                "from-mel": ("FromMel", "Log mel spectra to waveforms, without weights"),
            },
        )
        + _audio(
            "wrapped",
            {
                "to-oobleck": ("ToOobleck", "Waveforms to latents of a pipeline's Oobleck"),
                "from-oobleck": ("FromOobleck", "Latents of a pipeline's Oobleck to waveforms"),
            },
        )
        + _audio(
            "codecs",
            {
                "to-latent": ("ToLatent", "Waveforms to latents of a small codec"),
                "from-latent": ("FromLatent", "Latents of a small codec to waveforms"),
            },
        )
    )


@hookimpl
def distill_methods() -> Sequence[Component]:
    return [
        Component(
            name="presto",
            summary="Fewer steps by distribution matching and a GAN, fewer layers a step, or both",
            target="distill.audio.papers.presto:Presto",
            modality="audio",
            paper="2410.05167",
            claim="distill.audio.claims.presto:claim",
        )
    ]


@hookimpl
def distill_metrics() -> Sequence[Component]:
    return _audio(
        "metrics",
        {
            "frechet-audio": ("FrechetAudio", "Frechet distance in a pitch network's features; lower is better"),
            "mel-distance": ("MelDistance", "Distance of log mel statistics in dB; lower is better"),
            "onset-gap": ("OnsetGap", "Onsets a second against the data's; lower is better"),
            "pitch-gap": ("PitchGap", "Histograms of pitch against the data's; lower is better"),
            "chord-agreement": ("ChordAgreement", "Pitch classes against the chords asked for; higher is better"),
            "sound-diversity": ("SoundDiversity", "Distance of samples to each other against the data's"),
        },
    )
