"""Worlds in which video methods are measured: AR1-VIDEO, whose denoisers are exact, and moving digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from distill.core import Cache, Denoiser, Rng, Role, Sampler, Samples, State
from distill.core.paths import Flow, GaussianPath
from distill.methods import toys as plain
from distill.methods.networks import MLPDenoiser
from distill.video import metrics
from distill.video.attention import Reach, with_deferred
from distill.video.audio import chorale, loudness, track
from distill.video.datasets import MovingDigits
from distill.video.networks import VideoDiT

RHO, WIDTH, FRAMES, CHUNK = 0.9, 8, 12, 3


class AR1(Denoiser):
    """Exact denoiser of clips `f_1 ~ N(0, I)`, `f_i = ρ f_{i−1} + √(1−ρ²) η`: [B, F, 8, 1, 1], F as it comes.

    Posterior means `x̂0 = Σ A (A Σ A + S²)⁻¹ x_t` with Σ_ij = ρ^|i−j|, A = diag α_i, S = diag σ_i, for a time per
    sample or per frame. With `chunk` it is the exact causal one: a frame is conditioned on its own chunk and on what
    came before, in one pass or, given a cache, chunk by chunk.

    Args:
        chunk: frames of a chunk; 0 looks at the whole clip.
    """

    def __init__(self, chunk: int = 0, rho: float = RHO, path: GaussianPath | None = None) -> None:
        super().__init__(nn.Identity(), path or Flow(), "x0", shape=(FRAMES, WIDTH, 1, 1))
        self.chunk, self.rho = chunk, rho

    def _call(self, x: State, t: Any, cond: Mapping[str, Any], cache: Cache | None) -> tuple[Any, Cache | None]:
        assert isinstance(x, Tensor)
        flat = x.flatten(2)
        times = t[:, None].expand(x.shape[:2]) if t.ndim == 1 else t
        written = None
        if cache is not None:
            written = cache.commit({"frames": (flat[:, None], times[:, None, :, None])})
            known, when = written.layers["frames"]
            flat, times = known[:, 0], when[:, 0, :, 0]
        said = self.posterior(flat, times, x.shape[1]) if self.chunk else self.mean(flat, times)
        return said[:, -x.shape[1] :].view_as(x), written

    def posterior(self, x: Tensor, t: Tensor, fresh: int) -> Tensor:
        """Each chunk's mean given the chunks up to it [B, F, 8]; only the last `fresh` frames are computed."""
        done, parts = x.shape[1] - fresh, []
        for start in range(done, x.shape[1], self.chunk):
            end = min(start + self.chunk, x.shape[1])
            parts.append(self.mean(x[:, :end], t[:, :end])[:, start:])
        return torch.cat(parts, 1)

    def law(self, frames: int) -> Tensor:
        """Covariance of the frames of one channel: [F, F]."""
        places = torch.arange(frames)
        return self.rho ** (places[:, None] - places).abs().double()

    def mean(self, x: Tensor, t: Tensor, law: Tensor | None = None) -> Tensor:
        """The mean of all frames given all of them: [B, F, 8]."""
        a, s = self.path.alpha(t).double(), self.path.sigma(t).double()
        law = (self.law(x.shape[1]) if law is None else law).to(x.device)
        seen = a[:, :, None] * law * a[:, None, :] + torch.diag_embed(s**2 + 1e-9)
        return (law @ (a[:, :, None] * torch.linalg.solve(seen, x.double()))).to(x.dtype)

    def data(self, size: int, rng: Rng, frames: int = FRAMES) -> Tensor:
        """Clips [size, frames, 8, 1, 1]."""
        eta = rng.normal(size, frames, WIDTH, stream="ar1")
        clips = [eta[:, 0]]
        for n in range(1, frames):
            clips.append(self.rho * clips[-1] + (1 - self.rho**2) ** 0.5 * eta[:, n])
        return torch.stack(clips, 1)[..., None, None]


class GaussianClips(AR1):
    """The denoiser of clips that are Gaussian, channel by channel alike, with a learnt covariance.

    As a critic it can know the law of a linear student.
    """

    def __init__(self, frames: int = FRAMES, path: GaussianPath | None = None) -> None:
        super().__init__(path=path)
        self.root = nn.Parameter(torch.linalg.cholesky(super().law(frames)).float())

    def law(self, frames: int) -> Tensor:
        root = self.root.double()
        return root @ root.T


