"""Video data: scikit-learn's digits in motion, which need no download, and folders of clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource
from distill.core.data import Worded
from distill.core.errors import DataError
from distill.methods.captions import Conditions, checked
from distill.video.audio import chorale, loudness, track
from distill.video.texts import texts_of

SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v", ".mpg", ".mpeg"}
TRAINING_SHARE = 0.8
"""Share of the digits that the training split draws from; the test split draws from the others."""


# ---------------------------------------------------------------- moving digits


@cache
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 digits in a fixed shuffled order: pixels [N, 8, 8] in [−1, 1], labels [N]."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    return (torch.tensor(found.images, dtype=torch.float32) / 8 - 1)[order], torch.tensor(found.target)[order]


def blurred(pictures: Tensor) -> Tensor:
    """Pictures [..., H, W] after a 3 × 3 box filter that wraps at the border."""
    rows = (pictures + pictures.roll(1, -1) + pictures.roll(-1, -1)) / 3
    return (rows + rows.roll(1, -2) + rows.roll(-1, -2)) / 3


class Moving(Dataset[dict[str, Any]]):
    """Clips of one digit each, made when they are asked for; record k depends on the options, the seed and k alone."""

    def __init__(self, source: MovingDigits, rows: Tensor, steps: Tensor | None = None) -> None:
        self.source, self.rows, self.tracks = source, rows, steps
        self.pictures, self.labels = digits()

    def __len__(self) -> int:
        return self.source.count

    def __getitem__(self, k: int) -> dict[str, Any]:
        return {name: value[0] for name, value in self.__getitems__([k]).items()}

    def __getitems__(self, ks: Sequence[int]) -> dict[str, Tensor]:
        u = torch.stack([self._draw(int(k)) for k in ks])
        rows = self.rows[(u[:, 0] * len(self.rows)).long()]
        source, label = self.source, self.labels[rows]
        low, high = source.speed
        speed = low + (high - low) * u[:, 4]
        cond = {"label": label, "speed": speed}
        way = speed[:, None] * torch.arange(source.frames)
        if self.tracks is not None:
            way, sound = self._follow(u[:, 5])
            cond = {"label": label, "audio": sound, "reference": self.sprites(rows)[:, None]}
        angle = 2 * math.pi * (u[:, 3] * source.directions).floor() / source.directions
        place = source.size * u[:, 1:3, None] + way[:, None] * torch.stack([angle.sin(), angle.cos()], 1)[..., None]
        cond |= {"picture": self._pictures(u[:, 5:])} if source.pictures else {}
        return {"x": self.paste(self.sprites(rows), place.round().long(), source.blur), **cond}

    def _pictures(self, u: Tensor) -> Tensor:
        """Sharp frames of digits that depend on u [B, 1], somewhere on the canvas: [B, 1, S, S]."""
        rows = self.rows[(u[:, 0] * len(self.rows)).long()]
        place = (self.source.size * (u * torch.tensor([[97.0, 89.0]])).frac()).round().long()
        return self.paste(self.sprites(rows), place[..., None], blur=False)[:, 0]

    def _draw(self, k: int) -> Tensor:
        seed = (self.source.seed * 0x9E3779B1 + k) % 2**63
        return torch.rand(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()

    def _follow(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The way of each frame [B, F], and the track's features there [B, F, bands]."""
        assert self.tracks is not None
        frames = self.source.frames
        first = (u * (len(self.tracks) - frames + 1)).long()
        sound = self.tracks[first[:, None] + torch.arange(frames)]
        steps = self.source.speed[1] * loudness(sound)
        return steps.cumsum(1) - steps[:, :1], sound

    def sprites(self, rows: Tensor) -> Tensor:
        """The digits at those rows, as large as half the canvas, or all of one of 8 pixels: [B, S/2, S/2]."""
        scale = max(1, self.source.size // 16)
        large = self.pictures[rows].repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        return large

    def paste(self, sprites: Tensor, place: Tensor, blur: bool) -> Tensor:
        """Sprites [B, S/2, S/2] on empty canvases with their corners at `place` [B, 2, F], wrapped: [B, F, 1, S, S]."""
        size, side = self.source.size, sprites.shape[-1]
        axis = torch.arange(size)
        rows = (axis - place[:, 0, :, None]) % size
        columns = (axis - place[:, 1, :, None]) % size
        canvas = torch.full((len(sprites), size, size), -1.0)
        canvas[:, :side, :side] = sprites
        canvas = blurred(canvas) if blur else canvas
        clip = torch.arange(len(sprites))[:, None, None, None]
        return canvas[clip, rows[..., :, None], columns[..., None, :]][:, :, None]


class MovingDigits(DataSource):
    """Handwritten digits that move evenly across a canvas and come back on the other side: [F, 1, S, S] in [−1, 1].

    Conditions are `label`, and `speed` in pixels a frame. Digits are those of scikit-learn (Alpaydin & Kaynak 1998),
    drawn over half the canvas; one fifth of them belong to the test split.
    """

    size: Literal[8, 16, 32] = 16
    """Side of the canvas in pixels; on one of 8 the digits fill it, and roll."""
    frames: PositiveInt = 12
    """Frames of a clip."""
    speed: tuple[NonNegativeFloat, NonNegativeFloat] = (0.5, 2.0)
    """Slowest and fastest, in pixels a frame."""
    directions: PositiveInt = 8
    """Directions that are drawn from, evenly spaced; 1 is to the right only."""
    blur: bool = False
    """Soften every frame with a 3 x 3 box filter: data of poor quality, for methods that take it from elsewhere."""
    pictures: bool = False
    """Give each clip a sharp frame of another one, as the field `picture`: an image set beside the clips."""
    count: PositiveInt = 4096
    """Clips, all of them different."""
    seed: int = 0
    """Clip k depends on this and on k alone."""

    def open(self, split: str = "train") -> Dataset[Any]:
        return Moving(self, self.known(split))

    def known(self, split: str) -> Tensor:
        """The digits of a split, as rows of `digits()`."""
        total = len(digits()[1])
        edge = int(TRAINING_SHARE * total)
        return torch.arange(edge) if split == "train" else torch.arange(edge, total)


class DancingDigits(MovingDigits):
    """Digits that move as far from frame to frame as a track of sound is loud there.

    Conditions are `label`, `audio`: log energies of the track in each frame [F, bands], scaled to about [−1, 1], and
    `reference`: the digit itself [1, S/2, S/2]. The track that ships with this package is the opening of a chorale.
    """

    speed: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 3.0)
    """Pixels a frame in silence (0) and where the track is loudest."""
    file: Path | None = None
    """A sound file that soundfile reads (WAV, FLAC, OGG); the chorale if None."""
    rate: PositiveFloat = 12.0
    """Frames a second."""
    bands: PositiveInt = 8
    """Mel bands of the features."""

    def open(self, split: str = "train") -> Dataset[Any]:
        sound = track(self.file or chorale(), self.rate, self.bands, least=self.frames)
        return Moving(self, self.known(split), sound)


