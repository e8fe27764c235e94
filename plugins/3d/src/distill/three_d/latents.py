"""Latents of 3D objects and of views: few-step flows over them, and a decoder from them to Gaussians."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from distill.core import Action, Batch, Builder, Context, Denoiser, Event, Loss, Terms, Trajectory, tree
from distill.core.errors import RecipeError
from distill.core.paths import Flow
from distill.methods.losses import distance, guidance_of, renoised, surrogate
from distill.methods.times import Times, UniformTimes
from distill.three_d.cameras import LENS, VIEW, Cameras
from distill.three_d.losses import ssim
from distill.three_d.render import Render, scenes_of
from distill.three_d.starts import FLAT

# ---------------------------------------------------------------- average velocities


class _Average(Loss):
    """The student's velocity φ at (x_t, t) is the mean one from t down to 0: `x0 = x_t − t φ` on the flow path."""

    conformance: ClassVar[dict[str, str]] = {"toy": "its student lives on the flow path"}
    teacher: str = "teacher"
    """Role whose velocity is the true one, at each time."""
    guidance: float = 1.0
    """w of the teacher's guidance."""
    step: PositiveFloat = 0.01
    """Δ, over which φ's change along the teacher's flow is taken."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.teacher)

    @torch.no_grad()
    def change(self, x_t: Any, t: Tensor, cond: Any, ctx: Context) -> tuple[Any, Any, Any]:
        """The teacher's velocity v, φ, and φ's change `dφ = (φ(x_t, t) − φ(x_t − Δ v, t − Δ)) / Δ`."""
        student = ctx.roles["student"]
        path = student.denoiser.path
        if not isinstance(path, Flow):
            raise RecipeError(f"average velocities are of the flow path, and the student's is {type(path).__name__}")
        true = ctx.roles[self.teacher].predict(x_t, t, cond, guidance=guidance_of(self.guidance)).velocity
        s = (t - self.step).clamp_min(path.t_min)
        gone = (t - s).clamp_min(1e-4)
        before = tree.combine((1.0, x_t), (-gone, true))
        own, then = student.predict(x_t, t, cond).velocity, student.predict(before, s, cond).velocity
        return true, own, tree.combine((1 / gone, own), (-1 / gone, then))


class VelocityMatching(_Average):
    """`‖φ − sg(v − t dφ)‖²` on noised data: the identity `d(t φ)/dt = v` (MDT-dist: arXiv:2509.04406, VM)."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        assert event.prediction is not None
        true, _, change = self.change(event.x_t, event.t, event.cond, ctx)
        target = tree.combine((1.0, true), (-event.t, change))
        return {"velocity_matching": distance("l2", event.prediction.velocity, target)}


