"""Scenes as people see them: PLY files, turntables, contact sheets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from distill.core import Modality, State
from distill.core.contracts import Way
from distill.methods.sheets import tiled, write_gif, write_mp4
from distill.three_d.cameras import Cameras, Orbit
from distill.three_d.files import read_ply, write_ply, write_splat
from distill.three_d.render import PARTS, Rendered, Scene, each_scene, render, scenes_of

TURN = "turn.gif"
"""Name of the turntable that a report shows."""


class Turntables(Modality):
    """Scenes of some kind, seen on a way around them; a subclass says how one is drawn and written."""

    units: ClassVar[dict[str, str]] = {"radius": "away", "view": "degrees wide"}
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

    @abstractmethod
    def draw(self, scene: Scene, cameras: Cameras) -> Rendered:
        """What cameras see of one scene."""

    @abstractmethod
    def save(self, scene: Scene, path: Path) -> list[Path]:
        """Write one scene to a file of this name, and what belongs beside it."""

    def scenes(self, samples: State) -> list[dict[str, Tensor]]:
        """The scenes of a batch, one by one."""
        return each_scene(samples)

    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for index, scene in enumerate(self.scenes(samples)):
            name = folder / f"{stem}-{index:04d}{self.suffix}"
            paths += self.save(scene, name)
            paths += [self.turntable(scene, name.with_suffix(".mp4"))] if self.movies else []
        return paths

    def turntable(self, scene: Scene, path: Path) -> Path:
        """One turn around a scene as MP4."""
        path.parent.mkdir(parents=True, exist_ok=True)
        seen = (self._shown(scene, self.cameras(self.frames)[[n]])[0] for n in range(self.frames))
        write_mp4((to_bytes(picture)[0] for picture in seen), path, self.rate)
        return path

    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        """A contact sheet of turntables, one scene a row, and the distances of the last scene under it."""
        from PIL import Image

        kept = _unequal(self.scenes(samples))[: self.rows]
        shown = [self._shown(scene, self.cameras(self.columns)) for scene in kept]
        pixels = torch.cat([pictures for pictures, _ in shown] + [shown[-1][1]])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiled(to_bytes(pixels), self.columns).numpy()).save(path)
        return path

    def side_by_side(self, ways: Mapping[str, Way], folder: Path) -> dict[str, str]:
        """One turn around a scene of each way, in motion, as GIF."""
        if not self.movies:
            return {}
        scenes = [self.scenes(way.draw(1))[0] for way in ways.values()]
        seen = [to_bytes(self._shown(scene, self.cameras(self.frames))[0]) for scene in scenes]
        folder.mkdir(parents=True, exist_ok=True)
        write_gif((tiled(torch.stack(row), len(row)) for row in zip(*seen, strict=True)), folder / TURN, self.rate)
        return {TURN: f"one turn, from left to right: {'; '.join(ways)}" if len(ways) > 1 else "one turn"}

    def cameras(self, count: int) -> Cameras:
        """Cameras all around, at one height."""
        orbit = Orbit(radius=(self.radius, self.radius), elevation=(self.elevation, self.elevation), view=self.view)
        return orbit.even(count, self.size, self.size)

    @torch.no_grad()
    def _shown(self, scene: Scene, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Pictures over white, and distances as grey, near ones bright: [V, 3, H, W] each, in [0, 1]."""
        drawn = self.draw(scene, cameras)
        seen = drawn.alpha > 0.5
        far, near = (drawn.depth[seen].max(), drawn.depth[seen].min()) if bool(seen.any()) else (1.0, 0.0)
        grey = ((far - drawn.depth) / max(float(far - near), 1e-6)).clamp(0, 1)
        depth = torch.where(seen, 0.2 + 0.8 * grey, 0.0)
        return drawn.over(1.0).clamp(0, 1).cpu(), depth.expand_as(drawn.images).cpu()


class ThreeD(Turntables):
    """Scenes of Gaussians: batches of means, quats, scales, opacities, sh0 and shN."""

    suffix: ClassVar[str] = ".ply"
    has_demo: ClassVar[bool] = True
    splats: bool = False
    """Write a .splat beside each file."""

    def demo_recipe(self) -> Path:
        return Path(str(files("distill.three_d") / "recipes" / "demo.yaml"))

    def draw(self, scene: Scene, cameras: Cameras) -> Rendered:
        return render(scene, cameras)

    def save(self, scene: Scene, path: Path) -> list[Path]:
        beside = [write_splat(scene, path.with_suffix(".splat"))] if self.splats else []
        return [write_ply(scene, path), *beside]

    def live(self, path: Path, port: int) -> Any:
        from distill.three_d.viewer import serve

        return serve(read_ply(path), port=port)

    def scenes(self, samples: State) -> list[dict[str, Tensor]]:
        state: Any = samples
        known = {part: state[part] for part in PARTS if part in state} if isinstance(state, Mapping) else state
        return scenes_of(known)


def _unequal(scenes: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The scenes without those that are as the one before."""
    pairs = zip(scenes[1:], scenes, strict=False)
    news = [any(not torch.equal(scene[part], before[part]) for part in scene) for scene, before in pairs]
    return [scenes[0], *(scene for scene, new in zip(scenes[1:], news, strict=True) if new)]


def to_bytes(pictures: Tensor) -> Tensor:
    """[V, 3, H, W] in [0, 1] to bytes [V, H, W, 3]."""
    return (pictures.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().contiguous()
