"""Pictures with their cameras, cameras alone, and scenes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource, Rng, Samples
from distill.core.errors import DataError
from distill.three_d.cameras import Cameras, Orbit, Sampled, pinholes
from distill.three_d.files import read_ply
from distill.three_d.meshes import SHAPES, load_mesh, views
from distill.three_d.objects import NAMES
from distill.three_d.starts import Surface


class MeshViews(DataSource):
    """True views of a mesh over white, with the cameras that they are seen from.

    Samples have a picture `x` [3, H, W] in [−1, 1], `world_to_camera` [4, 4] and `intrinsics` [3, 3] for pictures of
    one by one. The split "test" holds other views.
    """

    mesh: str = "snowman"
    """A file, or the name of a shape of ours: snowman, rings, tower."""
    count: PositiveInt = 64
    """How many views."""
    size: tuple[PositiveInt, PositiveInt] = (32, 32)
    """Height and width in pixels."""
    cameras: Sampled = Orbit()
    """Where they are seen from; the mesh fills the ball of radius 1."""
    even: bool = False
    """Evenly spaced, and not drawn at random."""
    smooth: PositiveInt = 2
    """Rays along each side of a pixel, whose mean it is."""
    seed: int = 0
    """Of the cameras."""

    def open(self, split: str = "train") -> Dataset[Any]:
        pictures, cameras = _views_of(self, split)
        return Samples(x=2 * pictures - 1, **cameras.fields())


@lru_cache(maxsize=32)
def _views_of(source: MeshViews, split: str) -> tuple[Tensor, Cameras]:
    rng = Rng(source.seed).fork(split)
    height, width = source.size
    drawn = source.cameras.even(source.count, height, width) if source.even and split == "train" else (
        source.cameras.draw(source.count, height, width, rng)
    )  # fmt: skip
    fine, _ = views(load_mesh(source.mesh), drawn.resized(height * source.smooth, width * source.smooth))
    return torch.nn.functional.avg_pool2d(fine, source.smooth), drawn


class ObjectViews(DataSource):
    """True views of several meshes over white: samples of `mesh-views`, and the number of the mesh as `label`."""

    meshes: tuple[str, ...] = NAMES
    """Files, or names of objects and shapes of ours, by label."""
    labels: tuple[int, ...] = ()
    """Their labels, where a teacher knows them under others; their places in the list if empty."""
    count: PositiveInt = 160
    """How many views of each."""
    size: tuple[PositiveInt, PositiveInt] = (32, 32)
    """Height and width in pixels."""
    cameras: Sampled = Orbit()
    """Where they are seen from."""
    smooth: PositiveInt = 2
    """Rays along each side of a pixel, whose mean it is."""
    seed: int = 0
    """Of the cameras."""

    def open(self, split: str = "train") -> Dataset[Any]:
        told = {"count": self.count, "size": self.size, "cameras": self.cameras, "smooth": self.smooth}
        sources = [
            MeshViews(mesh=mesh, seed=self.seed + 1000 * label, **told) for label, mesh in enumerate(self.meshes)
        ]
        opened = [_views_of(source, split) for source in sources]
        labels = self.labels or tuple(range(len(self.meshes)))
        if len(labels) != len(self.meshes):
            raise DataError(f"there are {len(self.meshes)} meshes and {len(labels)} labels: give one for each")
        label = torch.tensor(labels).repeat_interleave(self.count)
        cameras = [each.fields() for _, each in opened]
        fields = {name: torch.cat([each[name] for each in cameras]) for name in cameras[0]}
        return Samples(x=torch.cat([2 * pictures - 1 for pictures, _ in opened]), label=label, **fields)


class PosedPhotos(DataSource):
    """A folder of photos with their cameras in `transforms.json`, as instant-ngp and nerfstudio write it.

    Samples are those of `mesh-views`. The file's cameras look along −z with y up, as in OpenGL.
    """

    conformance: ClassVar[dict[str, str]] = {"samples": "its folder is the user's"}
    example: ClassVar[dict[str, Any]] = {"folder": "photos"}
    folder: Path
    """The folder, or the file itself."""
    size: tuple[PositiveInt, PositiveInt] = (64, 64)
    """Height and width in pixels that photos are brought to."""
    scale: float = Field(1.0, gt=0)
    """What places are multiplied with."""

    def open(self, split: str = "train") -> Dataset[Any]:
        path = self.folder / f"transforms_{split}.json" if self.folder.is_dir() else self.folder
        path = path if path.is_file() else self.folder / "transforms.json"
        if not path.is_file():
            raise DataError(f"{self.folder} holds neither transforms.json nor transforms_{split}.json")
        about = json.loads(path.read_text(encoding="utf-8"))
        frames = about.get("frames") or []
        if not frames:
            raise DataError(f"{path} lists no frames")
        pictures = torch.stack([self._picture(path.parent, str(frame["file_path"])) for frame in frames])
        cameras = self._cameras(torch.tensor([frame["transform_matrix"] for frame in frames]), about, path)
        return Samples(x=pictures, **cameras.fields())

    def _picture(self, folder: Path, name: str) -> Tensor:
        import numpy as np
        from PIL import Image

        found = [path for path in (folder / name, folder / f"{name}.png") if path.is_file()]
        if not found:
            raise DataError(f"{folder} has no picture {name}, which its transforms.json names")
        with Image.open(found[0]) as picture:
            over = Image.new("RGBA", picture.size, "white")
            over.alpha_composite(picture.convert("RGBA"))
        pixels = np.asarray(over.convert("RGB").resize(self.size[::-1], Image.Resampling.LANCZOS), dtype=np.float32)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 127.5 - 1

    def _cameras(self, to_world: Tensor, about: Mapping[str, Any], path: Path) -> Cameras:
        to_world = to_world.clone()
        to_world[:, :3, 3] *= self.scale
        motions = (to_world @ torch.diag(torch.tensor([1.0, -1, -1, 1]))).inverse()
        if "fl_x" in about:
            width, height = float(about["w"]), float(about["h"])
            across, down = float(about["fl_x"]) / width, float(about.get("fl_y", about["fl_x"])) / height
            centre = (float(about.get("cx", width / 2)) / width, float(about.get("cy", height / 2)) / height)
            one = torch.tensor([[across, 0, centre[0]], [0, down, centre[1]], [0, 0, 1.0]])
            return Cameras(motions, one.expand(len(motions), 3, 3), 1, 1).resized(*self.size)
        if "camera_angle_x" not in about:
            raise DataError(f"{path} has neither fl_x nor camera_angle_x: the cameras' focal length is unknown")
        return pinholes(motions, float(torch.tensor(about["camera_angle_x"]).rad2deg()), 1, 1).resized(*self.size)


class CameraData(DataSource):
    """Cameras alone, for scenes that are seen where a sampler says and that a teacher of pictures judges."""

    conformance: ClassVar[dict[str, str]] = {"samples": "cameras have no state of their own"}
    count: PositiveInt = 512
    """How many."""
    cameras: Sampled = Orbit()
    """Where they stand."""
    told: dict[str, Any] = {}
    """Further conditions, the same for all: a label, a text as it is encoded."""
    seed: int = 0
    """Of the draws."""

    def open(self, split: str = "train") -> Dataset[Any]:
        drawn = self.cameras.draw(self.count, 1, 1, Rng(self.seed).fork(split))
        told = {name: torch.as_tensor(value) for name, value in self.told.items()}
        return Samples(
            **drawn.fields(), **{name: value.expand(self.count, *value.shape) for name, value in told.items()}
        )


class SurfaceScenes(DataSource):
    """Scenes of Gaussians on the surfaces of shapes of ours, turned at random: data for networks that make scenes."""

    count: PositiveInt = 64
    """How many scenes."""
    gaussians: PositiveInt = 256
    """Gaussians of each."""
    shapes: tuple[str, ...] = tuple(SHAPES)
    """Shapes, or files of meshes, in turn."""
    opacity: float = Field(0.9, gt=0, lt=1)
    """Of each Gaussian."""
    seed: int = 0
    """Of the draws."""

    def open(self, split: str = "train") -> Dataset[Any]:
        return _Scenes([self._scene(row, split) for row in range(self.count)])

    def _scene(self, row: int, split: str) -> dict[str, Tensor]:
        rng = Rng(self.seed).fork(f"{split}/{row}")
        mesh = self.shapes[row % len(self.shapes)]
        scene = Surface(mesh=mesh, count=self.gaussians, opacity=self.opacity).scene(0, rng)
        turn = float(6.2832 * rng.uniform(1, stream="turn"))
        cosine, sine = torch.tensor(turn).cos(), torch.tensor(turn).sin()
        x, y, z = scene["means"].unbind(1)
        return {**scene, "means": torch.stack([cosine * x + sine * z, y, cosine * z - sine * x], 1)}


class SplatFolder(DataSource):
    """A folder of scenes as PLY files, with as many Gaussians each."""

    conformance: ClassVar[dict[str, str]] = {"samples": "its folder is the user's"}
    example: ClassVar[dict[str, Any]] = {"folder": "scenes"}
    folder: Path
    """The folder."""

    def open(self, split: str = "train") -> Dataset[Any]:
        paths = sorted(self.folder.glob("*.ply"))
        if not paths:
            raise DataError(f"{self.folder} holds no .ply files")
        scenes = [read_ply(path) for path in paths]
        counts = {len(scene["means"]) for scene in scenes}
        if len(counts) > 1:
            raise DataError(f"the scenes in {self.folder} have between {min(counts)} and {max(counts)} Gaussians: "
                            "bring them to one number, or read them one by one with read_ply")  # fmt: skip
        return _Scenes(scenes)


class _Scenes(Dataset[Any]):
    """Scenes in memory."""

    def __init__(self, scenes: list[dict[str, Tensor]]) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"x": self.scenes[row]}
