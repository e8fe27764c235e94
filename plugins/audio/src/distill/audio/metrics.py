"""How sounds are judged: in a pitch network's features, in mel spectra, by onsets, pitches, chords and diversity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from distill.audio.modality import Audio, is_sound, spread
from distill.audio.pitch import heard, semitones
from distill.audio.sound import resampled
from distill.audio.spectra import mel, spectrum
from distill.core import Metric, State
from distill.core.errors import DataError
from distill.methods.digits import frechet

RATE = 16_000


def mono(samples: State, rate: int, most: int) -> Tensor:
    """At most so many samples as sounds of one channel at 16 kHz: [B, T]; latents are decoded in haste."""
    few = spread(samples, most)
    sounds = few if is_sound(few) else Audio(rounds=4).decode(few)
    return resampled(sounds.float().mean(1), rate, RATE)


# ---------------------------------------------------------------- features


def crepe_features(sounds: Tensor) -> Tensor:
    """Features of CREPE's smallest network, eight frames a second, as points: [B · frames, 256]."""
    return heard(sounds)[0].flatten(0, 1)


def mel_features(sounds: Tensor) -> Tensor:
    """Log mel spectra, eight a second, as points: [B · frames, 80]."""
    return mel(sounds).clamp_min(-9.2)[:, ::8].flatten(0, 1)


FEATURES = {"crepe": crepe_features, "mel": mel_features}


def frechet_audio(a: Tensor, b: Tensor, features: str = "crepe", axes: int = 64) -> float:
    """Fréchet distance of two sets of sounds [B, T] on the main axes of the second one's features."""
    mine, real = (FEATURES[features](sounds).double() for sounds in (a, b))
    mean, count = real.mean(0), min(axes, real.shape[1])
    _, vectors = torch.linalg.eigh(torch.cov(real.T))
    basis = vectors.flip(1)[:, :count]
    return frechet((mine - mean) @ basis, (real - mean) @ basis)


def onset_strength(sounds: Tensor, hop: int = 256) -> Tensor:
    """How much louder mel bands become from frame to frame, on the mean: [B, frames]."""
    return mel(sounds, hop=hop).clamp_min(-9.2).diff(dim=1).clamp_min(0).mean(2)


def onsets(sounds: Tensor, hop: int = 256) -> Tensor:
    """Onsets a second: peaks of `onset_strength` above three halves of its mean, 50 ms apart: [B]."""
    strength = onset_strength(sounds, hop)
    reach = max(1, round(0.05 * RATE / hop))
    padded = torch.nn.functional.max_pool1d(strength[:, None], 2 * reach + 1, 1, reach)[:, 0]
    peaks = (strength == padded) & (strength > 1.5 * strength.mean(1, keepdim=True)) & (strength > 0.05)
    return peaks.sum(1) / (sounds.shape[1] / RATE)


def pitch_histogram(sounds: Tensor) -> Tensor:
    """Share of each MIDI pitch among frames in which the network is sure of one: [128]."""
    said = heard(sounds)[1]
    sure = said.amax(-1) > 0.3
    pitches = semitones(said)[sure].round().long().clamp(0, 127)
    counts = torch.bincount(pitches, minlength=128).float()
    return counts / counts.sum().clamp_min(1)


def chroma(sounds: Tensor, frames: int) -> Tensor:
    """Energy of the pitch classes between 65 Hz and 2 kHz in each of so many parts: [B, frames, 12], of sum one."""
    power = spectrum(sounds, 4096, 1024).abs()[..., 1:]
    pitch = 12 * (torch.arange(1, power.shape[2] + 1) * RATE / 4096 / 440).log2() + 69
    near = pitch.round()
    weight = (1 - 2 * (pitch - near).abs()).clamp_min(0) * ((pitch > 36) & (pitch < 95))
    classes = torch.nn.functional.one_hot(near.long() % 12, 12).float() * weight[:, None]
    folded = torch.nn.functional.adaptive_avg_pool1d((power @ classes).mT, frames).mT
    return folded / folded.sum(-1, keepdim=True).clamp_min(1e-6)


