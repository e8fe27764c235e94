"""Lenses from one modality to another, by which results of one model become inputs of the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, pad

from distill.core import Lens, State, tree
from distill.core.errors import DataError

TONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
"""Pitch classes by their names."""
FLAT = 0.28209479177387814
"""The constant spherical harmonic."""


def _tensor(state: State, axes: int, what: str) -> Tensor:
    """The state, if it is a tensor of so many axes.

    Raises:
        DataError: it is not.
    """
    if not isinstance(state, Tensor) or state.ndim != axes:
        given = list(state.shape) if isinstance(state, Tensor) else type(state).__name__
        raise DataError(f"this lens takes {what}, and these samples are {given}")
    return state


def _pictures(state: State) -> Tensor:
    return _tensor(state, 4, "pictures [B, 1 or 3, H, W]")


def _clips(state: State) -> Tensor:
    return _tensor(state, 5, "clips [B, F, 1 or 3, H, W]")


def _grey(pictures: Tensor) -> Tensor:
    """Pictures [B, C, H, W] as brightness [B, 1, H, W]."""
    weights = pictures.new_tensor([0.299, 0.587, 0.114] if pictures.shape[1] == 3 else [1.0])
    return (pictures * weights[:, None, None]).sum(1, True)


class _Moving(Lens):
    """A lens that gives clips."""

    gives: ClassVar[str] = "video"
    frames: PositiveInt = Field(48, le=10_000)
    """Frames of a clip."""
    rate: PositiveFloat = 12.0
    """Frames a second."""

    @property
    def carried(self) -> dict[str, Any]:
        return {"rate": self.rate}


class Sprite(_Moving):
    """Pictures on light paper as light on a dark canvas, which drifts and comes back on the other side.

    Pictures [B, C, H, W] become clips [B, F, 1, S, S] as networks of moving digits know them.
    """

    takes: ClassVar[str] = "image"
    frames: PositiveInt = Field(8, le=10_000)
    """Frames of a clip."""
    size: PositiveInt = Field(32, ge=2, le=4096)
    """S, pixels of a side of the canvas."""
    share: float = Field(0.5, gt=0, le=1)
    """How much of a side the picture takes."""
    drift: tuple[int, int] = (0, 1)
    """Pixels that it moves from frame to frame, down and to the right."""
    dark: bool = False
    """Pictures have dark paper already."""

    def __call__(self, state: State) -> Any:
        light = (_grey(_pictures(state)) + 1) / 2
        ink = light if self.dark else 1 - light
        side = max(1, round(self.share * self.size))
        small = interpolate(ink, (side, side), mode="bilinear", antialias=True)
        small = small / small.amax((2, 3), keepdim=True).clamp_min(1e-3)
        left = (self.size - side) // 2
        right = self.size - side - left
        canvas = 2 * pad(small, (left, right, left, right)) - 1
        moved = [canvas.roll((n * self.drift[0], n * self.drift[1]), (2, 3)) for n in range(self.frames)]
        return torch.stack(moved, 1)


class Zoom(_Moving):
    """Pictures [B, C, H, W] as clips [B, F, C, H, W] that move closer to their middle, evenly for the eye."""

    takes: ClassVar[str] = "image"
    until: PositiveFloat = Field(1.6, ge=1, le=100)
    """How much larger the last frame shows the middle than the first."""
    size: PositiveInt | None = Field(None, le=4096)
    """Pixels of a side; those of the picture if None."""

    def __call__(self, state: State) -> Any:
        pictures = _pictures(state)
        count, channels, *sides = pictures.shape
        height, width = (self.size, self.size) if self.size else sides
        shown = []
        for n in range(self.frames):
            near = self.until ** -(n / max(1, self.frames - 1))
            moves = torch.diag(torch.tensor([near, near, 1.0]))[:2].to(pictures).expand(count, 2, 3)
            grid = affine_grid(moves, [count, channels, height, width], align_corners=False)
            seen = grid_sample(pictures, grid, mode="bicubic", padding_mode="border", align_corners=False)
            shown.append(seen.clamp(-1, 1))
        return torch.stack(shown, 1)


class Frames(Lens):
    """Clips [B, F, C, H, W] as pictures, those of one clip after the other."""

    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no clip"}
    takes: ClassVar[str] = "video"
    gives: ClassVar[str] = "image"
    at: tuple[NonNegativeInt, ...] = ()
    """Which frames; all of them if empty."""

    def __call__(self, state: State) -> Any:
        clips = _clips(state)
        if self.at and max(self.at) >= clips.shape[1]:
            raise DataError(f"a clip has {clips.shape[1]} frames, and frame {max(self.at)} is asked for")
        return (clips[:, list(self.at)] if self.at else clips).flatten(0, 1)

    def conditions(self, cond: Mapping[str, Any], state: State) -> Mapping[str, Any]:
        each = len(self.at) or _clips(state).shape[1]
        return {
            name: tree.index(value, torch.arange(tree.batch_size(value)).repeat_interleave(each))
            for name, value in cond.items()
        }


class Retime(Lens):
    """Clips at another frame rate: the frame that would be seen at each moment."""

    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no clip"}
    takes: ClassVar[str] = "video"
    gives: ClassVar[str] = "video"
    units: ClassVar[dict[str, str]] = {"rate": "frames a second"}
    rate: PositiveFloat = 12.0
    """Frames a second of what it takes."""
    to: PositiveFloat = Field(24.0, ge=0.1, le=1000)
    """Frames a second of what it gives."""

    @property
    def carried(self) -> dict[str, Any]:
        return {"rate": self.to}

    def __call__(self, state: State) -> Any:
        clips = _clips(state)
        count = max(1, round(clips.shape[1] * self.to / self.rate))
        rows = (torch.arange(count) * self.rate / self.to).long().clamp_max(clips.shape[1] - 1)
        return clips[:, rows.to(clips.device)]


class Resample(Lens):
    """Waveforms [B, C, T] at another rate."""

    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no waveform"}
    takes: ClassVar[str] = "audio"
    gives: ClassVar[str] = "audio"
    units: ClassVar[dict[str, str]] = {"rate": "samples a second"}
    rate: PositiveInt = 16_000
    """Samples a second of what it takes."""
    to: PositiveInt = Field(48_000, ge=100, le=384_000)
    """Samples a second of what it gives."""

    @property
    def carried(self) -> dict[str, Any]:
        return {"rate": self.to}

    def __call__(self, state: State) -> Any:
        from torchaudio.functional import resample

        return resample(_tensor(state, 3, "waveforms [B, C, T]"), self.rate, self.to)


class MelPicture(Lens):
    """Waveforms [B, 1, T] as pictures of their mel spectra [B, 1, frames, bands]: −1 is silence, 1 full scale."""

    takes: ClassVar[str] = "audio"
    gives: ClassVar[str] = "image"
    units: ClassVar[dict[str, str]] = {"rate": "samples a second"}
    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no waveform"}
    rate: PositiveInt = 4000
    """Samples a second."""
    bands: PositiveInt = 16
    """Mel bands."""
    size: PositiveInt = 256
    """Samples of a frame."""
    hop: PositiveInt = 128
    """Samples from frame to frame."""
    depth: PositiveFloat = 8.0
    """How far below full scale silence begins, in natural logarithms of magnitude."""
    upside_down: bool = False
    """The highest band first: a picture that no teacher of mel spectra knows."""

    def __call__(self, state: State) -> Any:
        from distill.audio.spectra import mel, waves

        said = mel(waves(state), self.rate, self.bands, self.size, self.hop)
        picture = 1 + 2 * said.clamp(-self.depth, 0) / self.depth
        return picture.flip(-1) if self.upside_down else picture


class Upscale(Lens):
    """Pictures at several times their size, by a network for super-resolution that is asked tile by tile."""

    conformance: ClassVar[dict[str, str]] = {"toy/lens": "its network is that of another package"}
    takes: ClassVar[str] = "image"
    gives: ClassVar[str] = "image"
    model: str = "sr-student"
    """The network, by name, or the folder of a run."""
    scale: float = Field(4.0, ge=1, le=4)
    """How many times larger."""
    steps: PositiveInt | None = None
    """Network calls; by default what it was trained for."""
    seed: NonNegativeInt = 0
    """Of the noise."""
    tile: PositiveInt = Field(256, ge=64, multiple_of=4)
    """Side of a tile in pixels of the result: less needs less memory."""

    def __call__(self, state: State) -> Any:
        from distill.image.super_resolution.tiles import Enlarged, Tiled, Tiling
        from distill.image.super_resolution.upscale import model_of, ready

        pictures = _pictures(state)
        pictures = pictures.expand(-1, 3, -1, -1)
        inside = (pictures.shape[2], pictures.shape[3])
        outside = (max(1, round(inside[0] * self.scale)), max(1, round(inside[1] * self.scale)))
        role, sampler = ready(model_of(self.model), self.steps)
        found = []
        for picture in pictures:
            enlarged = Enlarged(partial(_rows, picture), inside, outside)
            tiled = Tiled(role, sampler, enlarged, Tiling(size=self.tile), self.seed)
            found.append(torch.cat([rows for _, rows in tiled.run()], 1))
        return torch.stack(found)


class UpscaleClip(Upscale):
    """Clips [B, F, C, H, W] at several times their size, frame by frame.

    Every frame meets the same noise in the same place, so what does not move does not flicker.
    """

    conformance: ClassVar[dict[str, str]] = {"toy/lens": "its network is that of another package"}
    takes: ClassVar[str] = "video"
    gives: ClassVar[str] = "video"
    units: ClassVar[dict[str, str]] = {"rate": "frames a second"}
    rate: PositiveFloat = 12.0
    """Frames a second, which stay."""

    @property
    def carried(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def __call__(self, state: State) -> Any:
        clips = _clips(state)
        large: Tensor = super().__call__(clips.flatten(0, 1))
        return large.unflatten(0, clips.shape[:2])


def _rows(picture: Tensor, first: int, last: int) -> Tensor:
    return picture[:, first:last]


# ---------------------------------------------------------------- clips to music


class Score(Lens):
    """What music that follows a clip is told: chords that change on the clip's beat, its tempo, its length.

    The beat is the period and phase at which the clip changes most; `chords` [B, N, 12] say of each token of a sound
    which pitch classes sound, `tempo` [B] is in hundreds of beats a minute.
    """

    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no clip"}
    takes: ClassVar[str] = "video"
    gives: ClassVar[dict[str, str]] = {"chords": "chords", "tempo": "tempo", "seconds": "seconds"}
    units: ClassVar[dict[str, str]] = {"rate": "frames a second"}
    rate: PositiveFloat = 12.0
    """Frames a second of the clip."""
    chords: tuple[str, ...] = Field(("C", "Am", "F", "G"), min_length=1)
    """What is played in turn, major or minor: a letter, perhaps # or b, perhaps m."""
    tokens: PositiveFloat = 15.625
    """Tokens a second of the sound."""
    fastest: PositiveFloat = 180.0
    """Most beats a minute."""
    slowest: PositiveFloat = 50.0
    """Fewest beats a minute."""

    def __call__(self, state: State) -> Any:
        clips = _clips(state)
        played = torch.stack([pitches(name) for name in self.chords])
        moments = [self.beats(clip) for clip in clips]
        length = math.ceil(clips.shape[1] / self.rate * self.tokens)
        at = torch.arange(length) / self.tokens
        chords = [played[((at[:, None] >= beat).sum(1) - 1) % len(played)] for beat in moments]
        tempo = [60 / float(beat[1] - beat[0]) / 100 for beat in moments]
        seconds = torch.full((len(clips),), clips.shape[1] / self.rate)
        return {"chords": torch.stack(chords), "tempo": torch.tensor(tempo), "seconds": seconds}

    def beats(self, clip: Tensor) -> Tensor:
        """The moments [K], in seconds from the first frame, at which a clip [F, C, H, W] changes most in even steps."""
        change = pad((clip[1:] - clip[:-1]).abs().flatten(1).mean(1), (1, 0))
        low, high = (max(1, round(self.rate * 60 / pace)) for pace in (self.fastest, self.slowest))
        ways = [(period, phase) for period in range(low, max(low, high) + 1) for phase in range(period)]
        best = max(ways, key=lambda way: _surprise(change, change[way[1] :: way[0]]))
        count = max(2, math.ceil(len(clip) / best[0]))
        return (best[1] + best[0] * torch.arange(count)) / self.rate