class LinearClips(nn.Module):
    """Frames as weighted sums of the frames that they see, with weights for each pair of noise levels and of places.

    The best such student of AR1-VIDEO is known: the exact one. Takes a time per sample or per frame, and a cache.
    """

    levels: Tensor

    def __init__(self, times: tuple[float, ...], frames: int = FRAMES, chunk: int = 0) -> None:
        super().__init__()
        self.register_buffer("levels", 1000 * torch.tensor((*times, 0.0)))
        count, self.reach, self.patch = len(times) + 1, Reach(chunk=chunk), (1, 1, 1)
        self.weights = nn.Parameter(0.5 * torch.eye(frames).repeat(count, count, 1, 1))
        part = torch.arange(frames) // (chunk or frames)
        self.register_buffer("seen", (part[:, None] >= part).float())

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any], cache: Cache | None = None) -> Any:
        fresh = x.shape[1]
        seen, times, _, past = with_deferred(x, t, cond, cache, ())
        flat, written = seen.flatten(2), None
        times = times[:, None].expand(flat.shape[:2]) if times.ndim == 1 else times
        if cache is not None:
            written = cache
            for part in (slice(past), slice(past, None)):  # own entries apart: later steps forget only them
                written = written.commit({"frames": (flat[:, None, part], times[:, None, part, None])})
            known, when = written.layers["frames"]
            flat, times = known[:, 0], when[:, 0, :, 0]
        level, here = (times[..., None] - self.levels).abs().argmin(-1), torch.arange(flat.shape[1])
        mine = level[:, -fresh:, None], level[:, None, :], here[-fresh:, None], here
        weights = self.weights[mine] * self.get_buffer("seen")[mine[2], mine[3]]
        out = (weights @ flat).view_as(x)
        return out if cache is None else (out, written)


def linear(times: tuple[float, ...], frames: int = FRAMES, chunk: int = 0) -> Denoiser:
    """A linear student of AR1-VIDEO."""
    return Denoiser(LinearClips(times, frames, chunk), Flow(), "x0", shape=(frames, WIDTH, 1, 1))


