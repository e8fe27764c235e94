"""What cards of super-resolution share: bands of frequencies, edges, variation, and losses on whole pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, normalize, pad

from distill.core import Context, Event, Loss, Prediction, Role, Terms
from distill.core.errors import RecipeError
from distill.core.tree import batch_size, combine
from distill.image.super_resolution.data import whole
from distill.image.super_resolution.features import perceptual
from distill.methods.losses import TeacherTarget, consult, surrogate
from distill.methods.times import ListedTimes, Times


def frequencies(height: int, width: int, like: Tensor) -> Tensor:
    """Distance of each bin of `fft2` from frequency 0, in cycles per pixel: [H, W]."""
    rows, columns = (torch.fft.fftfreq(side, device=like.device, dtype=torch.float32) for side in (height, width))
    return (rows[:, None] ** 2 + columns**2).sqrt()


def bands(x: Tensor, radius: float = 0.25) -> tuple[Tensor, Tensor]:
    """Maps [..., H, W] as the sum of what varies slowly, below `radius` cycles a pixel, and what varies fast."""
    below = frequencies(x.shape[-2], x.shape[-1], x) < radius
    low = torch.fft.ifft2(torch.fft.fft2(x.float()) * below).real.to(x.dtype)
    return low, x - low


def high_frequency_energy(x: Tensor, radius: float = 0.25) -> Tensor:
    """Mean square of what varies fast in maps [B, C, H, W]: [B]."""
    return bands(x, radius)[1].square().mean((1, 2, 3))


def edges(x: Tensor) -> Tensor:
    """Length of Sobel's gradient in each place of pictures [B, C, H, W], of the mean over channels: [B, 1, H, W]."""
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=x.device, dtype=x.dtype) / 8
    kernels = torch.stack([across, across.T])[:, None]
    slopes = conv2d(pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate"), kernels)
    return (slopes.square().sum(1, keepdim=True) + 1e-8).sqrt()


def variation(x: Tensor) -> Tensor:
    """Absolute differences to the right and below, added: [..., H, W], 0 in the last row or column."""
    right = pad((x[..., 1:] - x[..., :-1]).abs(), (0, 1))
    below = pad((x[..., 1:, :] - x[..., :-1, :]).abs(), (0, 0, 0, 1))
    return right + below


def pictures(event: Event, target: str, state: str) -> tuple[Any, Any]:
    """The event's sample and a target as whole pictures, not clamped.

    Raises:
        RecipeError: the data hold no low-resolution pictures, or there is no such target.
    """
    if target not in event.targets or (state == "residual" and "low" not in event.cond):
        raise RecipeError(
            f"a loss on whole pictures needs the target '{target}' and the condition 'low': name data of pairs, such "
            "as photographs, under 'data:'"
        )
    wanted = event.targets[target]
    return (event.x + event.cond["low"], wanted + event.cond["low"]) if state == "residual" else (event.x, wanted)


NO_PAIRS = {"toy": "samples of the toy are no pairs of pictures"}


class OnPictures(Loss):
    """What losses on whole pictures share."""

    target: str = "real"
    """Name among the event's targets."""
    state: Literal["residual", "picture"] = "residual"
    """What states are."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        return {type(self).__name__.lower(): self.between(*pictures(event, self.target, self.state))}

    def between(self, said: Tensor, wanted: Tensor) -> Tensor:
        """The discrepancy of two sets of pictures: [B]."""
        raise NotImplementedError


class Charbonnier(OnPictures):
    """`√((x − y)² + ε²)`, the mean over values (Lai et al. 2017, arXiv:1704.03915)."""

    conformance: ClassVar[dict[str, str]] = NO_PAIRS
    epsilon: float = 1e-3
    """ε."""

    def between(self, said: Tensor, wanted: Tensor) -> Tensor:
        return ((said - wanted).square() + self.epsilon**2).sqrt().mean((1, 2, 3))


class EdgeAware(OnPictures):
    """Absolute error, heavier where the target has edges: `(1 + λ |∇y| / mean |∇y|) |x − y|`."""

    conformance: ClassVar[dict[str, str]] = NO_PAIRS
    strength: float = 1.0
    """λ."""

    def between(self, said: Tensor, wanted: Tensor) -> Tensor:
        steep = edges(wanted)
        heavy = 1 + self.strength * steep / steep.mean((1, 2, 3), keepdim=True)
        return (heavy * (said - wanted).abs()).mean((1, 2, 3))


class Perceptual(OnPictures):
    """Distance in a network's features (LPIPS: Zhang et al. 2018, arXiv:1801.03924), of the pictures and, weighted, of
    their variation maps (TV-LPIPS of FluxSR, arXiv:2502.01993).
    """

    conformance: ClassVar[dict[str, str]] = NO_PAIRS
    features: Literal["efficientnet-lite0", "alexnet"] = "efficientnet-lite0"
    """Network whose features they are."""
    weights: str = ""
    """File of AlexNet's weights."""
    varied: float = 0.0
    """γ, weight of the variation maps."""

    def between(self, said: Tensor, wanted: Tensor) -> Tensor:
        value = perceptual(said, wanted, self.features, self.weights)
        if not self.varied:
            return value
        return value + self.varied * perceptual(variation(said), variation(wanted), self.features, self.weights)


def asked_alike(
    states: Sequence[Any], event: Event, ctx: Context, role: Role, times: Times, name: str
) -> tuple[Any, list[Prediction]]:
    """One noise, and what a role says of each state under it at one drawn time; streams carry the term's name."""
    path = role.denoiser.path
    t = times.draw(path, batch_size(event.x), ctx.rng, f"{name}/time")
    noise = ctx.rng.normal_like(event.x, stream=f"{name}/noise")
    return noise, [consult(role, path.noised(x, noise, t), t, event) for x in states]


class TrajectoryMatching(Perceptual):
    """Moves a sample by how a frozen self's answers differ when the sample and when the truth is noised alike.

    `d(x, x − g) / mean|x − y|` with `g = D_past(x_t) − D_past(y_t)` for the sample x and the truth y, both under one
    noise at one time, and d the perceptual distance (CTMSR: You et al. 2025, arXiv:2503.20349, section 3.3).
    """

    past: str = "past"
    """Role that answers: the student as it was."""
    times: Times = ListedTimes(times=(1 / 3,))
    """Noise levels."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.past)

    def terms(self, event: Event, ctx: Context) -> Terms:
        said, truth = pictures(event, self.target, self.state)
        moved, far = (said - self.gap(event, ctx)).detach(), (said - truth).detach().abs().mean((1, 2, 3))
        return {"trajectory_matching": self.between(said, moved) / far.clamp_min(1e-5)}

    @torch.no_grad()
    def gap(self, event: Event, ctx: Context) -> Any:
        """g, in the shape of the sample."""
        both = (event.x, event.targets[self.target])
        _, (mine, true) = asked_alike(both, event, ctx, ctx.roles[self.past], self.times, "matching")
        return mine.x0 - true.x0


# ---------------------------------------------------------------- teachers that are given more


class HighTarget(TeacherTarget):
    """What a teacher that is given the high-resolution picture for the low one makes of a re-noised sample, weighed by
    the student's step (AddSR: arXiv:2404.01717, eqs. 5 and 6).

    `f g^s w(t) ‖x − D_teacher(x_t; y := x*)‖²` for the truth x* and the place s = 0, 1, … of the student's time.
    """

    conformance: ClassVar[dict[str, str]] = NO_PAIRS
    high: bool = True
    """Give it the high-resolution picture; it is given the low one, as in ADD, if not."""
    first: float = 0.5
    """f, the weight of the student's first time."""
    growth: float = 2.1
    """g, by which the weight grows from one time to the next; 1 weighs all alike."""
    state: Literal["residual", "picture"] = "residual"
    """What states are."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        low = event.cond.get("low")
        if not isinstance(event.real, Tensor) or not isinstance(low, Tensor) or low.shape != event.real.shape:
            raise RecipeError(
                "this loss needs pictures and the condition 'low', as large as they are: name data of pairs, such as "
                "photographs, under 'data:'"
            )
        told = {**event.cond, "low": whole(event.real, low, self.state)} if self.high else event.cond
        value = super().terms(replace(event, cond=told), ctx)["teacher_target"]
        return {"high_target": self.first * self.growth ** event.meta["step"] * value}


class EndScore(Loss):
    """Moves a sample by how the teacher's ε differ when the sample and its target are noised alike, where there is
    little noise (TAD-SR: arXiv:2408.07476, section 3.3).

    `⟨ε_T(x_t) − ε_T(y_t), x⟩` for the sample x and the target y, both under one noise at one time; the gap is 0 where
    they agree. Without the reference the noise itself stands for ε_T(y_t), which is SDS.
    """

    teacher: str = "teacher"
    """Role that answers."""
    target: str = "x"
    """Name among the event's targets."""
    times: Times = ListedTimes(times=(1 / 15, 2 / 15, 3 / 15))
    """Noise levels."""
    reference: bool = True
    """Ask the teacher about the target too."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.teacher)

    def terms(self, event: Event, ctx: Context) -> Terms:
        with torch.no_grad():
            gap = self.gap(event, ctx)
        return {"end_score": surrogate(event.x, gap)}

    def gap(self, event: Event, ctx: Context) -> Any:
        """What the sample moves against."""
        states = (event.x, *((event.targets[self.target],) if self.reference else ()))
        noise, said = asked_alike(states, event, ctx, ctx.roles[self.teacher], self.times, "end_score")
        return combine((1.0, said[0].eps), (-1.0, said[1].eps if self.reference else noise))


# ---------------------------------------------------------------- layers against the last one


class FrequencyAlignment(Loss):
    """Features of a network's layers against those of its last one, band by band (FRAMER: arXiv:2512.01390).

    `Σ_i m_L Intra_i + m_H Inter_i` of cosines c: `Intra = −ln e^c⁺ / (e^c⁺ + e^c⁻)`, where c⁺ is that with the last
    layer and c⁻ that with a random other one; Inter has the last layer of the other samples under the line too.
    `m = relu(c⁺) / (1 + |E_i − E_n| / E_n)`, a constant, with a band's mean magnitude E. The event's prediction brings
    tapped features, the last of which teach and are not moved.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "its features are no maps"}
    role: str = "student"
    """Who learns from its own last layer."""
    heads: str = "heads"
    """Role of the heads that bring the layers to the size of the last one (`LayerHeads`)."""
    radius: float = 0.25
    """Where the high band begins, in cycles a place of the maps."""
    ramp: float = 0.05
    """Share of the run over which the weight rises to its own."""
    gated: bool = True
    """Multiply by relu(c⁺), which keeps layers out that have nothing in common with the last one yet."""

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role, self.heads)

    def terms(self, event: Event, ctx: Context) -> Terms:
        features = dict(event.prediction.features) if event.prediction else {}
        if len(features) < 3:
            raise RecipeError(f"aligning layers needs taps of three or more, and the network has {len(features)}")
        maps, last = ctx.roles[self.heads](features)
        count = len(maps)
        others = (torch.arange(count) + 1 + ctx.rng.integers(count - 1, count, stream="alignment/other").cpu()) % count
        total = self.aligned(maps, last, others.tolist())
        return {"alignment": min(1.0, ctx.progress / self.ramp) * total if self.ramp else total}

    def aligned(self, maps: Sequence[Tensor], last: Tensor, others: Sequence[int]) -> Tensor:
        """The sum over layers and bands [B] for maps [B, C, h, w]; `others` names each layer's random other one."""
        spectra = torch.fft.fft2(torch.stack([*maps, last.detach()]).float())
        below = frequencies(last.shape[2], last.shape[3], last) < self.radius
        low, high = spectra[..., below], spectra[..., ~below]
        return (self._band(low, others, inter=False) + self._band(high, others, inter=True)).sum(0)

    def _band(self, spectra: Tensor, others: Sequence[int], *, inter: bool) -> Tensor:
        """Each layer's term [L, B] for the bins of a band [L + 1, B, C, K], the last layer's last."""
        units = normalize(torch.view_as_real(spectra).flatten(2), dim=2)
        own, taught = units[:-1], units[-1]
        near = (own * taught).sum(2)
        far = (own * own[list(others)]).sum(2, keepdim=True)
        alike = own @ taught.T if inter else near[..., None]
        contrast = torch.cat([alike, far], 2).logsumexp(2) - near
        with torch.no_grad():
            size = spectra.abs().mean((2, 3))
            weight = 1 / (1 + (size[:-1] - size[-1]).abs() / size[-1].clamp_min(1e-8))
        return weight * (near.detach().relu() if self.gated else 1) * contrast