class VelocityDistillation(_Average):
    """A sample moves along `u − v`, where `u = φ + t dφ` is the velocity of the student's own law (MDT-dist, VD).

    The student itself stands where others train a critic, so that no other network is needed.
    """

    times: Times = UniformTimes(low=0.02)
    """Noise levels."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        x_t, t = renoised(event, ctx, self.teacher, self.times, "transport")
        x_t = tree.detach(x_t)
        true, own, change = self.change(x_t, t, event.cond, ctx)
        gap = tree.combine((1.0, true), (-1.0, tree.combine((1.0, own), (t, change))))
        return {"velocity_distillation": 2 * surrogate(event.x, gap)}


# ---------------------------------------------------------------- from latents of views to Gaussians

NUMBERS = 12
"""What a pixel says of its Gaussian: depth, colour, scales, rotation, opacity."""


class PixelGaussians(nn.Module):
    """Latents of views [B, V, C, h, w] and their cameras to a Gaussian for every pixel, V · (h · patch) · (w · patch).

    Tokens of latents with the Plücker coordinates of their rays attend to each other; each says 12 numbers for every
    pixel of its patch. A Gaussian lies on its pixel's ray.
    """

    def __init__(self, options: GaussianDecoder) -> None:
        super().__init__()
        self.options, width = options, options.width
        self.inlet = nn.Linear(options.channels + 6, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, options.heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(options.depth)
        )
        self.outlet = nn.Linear(width, NUMBERS * options.patch**2)
        nn.init.normal_(self.outlet.weight, std=0.02)

    def forward(self, x: Tensor, t: Any, cond: Mapping[str, Any]) -> dict[str, Tensor]:
        size, views, _, height, width = x.shape
        rays = self._rays(cond, size, views, height, width)
        coarse = torch.cat([torch.linalg.cross(*rays, dim=-1), rays[1]], -1)
        known = torch.cat([x.permute(0, 1, 3, 4, 2), coarse], -1).flatten(1, 3)
        h = self.inlet(known)
        for block in self.blocks:
            h = block(h)
        patch = self.options.patch
        said = self.outlet(h).view(size, views, height, width, patch, patch, NUMBERS)
        said = said.transpose(3, 4).reshape(size, -1, NUMBERS)
        fine = self._rays(cond, size, views, height * patch, width * patch)
        return self.gaussians(said, fine[0].reshape(size, -1, 3), fine[1].reshape(size, -1, 3))

    @staticmethod
    def _rays(cond: Mapping[str, Any], size: int, views: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Origins and directions [B, V, H, W, 3]."""
        fields = {name: cond[name].flatten(0, 1) for name in (VIEW, LENS)}
        cameras = Cameras.of(fields, height, width)
        assert cameras is not None
        first, second = cameras.rays()
        return first.unflatten(0, (size, views)), second.unflatten(0, (size, views))

    def gaussians(self, said: Tensor, origins: Tensor, along: Tensor) -> dict[str, Tensor]:
        """Scenes of twelve numbers a Gaussian [B, N, 12] and its ray [B, N, 3]."""
        near, far = self.options.near, self.options.far
        depth, colour, scales, quats, opacity = said.split([1, 3, 3, 4, 1], -1)
        share = (depth + self.options.shift).sigmoid()
        forward = quats.new_tensor([1.0, 0, 0, 0])
        return {
            "means": origins + (near + (far - near) * share) * along,
            "quats": quats + forward,
            "scales": (self.options.largest * (scales - 1).sigmoid() + 1e-4).log(),
            "opacities": (opacity - 2)[..., 0],
            "sh0": (colour.sigmoid() - 0.5)[:, :, None] / FLAT,
            "shN": said.new_zeros(*said.shape[:2], 0, 3),
        }


class DecodedGaussians(Denoiser):
    """A network that makes scenes of latents, whatever the time; it keeps the most opaque share of each."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__(network, Flow(), "x0", shape=shape)
        self.register_buffer("share", torch.ones(()))

    def _call(self, x: Any, t: Any, cond: Any, cache: Any) -> tuple[Any, Any]:
        return pruned(self.network(x, t, cond), float(self.get_buffer("share"))), None


def pruned(scene: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The most opaque share of each scene's Gaussians, rounded, of a batch [B, N, ...]."""
    if share >= 1:
        return dict(scene)
    opacities = scene["opacities"]
    rows = opacities.topk(round(share * opacities.shape[1]), 1).indices
    return {
        part: value.gather(1, rows.view(*rows.shape, *[1] * (value.ndim - 2)).expand(*rows.shape, *value.shape[2:]))
        for part, value in scene.items()
    }


class KeepOpaque(Action):
    """From now on a decoder of Gaussians keeps the most opaque share of them."""

    share: float = Field(0.2, gt=0, le=1)
    """How many, of all."""
    role: str = "student"
    """The decoder's role."""

    @property
    def changes(self) -> tuple[str, ...]:
        return (self.role,)

    def apply(self, ctx: Context) -> None:
        ctx.roles[self.role].module.get_buffer("share").fill_(self.share)


class GaussianDecoder(Builder):
    """A decoder of latents into Gaussians: attention over the tokens of all views, one Gaussian a pixel."""

    channels: PositiveInt = 16
    """Of the latents."""
    size: tuple[PositiveInt, PositiveInt] = (8, 8)
    """Height and width of a view's latent."""
    views: PositiveInt = 4
    """Views that it gets."""
    patch: PositiveInt = 2
    """Pixels along each side of what a token stands for."""
    width: PositiveInt = 128
    """Channels of tokens."""
    depth: PositiveInt = 4
    """Blocks."""
    heads: PositiveInt = 4
    """Attention heads."""
    near: PositiveFloat = 1.5
    """Smallest distance from a camera."""
    far: PositiveFloat = 4.5
    """Largest distance."""
    shift: float = 0.0
    """Added to a depth before its sigmoid; the paper's is −1.65, for rooms that are seen from within."""
    largest: PositiveFloat = 0.3
    """Largest standard deviation of a Gaussian."""

    def build(self) -> Denoiser:
        return DecodedGaussians(PixelGaussians(self), (self.views, self.channels, *self.size))


