"""From a scene and cameras to pictures: one call on a graphics card, by gsplat's kernels, and on any other machine."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, cast

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import logsigmoid

from distill.core import Lens, Ragged, State
from distill.core.errors import DataError, DistillError
from distill.three_d.cameras import LENS, VIEW, Cameras, Orbit, Sampled
from distill.three_d.composite import Screen, Splats, composite

NEAR, BLUR = 0.01, 0.3
"""Gaussians nearer than this are not seen; what a pixel adds to the variance of a Gaussian on the screen, in pixel²."""
PARTS = ("means", "quats", "scales", "opacities", "sh0", "shN")
"""The tensors of a scene of N Gaussians: places [N, 3], rotations (w, x, y, z) [N, 4], logarithms of standard
deviations [N, 3], logits of opacities [N], spherical harmonics of colours: constant [N, 1, 3], others [N, K, 3]."""
SCREEN = "screen"
"""An optional part [V, N, 2], all zeros, that is added to places on screens, in halves of a picture: its gradient is
what densifying goes by."""
Scene = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rendered:
    """V pictures.

    Attributes:
        images: colours in [0, 1] on a black background, not less where the scene is brighter [V, 3, H, W].
        alpha: how much of each pixel the scene covers [V, 1, H, W].
        depth: mean distance along the camera's axis of what is seen, 0 where nothing is [V, 1, H, W].
        normals: mean direction of the Gaussians' shortest axes, towards the camera and in its frame [V, 3, H, W].
    """

    images: Tensor
    alpha: Tensor
    depth: Tensor
    normals: Tensor

    def over(self, background: Tensor | float) -> Tensor:
        """The images over a colour [3] or a picture [V, 3, H, W]."""
        if isinstance(background, Tensor) and background.ndim == 1:
            background = background[:, None, None].to(self.images)
        return self.images + (1 - self.alpha) * background


@cache
def torch_side() -> ModuleType:
    """gsplat's own functions in torch: projection, rotations, spherical harmonics.

    The file alone: the package would look for a compiler of CUDA first, and print that there is none.
    """
    found = importlib.util.find_spec("gsplat")
    if found is None or found.origin is None:
        raise DistillError("gsplat is not installed, which projects Gaussians: pip install 'gsplat>=1.5,<1.6'")
    path = Path(found.origin).parent / "cuda" / "_torch_impl.py"
    spec = importlib.util.spec_from_file_location("distill_gsplat_torch", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rotations(quats: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions (w, x, y, z) [..., 4] of any length."""
    return cast(Tensor, torch_side()._quat_to_rotmat(quats))


def render(scene: Scene, cameras: Cameras) -> Rendered:
    """Draw a scene, with gradient to all of its parts.

    Gaussians are projected, sorted by depth and blended front to back (Kerbl et al. 2023, arXiv:2308.04079); on a CUDA
    device by gsplat's kernels, elsewhere by gsplat's functions in torch and `composite`.

    Raises:
        DataError: the scene is empty, lacks a part, or holds what is no number.
    """
    scene = checked(scene)
    cameras = cameras.to(scene["means"].device).to(scene["means"].dtype)
    draw = BACKENDS.get(scene["means"].device.type, _in_torch)
    colour, alpha = draw(scene, cameras, _features(scene, cameras))
    colour, alpha = colour.permute(0, 3, 1, 2), alpha.permute(0, 3, 1, 2)
    return Rendered(colour[:, :3], alpha, colour[:, 3:4] / alpha.clamp_min(1e-10), colour[:, 4:])


def checked(scene: Scene) -> Scene:
    """The scene, if it is one.

    Raises:
        DataError: it is empty, lacks a part, or holds what is no number.
    """
    if missing := [part for part in PARTS if part not in scene]:
        raise DataError(f"a scene of Gaussians has the parts {', '.join(PARTS)}; this one lacks {', '.join(missing)}")
    if not len(scene["means"]):
        raise DataError("the scene has no Gaussians: there is nothing to draw")
    for part in PARTS:
        bad = ~torch.isfinite(
            scene[part].detach().flatten(1) if scene[part].ndim > 1 else scene[part].detach()[:, None]
        )
        if bool(bad.any()):
            row = int(bad.any(1).nonzero()[0])
            raise DataError(f"the scene's {part} hold {int(bad.sum())} values that are no numbers, first in row {row}")
    return scene


