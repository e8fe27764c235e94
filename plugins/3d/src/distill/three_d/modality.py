"""Scenes as people see them: PLY files, turntables, contact sheets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from distill.core import Modality, State
from distill.three_d.cameras import Cameras, Orbit
from distill.three_d.files import write_ply, write_splat
from distill.three_d.render import PARTS, Scene, render, scenes_of

BORDER = 64
"""Brightness of the line between two pictures."""


class ThreeD(Modality):
    """Scenes of Gaussians: batches of means, quats, scales, opacities, sh0 and shN."""

    suffix: ClassVar[str] = ".ply"
    size: PositiveInt = 96
    """Pixels of a side of previews and turntables."""
    radius: PositiveFloat = 3.0
    """How far from the origin their cameras stand."""
    elevation: float = Field(15.0, gt=-90, lt=90)
    """Degrees above the horizon."""
    view: PositiveFloat = 40.0
    """Degrees that they span."""
    columns: PositiveInt = 8
    """Views of a scene on the contact sheet, evenly spaced."""
    rows: PositiveInt = 4
    """Most scenes on a contact sheet; equal ones are shown once."""
    frames: PositiveInt = 48
    """Frames of one turn."""
    rate: PositiveFloat = 24.0
    """Frames a second."""
    movies: bool = True
    """Write a turntable beside each file."""
    splats: bool = False
    """Write a .splat beside each file."""

    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        paths = []
        for index, scene in enumerate(_scenes(samples)):
            name = folder / f"{stem}-{index:04d}.ply"
            paths.append(write_ply(scene, name))
            paths += [write_splat(scene, name.with_suffix(".splat"))] if self.splats else []
            paths += [self.turntable(scene, name.with_suffix(".mp4"))] if self.movies else []
        return paths

    def turntable(self, scene: Scene, path: Path) -> Path:
        """One turn around a scene as MP4."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(
            (self._shown(scene, self.cameras(self.frames)[[n]])[0][0] for n in range(self.frames)), path, self.rate
        )
        return path

    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        """A contact sheet of turntables, one scene a row, and the distances of the last scene under it."""
        from PIL import Image

        kept = _unequal(_scenes(samples))[: self.rows]
        shown = [self._shown(scene, self.cameras(self.columns)) for scene in kept]
        pixels = torch.cat([pictures for pictures, _ in shown] + [shown[-1][1]])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiled(to_bytes(pixels), self.columns).numpy()).save(path)
        return path

    def cameras(self, count: int) -> Cameras:
        """Cameras all around, at one height."""
        orbit = Orbit(radius=(self.radius, self.radius), elevation=(self.elevation, self.elevation), view=self.view)
        return orbit.even(count, self.size, self.size)

    @torch.no_grad()
    def _shown(self, scene: Scene, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Pictures over white, and distances as grey, near ones bright: [V, 3, H, W] each, in [0, 1]."""
        drawn = render(scene, cameras)
        seen = drawn.alpha > 0.5
        far, near = (drawn.depth[seen].max(), drawn.depth[seen].min()) if bool(seen.any()) else (1.0, 0.0)
        grey = ((far - drawn.depth) / max(float(far - near), 1e-6)).clamp(0, 1)
        depth = torch.where(seen, 0.2 + 0.8 * grey, 0.0)
        return drawn.over(1.0).clamp(0, 1).cpu(), depth.expand_as(drawn.images).cpu()


def _scenes(samples: State) -> list[dict[str, Tensor]]:
    state: Any = samples
    known = {part: state[part] for part in PARTS if part in state} if isinstance(state, Mapping) else state
    return scenes_of(known)


def _unequal(scenes: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The scenes without those that are as the one before."""
    pairs = zip(scenes[1:], scenes, strict=False)
    news = [any(not torch.equal(scene[part], before[part]) for part in PARTS) for scene, before in pairs]
    return [scenes[0], *(scene for scene, new in zip(scenes[1:], news, strict=True) if new)]


def to_bytes(pictures: Tensor) -> Tensor:
    """[V, 3, H, W] in [0, 1] to bytes [V, H, W, 3]."""
    return (pictures.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().contiguous()


def tiled(pixels: Tensor, columns: int) -> Tensor:
    """Pictures [N, H, W, 3] on one sheet, row by row with a line between them."""
    count, height, width, channels = pixels.shape
    rows = -(-count // columns)
    sheet = torch.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), BORDER, dtype=torch.uint8)
    for index, picture in enumerate(pixels):
        top, left = index // columns * (height + 1) + 1, index % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = picture
    return sheet


def write_mp4(frames: Iterator[Tensor], path: Path, rate: float) -> None:
    """Frames [3, H, W] in [0, 1], one by one, as H.264, or as MPEG-4 where this FFmpeg has no H.264."""
    from fractions import Fraction

    import av

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        for number, frame in enumerate(frames):
            height, width = (side - side % 2 for side in frame.shape[1:])
            if not number:
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            pixels = to_bytes(frame[None, :, :height, :width])[0].numpy()
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
