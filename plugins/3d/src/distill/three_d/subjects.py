"""A scene of any kind as what a run optimises, and how a recipe makes one: for Gaussians, and for kinds of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from distill.core import Batch, Builder, Denoiser, Rng, Sampler, Subject, tree
from distill.core.paths import Flow
from distill.core.sampling import Consistency
from distill.three_d.cameras import LENS, VIEW, CameraSampler, Orbit


class Held(nn.Module):
    """The tensors of one scene, as parameters of the same names."""

    def __init__(self, scene: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = tuple(scene)
        for part, value in scene.items():
            self.register_parameter(part, nn.Parameter(value.clone()))

    def scene(self) -> dict[str, Tensor]:
        """The scene, with gradient."""
        return {part: self.get_parameter(part) for part in self.names}

    def forward(self, x: Any, t: Any, cond: Mapping[str, Any]) -> dict[str, Tensor]:
        """The scene for every sample, whatever is asked."""
        size = tree.batch_size(x)
        return {part: value[None].repeat(size, *[1] * value.ndim) for part, value in self.scene().items()}


class OneScene(Denoiser, Subject):
    """A scene that a run optimises: a subject, and a denoiser that always says the same x0, so that it can be sampled.

    `materialise` gives the scene as a batch of one, seen by as many cameras as the batch is large: those of the data
    (`world_to_camera`, `intrinsics`), or else fresh ones of the sampler. A `SceneLens` draws it.
    """

    def __init__(
        self, parts: Held, cameras: CameraSampler | None = None, rates: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(parts, Flow(), "x0")
        self.cameras = cameras or Orbit()
        self.rates = {f"network.{part}": rate for part, rate in (rates or {}).items()}
        self._resize()

    @property
    def scene(self) -> dict[str, Tensor]:
        """The scene as it is now."""
        assert isinstance(self.network, Held)
        return self.network.scene()

    def _resize(self) -> None:
        self.shape = {part: tuple(value.shape) for part, value in self.scene.items()}

    def materialise(self, batch: Batch, rng: Rng) -> Any:
        known = VIEW in batch.cond and LENS in batch.cond
        seen = batch.cond if known else self.cameras.draw(batch.size, 1, 1, rng).to(rng.device).fields()
        views = {name: seen[name][None] for name in (VIEW, LENS)}
        return {**{part: value[None] for part, value in self.scene.items()}, **views}


class SceneBuilder(Builder):
    """How a recipe makes a scene; a subclass builds a `OneScene`."""

    def sampler(self) -> Sampler:
        return Sampler(times=(1.0,), steps=1, solver=Consistency())
