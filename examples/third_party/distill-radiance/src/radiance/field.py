"""A radiance field: density and colour anywhere in the unit ball, from three planes of features and a perceptron."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import PositiveInt
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import grid_sample, softplus

from distill.core import Denoiser, Rng
from distill.three_d.cameras import Cameras, Orbit, Sampled
from distill.three_d.modality import Turntables
from distill.three_d.render import Rendered, Scene, SceneLens
from distill.three_d.subjects import Held, OneScene, SceneBuilder

AXES = ((0, 1), (0, 2), (1, 2))


class Field(SceneBuilder):
    """A small NeRF: the scene's parts are planes [3, C, R, R] and the weights of a perceptron."""

    resolution: PositiveInt = 24
    """Cells along a side of a plane."""
    width: PositiveInt = 16
    """Features of a plane, and units of the perceptron."""
    cameras: Sampled = Orbit()
    """Where it is seen from, where the data do not say."""

    def build(self) -> Denoiser:
        wide, cells, rng = self.width, self.resolution, Rng(0)
        parts = {"planes": 0.1 * rng.normal(3, wide, cells, cells, stream="planes")}
        parts["hidden"] = rng.normal(wide, wide, stream="hidden") / wide**0.5
        parts["outlet"] = rng.normal(wide, 4, stream="outlet") / wide**0.5
        return OneScene(Held(parts), self.cameras)


def ask(scene: Scene, points: Tensor) -> tuple[Tensor, Tensor]:
    """Density [P] and colour [P, 3] at points [P, 3]; there is nothing outside of the ball."""
    places = torch.stack([points[:, axes] for axes in AXES])[:, :, None]
    seen = grid_sample(scene["planes"], places, align_corners=True)[..., 0].sum(0).T
    said = torch.relu(seen @ scene["hidden"]) @ scene["outlet"]
    return 2 * softplus(10 * said[:, 0] - 1) * (points.norm(dim=1) < 1), torch.sigmoid(10 * said[:, 1:])


def march(scene: Scene, cameras: Cameras, samples: int) -> Rendered:
    """Sum what lies along the rays of pixels, in steps through the ball (Mildenhall et al. 2020, arXiv:2003.08934)."""
    origins, along = cameras.to(scene["planes"].device).rays()
    middle = -(origins * along).sum(-1, keepdim=True)
    steps = middle + (torch.arange(samples).to(middle) + 0.5) * 2 / samples - 1  # [V, H, W, S]
    points = origins[..., None, :] + steps[..., None] * along[..., None, :]
    density, colour = ask(scene, points.flatten(0, -2))
    passed = density.view(steps.shape) * 2 / samples
    weight = torch.exp(passed - passed.cumsum(-1)) * -torch.expm1(-passed)
    images = (weight[..., None] * colour.view(*steps.shape, 3)).sum(-2).permute(0, 3, 1, 2)
    alpha = weight.sum(-1)[:, None]
    ahead = torch.einsum("vj,vhwj->vhw", cameras.world_to_camera[:, 2, :3].to(along), along)
    depth = ((weight * steps).sum(-1) * ahead)[:, None] / alpha.clamp_min(1e-10)
    return Rendered(images, alpha, depth, torch.zeros_like(images))


class March(SceneLens):
    """Radiance fields as pictures in [−1, 1]; it tells no normals."""

    conformance: ClassVar[dict[str, str]] = {"toy": "its states are scenes"}
    samples: PositiveInt = 32
    """Steps along a ray."""

    def draw(self, scene: Scene, cameras: Cameras) -> Rendered:
        return march(scene, cameras, self.samples)


class Fields(Turntables):
    """Radiance fields: batches of planes, hidden and outlet."""

    suffix: ClassVar[str] = ".safetensors"
    size: PositiveInt = 40
    """Pixels of a side of previews and turntables."""
    frames: PositiveInt = 24
    """Frames of one turn."""

    def draw(self, scene: Scene, cameras: Cameras) -> Rendered:
        return march(scene, cameras, 32)

    def save(self, scene: Scene, path: Path) -> list[Path]:
        save_file({part: value.contiguous() for part, value in scene.items()}, path)
        return [path]