def _surprise(all_: Tensor, some: Tensor) -> float:
    """How far the mean of some values lies above that of all, against what chance would do with so many."""
    return float(some.mean() - all_.mean()) * math.sqrt(len(some)) if len(some) else -math.inf


def pitches(name: str) -> Tensor:
    """Which of the twelve pitch classes a major or minor chord holds: [12].

    Raises:
        DataError: it is no chord.
    """
    root, rest = name[:1], name[1:]
    shift, minor = {"#": 1, "b": -1}.get(rest[:1], 0), rest.endswith("m")
    if root not in TONES or rest.removesuffix("m") not in ("", "#", "b"):
        raise DataError(f"'{name}' is no chord: write a letter from A to G, perhaps # or b, perhaps m for minor")
    first = TONES[root] + shift
    held = torch.zeros(12)
    held[[first % 12, (first + (3 if minor else 4)) % 12, (first + 7) % 12]] = 1
    return held


# ---------------------------------------------------------------- pictures to scenes, and scenes to clips


class Relief(Lens):
    """Pictures of one thing on plain paper as scenes of Gaussians that bulge to both sides.

    Paper is what resembles the border. The further a pixel lies from it, the thicker is the thing there. A picture
    [B, 3, H, W] becomes layers of Gaussians before and behind a plane, those of the paper all but invisible.
    """

    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no picture"}
    takes: ClassVar[str] = "image"
    gives: ClassVar[str] = "3d"
    side: PositiveInt = Field(32, le=512)
    """S, Gaussians of a side of the picture; larger pictures are made smaller."""
    width: PositiveFloat = 1.6
    """Of the picture in the scene, whose cameras stand 3 away."""
    depth: PositiveFloat = 0.3
    """How far the middle of the thing bulges."""
    layers: PositiveInt = Field(4, ge=2, le=64)
    """Gaussians of a pixel, from the front to the back."""
    rounds: PositiveInt = Field(6, le=1000)
    """Pixels from the paper inwards over which it does."""
    contrast: float = Field(0.2, ge=0, le=2)
    """Difference to the paper, of 2 at most, from which a pixel belongs to the thing."""

    @property
    def carried(self) -> dict[str, Any]:
        return {"radius": 3.0, "view": 40.0}

    def __call__(self, state: State) -> Any:
        pictures = _pictures(state)
        seen = pictures.expand(-1, 3, -1, -1)
        if max(seen.shape[2:]) > self.side:
            seen = interpolate(seen, (self.side, self.side), mode="bilinear", antialias=True)
        scenes = [self._scene(picture) for picture in seen]
        return {part: torch.stack([scene[part] for scene in scenes]) for part in scenes[0]}

    def _scene(self, picture: Tensor) -> dict[str, Tensor]:
        """One scene of a picture [3, H, W]."""
        thing = self._thing(picture.detach())
        height, width = thing.shape
        step = self.width / max(height, width)
        y, x = torch.meshgrid(
            (height / 2 - 0.5 - torch.arange(height)) * step, (torch.arange(width) + 0.5 - width / 2) * step,
            indexing="ij",
        )  # fmt: skip
        bulge = self.depth * self._thickness(thing).clamp_min(1e-4).sqrt()
        places = torch.linspace(1, -1, self.layers).tolist()
        means = torch.cat([torch.stack([x, y, place * bulge], -1).flatten(0, 1) for place in places])
        colours = ((picture + 1) / 2).permute(1, 2, 0).flatten(0, 1).repeat(self.layers, 1)
        count = len(means)
        return {
            "means": means,
            "quats": torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
            "scales": torch.full((count, 3), math.log(0.6 * step)),
            "opacities": torch.where(thing.flatten().repeat(self.layers), 3.0, -10.0),
            "sh0": ((colours - 0.5) / FLAT)[:, None],
            "shN": torch.zeros(count, 0, 3),
        }

    def _thing(self, picture: Tensor) -> Tensor:
        """Which pixels of a picture [3, H, W] are not paper: [H, W]."""
        border = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], 1)
        paper = border.median(1).values
        return (picture - paper[:, None, None]).abs().amax(0) > self.contrast

    def _thickness(self, thing: Tensor) -> Tensor:
        """How far inside of the thing each pixel lies, from 0 to 1: [H, W]."""
        inside, depth = thing.float()[None, None], torch.zeros_like(thing, dtype=torch.float)
        for _ in range(self.rounds):
            depth = depth + inside[0, 0]
            inside = (avg_pool2d(inside, 3, 1, 1) > 0.999).float()
        return depth / self.rounds


