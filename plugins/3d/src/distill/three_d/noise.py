"""Noise that belongs to a scene: attached to its surface, so that every view of a place has the same."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.core import Rng
from distill.three_d.cameras import Cameras
from distill.three_d.render import Rendered

SIDES = 6
"""Of a cube around the scene, on which texels lie."""


def texels(rng: Rng, channels: int, size: int = 96, shells: int = 4, stream: str = "surface-noise") -> Tensor:
    """Standard normal texels [shells + 1, 6 · size², channels]: on spheres one within the other, and far away."""
    draws = rng.generator(stream)  # not the share of one process: all views see the same noise
    return torch.randn(shells + 1, SIDES * size * size, channels, generator=draws, device=draws.device)


def refreshed(noise: Tensor, share: float, rng: Rng, stream: str = "surface-noise/new") -> Tensor:
    """`√(1 − γ) n + √γ ε`: texels that change slowly (the injected-noise SDE of CFD)."""
    fresh = torch.randn(noise.shape, generator=rng.generator(stream), device=rng.device).to(noise)
    return (1 - share) ** 0.5 * noise + share**0.5 * fresh


@torch.no_grad()
def seen_noise(noise: Tensor, drawn: Rendered, cameras: Cameras, radius: float = 1.0, samples: int = 6) -> Tensor:
    """What views see of a scene's noise: standard normal in every pixel, and alike where they see the same place.

    Each pixel looks at the surface in `samples`² places. Texels t that it meets m_t times give `Σ m_t n_t / √Σ m_t²`
    (noise transport of Consistent Flow Distillation, Yan et al. 2025; there texels are summed once each). Where no
    surface is, it looks at the far ones.

    Args:
        noise: of `texels`.
        drawn: the views, of which depth and alpha are used.
        cameras: theirs; smaller pictures than those drawn are allowed, for teachers of latents.
        radius: of the ball that the scene fills, which the shells divide.
        samples: looks along each side of a pixel.

    Returns:
        [V, channels, H, W] in the size of the cameras' pictures.
    """
    fine = cameras.resized(cameras.height * samples, cameras.width * samples)
    size = (fine.height, fine.width)
    nearest = torch.nn.functional.interpolate
    depth = nearest(drawn.depth, size, mode="nearest")[:, 0]
    there = nearest(drawn.alpha, size, mode="nearest")[:, 0] > 0.5
    origins, along = fine.rays()
    ahead = torch.einsum("vj,vhwj->vhw", cameras.world_to_camera[:, 2, :3], along)
    places = torch.where(there[..., None], origins + along * (depth / ahead)[..., None], along)
    shells, count = len(noise) - 1, noise.shape[1]
    shell = (places.norm(dim=-1) / radius * shells).long().clamp(0, shells - 1)
    texel = torch.where(there, shell, shells) * count + _texel(places, round((count / SIDES) ** 0.5))
    return _gathered(noise.flatten(0, 1), texel, cameras, samples)


def _texel(places: Tensor, size: int) -> Tensor:
    """Index of the texel in whose direction a place lies, on the sides of a cube; warped so that texels are alike."""
    axis = places.abs().argmax(-1, keepdim=True)
    main = places.gather(-1, axis)
    others = torch.stack([places.gather(-1, (axis + k) % 3)[..., 0] for k in (1, 2)], -1)
    warped = torch.atan(others / main.abs().clamp_min(1e-9)) * (4 / torch.pi)
    cell = ((warped + 1) / 2 * size).long().clamp(0, size - 1)
    side = 2 * axis[..., 0] + (main[..., 0] < 0)
    return (side * size + cell[..., 0]) * size + cell[..., 1]


def _gathered(noise: Tensor, texel: Tensor, cameras: Cameras, samples: int) -> Tensor:
    """Noise [texels, C] by the texels [V, H · s, W · s] that pixels look at."""
    views, height, width = len(texel), cameras.height, cameras.width
    rows = torch.arange(height * samples, device=texel.device) // samples
    columns = torch.arange(width * samples, device=texel.device) // samples
    pixel = (torch.arange(views, device=texel.device)[:, None, None] * height + rows[:, None]) * width + columns
    met, times = torch.unique(pixel.flatten() * len(noise) + texel.flatten(), return_counts=True)
    owner, weight = met // len(noise), times.to(noise)
    said = noise.new_zeros(views * height * width, noise.shape[1])
    said.index_add_(0, owner, weight[:, None] * noise[met % len(noise)])
    norm = noise.new_zeros(len(said)).index_add_(0, owner, weight.square())
    return (said / norm.sqrt()[:, None]).view(views, height, width, -1).permute(0, 3, 1, 2)
