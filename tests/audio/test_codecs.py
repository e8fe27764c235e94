"""Round trips: spectra, mel spectra, latents, Oobleck, and pieces of long sounds."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from importlib.resources import files

import diffusers
import pytest
import torch

from distill.audio import sound
from distill.audio.codecs import FromLatent, LatentCodec, ToLatent, fitted, in_pieces, shipped
from distill.audio.spectra import (
    FromMel,
    FromSpectrum,
    ToMel,
    ToSpectrum,
    mel_error,
    phases,
    si_sdr,
    sounding,
    spectrum,
    waves,
)
from distill.audio.wrapped import FromOobleck, OobleckAudio, ToOobleck, oobleck
from distill.core.errors import DataError, DistillError


@cache
def excerpt():
    """Twelve seconds of rendered music: [1, 1, T]."""
    return sound.read(files("distill.audio") / "data" / "excerpt.flac", 16_000)[None, :, : 187 * 1024]


def test_spectra_are_exactly_invertible():
    stereo = torch.cat([excerpt(), -0.5 * excerpt()], 1)[:, :, : 256 * 100]
    again = FromSpectrum()(ToSpectrum()(stereo))
    assert si_sdr(again, stereo) > 100


def test_a_sine_has_its_amplitude_as_magnitude():
    time = torch.arange(16_000) / 16_000
    tone = 0.3 * (2 * torch.pi * 1000 * time).sin()
    assert abs(float(spectrum(tone)[10].abs().max()) - 0.3) < 0.01


def test_phases_are_found_that_fit():
    magnitude = spectrum(excerpt()[0, 0, :65536]).abs()
    said = [sounding(magnitude * phases(magnitude, rounds=n), 65536) for n in (0, 8)]
    gaps = [float((spectrum(each).abs() - magnitude).norm() / magnitude.norm()) for each in said]
    assert gaps[1] < 0.15 and gaps[1] < 0.6 * gaps[0]


def test_the_vocoder_without_weights_keeps_the_mel_spectrum():
    some = excerpt()[:, :, : 256 * 200]
    again = FromMel(rounds=16)(ToMel()(some))
    assert mel_error(again[..., : some.shape[2]], some[..., : again.shape[2]]) < 1.5


def test_latents_keep_the_mel_spectrum():
    latents = ToLatent()(excerpt())
    again = FromLatent()(latents)
    assert latents.shape == (1, 187, 32) and again.shape == excerpt().shape
    assert mel_error(again, excerpt()) < 3.5


def test_stereo_is_coded_channel_by_channel():
    stereo = torch.cat([excerpt(), 0.5 * excerpt()], 1)[:, :, : 1024 * 8]
    latents = ToLatent()(stereo)
    assert latents.shape == (1, 8, 64) and torch.equal(latents[..., :32], ToLatent()(stereo[:, :1]))
    assert FromLatent()(latents).shape == stereo.shape


def test_gradient_runs_through_the_decoder():
    latents = ToLatent()(excerpt()[..., : 1024 * 4]).requires_grad_()
    (slope,) = torch.autograd.grad(FromLatent(rounds=2)(latents).square().sum(), latents)
    assert slope.isfinite().all() and slope.abs().max() > 0


def test_lengths_that_are_no_tokens_are_refused():
    with pytest.raises(DataError, match="give it 2048"):
        ToLatent()(torch.zeros(1, 1, 2000))
    with pytest.raises(DataError, match=r"sound is \[B, channels, samples\]"):
        waves(torch.zeros(3, 4))


def test_a_codec_is_fitted_saved_and_loaded(tmp_path):
    sounds = excerpt()[0, :, : 1024 * 180]
    codec = fitted(LatentCodec(latents=8, hidden=16), sounds, steps=20, size=32)
    codec.save(tmp_path / "codec.safetensors")
    again = LatentCodec.load(tmp_path / "codec.safetensors")
    z = codec.encode(sounds)
    assert abs(float(z.std()) - 1) < 0.1 and torch.allclose(again.encode(sounds), z, atol=0.05)
    assert torch.allclose(codec.squeeze(codec.features(sounds)), z)
    assert float((shipped().encode(sounds)).std()) > 0.5


@pytest.mark.parametrize("length", [5, 64, 100, 777])
@pytest.mark.parametrize("ratio", [Fraction(1), Fraction(4)])
def test_pieces_of_any_length_fade_into_the_whole(length, ratio):
    x = torch.randn(2, 1, length)
    again = in_pieces(lambda part: part.repeat_interleave(int(ratio), -1), x, 64, 16, ratio)
    assert torch.allclose(again, x.repeat_interleave(int(ratio), -1), atol=1e-6)


def test_pieces_that_overlap_too_much_are_refused():
    with pytest.raises(DataError, match="half of a piece"):
        in_pieces(lambda part: part, torch.zeros(1, 9), 4, 3)


@pytest.fixture
def small(tmp_path):
    """A folder with a small Oobleck."""
    torch.manual_seed(0)
    kind = diffusers.AutoencoderOobleck
    made = kind(
        encoder_hidden_size=8, downsampling_ratios=[2, 4], channel_multiples=[1, 2], decoder_channels=8,
        decoder_input_channels=4,
    )  # fmt: skip
    made.save_pretrained(tmp_path / "vae")
    return str(tmp_path)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_oobleck_in_pieces_is_near_the_whole(small):
    stereo = torch.randn(1, 2, 8 * 96) * 0.1
    latents = ToOobleck(model=small)(stereo)
    whole = FromOobleck(model=small)(latents)
    parts = FromOobleck(model=small, piece=40, overlap=16)(latents)
    assert latents.shape == (1, 96, 4) and whole.shape == parts.shape == stereo.shape
    assert (whole - parts).abs().max() < 0.2 * whole.abs().max()
    assert torch.equal(OobleckAudio(model=small).decode(latents), whole)


def test_an_oobleck_that_is_not_there_is_told():
    with pytest.raises(DistillError, match="AutoencoderOobleck cannot be had"):
        oobleck("/nowhere")