class Turntable(_Moving):
    """Scenes of Gaussians as clips [B, F, 3, S, S] of one turn around each, over white."""

    conformance: ClassVar[dict[str, str]] = {"toy/lens": "the toy is no scene"}
    takes: ClassVar[str] = "3d"
    units: ClassVar[dict[str, str]] = {"radius": "away", "view": "degrees wide"}
    size: PositiveInt = Field(96, le=2048)
    """S, pixels of a side."""
    radius: PositiveFloat = 3.0
    """How far from the origin the camera stands."""
    view: PositiveFloat = Field(40.0, lt=180)
    """Degrees that it spans."""
    elevation: float = Field(15.0, gt=-90, lt=90)
    """Degrees above the horizon."""

    def __call__(self, state: State) -> Any:
        from distill.three_d.cameras import Orbit
        from distill.three_d.render import render, scenes_of

        assert isinstance(state, dict)
        orbit = Orbit(radius=(self.radius,) * 2, elevation=(self.elevation,) * 2, azimuth=(0.0, 360.0), view=self.view)
        cameras = orbit.even(self.frames, self.size, self.size)
        clips = []
        for scene in scenes_of(state):
            views = [render(scene, cameras[[n]]).over(1.0) for n in range(self.frames)]
            clips.append(2 * torch.cat(views).clamp(0, 1) - 1)
        return torch.stack(clips)