def _features(scene: Scene, cameras: Cameras) -> Tensor:
    """Colour, depth and normal of each Gaussian as each camera sees it [V, N, 7]."""
    away = scene["means"] - cameras.places[:, None]
    sh = torch.cat([scene["sh0"], scene["shN"]], 1)
    degree = round(sh.shape[1] ** 0.5) - 1
    seen = torch_side()._spherical_harmonics(degree, away, sh.expand(len(cameras), *sh.shape))
    turned = cameras.world_to_camera[:, :3, :3]
    depth = torch.einsum("vj,vnj->vn", turned[:, 2], away)
    thin = scene["scales"].detach().argmin(1)
    axis = rotations(scene["quats"]).gather(2, thin[:, None, None].expand(-1, 3, 1))[..., 0]
    facing = torch.where((axis * away.detach()).sum(-1, keepdim=True) > 0, -1.0, 1.0) * axis
    normal = torch.einsum("vij,vnj->vni", turned, facing)
    return torch.cat([(seen + 0.5).clamp_min(0), depth[..., None], normal], -1)


def project(scene: Scene, cameras: Cameras) -> Splats:
    """The Gaussians on every camera's screen, those of the first camera first, by gsplat's functions in torch."""
    views, count = len(cameras), len(scene["means"])
    turn, shift = cameras.world_to_camera[:, 2, :3], cameras.world_to_camera[:, 2, 3]
    before = scene["means"].detach() @ turn.T + shift > NEAR  # [N, V]
    # what lies behind a camera has no place on its screen, and an infinite gradient
    safe = cameras.places + turn
    means = torch.where(before.T[..., None], scene["means"], safe[:, None])
    covariances = torch_side()._quat_scale_to_covar_preci(scene["quats"], scene["scales"].exp(), True, False)[0]
    _, centres, depths, conics, _ = torch_side()._fully_fused_projection(
        means, covariances.expand(views, count, 3, 3), cameras.world_to_camera[:, None], cameras.intrinsics[:, None],
        cameras.width, cameras.height, BLUR, NEAR,
    )  # fmt: skip
    centres = _shifted(centres[:, 0], scene, cameras)
    return Splats(
        centres.flatten(0, 1), conics.flatten(0, 2), logsigmoid(scene["opacities"]).repeat(views),
        depths.flatten().detach(), torch.arange(views, device=means.device).repeat_interleave(count),
        before.T.flatten(),
    )  # fmt: skip


def _shifted(centres: Tensor, scene: Scene, cameras: Cameras) -> Tensor:
    """Centres on screens [V, N, 2], and what is added to them."""
    half = centres.new_tensor([cameras.width / 2, cameras.height / 2])
    return centres + half * scene[SCREEN] if SCREEN in scene else centres


def _in_torch(scene: Scene, cameras: Cameras, features: Tensor) -> tuple[Tensor, Tensor]:
    """Features and alpha [V, H, W, ...] by `composite`."""
    covered = torch.cat([features, torch.ones_like(features[..., :1])], -1)
    screen = Screen(len(cameras), cameras.height, cameras.width)
    said = composite(project(scene, cameras), covered.flatten(0, 1), screen)
    return said[..., :-1], said[..., -1:]