# ---------------------------------------------------------------- folders of clips


class Clips(Dataset[dict[str, Any]]):
    """Windows of decoded clips [F, C, H, W] in [−1, 1], and the rank of each clip's caption among all captions."""

    def __init__(self, clips: Sequence[Tensor], ranks: Sequence[int], captions: Sequence[str], frames: int) -> None:
        self.clips, self.ranks, self.captions, self.frames = clips, ranks, captions, frames
        self.windows = [(clip, first) for clip, pixels in enumerate(clips) for first in self._starts(len(pixels))]

    def _starts(self, length: int) -> range:
        return range(0, length - self.frames + 1, self.frames)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        clip, first = self.windows[row]
        pixels = self.clips[clip][first : first + self.frames]
        return {"x": pixels.float() / 127.5 - 1, "label": torch.tensor(self.ranks[clip])}


class CaptionedClips(Worded):
    """The same windows with what an encoder says of their captions, the ones of the clips, in place of the rank."""

    def __init__(self, clips: Clips, conditions: Conditions) -> None:
        self.clips, self.conditions = clips, conditions

    @property
    def captions(self) -> Sequence[str]:
        return [self.conditions.captions[clip] for clip, _ in self.clips.windows]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, row: int) -> dict[str, Any]:
        told = self.conditions[[self.clips.windows[row][0]]]
        return {"x": self.clips[row]["x"], **{name: value[0] for name, value in told.items()}}


