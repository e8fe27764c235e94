"""A scene of Gaussians as what a run optimises: they are cloned, split, pruned and reset while it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from distill.core import Batch, Denoiser, Modality, Rng
from distill.core.errors import CollapsedError
from distill.core.options import Options
from distill.three_d.cameras import CameraSampler, Orbit, Sampled
from distill.three_d.render import PARTS, SCREEN, Scene, checked, rotations
from distill.three_d.starts import AnyStart, Noise
from distill.three_d.subjects import Held, OneScene, SceneBuilder

NEW = -1
"""Where a Gaussian comes from that was not there before."""
SHRINK = 1.6
"""How much smaller the halves of a Gaussian are than it was (Kerbl et al. 2023, section 5.2)."""


class Densify(Options):
    """When Gaussians are cloned, split, pruned and reset (Kerbl et al. 2023, arXiv:2308.04079, section 5.2).

    A Gaussian that the loss pulls across the screen is cloned where it is small and split where it is large.
    """

    start: NonNegativeInt = 100
    """Steps before the first time."""
    stop: PositiveInt = 15000
    """Step after which their number stays."""
    every: PositiveInt = 100
    """Steps between two times."""
    pull: PositiveFloat = 2e-4
    """Mean length of the loss's gradient in a Gaussian's place on the screen, in halves of a picture, above which it is
    cloned or split."""
    small: PositiveFloat = 0.01
    """Largest standard deviation of one that is cloned; larger ones are split."""
    faint: PositiveFloat = 0.005
    """Opacity below which one is pruned."""
    huge: PositiveFloat | None = None
    """Standard deviation above which one is pruned; None keeps them."""
    most: PositiveInt = 100_000
    """Their number is not raised beyond; those with the strongest pull come first."""
    reset_every: PositiveInt = 3000
    """Steps between two times at which opacities fall to twice `faint`."""

    def due(self, step: int) -> bool:
        """Whether it is time after so many steps."""
        return self.start <= step <= self.stop and step % self.every == 0


class Parts(Held):
    """The tensors of one scene, and what was seen of its Gaussians since they were last densified."""

    def __init__(self, scene: Scene) -> None:
        super().__init__({part: scene[part] for part in PARTS})
        count = len(scene["means"])
        self.register_buffer("pull", torch.zeros(count))
        self.register_buffer("seen", torch.zeros(count))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))


class Gaussians(OneScene):
    """A scene of Gaussians that a run optimises, and whose number changes while it goes on."""

    def __init__(
        self, scene: Scene, cameras: CameraSampler | None = None, densify: Densify | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(Parts(checked(scene)), cameras, rates)
        self.densify = densify
        self._origin: Tensor | None = None
        self._forgotten: set[str] = set()
        self._draws = Rng(0)

    @property
    def parts(self) -> Parts:
        """The parameters."""
        assert isinstance(self.network, Parts)
        return self.network

    def __len__(self) -> int:
        return len(self.parts.means)  # type: ignore[arg-type]

    def materialise(self, batch: Batch, rng: Rng) -> Any:
        self._draws = rng
        state = super().materialise(batch, rng)
        if self.densify is not None and torch.is_grad_enabled():
            state[SCREEN] = self._watched(batch.size)[None]
        return state

    def _watched(self, views: int) -> Tensor:
        """Zeros [V, N, 2] whose gradient is noted when it is known; they hang on places so that there is one."""
        screen = (0 * self.parts.get_parameter("means")[:, :2]).expand(views, -1, -1).clone()

        def note(gradient: Tensor) -> None:
            length = views * gradient.norm(dim=-1)
            self.parts.get_buffer("pull").add_(length.sum(0))
            self.parts.get_buffer("seen").add_((length > 0).sum(0))

        screen.register_hook(note)
        return screen

    # ------------------------------------------------------------ what changes their number

    def clone(self, mask: Tensor) -> None:
        """Put a second Gaussian in the place of each in the mask [N]."""
        rows = mask.nonzero()[:, 0]
        same = torch.arange(len(mask), device=mask.device)
        self._replace({part: torch.cat([v, v[rows]]) for part, v in self.scene.items()}, self._joined(same, len(rows)))

    def split(self, mask: Tensor) -> None:
        """Put two smaller Gaussians, drawn from it, in the place of each in the mask [N]."""
        rows, others = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        half = {part: value[rows].repeat(2, *[1] * (value.ndim - 1)) for part, value in self.scene.items()}
        draws = self._draws.generator("densify/split")  # the same on every process
        moved = torch.randn(half["means"].shape, generator=draws, device=draws.device).to(half["means"])
        half["means"] = half["means"] + torch.einsum(
            "nij,nj->ni", rotations(half["quats"]), half["scales"].exp() * moved
        )
        half["scales"] = half["scales"] - math.log(SHRINK)
        scene = {part: torch.cat([value[others], half[part]]) for part, value in self.scene.items()}
        self._replace(scene, self._joined(others, 2 * len(rows)))

    def prune(self, mask: Tensor) -> None:
        """Take away the Gaussians in the mask [N].

        Raises:
            CollapsedError: none would be left.
        """
        kept = (~mask).nonzero()[:, 0]
        if not len(kept):
            raise CollapsedError(
                f"the scene has collapsed: all {len(mask)} Gaussians are too faint or too large, none would stay. "
                "Try a smaller learning rate, a later 'start', or a smaller 'faint'"
            )
        self._replace({part: value[kept] for part, value in self.scene.items()}, kept)

    def reset(self, opacity: float) -> None:
        """Let no Gaussian be more opaque than this; the optimiser forgets what it knew of opacities."""
        with torch.no_grad():
            self.parts.get_parameter("opacities").clamp_(max=math.log(opacity / (1 - opacity)))
        self._forgotten.add("network.opacities")

    @staticmethod
    def _joined(origin: Tensor, fresh: int) -> Tensor:
        return torch.cat([origin, origin.new_full((fresh,), NEW)])

    @torch.no_grad()
    def _replace(self, scene: Scene, origin: Tensor) -> None:
        """Take other Gaussians; `origin` [N] says which of the present ones each of them was."""
        parts, before = self.parts, self._origin
        for part, value in scene.items():
            grad = parts.get_parameter(part).requires_grad
            parts.register_parameter(part, nn.Parameter(value.detach().clone(), requires_grad=grad))
        for name in ("pull", "seen"):
            setattr(parts, name, _followed(parts.get_buffer(name), origin))
        self._origin = origin if before is None else torch.where(origin == NEW, NEW, before[origin.clamp_min(0)])
        self._resize()

    # ------------------------------------------------------------ what the engine asks

    def on_step_end(self) -> bool:
        self._origin, self._forgotten = None, set()
        step = int(self.parts.get_buffer("steps").add_(1))
        if self.densify is None:
            return False
        if self.densify.due(step):
            self._densify(self.densify)
        if step % self.densify.reset_every == 0 and step <= self.densify.stop:
            self.reset(2 * self.densify.faint)
        return self._origin is not None or bool(self._forgotten)

    def carry(self, name: str, value: Tensor) -> Tensor | None:
        if name in self._forgotten:
            return None
        return value if self._origin is None else _followed(value, self._origin)

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        for name in ("pull", "seen"):
            setattr(self.parts, name, torch.zeros_like(tensors[f"network.{name}"], device=self.parts.seen.device))  # type: ignore[arg-type]
        super().adopt(tensors)
        self._resize()

    def _densify(self, plan: Densify) -> None:
        for name in ("pull", "seen") if torch.distributed.is_initialized() else ():
            torch.distributed.all_reduce(self.parts.get_buffer(name))
        pull = self.parts.get_buffer("pull") / self.parts.get_buffer("seen").clamp_min(1)
        room = max(0, plan.most - len(self))
        strongest = torch.zeros_like(pull, dtype=torch.bool)
        strongest[pull.argsort(descending=True)[:room]] = True
        pulled = strongest & (pull > plan.pull)
        small = self._width() <= plan.small
        self.clone(pulled & small)
        self.split(torch.nn.functional.pad(pulled & ~small, (0, len(self) - len(small))))
        faint = self.scene["opacities"].sigmoid() < plan.faint
        self.prune(faint if plan.huge is None else faint | (self._width() > plan.huge))
        for name in ("pull", "seen"):
            self.parts.get_buffer(name).zero_()

    def _width(self) -> Tensor:
        return self.scene["scales"].detach().exp().amax(1)


def _followed(value: Tensor, origin: Tensor) -> Tensor:
    """Rows by where they come from, zeros for new ones."""
    rows = value[origin.clamp_min(0)]
    return torch.where((origin == NEW).view(-1, *[1] * (value.ndim - 1)), 0, rows)


class GaussianScene(SceneBuilder):
    """A scene of Gaussians: what it begins as, from where it is seen, how it grows."""

    start: AnyStart = Noise()
    """What it begins as."""
    degree: int = Field(0, ge=0, le=3)
    """Of the spherical harmonics of colours; 0 is the same colour from everywhere."""
    cameras: Sampled = Orbit()
    """Where it is seen from, where the data do not say."""
    densify: Densify | None = None
    """How their number changes; it stays if None."""
    rates: dict[str, float] = {
        "means": 0.2, "quats": 0.2, "scales": 1.0, "opacities": 5.0, "sh0": 1.0, "shN": 0.05,
    }  # fmt: skip
    """Learning rates of the parts, as factors of the optimiser's."""
    seed: int = 0
    """Of the random draws that it begins with."""

    def build(self) -> Gaussians:
        return Gaussians(self.start.scene(self.degree, Rng(self.seed)), self.cameras, self.densify, self.rates)

    def modality(self) -> Modality | None:
        from distill.three_d.modality import ThreeD

        return ThreeD(radius=sum(self.cameras.radius) / 2) if isinstance(self.cameras, Orbit) else ThreeD()

    def exports(self) -> dict[str, Callable[[Denoiser, Any, Path], list[Path]]]:
        return {**super().exports(), "ply": _export_ply, "splat": _export_splat, "mp4": self._export_turntable}

    def _export_turntable(self, denoiser: Denoiser, sampler: Any, folder: Path) -> list[Path]:
        modality: Any = self.modality()
        return [modality.turntable(scene_in(denoiser), folder / "scene.mp4")]


def scene_in(denoiser: Denoiser) -> dict[str, Tensor]:
    """The scene that a denoiser holds."""
    assert isinstance(denoiser, Gaussians)
    return {part: value.detach() for part, value in denoiser.scene.items()}


def _export_ply(denoiser: Denoiser, sampler: Any, folder: Path) -> list[Path]:
    from distill.three_d.files import write_ply

    return [write_ply(scene_in(denoiser), folder / "scene.ply")]


def _export_splat(denoiser: Denoiser, sampler: Any, folder: Path) -> list[Path]:
    from distill.three_d.files import write_splat

    return [write_splat(scene_in(denoiser), folder / "scene.splat")]
