"""A scene between pictures that are known and views that a teacher judges: events, and score differences on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from distill.core import Batch, Context, Event, Guidance, Terms, Trajectory
from distill.core.errors import RecipeError
from distill.methods.losses import consult
from distill.three_d.cameras import LENS, VIEW, Cameras
from distill.three_d.gaussians import Gaussians
from distill.three_d.losses import Levels, Photometric, ViewScore
from distill.three_d.render import NEAR, SCREEN, Render, Rendered, Scene, scenes_of
from distill.three_d.starts import FLAT

REFERENCES = "references"
"""Name of the known pictures among a new view's conditions [V, K, C, H, W]; their cameras have it as a prefix."""


class NewViews(Trajectory):
    """The batch's pictures of a scene and views from fresh cameras, drawn in one go.

    The event's state is the new views; their conditions are those of the batch, their own cameras, and the batch's
    pictures and cameras as `references`. `meta["known"]` holds the views that `targets["real"]` shows truly, and, if
    wanted, `meta["seen"]` how well the known cameras see what is in each pixel, from 0 to 1 [V, 1, H, W].
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, and the data are pictures with cameras"}
    count: PositiveInt = 4
    """How many new views."""
    seen: bool = False
    """Find out what the known cameras see."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        subject, lens = ctx.roles["student"].module, ctx.lens
        if not isinstance(subject, Gaussians) or not isinstance(lens, Render) or VIEW not in batch.cond:
            raise RecipeError("new views need a scene of Gaussians as student, 'lens: render', and data with cameras")
        fresh = subject.cameras.draw(self.count, 1, 1, ctx.rng, "camera/new").to(ctx.rng.device).fields()
        places = {name: torch.cat([batch.cond[name], fresh[name]]) for name in (VIEW, LENS)}
        with torch.set_grad_enabled(attached):
            state = subject.materialise(Batch(batch.size + self.count, cond=places), ctx.rng)
            (scene,) = scenes_of(state)
            drawn = lens.drawn(scene)
            x = 2 * drawn.over(torch.tensor(lens.background)) - 1
        known = batch.size
        meta: dict[str, Any] = {"known": x[:known]}
        if self.seen:
            meta["seen"] = self._coverage(scene, drawn, known, lens)
        yield Event(x[known:], self._conditions(batch, fresh), targets={"real": batch.data}, meta=meta)

    def _conditions(self, batch: Batch, fresh: Mapping[str, Tensor]) -> dict[str, Any]:
        told = {name: value[:1].expand(self.count, *value.shape[1:]) for name, value in batch.cond.items()}
        mine = {REFERENCES: batch.data, **{f"{REFERENCES}_{name}": batch.cond[name] for name in (VIEW, LENS)}}
        shared = {name: value.expand(self.count, *value.shape) for name, value in mine.items()}
        return {**told, **shared, **fresh}

    @torch.no_grad()
    def _coverage(self, scene: Scene, drawn: Rendered, known: int, lens: Render) -> Tensor:
        cameras = Cameras.of(scene, *lens.size)
        assert cameras is not None
        share = visible(scene["means"], drawn.depth[:known], cameras[:known])
        tint = ((share - 0.5) / FLAT)[:, None, None].expand(-1, 1, 3)
        painted = {**scene, **cameras[known:].fields(), "sh0": tint, "shN": scene["shN"][:, :0]}
        painted.pop(SCREEN, None)
        return lens.drawn(painted).images[:, :1]


def visible(points: Tensor, depth: Tensor, cameras: Cameras, margin: float = 0.18) -> Tensor:
    """Which points [N, 3] lie in some camera's picture and at most `margin` behind what it sees there: 0 or 1 [N]."""
    within = torch.einsum("vij,nj->vni", cameras.world_to_camera[:, :3, :3], points)
    within = within + cameras.world_to_camera[:, None, :3, 3]
    ahead = within[..., 2]
    pixel = torch.einsum("vij,vnj->vni", cameras.intrinsics, within / ahead.clamp_min(NEAR)[..., None])[..., :2].floor()
    x, y = pixel.long().unbind(-1)
    inside = (ahead > NEAR) & (x >= 0) & (x < cameras.width) & (y >= 0) & (y < cameras.height)
    place = y.clamp(0, cameras.height - 1) * cameras.width + x.clamp(0, cameras.width - 1)
    there = depth.flatten(1).gather(1, place)
    return (inside & (ahead <= there + margin)).any(0).to(points)


class Known(Photometric):
    """`photometric` of the views whose pictures are known, beside views that are not."""

    conformance: ClassVar[dict[str, str]] = {"toy": "its events hold views of a scene"}

    def terms(self, event: Event, ctx: Context) -> Terms:
        return super().terms(replace(event, x=event.meta["known"]), ctx)


class CategoryScore(ViewScore):
    """C-SDS: a view moves along `σ² (ε(x_t; all) − ε(x_t; without the named conditions))`, of one frozen teacher.

    What the teacher says of the mere category stands where SDS has the injected noise, so that what both predictions
    have in common, the blur of a category's mean with it, falls out (Sparse3D: Zou et al. 2023, arXiv:2308.14078).
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "it drops conditions that events of scenes have"}
    drops: tuple[str, ...] = (REFERENCES,)
    """Conditions that the category's prediction goes without; guidance is over them too."""

    def own(self, event: Event, ctx: Context, x_t: Any, t: Any) -> Any:
        without = Guidance(((1.0, frozenset(self.drops)),))
        return consult(ctx.roles[self.teacher], x_t, t, event, guidance=without).x0


class Recovered(ViewScore):
    """A view moves to what the teacher makes of it, pixel by pixel less where pictures show it: weights `exp(−k o)`.

    SDS in x0 form, `½ ‖x − sg x̂0‖²`, at levels whose upper end falls, with o how well a pixel is seen (SOAR: Pan et al.
    2024, arXiv:2410.23800).
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "its events hold views of a scene"}
    guidance: float = 5.0
    """w of the teacher's guidance."""
    rescale: float = Field(0.2, ge=0, le=1)
    """How far guided predictions get back the standard deviation of plain ones."""
    units: Any = "x0"
    """x0, so that the step is `x − x̂0`."""
    levels: Levels | None = Levels(high=((0.0, 0.75), (1.0, 0.25)), low=((0.0, 0.02),))
    """Noise levels."""
    keep: float = 3.0
    """k; 0 treats all pixels alike."""

    def gradient(self, event: Event, ctx: Context, w: float) -> Any:
        away = super().gradient(event, ctx, w)
        return away * torch.exp(-self.keep * event.meta["seen"]) if self.keep else away