def _in_cuda(scene: Scene, cameras: Cameras, features: Tensor) -> tuple[Tensor, Tensor]:
    """Features and alpha [V, H, W, ...] by gsplat's kernels."""
    import gsplat

    size, side = (cameras.width, cameras.height), 16
    opacities = scene["opacities"].sigmoid()
    radii, centres, depths, conics, _ = gsplat.fully_fused_projection(
        scene["means"], None, scene["quats"], scene["scales"].exp(), cameras.world_to_camera, cameras.intrinsics,
        *size, eps2d=BLUR, near_plane=NEAR, opacities=opacities,
    )  # fmt: skip
    centres = _shifted(centres, scene, cameras)
    columns, rows = (-(-pixels // side) for pixels in size)
    _, order, found = gsplat.isect_tiles(centres, radii, depths, side, columns, rows, n_images=len(cameras))
    starts = gsplat.isect_offset_encode(order, len(cameras), columns, rows)
    said: tuple[Tensor, Tensor] = gsplat.rasterize_to_pixels(
        centres, conics, features, opacities.expand(len(cameras), -1), *size, side, starts, found
    )
    return said


BACKENDS: dict[str, Callable[[Scene, Cameras, Tensor], tuple[Tensor, Tensor]]] = {"cuda": _in_cuda}
"""Who draws on which kind of device; our own code in torch does where none is named."""


def each_scene(state: State) -> list[dict[str, Tensor]]:
    """The scenes of a batch, whatever they consist of: fields [B, ...] or ragged, one by one.

    Raises:
        DataError: it is no batch of scenes.
    """
    if not isinstance(state, Mapping) or not state:
        raise DataError("a batch of scenes is a mapping with the parts of each, and this is none")
    parts = {name: part.split() if isinstance(part, Ragged) else part for name, part in state.items()}
    count = len(next(iter(parts.values())))
    return [{name: part[row] for name, part in parts.items()} for row in range(count)]


def scenes_of(state: State) -> list[dict[str, Tensor]]:
    """The scenes of Gaussians of a batch [B, N, ...], or of ragged parts, one by one; other fields go along.

    Raises:
        DataError: it is no batch of scenes of Gaussians.
    """
    if not isinstance(state, Mapping) or "means" not in state:
        raise DataError(f"a batch of scenes is a mapping with the parts {', '.join(PARTS)}, and this is none")
    return each_scene(state)


class SceneLens(Lens):
    """Scenes of some kind as pictures in [−1, 1], as image teachers see them; a subclass draws one.

    A batch of B scenes that say from where they are seen (`world_to_camera` [B, V, 4, 4], `intrinsics` [B, V, 3, 3] for
    pictures of one by one) becomes B · V pictures; others are seen by `count` cameras of the sampler, evenly spaced.
    """

    takes: ClassVar[str] = "3d"
    gives: ClassVar[str] = "image"
    conformance: ClassVar[dict[str, str]] = {"toy": "its states are scenes"}
    size: tuple[PositiveInt, PositiveInt] = (32, 32)
    """Height and width in pixels."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Colour where there is no scene, in [0, 1]."""
    cameras: Sampled = Orbit()
    """Cameras of scenes that do not say from where they are seen."""
    count: PositiveInt = 1
    """How many of them."""

    @abstractmethod
    def draw(self, scene: Scene, cameras: Cameras) -> Rendered:
        """What cameras see of one scene, with gradient to its parts."""

    def __call__(self, state: State) -> Any:
        return 2 * torch.cat([self.shown(scene) for scene in each_scene(state)]) - 1

    def shown(self, scene: Scene) -> Tensor:
        """One scene over the background, in [0, 1]: [V, 3, H, W]."""
        return self.drawn(scene).over(torch.tensor(self.background))

    def drawn(self, scene: Scene) -> Rendered:
        """One scene from its own cameras or else the sampler's, with its depth and normals."""
        return self.draw(scene, self._seen(scene))

    def _seen(self, scene: Scene) -> Cameras:
        known = Cameras.of(scene, *self.size)
        return self.cameras.even(self.count, *self.size) if known is None else known

    def conditions(self, cond: Mapping[str, Any], state: State) -> Mapping[str, Any]:
        """Those of each scene for each of its pictures, and where the pictures are seen from."""
        scenes = each_scene(state)
        seen = [self._seen(scene) for scene in scenes]
        views = sum(map(len, seen))
        told = {name: self._each(value, len(scenes), views) for name, value in cond.items()}
        known = [each.fields() for each in seen]
        return {**told, **{name: torch.cat([each[name] for each in known]) for name in (VIEW, LENS)}}

    @staticmethod
    def _each(value: Any, scenes: int, views: int) -> Any:
        """A condition of each scene becomes one of each picture; one that is, stays."""
        each = views // scenes
        return value.repeat_interleave(each, 0) if isinstance(value, Tensor) and len(value) != views else value


class Render(SceneLens):
    """Scenes of Gaussians as pictures in [−1, 1], as image teachers see them.

    A batch of B scenes that say from where they are seen (`world_to_camera` [B, V, 4, 4], `intrinsics` [B, V, 3, 3] for
    pictures of one by one) becomes B · V pictures; others are seen by `count` cameras of the sampler, evenly spaced.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "its states are scenes"}

    def draw(self, scene: Scene, cameras: Cameras) -> Rendered:
        return render(scene, cameras)