class DecodedViews(Trajectory):
    """Latents of views, decoded twice: into Gaussians that are drawn from cameras, and by the teacher into pictures.

    The data are latents `x` [B, V, C, h, w] with `world_to_camera` [B, V, 4, 4] and `intrinsics` [B, V, 3, 3], and
    `depth` [B, V, 1, H, W] where it is known. The teacher's x0 is pictures [B, V, 3, H, W] (Lyra: arXiv:2509.19296).
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "its data are latents of views with cameras"}
    inputs: tuple[int, ...] = ()
    """Views whose latents the student gets; all if empty."""
    shown: tuple[int, ...] = ()
    """Views that it is taught on; all if empty."""
    count: PositiveInt = 2
    """How many of them a step draws."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        lens, views = ctx.lens, batch.data.shape[1]
        if not isinstance(lens, Render) or VIEW not in batch.cond:
            raise RecipeError("decoded views need 'lens: render', and latents with cameras")
        pictures = ctx.roles["teacher"].ask(batch.data, None, batch.cond).x0
        own = list(self.inputs or range(views))
        told = {name: batch.cond[name][:, own] for name in (VIEW, LENS)}
        pool = torch.tensor(self.shown or tuple(range(views)))
        rows = pool[ctx.rng.uniform(len(pool), stream="decoded/view").cpu().argsort()[: self.count]]
        cameras = {name: batch.cond[name][:, rows] for name in (VIEW, LENS)}
        with torch.set_grad_enabled(attached):
            scene = ctx.roles["student"].predict(batch.data[:, own], None, told).x0
            drawn = [lens.drawn(each) for each in scenes_of({**scene, **cameras})]
            x = 2 * torch.cat([each.over(torch.tensor(lens.background)) for each in drawn]) - 1
        targets = {"real": pictures[:, rows].flatten(0, 1)}
        if "depth" in batch.cond:
            targets["depth"] = batch.cond["depth"][:, rows].flatten(0, 1)
        meta = {"depth": torch.cat([each.depth for each in drawn]), "opacity": scene["opacities"].sigmoid().mean()}
        yield Event(x, {name: value.flatten(0, 1) for name, value in cameras.items()}, targets=targets, meta=meta)


class Decoded(Loss):
    """`MSE + λ (1 − SSIM) + μ L_depth + ν mean opacity` of drawn views against a teacher's pictures (Lyra).

    The paper has LPIPS where this has SSIM, which asks for no further network.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "its events hold views of scenes"}
    structure: float = 0.5
    """λ."""
    depth: float = 0.05
    """μ, where depths are known."""
    opacity: float = 0.0
    """ν."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        terms = {"colour": (event.x - event.real).square().flatten(1).mean(1)}
        if self.structure:
            terms["structure"] = self.structure * (1 - ssim(event.x, event.real))
        if self.depth and "depth" in event.targets:
            terms["depth"] = self.depth * depth_gap(event.meta["depth"], event.targets["depth"])
        if self.opacity:
            terms["opacity"] = self.opacity * event.meta["opacity"]
        return terms


def depth_gap(drawn: Tensor, known: Tensor) -> Tensor:
    """Smooth L1 of depths [B, 1, H, W] that are each centred and scaled, so that `a d + b` is as good as d: [B].

    By the median and the mean absolute deviation over pixels where both are positive.
    """
    return torch.stack([_gap(a[(a > 0) & (b > 0)], b[(a > 0) & (b > 0)]) for a, b in zip(drawn, known, strict=True)])


def _gap(a: Tensor, b: Tensor) -> Tensor:
    return smooth_l1_loss(_unit(a), _unit(b)) if a.numel() > 1 else a.sum() * 0


def _unit(depth: Tensor) -> Tensor:
    away = depth - depth.median()
    return away / away.abs().mean().clamp_min(1e-6)
