"""How clips are judged: appearance, motion, drift over length, flicker, and whether a network looks ahead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt, PrivateAttr
from torch import Tensor

from distill.core import Batch, Denoiser, Metric, Rng, Role, State, tree
from distill.core.errors import DataError, RecipeError
from distill.core.probe import as_in_use
from distill.methods.digits import frechet

SEGMENTS = 8
"""Parts of a clip that drift is measured over."""


# ---------------------------------------------------------------- features


@dataclass(frozen=True)
class Pca:
    """Coordinates along the main axes of reference pictures: `(x − mean) · axes`."""

    mean: Tensor
    axes: Tensor

    @classmethod
    def of(cls, pictures: Tensor, components: int) -> Pca:
        """Fitted to pictures [N, ...]."""
        flat = pictures.flatten(1).double()
        _, vectors = torch.linalg.eigh(torch.cov(flat.T))
        return cls(flat.mean(0), vectors.flip(1)[:, :components])

    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures [N, ...] as points [N, components]."""
        return (pictures.flatten(1).double() - self.mean) @ self.axes


def frames(clips: Tensor) -> Tensor:
    """All frames of clips [B, F, ...]: [B · F, ...]."""
    return clips.flatten(0, 1)


def changes(clips: Tensor) -> Tensor:
    """All differences of neighbouring frames: [B · (F − 1), ...]."""
    return clips.diff(dim=1).flatten(0, 1)


def appearance(samples: Tensor, reference: Tensor, components: int = 32) -> float:
    """Fréchet distance of frames on the main axes of the reference's frames."""
    return _distance(frames(samples), frames(reference), components)


def motion(samples: Tensor, reference: Tensor, components: int = 32) -> float:
    """Fréchet distance of frame differences on the main axes of the reference's."""
    return _distance(changes(samples), changes(reference), components)


def _distance(a: Tensor, b: Tensor, components: int) -> float:
    axes = Pca.of(b, components)
    return frechet(axes(a), axes(b))


def drift(clips: Tensor, reference: Tensor, components: int = 32, segments: int = SEGMENTS) -> list[float]:
    """Appearance distance of each segment of the clips to the first one; the first number is 0."""
    axes = Pca.of(frames(reference), components)
    points = [axes(frames(part)) for part in clips.tensor_split(segments, 1)]
    return [0.0, *(frechet(part, points[0]) for part in points[1:])]


def jitter(clips: Tensor) -> float:
    """Mean squared second difference in time: what changes back and forth from frame to frame."""
    return float(clips.double().diff(n=2, dim=1).square().mean())


@torch.no_grad()
def lookahead(denoiser: Denoiser, x: Tensor, t: Any, chunk: int, cond: Mapping[str, Any] | None = None) -> float:
    """Largest change of what a network says of a chunk when later frames change; 0 for a causal one.

    States are [B, F, ...]; each chunk but the last is asked for with the frames after it as they are, and negated.
    """
    said, worst = denoiser.predict(x, t, cond).value, 0.0
    for end in range(chunk, x.shape[1], chunk):
        other = torch.cat([x[:, :end], 1 - x[:, end:]], 1)
        gap = denoiser.predict(other, t, cond).value[:, :end] - said[:, :end]  # type: ignore[index]
        worst = max(worst, float(gap.abs().max()))
    return worst


# ---------------------------------------------------------------- components


class Causality(Metric):
    """Largest change of what a network says of a chunk when later frames change; 0 for a causal one.

    It asks the student about noise, at the middle of its path; a network without chunks in chunks of one patch.
    """

    conformance: ClassVar[dict[str, str]] = {"measure": "it asks a network"}
    needs_reference: ClassVar[bool] = False
    clips: PositiveInt = 2
    """Clips that it is asked about."""
    _role: Role | None = PrivateAttr(None)

    def asking(self, role: Role) -> Metric:
        mine = self.model_copy()
        mine._role = role
        return mine

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        if self._role is None or not isinstance(self._role.module, Denoiser):
            raise RecipeError("causality asks a network, and these are samples alone: measure a run with distill eval")
        denoiser, n = self._role.denoiser, self.clips
        network: Any = denoiser.network
        device = next(self._role.module.parameters()).device
        told = {name: tree.to(tree.index(value, torch.arange(n)), device)
                for name, value in (cond or {}).items() if name != "prompt"}  # fmt: skip
        x: Any = Batch(n, shape=denoiser.shape).noise(Rng(0, device=device), "causality")
        chunk = getattr(getattr(network, "reach", None), "chunk", 0) or getattr(network, "patch", (1,))[0]
        with as_in_use(self._role):
            return lookahead(denoiser, x, denoiser.path.t_max / 2, chunk, told)


class _OnClips(Metric):
    features: Literal["pca"] = "pca"
    """What clips are compared in: the main axes of the reference. Its name belongs beside every number."""
    components: PositiveInt = 32
    """Axes that are kept."""

    def clips(self, samples: State, reference: State, least: int) -> tuple[Tensor, Tensor]:
        """Both sides as clips of at least so many frames."""
        for each in (samples, reference):
            if not isinstance(each, Tensor) or each.ndim != 5:
                given = list(each.shape) if isinstance(each, Tensor) else type(each).__name__
                raise DataError(f"{type(self).__name__} compares clips [B, F, C, H, W], and was given {given}")
            if each.shape[1] < least or each.shape[0] * each.shape[1] < 3:
                raise DataError(
                    f"{type(self).__name__} needs clips of {least} frames, and these are {list(each.shape)}"
                )
        return samples, reference  # type: ignore[return-value]


class AppearanceFrechet(_OnClips):
    """Fréchet distance of frames (Heusel et al. 2017, arXiv:1706.08500, eq. 6); 0 is best."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        return appearance(*self.clips(samples, reference, 1), self.components)


class MotionFrechet(_OnClips):
    """Fréchet distance of the differences of neighbouring frames; 0 is best."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        return motion(*self.clips(samples, reference, 2), self.components)


class Drift(_OnClips):
    """Mean appearance distance of each later eighth of the samples to their first eighth; 0 is best."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        mine, true = self.clips(samples, reference, SEGMENTS)
        return sum(drift(mine, true, self.components)) / (SEGMENTS - 1)


class Flicker(_OnClips):
    """Mean squared second difference in time, in units of the reference's; 1 is that of the data."""

    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        mine, true = self.clips(samples, reference, 3)
        return jitter(mine) / max(jitter(true), 1e-12)
