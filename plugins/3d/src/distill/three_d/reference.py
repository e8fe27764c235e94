"""The renderer as the formulas have it, every pixel against every Gaussian: what `render` is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.three_d.cameras import Cameras
from distill.three_d.render import BLUR, NEAR, PARTS, Rendered, Scene, _features, rotations


def render_dense(scene: Scene, cameras: Cameras, rows: range | None = None) -> Rendered:
    """`render` by its definition (Kerbl et al. 2023, arXiv:2308.04079, section 4 and appendix C).

    `rows` are those of the pictures that are drawn: pairs of all pixels and all Gaussians need much memory.
    """
    parts = {part: scene[part] for part in PARTS}
    features, rows = _features(parts, cameras), rows or range(cameras.height)
    drawn = [_drawn(parts, cameras[[view]], features[view], rows) for view in range(len(cameras))]
    colour = torch.stack(drawn).permute(0, 3, 1, 2)
    alpha = colour[:, -1:]
    return Rendered(colour[:, :3], alpha, colour[:, 3:4] / alpha.clamp_min(1e-10), colour[:, 4:-1])


def _drawn(scene: Scene, camera: Cameras, features: Tensor, rows: range) -> Tensor:
    """Features and alpha of some rows of one view [rows, W, F + 1]."""
    turn, shift = camera.world_to_camera[0, :3, :3], camera.world_to_camera[0, :3, 3]
    within = scene["means"] @ turn.T + shift
    order = within[:, 2].detach().argsort(stable=True)
    order = order[within[order, 2] > NEAR]
    scene, within, features = {part: value[order] for part, value in scene.items()}, within[order], features[order]
    centre, flat = _flattened(scene, within, turn, camera)
    y, x = torch.meshgrid(torch.tensor(rows) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    dx, dy = (pixels.flatten().to(centre) - centre[:, [axis]] for axis, pixels in enumerate((x, y)))  # [N, pixels]
    sharp = flat.inverse()[..., None]
    distance = sharp[:, 0, 0] * dx**2 + 2 * sharp[:, 0, 1] * dx * dy + sharp[:, 1, 1] * dy**2
    alpha = (scene["opacities"].sigmoid()[:, None] * torch.exp(-0.5 * distance)).clamp_max(0.999)
    alpha = torch.where(alpha >= 1 / 255, alpha, 0.0)
    after = torch.cumprod(1 - alpha, 0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    weight = torch.where(after > 1e-4, alpha * before, 0.0)
    covered = torch.cat([features, torch.ones_like(features[:, :1])], 1)
    return torch.einsum("np,nf->pf", weight, covered).view(len(rows), camera.width, -1)


def _flattened(scene: Scene, within: Tensor, turn: Tensor, camera: Cameras) -> tuple[Tensor, Tensor]:
    """Centres [N, 2] and covariances [N, 2, 2] on the screen, in pixels."""
    axes = turn @ rotations(scene["quats"]) * scene["scales"].exp()[:, None]
    x, y, z = within.unbind(-1)
    (fx, _, cx), (_, fy, cy) = camera.intrinsics[0, :2]
    # directions are held to a little more than the picture, where the linear map would run away
    side = [(size / 2 / f * 0.3, c / f, (size - c) / f) for size, f, c in (
        (camera.width, fx, cx), (camera.height, fy, cy),
    )]  # fmt: skip
    u, v = ((part / z).clamp(-(low + room), high + room) for part, (room, low, high) in zip((x, y), side, strict=True))
    nothing = torch.zeros_like(z)
    slope = torch.stack([fx / z, nothing, -fx * u / z, nothing, fy / z, -fy * v / z], -1).view(-1, 2, 3)
    spread = slope @ axes
    flat = spread @ spread.transpose(1, 2) + BLUR * torch.eye(2).to(spread)
    return torch.stack([fx * x / z + cx, fy * y / z + cy], -1), flat
