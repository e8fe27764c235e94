"""Worlds in which methods on scenes and their latents are measured: voxels of turning shapes, and a family of toys."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from distill.core import Cache, Denoiser, Engine, Mixture, Rng, Samples, State
from distill.core.paths import Flow
from distill.core.tree import expand
from distill.methods import toys as plain
from distill.three_d.cameras import VIEW, Cameras, Orbit
from distill.three_d.gaussians import GaussianScene
from distill.three_d.losses import psnr
from distill.three_d.meshes import SHAPES, load_mesh, surface, views
from distill.three_d.render import Render
from distill.three_d.scenes import REFERENCES
from distill.three_d.starts import Noise

# ---------------------------------------------------------------- voxels

SIDE, GRIDS, CODE = 6, 48, 3
VOXELS = f"occupancy of our three shapes, turned about the upright axis: {GRIDS} grids of {SIDE}³ voxels, PCA-{CODE}"


@cache
def voxels(seed: int = 0) -> Tensor:
    """How full the voxels of turned shapes are, from −1 to 1: [48, 216]."""
    rng, points = Rng(seed).fork("voxels"), 3000
    clouds = {name: surface(load_mesh(name), points, rng)[0] for name in SHAPES}
    turns = (2 * torch.pi * rng.uniform(GRIDS, stream="turn")).tolist()
    grids = [_occupied(_turned(clouds[list(clouds)[row % len(clouds)]], turn)) for row, turn in enumerate(turns)]
    return torch.stack(grids)


def _turned(points: Tensor, angle: float) -> Tensor:
    cosine, sine = torch.tensor(angle).cos(), torch.tensor(angle).sin()
    x, y, z = points.unbind(1)
    return torch.stack([cosine * x + sine * z, y, cosine * z - sine * x], 1)


def _occupied(points: Tensor) -> Tensor:
    place = ((points + 1) / 2 * SIDE).long().clamp(0, SIDE - 1)
    flat = (place[:, 0] * SIDE + place[:, 1]) * SIDE + place[:, 2]
    counts = torch.bincount(flat, minlength=SIDE**3).float()
    return 2 * torch.tanh(counts / 15) - 1


@cache
def codes(seed: int = 0) -> Tensor:
    """Their latents, principal components of unit variance together: [48, 3]."""
    flat = voxels(seed) - voxels(seed).mean(0)
    axes = torch.linalg.svd(flat, full_matrices=False)[2][:CODE]
    found = flat @ axes.T
    return found / found.square().mean().sqrt()


def code_law(seed: int = 0) -> Mixture:
    """The exact denoiser of latents on the flow path."""
    return Mixture(codes(seed), 0.1, Flow())


# ---------------------------------------------------------------- flows whose average velocity is known


class GaussianAverage(nn.Module):
    """The average velocity down to 0 of the flow to N(mean, std²): `φ = (x − X0(x, t)) / t`, with both to be learnt.

    `X0 = m + s (x − (1−t) m) / √((1−t)² s² + t²)` is where the flow takes x.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.log_std = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(std).log())

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        t, s = (t / 1000).clamp_min(1e-3)[:, None], self.log_std.exp()
        end = self.mean + s * (x - (1 - t) * self.mean) / (((1 - t) * s) ** 2 + t**2).sqrt()
        return (x - end) / t


def gaussian_average(mean: float, std: float) -> Denoiser:
    """It as a denoiser of points on a line."""
    return Denoiser(GaussianAverage(mean, std), Flow(), "velocity", shape=(1,))


# ---------------------------------------------------------------- a family of toys

STATIONS, SIZE, KIN = 8, 16, 32
FAMILY = f"{KIN} snowmen of other hues and girths than the one, {STATIONS} cameras around, {SIZE} x {SIZE} pixels"
AROUND = Orbit(elevation=(15, 15))


class Stations(Orbit):
    """One of a few cameras around a scene, those for which pictures of the whole family are known."""

    def draw(self, count: int, height: int, width: int, rng: Rng, stream: str = "camera") -> Cameras:
        return AROUND.even(STATIONS, height, width)[rng.integers(STATIONS, count, stream=stream)]