class VideoFolder(DataSource):
    """A folder of video files, decoded with PyAV, resized and cut into windows of equal length that do not overlap.

    A caption stands in a text file of the clip's own name (`bikes.mp4`, `bikes.txt`). With an encoder it becomes the
    condition `text`, for networks that read; without one the condition `label` is its rank among the folder's captions
    in alphabetical order, the dataset's `captions` lists them, and clips without one share an empty caption.
    """

    example: ClassVar[dict[str, Any]] = {"folder": "clips"}
    conformance: ClassVar[dict[str, str]] = {"samples": "there is no folder of clips that every machine has"}
    folder: Path
    """Where the clips are."""
    height: PositiveInt = 32
    """Pixels from top to bottom."""
    width: PositiveInt = 32
    """Pixels from left to right; what the shape of the clip leaves over is cropped evenly."""
    frames: PositiveInt = 24
    """Frames of a window."""
    every: PositiveInt = 1
    """Keep each n-th frame of the file."""
    mode: Literal["rgb24", "gray"] = "rgb24"
    """Colour or grey."""
    encoder: str = ""
    """Who encodes captions: minilm, wordllama, or the folder of a pipeline; captions are labels if empty."""
    tokens: PositiveInt | None = None
    """Length of the text; the encoder's own if None."""
    cache: Path | None = None
    """Folder of the cache of encoded captions; one in the home folder if None."""

    def open(self, split: str = "train") -> Dataset[Any]:
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is no folder: give the folder that holds the clips")
        files = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"{self.folder} holds no clips ({', '.join(sorted(SUFFIXES))})")
        said = [self.caption(path) for path in files]
        clips = [self.decode(path) for path in files]
        captions = sorted(set(said))
        windows = Clips(clips, [captions.index(text) for text in said], captions, self.frames)
        if not self.encoder:
            return windows
        return CaptionedClips(
            windows, Conditions(self._said(files, said), texts_of(self.encoder, self.tokens), self.cache)
        )

    def _said(self, files: Sequence[Path], captions: Sequence[str]) -> list[str]:
        """The captions, if every clip has one."""
        for path, caption in zip(files, captions, strict=True):
            if not caption:
                raise DataError(f"{path} has no caption: write {path.with_suffix('.txt').name} beside it")
        return [checked(caption, str(path.with_suffix(".txt"))) for path, caption in zip(files, captions, strict=True)]

    def caption(self, file: Path) -> str:
        """What the text file beside a clip says; nothing if there is none."""
        beside = file.with_suffix(".txt")
        try:
            return beside.read_text(encoding="utf-8").strip() if beside.is_file() else ""
        except UnicodeDecodeError as error:
            raise DataError(f"{beside} is no UTF-8 text: {error}. Save it as UTF-8.") from error

    def decode(self, file: Path) -> Tensor:
        """The frames of a file as bytes [F, C, H, W].

        Raises:
            DataError: it cannot be read, has no pictures, or too few for one window.
        """
        pixels = decoded(file, self.height, self.width, self.every, self.mode)
        if len(pixels) < self.frames:
            raise DataError(
                f"{file} is too short: it has {len(pixels)} frames (every {self.every}), and a window has "
                f"{self.frames}. Remove it, or ask for fewer frames."
            )
        return pixels


def decoded(file: Path, height: int, width: int, every: int = 1, mode: str = "rgb24") -> Tensor:
    """Every n-th frame of a video file, scaled to cover the size and cropped to its middle: bytes [F, C, H, W].

    Raises:
        DataError: the file cannot be read, or holds no frames.
    """
    import av

    frames = []
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise DataError(f"{file} has no frames: it holds no video stream. Mend or remove it.")
            for index, frame in enumerate(container.decode(video=0)):
                if index % every == 0:
                    frames.append(_covering(frame, height, width, mode))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{file} is not a readable video: {error}. Mend or remove it.") from error
    if not frames:
        raise DataError(f"{file} has no frames. Mend or remove it.")
    return torch.stack(frames)


def _covering(frame: Any, height: int, width: int, mode: str) -> Tensor:
    scale = max(height / frame.height, width / frame.width)
    tall, wide = (max(low, round(scale * side)) for low, side in ((height, frame.height), (width, frame.width)))
    pixels = torch.from_numpy(frame.reformat(wide, tall, format=mode).to_ndarray()).view(tall, wide, -1)
    top, left = (tall - height) // 2, (wide - width) // 2
    return pixels[top : top + height, left : left + width].permute(2, 0, 1)
