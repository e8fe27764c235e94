"""Files of sound: read, resampled, mixed and written; what cannot be read is said in one sentence."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from distill.audio.spectra import torchaudio
from distill.core.errors import DataError

SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".mp3"}
SILENCE = 1e-4
"""Largest absolute sample of what counts as silence, -80 dB."""
CLIPPED = 0.01
"""Share of samples at full scale from which on a sound counts as clipped."""


def read(file: Path, rate: int, channels: int = 1) -> Tensor:
    """A file's sound at a rate, with one or two channels: [channels, T] in [-1, 1].

    Channels are averaged to one, or one is doubled to two; of more than two the first two are kept as they are.

    Raises:
        DataError: it cannot be read, holds no samples, or values that are no numbers.
    """
    import soundfile

    try:
        values, own = soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, RuntimeError, TypeError) as error:
        why = str(error).rstrip(".")
        raise DataError(f"{file} is not a readable file of sound: {why}. Mend or remove it.") from error
    if not len(values):
        raise DataError(f"{file} holds no samples: it is empty. Mend or remove it.")
    sound = torch.from_numpy(values.T.copy())
    if not sound.isfinite().all():
        raise DataError(f"{file} holds values that are no numbers. Mend or remove it.")
    return resampled(mixed(sound, channels), int(own), rate)


def mixed(sound: Tensor, channels: int) -> Tensor:
    """A sound [C, T] with so many channels."""
    if len(sound) == channels:
        return sound
    return sound.mean(0, keepdim=True) if channels == 1 else sound[:2].expand(2, -1)


def resampled(sound: Tensor, own: int, rate: int) -> Tensor:
    """A sound [C, T] at another rate."""
    return sound if own == rate else torchaudio().resample(sound, own, rate)


def check(sound: Tensor, file: Path, least: int, rate: int, refuse_clipped: bool = True) -> None:
    """Refuse what nothing can be learnt from.

    Raises:
        DataError: it is shorter than `least` samples, silent, or clipped.
    """
    if sound.shape[1] < least:
        raise DataError(
            f"{file} lasts {sound.shape[1] / rate:.2f} s, and a window has {least / rate:.2f} s: "
            "remove it, or ask for shorter windows"
        )
    if float(sound.abs().max()) < SILENCE:
        raise DataError(f"{file} is silent (nothing above {20 * math.log10(SILENCE):.0f} dB): remove it")
    clipped = float((sound.abs() >= 0.999).float().mean())
    if refuse_clipped and clipped > CLIPPED:
        raise DataError(
            f"{file} is clipped: {100 * clipped:.0f} % of its samples are at full scale. Give an undistorted copy, "
            "or set refuse_clipped: false"
        )


def write(sound: Tensor, file: Path, rate: int) -> Path:
    """Write a sound [C, T] as 16 bits a sample; what is louder than full scale is turned down as a whole."""
    import soundfile

    file.parent.mkdir(parents=True, exist_ok=True)
    loud = max(1.0, float(sound.abs().max()))
    soundfile.write(file, (sound.detach().cpu().float() / loud).T.numpy(), rate, subtype="PCM_16")
    return file