class Driven(AR1):
    """AR1-VIDEO with a reference r that is added to every frame and a sound a that moves the first channel.

    `f_i + r + 2 a_i e_1` with r ~ N(0, I) as the condition `text` [B, 1, 8] and a as `audio` [B, F, 1]: the loudness of
    a real track, in units of its standard deviation. A condition that is dropped is integrated out, sound as if it were
    Gaussian with the track's own covariance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.null = {"text": float("nan"), "audio": float("nan")}

    def _call(self, x: State, t: Any, cond: Mapping[str, Any], cache: Cache | None) -> tuple[Any, Cache | None]:
        assert isinstance(x, Tensor)
        flat, frames = x.flatten(2), x.shape[1]
        times = t[:, None].expand(x.shape[:2]) if t.ndim == 1 else t
        known = {name: name in cond and not bool(cond[name].isnan().any()) for name in ("text", "audio")}
        middle = cond["text"].expand_as(flat) if known["text"] else torch.zeros_like(flat)
        first = torch.eye(WIDTH)[0]
        middle = middle + 2 * cond["audio"] * first if known["audio"] else middle
        law = self.law(frames) + (0.0 if known["text"] else 1.0)
        lips = law if known["audio"] else law + 4 * sound_law(frames)
        gap = flat - self.path.alpha(times)[..., None] * middle
        rest = self.mean(gap[..., 1:], times, law)
        said = torch.cat([self.mean(gap[..., :1], times, lips), rest], -1) + middle
        return said.view_as(x), None

    def samples(self, size: int, rng: Rng) -> Samples:
        """Clips with their conditions."""
        text, audio = rng.normal(size, 1, WIDTH, stream="reference"), windows(FRAMES)
        audio = audio[rng.integers(len(audio), size, stream="sound")]
        x = self.data(size, rng) + (text + 2 * audio * torch.eye(WIDTH)[0])[..., None, None]
        return Samples(x=x, text=text, audio=audio)


@cache
def windows(frames: int) -> Tensor:
    """All stretches of the loudness of the chorale, in units of its standard deviation: [N, F, 1]."""
    level = loudness(track(chorale(), 12.0, 8))
    return ((level - level.mean()) / level.std()).unfold(0, frames, 1)[..., None]


@cache
def sound_law(frames: int) -> Tensor:
    """Covariance of the loudness over frames: [F, F]."""
    heard = windows(frames)[..., 0].double()
    return heard.T @ heard / len(heard)


def variances(clips: Tensor) -> Tensor:
    """Variance of each frame over clips and channels: [F]."""
    return clips.flatten(2).double().square().mean((0, 2))


def correlations(clips: Tensor) -> Tensor:
    """Correlation of each frame with the next: [F − 1]."""
    flat = clips.flatten(2).double()
    level = variances(clips).sqrt()
    return (flat[:, 1:] * flat[:, :-1]).mean((0, 2)) / (level[1:] * level[:-1])


# ---------------------------------------------------------------- digits that roll

ROLL = 6
"""Frames of a clip of rolling digits."""
ROLLING = "scikit-learn's digits of 8 x 8 pixels, rolling to the right at 0.5 to 2 pixels a frame, 6 frames"


@cache
def rolling(blur: bool = False, seed: int = 0, count: int = 4096, split: str = "train", frames: int = ROLL) -> Samples:
    """Digits of 8 x 8 pixels that roll to the right by 0.5 to 2 pixels: `x` [N, 6, 1, 8, 8], `label`, `picture`."""
    source = MovingDigits(size=8, frames=frames, directions=1, blur=blur, pictures=True, count=count, seed=seed)
    fields = cast(Any, source.open(split)).__getitems__(range(count))
    return Samples(**{name: fields[name] for name in ("x", "label", "picture")})


@cache
def rolling_start(seed: int, blur: bool = False, steps: int = 1200) -> Denoiser:
    """A perceptron fitted to rolling digits by flow matching: teacher, and start of students."""
    network = MLPDenoiser(shape=(ROLL, 1, 8, 8), width=320, depth=3, kind="x0")
    method = plain.Fitted(network=network, steps=steps, level="one", lr=2e-3)
    data = Samples(x=rolling(blur, seed).tensors["x"])
    return plain.train(method, {}, data=data, size=128, seed=seed).roles["student"].denoiser


@cache
def sharp_frames(seed: int, steps: int = 1200) -> Denoiser:
    """A perceptron fitted to sharp frames [1, 8, 8] of rolling digits: a teacher of pictures that knows no motion."""
    network = MLPDenoiser(shape=(1, 8, 8), width=256, depth=3, kind="x0")
    method = plain.Fitted(network=network, steps=steps, level="one", lr=2e-3)
    data = Samples(x=rolling(False, seed + 50).tensors["picture"])
    return plain.train(method, {}, data=data, size=256, seed=seed).roles["student"].denoiser


def judged(role: Role, sampler: Sampler, seed: int, real: Tensor, size: int = 2000) -> tuple[float, float]:
    """Appearance and motion distance of drawn clips to real ones."""
    clips = plain.draw(role, sampler, size, seed + 300)
    return metrics.appearance(clips, real), metrics.motion(clips, real)


# ---------------------------------------------------------------- points that circle

CIRCLING = "points that circle at 0.25 to 0.75 radians a frame, 6 frames: poor clips at radius 0.5, pictures at 1"


def circling(poor: bool, seed: int, count: int = 4096) -> Tensor:
    """Clips of a point that goes around evenly, at radius 1 ± 0.03, or 0.5 ± 0.12 if poor: [N, 6, 2, 1, 1]."""
    rng, (radius, spread) = Rng(seed + 60), (0.5, 0.12) if poor else (1.0, 0.03)
    start = 2 * math.pi * rng.uniform(count, 1, stream="start")
    angle = start + (0.25 + 0.5 * rng.uniform(count, 1, stream="speed")) * torch.arange(ROLL)
    radii = radius + spread * rng.normal(count, 1, stream="radius")
    return (radii[..., None] * torch.stack([angle.cos(), angle.sin()], -1))[..., None, None]


@cache
def circling_start(seed: int, steps: int = 600) -> Denoiser:
    """A perceptron fitted to poor clips of circling points: teacher, and start of students."""
    network = MLPDenoiser(shape=(ROLL, 2, 1, 1), width=128, depth=3, kind="x0")
    method = plain.Fitted(network=network, steps=steps, level="one", lr=2e-3)
    return plain.train(method, {}, data=Samples(x=circling(True, seed)), size=256, seed=seed).roles["student"].denoiser


def directions(clips: Tensor) -> Tensor:
    """Where the point of each frame lies, whatever its radius: [B, 12]."""
    return normalize(clips.flatten(2), dim=-1).flatten(1)


# ---------------------------------------------------------------- small causal networks

SMALL = VideoDiT(
    frames=FRAMES, channels=WIDTH, size=(1, 1), patch=(1, 1, 1), width=48, depth=2, heads=2, ratio=2
)  # fmt: skip
"""A transformer over the frames of AR1-VIDEO, one token each."""


@cache
def ar1_start(seed: int, chunk: int = 0, steps: int = 600, frames: int = FRAMES) -> Denoiser:
    """A small transformer fitted to AR1-VIDEO, bidirectional or block-causal."""
    network = SMALL.model_copy(update={"reach": Reach(chunk=chunk), "frames": frames})
    data = Samples(x=AR1().data(8192, Rng(seed + 20), frames))
    method = plain.Fitted(network=network, steps=steps, level="one", lr=3e-3)
    return plain.train(method, {}, data=data, size=64, seed=seed).roles["student"].denoiser


@cache
def driven_start(seed: int, steps: int = 300) -> Denoiser:
    """A small transformer fitted to driven clips, told reference and sound."""
    network = SMALL.model_copy(update={"text": WIDTH, "words": 1, "audio": 1})
    method = plain.Fitted(network=network, steps=steps, level="one", lr=3e-3)
    data = Driven().samples(8192, Rng(seed + 20))
    return plain.train(method, {}, data=data, size=64, seed=seed).roles["student"].denoiser