def snowman(rng: Rng, apron: bool = False) -> Tensor:
    """A snowman of a random hue and girth, from every station: [8, 3, 16, 16] in [−1, 1].

    Its back has the opposite hue and is darker, so that a front tells of the back to whoever knows the family. An
    apron, dark and before its lower half, is what nobody in the family wears.
    """
    mesh = load_mesh("snowman")
    hue, girth = rng.uniform(2, stream="snowman").tolist()
    colours = torch.tensor(mesh.visual.face_colors)
    kinds, kind = colours.unique(dim=0, return_inverse=True)
    back = torch.tensor(mesh.triangles_center)[:, 2] < 0
    for row in range(len(kinds)):
        front, behind = (_tint(hue + turn + 0.13 * row, light) for turn, light in ((0.0, 0.95), (0.5, 0.55)))
        colours[kind == row, :3], colours[(kind == row) & back, :3] = front.to(colours), behind.to(colours)
    if apron:
        colours[~back & (torch.tensor(mesh.triangles_center)[:, 1] < 0), :3] = _tint(hue, 0.3).to(colours)
    mesh.visual.face_colors = colours.numpy()
    mesh.apply_scale([0.75 + 0.4 * girth, 1.0, 0.75 + 0.4 * girth])
    fine, _ = views(mesh, AROUND.even(STATIONS, 2 * SIZE, 2 * SIZE))
    return 2 * nn.functional.avg_pool2d(fine, 2) - 1


def _tint(hue: float, light: float) -> Tensor:
    return 255 * torch.tensor(colorsys.hsv_to_rgb(hue % 1, 0.8, light))


@cache
def family(count: int = KIN) -> Tensor:
    """Pictures of all snowmen: [K, 8, 3, 16, 16]."""
    return torch.stack([snowman(Rng(1000 + row)) for row in range(count)])


