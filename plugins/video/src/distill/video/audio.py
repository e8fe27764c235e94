"""Sound as a condition: what a track holds in each frame of a clip."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.core.errors import DataError

RATE = 16_000
"""Samples a second that features are computed at."""
FLOOR = 1e-6


def chorale() -> Path:
    """The track that ships with this package: the opening of Bach's chorale BWV 66.6, 8 kHz, mono."""
    return Path(str(files("distill.video") / "data" / "chorale.flac"))


@cache
def track(file: Path, rate: float, bands: int, least: int = 1) -> Tensor:
    """Log mel energies of a sound file in each frame of a clip [frames, bands]; their mean spans [−1, 1] over the file.

    Args:
        rate: frames a second.
        least: frames of the clip; a shorter track is refused.
    """
    spectrogram, resample = _torchaudio()
    sound, own = _read(file)
    sound = resample(sound, own, RATE)
    sound = sound / sound.abs().max().clamp_min(FLOOR)
    length = int(len(sound) / RATE * rate)
    if length < least:
        raise DataError(
            f"{file} lasts {len(sound) / RATE:.2f} s, {length} frames at {rate:g} a second, and the clip has {least}: "
            "give a longer track, or make the clip shorter"
        )
    hop = round(RATE / rate)
    energy = spectrogram(sample_rate=RATE, n_fft=max(1024, 2 * hop), hop_length=hop, n_mels=bands, center=True)(sound)
    level = energy.clamp_min(FLOOR).log().T[:length]
    low, high = level.mean(1).min(), level.mean(1).max()
    out: Tensor = 2 * (level - low) / (high - low).clamp_min(FLOOR) - 1
    return out


class Sound:
    """A file of sound that is read on and on: samples [channels, n] of one or two channels."""

    def __init__(self, file: Path) -> None:
        import soundfile

        self.file: Any = soundfile.SoundFile(file)
        self.rate: int = self.file.samplerate
        self.place = 0

    def until(self, second: float) -> Any:
        """The samples up to a moment, from where the last call ended."""
        count = round(second * self.rate) - self.place
        found = self.file.read(max(0, count), dtype="float32", always_2d=True)
        self.place += len(found)
        return found[:, :2].T.copy()


def loudness(features: Tensor) -> Tensor:
    """How loud a track is where it has these features [..., bands]: 0 to 1."""
    return ((features.mean(-1) + 1) / 2).clamp(0, 1)


def _read(file: Path) -> tuple[Tensor, int]:
    import soundfile

    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{file} is not a readable track of sound: {error}. Mend or replace it.") from error
    if not len(samples):
        raise DataError(f"{file} is a track without sound. Mend or replace it.")
    return torch.from_numpy(samples).mean(1), int(rate)


def _torchaudio() -> tuple[Any, Any]:
    try:
        from torchaudio.functional import resample
        from torchaudio.transforms import MelSpectrogram
    except (ImportError, OSError) as error:
        raise DataError(
            f"features of sound need torchaudio, and this one does not load: {error}. "
            "Install the torchaudio that belongs to the installed torch."
        ) from error
    return MelSpectrogram, resample
