"""Clips: states [B, F, C, H, W] in [−1, 1], written as MP4, shown as contact sheet, MP4 and GIF."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from distill.core import Modality, Role, State
from distill.core.contracts import Streaming, Way
from distill.core.errors import DataError
from distill.methods.sheets import tiled, write_gif, write_mp4


class Video(Modality):
    """Clips with one (grey) or three (RGB) channels."""

    suffix: ClassVar[str] = ".mp4"
    units: ClassVar[dict[str, str]] = {"rate": "frames a second"}
    pair: ClassVar[tuple[str, str] | None] = ("moving-teacher", "moving-student")
    pair_steps: ClassVar[tuple[int, ...]] = (4,)
    pair_data: ClassVar[dict[str, Any] | None] = {"name": "moving-digits", "size": 32, "frames": 24}
    streams: ClassVar[bool] = True
    rate: PositiveFloat = 12.0
    """Frames a second of files."""
    columns: PositiveInt = 8
    """Frames of a clip on the contact sheet, evenly spaced."""
    rows: PositiveInt = 16
    """Most clips on a contact sheet; of more, evenly spaced ones are shown."""
    beside_clips: PositiveInt = 6
    """Clips of teacher and student each that a report shows side by side."""
    scale: PositiveInt | None = None
    """Pixels are drawn this many times larger; None makes frames below 64 pixels about that wide."""

    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        clips = self._enlarged(to_bytes(clips_of(samples)))
        paths = [folder / f"{stem}-{index:04d}.mp4" for index in range(len(clips))]
        for pixels, path in zip(clips, paths, strict=True):
            write_mp4(pixels, path, self.rate)
        return paths

    def stream(self, role: Role, request: Streaming) -> str:
        from distill.video.streaming import write

        return write(role, request, self.rate, lambda x: self._enlarged(to_bytes(clips_of(self.decode(x))))[0])

    def lasting(self, role: Role, request: Streaming) -> Any:
        from distill.video.streaming import whole

        return whole(role, request, self.rate)

    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        """A contact sheet, one row a clip, as PNG; the clips in motion beside it, as MP4 and GIF of the same name."""
        pixels = self._enlarged(to_bytes(spread(clips_of(samples), self.rows)))
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = spread(pixels.transpose(0, 1), self.columns).transpose(0, 1)
        _picture(tiled(frames.flatten(0, 1), frames.shape[1])).save(path)
        wide = math.ceil(math.sqrt(len(pixels)))
        moving = torch.stack([tiled(each, wide) for each in pixels.transpose(0, 1)])
        write_mp4(moving, path.with_suffix(".mp4"), self.rate)
        write_gif(moving, path.with_suffix(".gif"), self.rate)
        return path

    def side_by_side(self, ways: Mapping[str, Way], folder: Path) -> dict[str, str]:
        """Clips of all ways in motion, as GIF and MP4, and the time until each frame is ready where chunks are made."""
        from distill.video.latency import measured, plot, told
        from distill.video.streaming import ChunkSampler

        self.beside({name: self.decode(way.draw(self.beside_clips)) for name, way in ways.items()}, folder / "beside")
        pictures = {"beside.gif": f"from top to bottom: {'; '.join(ways)}, from the same noises; also as beside.mp4"}
        if any(isinstance(way.sampler, ChunkSampler) for way in ways.values()):
            found = measured(ways)
            (folder / "latency.svg").write_text(plot(found), encoding="utf-8")
            pictures["latency.svg"] = told(found)
        return pictures

    def beside(self, clips: Mapping[str, Tensor], path: Path) -> list[Path]:
        """Clips of several makers (a teacher, its student), one row each, as MP4 and as GIF.

        All hold the same number of clips [B, F, C, H, W], made from the same noises.
        """
        rows = [self._enlarged(to_bytes(clips_of(each))) for each in clips.values()]
        frames = torch.cat(rows).transpose(0, 1)
        moving = torch.stack([tiled(each, len(rows[0])) for each in frames])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(moving, path.with_suffix(".mp4"), self.rate)
        write_gif(moving, path.with_suffix(".gif"), self.rate)
        return [path.with_suffix(suffix) for suffix in (".mp4", ".gif")]

    def _enlarged(self, pixels: Tensor) -> Tensor:
        scale = self.scale or max(1, 64 // pixels.shape[3])
        return pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def clips_of(samples: State) -> Tensor:
    """The samples, if they are clips.

    Raises:
        DataError: they are not.
    """
    if not isinstance(samples, Tensor) or samples.ndim != 5 or samples.shape[2] not in (1, 3):
        given = list(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
        raise DataError(f"clips are [B, F, 1 or 3, H, W], and these samples {given}: latents need a decoder")
    return samples


def spread(items: Tensor, most: int) -> Tensor:
    """At most so many items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return items
    return items[torch.linspace(0, len(items) - 1, most).round().long()]


def to_bytes(clips: Tensor) -> Tensor:
    """[B, F, C, H, W] in [−1, 1] to bytes [B, F, H, W, 3]."""
    pixels = ((clips.detach().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).cpu()
    return pixels.expand(*pixels.shape[:-1], 3)


def _picture(pixels: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(pixels.contiguous().numpy())