class Kin(Denoiser):
    """The exact denoiser of views of a family, known from a few cameras: a mixture of its members' pictures.

    Told `references`, pictures of the one that is meant, it weighs members by how like them they look. `blur` is an
    error that all of its answers share: they are x̂0 of pictures that a box of so many pixels has gone over.

    Args:
        pictures: members from every station [K, S, 3, H, W].
        std: standard deviation of a picture's law around its member.
        trust: standard deviation of references around the members.
        blur: side of the box, odd.
    """

    def __init__(self, pictures: Tensor, std: float = 0.1, trust: float = 3.0, blur: int = 1) -> None:
        super().__init__(nn.Identity(), Flow(), "x0", shape=tuple(pictures.shape[2:]), null={REFERENCES: float("nan")})
        self.register_buffer("pictures", pictures)
        self.register_buffer("places", AROUND.even(pictures.shape[1], 1, 1).places)
        self.std, self.trust, self.blur = std, trust, blur

    def station(self, motions: Tensor) -> Tensor:
        """The camera of each motion [..., 4, 4]."""
        places = -(motions[..., :3, :3].mT @ motions[..., :3, 3:])[..., 0]
        return torch.cdist(places.reshape(-1, 3), self.get_buffer("places")).argmin(1).view(places.shape[:-1])

    def _call(self, x: State, t: Any, cond: Mapping[str, Any], cache: Cache | None) -> tuple[Any, Cache | None]:
        assert isinstance(x, Tensor)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        spread = (alpha * self.std) ** 2 + sigma**2
        means = self.get_buffer("pictures")[:, self.station(cond[VIEW])].transpose(0, 1)
        gap = x[:, None] - expand(alpha, means) * means
        share = (self.liking(cond) - gap.square().flatten(2).sum(2) / (2 * spread[:, None])).softmax(1)
        mean = torch.einsum("vk,vkchw->vchw", share, means)
        said = expand(alpha * self.std**2 / spread, x) * x + expand(sigma**2 / spread, x) * mean
        return self.blurred(said), None

    def liking(self, cond: Mapping[str, Any]) -> Tensor:
        """Log weights of members [V, K] by the references; zeros without."""
        known = cond.get(REFERENCES)
        if known is None or bool(known.isnan().any()):
            return torch.zeros(1, len(self.get_buffer("pictures")))
        seen = self.get_buffer("pictures")[:, self.station(cond[f"{REFERENCES}_{VIEW}"])].transpose(0, 1)
        return -(seen - known[:, None]).square().flatten(2).sum(2) / (2 * self.trust**2)

    def blurred(self, x: Tensor) -> Tensor:
        """What it makes of a picture that it means."""
        if self.blur == 1:
            return x
        wide = nn.functional.pad(x, [self.blur // 2] * 4, mode="replicate")
        return nn.functional.avg_pool2d(wide, self.blur, stride=1)


def toy_scene(count: int = 150) -> GaussianScene:
    """A ball of Gaussians seen from the stations."""
    return GaussianScene(start=Noise(count=count, radius=0.9), cameras=Stations())


def completed(method: Any, teacher: Kin, truth: Tensor, known: list[int], seed: int) -> Tensor:
    """Fit a scene to the pictures of a few stations, with a teacher's help: all of its views [8, 3, 16, 16]."""
    cameras, lens = AROUND.even(STATIONS, 1, 1), Render(size=(SIZE, SIZE))
    data = Samples(x=truth[known], **cameras[torch.tensor(known)].fields())
    engine: Engine = plain.train(method, {"teacher": teacher}, data=data, size=len(known), seed=seed, lens=lens)
    scene: Any = engine.roles["student"].module
    with torch.no_grad():
        return 2 * lens.shown({**scene.scene, **cameras.fields()}) - 1


def fidelity(made: Tensor, truth: Tensor, rows: list[int]) -> float:
    """Mean peak signal to noise over some stations, in decibels."""
    return float(psnr(made[rows].clamp(-1, 1), truth[rows]).mean())


# ---------------------------------------------------------------- latents of their views

PATCH, CHANNELS = 4, 12
LATENTS = f"views of snowmen in patches of {PATCH} x {PATCH} pixels, {CHANNELS} principal components each"


def _patches(pictures: Tensor) -> Tensor:
    """[..., 3, H, W] as [..., h, w, 48]."""
    cut = pictures.unfold(-2, PATCH, PATCH).unfold(-2, PATCH, PATCH)
    return cut.movedim(-5, -3).flatten(-3)


@cache
def _code() -> tuple[Tensor, Tensor]:
    """Mean and axes of patches, in units in which codes have variance one."""
    flat = _patches(family()).reshape(-1, 3 * PATCH**2)
    _, size, axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    return flat.mean(0), axes[:CHANNELS] * (size[:CHANNELS, None] / len(flat) ** 0.5)


def encoded(pictures: Tensor) -> Tensor:
    """Latents [B, V, 12, 4, 4] of pictures [B, V, 3, 16, 16]."""
    mean, axes = _code()
    return torch.movedim((_patches(pictures) - mean) @ torch.linalg.pinv(axes), -1, -3)


class PatchDecoder(Denoiser):
    """From latents back to pictures: the teacher, which has lost what the latents do not hold."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), Flow(), "x0", shape=(STATIONS, CHANNELS, SIZE // PATCH, SIZE // PATCH))

    def _call(self, x: State, t: Any, cond: Mapping[str, Any], cache: Cache | None) -> tuple[Any, Cache | None]:
        assert isinstance(x, Tensor)
        mean, axes = _code()
        flat = (x.movedim(-3, -1) @ axes + mean).unflatten(-1, (3, PATCH, PATCH))
        return flat.movedim(-3, -5).movedim(-2, -3).flatten(-4, -3).flatten(-2), None


def stations(count: int) -> dict[str, Tensor]:
    """The cameras of so many objects, as fields [count, 8, ...]."""
    return {name: value.expand(count, *value.shape) for name, value in AROUND.even(STATIONS, 1, 1).fields().items()}
