"""Sound as latents and back: a small autoencoder of log spectra, and pieces for sounds of any length."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from distill.audio.spectra import phases, sounding, spectrum, waves
from distill.core import Lens, State
from distill.core.errors import DataError

RATE = 16_000
"""Samples a second of the codec that ships."""


class LatentCodec(nn.Module):
    """Sounds [B, T] at 16 kHz to latents [B, T / 1024, 32] of variance one on the whole, and back.

    A token is the log spectrum of two frames of 2,048 samples, fine below 2 kHz and coarse above. Each is coded by
    itself: a linear map and a perceptron beside it. Magnitudes are decoded, and phases found that fit (`phases`).
    Values of a latent are the larger the more they tell, so that noise hides what matters least first.
    """

    pool: Tensor
    band: Tensor
    mean: Tensor
    centre: Tensor
    turn: Tensor
    back: Tensor
    size, hop, frames, floor = 2048, 512, 2, 3e-4

    def __init__(self, latents: int = 32, hidden: int = 320, fine: int = 256, coarse: int = 64) -> None:
        super().__init__()
        self.latents = latents
        self.register_buffer("pool", _pool(self.size // 2 + 1, fine, coarse), persistent=False)
        self.register_buffer("band", self.pool.argmax(1), persistent=False)
        values = self.frames * (fine + coarse)
        self.register_buffer("mean", torch.full((values,), -5.0))
        self.register_buffer("centre", torch.zeros(latents))
        self.register_buffer("turn", torch.eye(latents))
        self.register_buffer("back", torch.eye(latents))
        self.down, self.up = nn.Linear(values, latents), nn.Linear(latents, values)
        self.bend = nn.Sequential(nn.Linear(values, hidden), nn.GELU(), nn.Linear(hidden, latents))
        self.unbend = nn.Sequential(nn.Linear(latents, hidden), nn.GELU(), nn.Linear(hidden, values))

    @property
    def token(self) -> int:
        """Samples of a token."""
        return self.hop * self.frames

    def features(self, sound: Tensor) -> Tensor:
        """Log spectra of sounds [B, T], a token a row, without their mean: [B, T / 1024, values]."""
        if sound.shape[-1] % self.token or not sound.shape[-1]:
            raise DataError(
                f"a sound of {sound.shape[-1]} samples cannot be cut into tokens of {self.token}: "
                f"give it {max(1, round(sound.shape[-1] / self.token)) * self.token}"
            )
        power = spectrum(sound, self.size, self.hop).abs()[:, :-1].square() @ self.pool
        logs = (power.sqrt() + self.floor).log()
        return logs.unflatten(1, (-1, self.frames)).flatten(2) - self.mean

    def squeeze(self, features: Tensor) -> Tensor:
        """Features as latents: [..., 32]."""
        return (self.down(features) + self.bend(features) - self.centre) @ self.turn.T

    def unfold(self, latents: Tensor) -> Tensor:
        """Latents as features: [..., values]."""
        raw = latents @ self.back.T + self.centre
        out: Tensor = self.up(raw) + self.unbend(raw)
        return out

    def encode(self, sound: Tensor) -> Tensor:
        """Sounds [B, T] as latents [B, T / 1024, 32]."""
        return self.squeeze(self.features(sound))

    def magnitudes(self, features: Tensor) -> Tensor:
        """Magnitudes [B, frames + 1, bins] of features; the last frame is there twice."""
        logs = (features + self.mean).unflatten(2, (self.frames, -1)).flatten(1, 2)
        bands = (logs.clamp_max(2).exp() - self.floor).clamp_min(1e-6)
        each = bands[..., self.band]
        return torch.cat([each, each[:, -1:]], 1)

    def decode(self, latents: Tensor, rounds: int = 16) -> Tensor:
        """Latents [B, N, 32] as sounds [B, 1024 N]; gradient runs through magnitudes, not through phases."""
        magnitude = self.magnitudes(self.unfold(latents))
        return sounding(magnitude * phases(magnitude.detach(), self.hop, rounds), None, self.hop)

    def save(self, file: Path) -> None:
        """Write the weights, those of the large layers in half precision."""
        from safetensors.torch import save_file

        kept = {k: v.half() if v.numel() > 5000 else v for k, v in self.state_dict().items()}
        save_file({name: value.contiguous() for name, value in kept.items()}, file)

    @classmethod
    def load(cls, file: Path) -> LatentCodec:
        """A codec that was saved."""
        from safetensors.torch import load_file

        known = {name: value.float() for name, value in load_file(file).items()}
        hidden, values = known["bend.0.weight"].shape
        with torch.random.fork_rng(devices=[]):
            made = cls(len(known["centre"]), hidden, coarse=values // cls.frames - 256)
        made.load_state_dict(known)
        return made.eval().requires_grad_(False)


def _pool(bins: int, fine: int, coarse: int) -> Tensor:
    """Mean power of a band from that of the bins [bins, bands]: bins themselves, then bands that widen upwards."""
    edges = torch.cat([torch.arange(fine), torch.logspace(0, 1, coarse + 1).sub(1).div(9) * (bins - fine) + fine])
    edges = edges.round().long()
    for band in range(fine + 1, len(edges)):
        edges[band] = max(int(edges[band]), int(edges[band - 1]) + 1)
    edges[-1] = bins
    out = torch.zeros(bins, fine + coarse)
    for band in range(fine + coarse):
        out[edges[band] : edges[band + 1], band] = 1 / float(edges[band + 1] - edges[band])
    return out


def fitted(
    codec: LatentCodec,
    sounds: Tensor,
    steps: int = 4000,
    size: int = 512,
    report: Callable[[str], Any] = lambda _: None,
) -> LatentCodec:
    """A codec trained on sounds [N, T]: principal axes first, then all of it by gradient, with noise on the latents."""
    with torch.no_grad():
        rows = torch.cat([codec.features(part).flatten(0, 1) for part in sounds.split(8)])
        codec.mean += rows.mean(0)
        rows -= rows.mean(0)
        _principal(codec, rows)
    draw = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=1e-3, betas=(0.9, 0.99))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        seen = rows[torch.randint(len(rows), (size,), generator=draw)]
        z = codec.squeeze(seen)
        said = codec.unfold(z + 0.1 * torch.randn(z.shape, generator=draw))
        loud = (seen + codec.mean).exp() - codec.floor
        heard = (said + codec.mean).clamp_max(2).exp() - codec.floor
        loss = (said - seen).square().mean() + 300 * (heard - loud).square().mean() + 1e-3 * z.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 500 == 0:
            report(f"step {step}: {8.686 * float((said - seen).detach().abs().mean()):.2f} dB")
    turned(codec, rows)
    return codec.eval().requires_grad_(False)


@torch.no_grad()
def turned(codec: LatentCodec, rows: Tensor) -> None:
    """Turn latents onto the main axes of what they do to the features [N, values], each as long as the root of that."""
    z = torch.cat([codec.squeeze(part) for part in rows.split(4096)])
    codec.centre += z.mean(0)
    z = (z - z.mean(0)).double()
    said = torch.linalg.lstsq(z, rows[: len(z)].double()).solution
    root = torch.linalg.cholesky(torch.cov(z.T))
    _, strength, axes = torch.linalg.svd(root.T @ said, full_matrices=False)
    turn = said @ axes.T / strength.sqrt()
    turn = turn / (strength.mean()).sqrt()
    codec.turn.copy_(turn.T)
    codec.back.copy_(torch.linalg.inv(turn.T))


def _principal(codec: LatentCodec, rows: Tensor) -> None:
    """Start at the principal axes of the features, the perceptrons silent, latents of unit variance."""
    values, vectors = torch.linalg.eigh(torch.cov(rows[:: max(1, len(rows) // 20_000)].T))
    axes = vectors.flip(1)[:, : codec.latents]
    scale = values.flip(0)[: codec.latents].clamp_min(1e-6).sqrt()
    for layer, weight in ((codec.down, (axes / scale).T), (codec.up, axes * scale)):
        layer.weight.copy_(weight)
        nn.init.zeros_(layer.bias)
    last: Any
    for last in (codec.bend[-1], codec.unbend[-1]):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


@cache
def shipped() -> LatentCodec:
    """The codec that ships with this package, made by `recipes/chorales.py`."""
    return LatentCodec.load(Path(str(files("distill.audio") / "weights" / "codec.safetensors")))


@cache
def codec_of(file: str) -> LatentCodec:
    """A codec by its file; the one that ships if empty."""
    return LatentCodec.load(Path(file)) if file else shipped()


# ---------------------------------------------------------------- any length


def in_pieces(
    change: Callable[[Tensor], Tensor], x: Tensor, piece: int, overlap: int, ratio: Fraction = Fraction(1)
) -> Tensor:
    """`change` of something [..., T] of any length, piece by piece, faded into each other where they overlap.

    `change` makes [..., n · ratio] of any [..., n]; the last piece is as short as what is left.
    """
    if not 0 <= 2 * overlap <= piece:
        raise DataError(f"pieces of {piece} cannot overlap by {overlap}: half of a piece is the most")
    step, over = piece - overlap, int(overlap * ratio)
    starts = range(0, max(1, x.shape[-1] - overlap), step)
    ramp = (torch.arange(over, device=x.device) + 0.5) / max(1, over)
    made: list[Tensor] = []
    for start in starts:
        part = change(x[..., start : start + piece])
        if made:
            made[-1], before = made[-1].split([made[-1].shape[-1] - over, over], -1)
            part = torch.cat([ramp * part[..., :over] + (1 - ramp) * before, part[..., over:]], -1)
        made.append(part)
    return torch.cat(made, -1)


# ---------------------------------------------------------------- lenses


class _Latent(Lens):
    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no sound"}
    file: str = ""
    """Weights of a codec; the one that ships if empty."""

    @property
    def codec(self) -> LatentCodec:
        return codec_of(self.file)


class ToLatent(_Latent):
    """Waveforms [B, C, T] at 16 kHz to latents [B, T / 1024, 32 C]; T is a multiple of 1024."""

    takes: ClassVar[str] = "audio"
    gives: ClassVar[str] = "latent-sound"

    def __call__(self, state: State) -> Any:
        sound = waves(state)
        codec = self.codec.to(sound.device)
        return codec.encode(sound.flatten(0, 1)).unflatten(0, sound.shape[:2]).transpose(1, 2).flatten(2)


class FromLatent(_Latent):
    """Latents [B, N, 32 C] to waveforms [B, C, 1024 N] at 16 kHz."""

    takes: ClassVar[str] = "latent-sound"
    gives: ClassVar[str] = "audio"
    rounds: PositiveInt = 6
    """Rounds of Griffin and Lim's algorithm."""

    @property
    def carried(self) -> dict[str, Any]:
        return {"rate": RATE}

    def __call__(self, state: State) -> Any:
        assert isinstance(state, Tensor)
        codec = self.codec.to(state.device)
        split = state.unflatten(2, (-1, codec.latents)).transpose(1, 2)
        return codec.decode(split.flatten(0, 1), self.rounds).unflatten(0, split.shape[:2])
