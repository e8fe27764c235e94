"""Sound as spectra and back: complex spectra, mel spectra, and the phases that magnitudes leave out."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from distill.core import Lens, State
from distill.core.errors import DataError

FLOOR = 1e-5
"""Smallest magnitude that logarithms see."""


def torchaudio() -> Any:
    """torchaudio's functions.

    Raises:
        DataError: it does not load beside this torch.
    """
    try:
        from torchaudio import functional
    except (ImportError, OSError) as error:
        raise DataError(
            f"mel filters and resampling need torchaudio, and this one does not load: {error}. "
            "Install the torchaudio that belongs to the installed torch."
        ) from error
    return functional


def spectrum(sound: Tensor, size: int = 2048, hop: int = 512) -> Tensor:
    """Complex spectra of sounds [..., T], in units in which a sine of amplitude a has magnitude a: [..., frames, bins].

    The window is Hann's; there are T // hop + 1 frames.
    """
    window = _window(size, sound.device)
    flat = sound.reshape(-1, sound.shape[-1])
    mode = "reflect" if flat.shape[1] > size // 2 else "constant"
    said = torch.stft(flat, size, hop, window=window, return_complex=True, pad_mode=mode)
    return said.mT.reshape(*sound.shape[:-1], -1, size // 2 + 1) * (2 / window.sum())


def sounding(spectra: Tensor, length: int | None = None, hop: int = 512) -> Tensor:
    """The sound of complex spectra [..., frames, bins]: [..., T]; the inverse of `spectrum`."""
    size = 2 * (spectra.shape[-1] - 1)
    window = _window(size, spectra.device)
    flat = spectra.reshape(-1, *spectra.shape[-2:]).mT * (window.sum() / 2)
    return torch.istft(flat, size, hop, window=window, length=length).reshape(*spectra.shape[:-2], -1)


@cache
def _window(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)


# ---------------------------------------------------------------- phases


@torch.no_grad()
def phases(magnitude: Tensor, hop: int = 512, rounds: int = 16) -> Tensor:
    """Complex numbers of length one for magnitudes [..., frames, bins], such that their sound has these magnitudes.

    Peaks are followed as sines (single pass spectrum inversion: Beauregard et al. 2015), and the outcome is made
    consistent by the fast algorithm of Griffin and Lim (Perraudin et al. 2013). No gradient runs through it.
    """
    size = 2 * (magnitude.shape[-1] - 1)
    said = torch.polar(torch.ones_like(magnitude), _followed(magnitude, size, hop))
    length, before = (magnitude.shape[-2] - 1) * hop, torch.zeros_like(said)
    for _ in range(rounds):
        heard = spectrum(sounding(magnitude * said, length, hop), size, hop)
        said, before = torch.lerp(before, heard, 1.99).sgn(), heard
    return said


def _followed(magnitude: Tensor, size: int, hop: int) -> Tensor:
    """Phases of sines that run through the peaks: each bin belongs to the nearest peak of its frame."""
    level = magnitude.clamp_min(1e-9).log_()
    place = torch.arange(float(magnitude.shape[-1]), device=level.device)
    low, high = level.roll(1, -1), level.roll(-1, -1)
    peak = (level > low) & (level >= high)
    peak[..., 0] = peak[..., -1] = False
    below = torch.where(peak, place, -1e6).cummax(-1).values
    above = torch.where(peak, place, 1e6).flip(-1).cummin(-1).values.flip(-1)
    nearest = torch.where(2 * place <= below + above, below, above).clamp_(0, len(place) - 1).long()
    bend = (low + high - 2 * level).clamp_max_(-1e-6)
    exact = (0.5 * (low - high) / bend).clamp_(-0.5, 0.5).add_(place)
    turn = 2 * torch.pi / size * hop * exact.gather(-1, nearest)
    centre = turn.double().cumsum(-2).gather(-1, nearest)
    return (centre - torch.pi * place.double()).remainder_(2 * torch.pi).float()


# ---------------------------------------------------------------- mel


@cache
def mel_filters(bins: int, bands: int, rate: int, device: torch.device) -> Tensor:
    """Weights of triangular filters, evenly spaced on the mel scale, of area one: [bins, bands]."""
    filters = torchaudio().melscale_fbanks(bins, 0.0, rate / 2, bands, rate)
    return (filters / filters.sum(0).clamp_min(1e-3)).to(device)


def mel(sound: Tensor, rate: int = 16_000, bands: int = 80, size: int = 1024, hop: int = 256) -> Tensor:
    """Natural logarithms of mel magnitudes: [..., frames, bands]."""
    magnitude = spectrum(sound, size, hop).abs()
    filters = mel_filters(size // 2 + 1, bands, rate, sound.device)
    return (magnitude @ filters).clamp_min(FLOOR).log()


def unmel(logs: Tensor, rate: int, size: int = 1024) -> Tensor:
    """Magnitudes [..., frames, bins] of least norm for mel spectra, where that is positive."""
    filters = mel_filters(size // 2 + 1, logs.shape[-1], rate, logs.device)
    return (logs.exp() @ torch.linalg.pinv(filters)).clamp_min(FLOOR)


def mel_error(a: Tensor, b: Tensor, rate: int = 16_000) -> float:
    """Mean difference of two sounds' mel spectra above -80 dB, in dB."""
    logs = [mel(sound, rate).clamp_min(-9.2) for sound in (a, b)]
    return float((logs[0] - logs[1]).abs().mean()) * 8.686


