"""Films: a clip and its sound, written as one MP4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import pad

from distill.core import Modality, State
from distill.core.errors import DataError
from distill.methods.sheets import SAME_BYTES


class Film(Modality):
    """Clips [B, F, C, H, W] under `video` and waveforms [B, 1 or 2, T] under `audio`; sound ends with the pictures."""

    conformance: ClassVar[dict[str, str]] = {"files": "its states are those of two modalities"}
    suffix: ClassVar[str] = ".mp4"
    parts: ClassVar[dict[str, str]] = {"video": "video", "audio": "audio"}
    units: ClassVar[dict[str, str]] = {"video_rate": "frames a second", "audio_rate": "samples a second"}
    video_rate: PositiveFloat = 12.0
    """Frames a second."""
    audio_rate: PositiveInt = 16_000
    """Samples a second."""
    scale: PositiveInt | None = None
    """Pixels are drawn this many times larger; None makes frames below 256 pixels about that wide."""

    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        clips, sounds = _parts(samples)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{stem}-{index:04d}.mp4" for index in range(len(clips))]
        for clip, sound, path in zip(clips, sounds, paths, strict=True):
            self._write(_pixels(clip, self.scale), sound, path)
        return paths

    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        """Eight frames of each clip, evenly spaced, one row a clip, as PNG."""
        from PIL import Image

        clips, _ = _parts(samples)
        rows = [_pixels(clip, self.scale)[torch.linspace(0, clip.shape[0] - 1, 8).round().long()] for clip in clips]
        sheet = torch.cat([torch.cat(list(row), 1) for row in rows])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet.numpy()).save(path)
        return path

    def _write(self, pixels: Tensor, sound: Tensor, path: Path) -> None:
        """Frames [F, H, W, 3] and a waveform [C, T] as H.264 and AAC."""
        import av

        _, height, width, _ = pixels.shape
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        length = round(len(pixels) / self.video_rate * self.audio_rate)
        heard = pad(sound[:, :length], (0, max(0, length - sound.shape[1]))).float().clamp(-1, 1)
        with av.open(str(path), "w") as file:
            seen: Any = file.add_stream(
                codec, rate=Fraction(self.video_rate).limit_denominator(1001), options=SAME_BYTES
            )
            seen.width, seen.height, seen.pix_fmt = width, height, "yuv420p"
            layout = "stereo" if len(heard) == 2 else "mono"
            track: Any = file.add_stream("aac", rate=self.audio_rate, layout=layout)
            for frame in pixels.contiguous().numpy():
                file.mux(seen.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(seen.encode())
            tone = av.AudioFrame.from_ndarray(heard.contiguous().numpy(), format="fltp", layout=layout)
            tone.sample_rate, tone.pts, tone.time_base = self.audio_rate, 0, Fraction(1, self.audio_rate)
            file.mux(track.encode(tone))
            file.mux(track.encode())


def _parts(samples: State) -> tuple[Tensor, Tensor]:
    """Clips and sounds of equal number.

    Raises:
        DataError: the samples are something else.
    """
    known = {name: samples.get(name) for name in ("video", "audio")} if isinstance(samples, Mapping) else {}
    clips, sounds = known.get("video"), known.get("audio")
    if not isinstance(clips, Tensor) or not isinstance(sounds, Tensor) or clips.ndim != 5 or sounds.ndim != 3:
        raise DataError("films are clips [B, F, C, H, W] under 'video' and sounds [B, 1 or 2, T] under 'audio'")
    if len(clips) != len(sounds):
        raise DataError(f"there are {len(clips)} clips and {len(sounds)} sounds: a film has one of each")
    return clips, sounds


def _pixels(clip: Tensor, scale: int | None) -> Tensor:
    """A clip [F, C, H, W] in [−1, 1] as bytes [F, H, W, 3] with even sides."""
    large = scale or max(1, 256 // clip.shape[-1])
    drawn = clip.detach().cpu().repeat_interleave(large, 2).repeat_interleave(large, 3)
    height, width = (side - side % 2 for side in drawn.shape[-2:])
    pixels = ((drawn[..., :height, :width].clamp(-1, 1) + 1) * 127.5).round().byte()
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
