"""Views of a scene, with the noise that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from distill.core import Batch, Context, Event, Rng, Subject, Trajectory
from distill.core.errors import RecipeError
from distill.three_d.cameras import Cameras
from distill.three_d.directions import Directions, Landmarks
from distill.three_d.noise import refreshed, seen_noise, texels
from distill.three_d.render import SceneLens, each_scene

KEPT = "scene-noise"
"""Name of the noise among the tensors that a run saves."""


class SceneView(Trajectory):
    """Views of a scene through the run's lens; `noise` is what belongs to the scene in each of them.

    `meta` holds `alpha`, `depth`, `normals` and the `cameras`.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, seen through a lens"}
    noise: Literal["surface", "seed", "none"] = "surface"
    """On its surface, the same in every view of a place; one picture of noise, the same in every view; or none."""
    refresh: float = 0.0
    """γ: share of the noise's variance that is new after each step."""
    seed: int = 0
    """Of the scene's noise: another one leads to another scene."""
    texels: PositiveInt = 96
    """Along a side of the cube on which surface noise lies; fewer make views more alike, more make each whiter."""
    radius: PositiveFloat = 1.0
    """Of the ball that the scene fills."""
    role: str = "student"
    """The scene's role."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        subject, lens = ctx.roles[self.role].module, ctx.lens
        if not isinstance(lens, SceneLens) or not isinstance(subject, Subject):
            raise RecipeError("views of a scene need a scene as student, and its lens: 'lens: render' for Gaussians")
        with torch.set_grad_enabled(attached):
            state = subject.materialise(batch, ctx.rng)
            (scene,) = each_scene(state)
            drawn = lens.drawn(scene)
            x = 2 * drawn.over(torch.tensor(lens.background)) - 1
        cameras = Cameras.of(scene, *lens.size)
        assert cameras is not None
        meta = {"alpha": drawn.alpha, "depth": drawn.depth, "normals": drawn.normals, "cameras": cameras}
        noise = NOISES[self.noise](self, x, drawn, cameras, ctx)
        targets = {} if batch.x is None else {"real": batch.x}
        yield Event(x, ctx.conditions(batch.cond, state), noise=noise, targets=targets, meta=meta)

    def _kept(self, ctx: Context, *shape: int) -> Tensor:
        """The scene's noise: drawn once from its own seed, saved with the run, refreshed where that is asked."""
        if KEPT not in ctx.state:
            own = Rng(self.seed, device=ctx.rng.device)
            known = texels(own, shape[0], self.texels) if self.noise == "surface" else own.normal(1, *shape)
            ctx.state[KEPT] = known
        elif self.refresh:
            ctx.state[KEPT] = refreshed(ctx.state[KEPT], self.refresh, ctx.rng)
        return ctx.state[KEPT]

    def _on_surface(self, x: Tensor, drawn: Any, cameras: Cameras, ctx: Context) -> Tensor:
        return seen_noise(self._kept(ctx, x.shape[1]), drawn, cameras, self.radius)

    def _of_seed(self, x: Tensor, drawn: Any, cameras: Cameras, ctx: Context) -> Tensor:
        return self._kept(ctx, *x.shape[1:]).expand_as(x)


NOISES: dict[str, Any] = {
    "surface": SceneView._on_surface, "seed": SceneView._of_seed, "none": lambda *_: None,
}  # fmt: skip
"""Who makes each kind of noise."""


class DirectedView(SceneView):
    """Views of a scene whose conditions say from where it is seen: words of a direction, and landmarks that are drawn.

    HeadArtist (Liu et al. 2023, arXiv:2312.07539, section 3.2).
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, seen through a lens"}
    noise: Literal["surface", "seed", "none"] = "none"
    """On its surface, the same in every view of a place; one picture of noise, the same in every view; or none."""
    directions: Directions = Directions()
    """Conditions of the front, the sides, the back and the top."""
    landmarks: Landmarks | None = Landmarks()
    """Points of the subject that are drawn as a picture for the teacher; None draws none."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        for event in super().events(batch, ctx, attached=attached):
            cameras = event.meta["cameras"]
            drawn = {} if self.landmarks is None else {self.landmarks.condition: self.landmarks.drawn(cameras)}
            yield replace(event, cond={**event.cond, **self.directions.told(cameras), **drawn})