def si_sdr(estimate: Tensor, truth: Tensor) -> float:
    """Signal to distortion in dB, whatever the scale (Le Roux et al. 2019, eq. 5); the mean over sounds [..., T]."""
    a, b = (sound.double() - sound.double().mean(-1, keepdim=True) for sound in (estimate, truth))
    target = ((a * b).sum(-1, keepdim=True) / (b * b).sum(-1, keepdim=True).clamp_min(1e-12)) * b
    ratio = target.square().sum(-1) / (a - target).square().sum(-1).clamp_min(1e-20)
    return float((10 * ratio.clamp_min(1e-20).log10()).mean())


# ---------------------------------------------------------------- lenses


class _Spectral(Lens):
    size: PositiveInt = 1024
    """Samples of a frame."""
    hop: PositiveInt = 256
    """Samples from frame to frame."""


def waves(state: State) -> Tensor:
    """The state, if it is sound [B, C, T].

    Raises:
        DataError: it is not.
    """
    if not isinstance(state, Tensor) or state.ndim != 3:
        given = list(state.shape) if isinstance(state, Tensor) else type(state).__name__
        raise DataError(f"sound is [B, channels, samples], and this state {given}")
    return state


class ToSpectrum(_Spectral):
    """Waveforms [B, C, T] to complex spectra [B, C, 2, frames, bins], real and imaginary part; exactly invertible."""

    takes: ClassVar[str] = "audio"
    gives: ClassVar[str] = "spectrum"
    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no waveform"}

    def __call__(self, state: State) -> Any:
        return torch.view_as_real(spectrum(waves(state), self.size, self.hop)).movedim(-1, 2)


class FromSpectrum(_Spectral):
    """Complex spectra [B, C, 2, frames, bins] to waveforms [B, C, T], where T = (frames - 1) · hop."""

    takes: ClassVar[str] = "spectrum"
    gives: ClassVar[str] = "audio"
    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no spectrum"}

    def __call__(self, state: State) -> Any:
        assert isinstance(state, Tensor)
        return sounding(torch.view_as_complex(state.movedim(2, -1).contiguous()), None, self.hop)


class ToMel(_Spectral):
    """Waveforms [B, C, T] to log mel spectra [B, C, frames, bands]."""

    takes: ClassVar[str] = "audio"
    gives: ClassVar[str] = "mel"
    units: ClassVar[dict[str, str]] = {"rate": "samples a second"}
    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no waveform"}
    rate: PositiveInt = 16_000
    """Samples a second."""
    bands: PositiveInt = 80
    """Mel bands."""

    def __call__(self, state: State) -> Any:
        return mel(waves(state), self.rate, self.bands, self.size, self.hop)


class FromMel(_Spectral):
    """Log mel spectra [B, C, frames, bands] to waveforms [B, C, T]: a vocoder without weights.

    Magnitudes of least norm, and phases that fit them (`phases`), through which no gradient runs.
    """

    takes: ClassVar[str] = "mel"
    gives: ClassVar[str] = "audio"
    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no spectrum"}
    rate: PositiveInt = 16_000
    """Samples a second."""
    rounds: int = 32
    """Rounds of Griffin and Lim's algorithm."""

    @property
    def carried(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def __call__(self, state: State) -> Any:
        assert isinstance(state, Tensor)
        magnitude = unmel(state, self.rate, self.size)
        return sounding(magnitude * phases(magnitude.detach(), self.hop, self.rounds), None, self.hop)