# ---------------------------------------------------------------- components


class _OnSounds(Metric):
    rate: PositiveInt = RATE
    """Samples a second of what is compared."""
    most: PositiveInt = 256
    """Most sounds that are compared, evenly spread over those that there are."""

    def both(self, samples: State, reference: State) -> tuple[Tensor, Tensor]:
        """Both sides as sounds [B, T] at 16 kHz."""
        return mono(samples, self.rate, self.most), mono(reference, self.rate, self.most)


class FrechetAudio(_OnSounds):
    """Fréchet distance of sounds (Kilgour et al. 2019, arXiv:1812.08466, eq. 1) in the features of a small network."""

    features: Literal["crepe", "mel"] = "crepe"
    """CREPE's smallest network, or log mel spectra; it is no VGGish, and numbers compare only within one choice."""
    axes: PositiveInt = 64
    """Main axes of the reference's features that are kept."""

    def network(self, samples: State) -> str:
        return {"crepe": "CREPE tiny", "mel": "log mel spectra"}[self.features]

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        return frechet_audio(*self.both(samples, reference), self.features, self.axes)


class MelDistance(_OnSounds):
    """Distance of the mean and of the spread of log mel spectra, band by band, in dB; 0 is best."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        mine, true = (mel_features(sounds) for sounds in self.both(samples, reference))
        gaps = (mine.mean(0) - true.mean(0)).square() + (mine.std(0) - true.std(0)).square()
        return 8.686 * float(gaps.mean().sqrt())


class OnsetGap(_OnSounds):
    """How far the numbers of onsets a second are from the reference's, sorted, on the mean; 0 is best."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        marks = torch.linspace(0, 1, 33)
        mine, true = (onsets(sounds).quantile(marks) for sounds in self.both(samples, reference))
        return float((mine - true).abs().mean())


class PitchGap(_OnSounds):
    """Half the difference of the histograms of pitches: 0 where they agree, 1 where they share none."""

    def network(self, samples: State) -> str:
        return "CREPE tiny"

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        mine, true = (pitch_histogram(sounds) for sounds in self.both(samples, reference))
        return float((mine - true).abs().sum() / 2)


class ChordAgreement(_OnSounds):
    """Agreement of the pitch classes that sound with the chords that were asked for: their cosine, on the mean.

    Without chords among the conditions, and for samples whose chords are hidden, the reference's stand in.
    """

    higher_is_better: ClassVar[bool] = True

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        asked, (mine, true) = (cond or {}).get("chords"), self.both(samples, reference)
        if isinstance(asked, Tensor) and len(asked) and float(asked.sum()):
            chords = spread(asked, self.most)
            told = chords.sum((1, 2)) > 0
            mine, wanted = mine[told], chords[told]
        else:
            size = min(len(mine), len(true))
            mine, wanted = mine[:size], chroma(true[:size], true.shape[1] // 1024)
        return float(torch.nn.functional.cosine_similarity(chroma(mine, wanted.shape[1]), wanted, -1).mean())


class SoundDiversity(_OnSounds):
    """Mean distance of samples to each other in log mel spectra over time, in units of the reference's; 1 is like it.

    What is reported is the smaller of that ratio and its inverse: too much variety is none.
    """

    higher_is_better: ClassVar[bool] = True

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        ratio = torch.stack([spread_of(sounds) for sounds in self.both(samples, reference)])
        if not bool((ratio > 0).all()):
            raise DataError("diversity needs two sounds or more that differ, on both sides")
        return float(torch.minimum(ratio[0] / ratio[1], ratio[1] / ratio[0]))


def spread_of(sounds: Tensor) -> Tensor:
    """Mean distance of sounds to each other in coarse log mel spectra."""
    coarse = mel(sounds, bands=40).clamp_min(-9.2)[:, ::4].flatten(1)
    return torch.pdist(coarse).mean()
