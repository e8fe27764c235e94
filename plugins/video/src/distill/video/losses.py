"""Losses of clips: those of pictures on some of the frames; discriminators of frames, and with heads for each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from distill.core import Context, Event, Guidance, HeadBuilder, Loss, Roles, Sampler, Terms, tree
from distill.methods.losses import (
    SCALES,
    MatchState,
    ScoreDifference,
    consult,
    distance,
    draw_guidance,
    guidance_of,
    renoised,
    surrogate,
)
from distill.methods.networks import FeatureHeads, Heads
from distill.methods.times import Times, UniformTimes

# ---------------------------------------------------------------- some of the frames


class OnFrames(Loss):
    """A loss of pictures [B, C, H, W] on frames of clips [B, F, C, H, W], drawn anew for each clip.

    Real pictures are those of the condition `picture` where the data have it (an image set beside the clips), else
    frames of the real clips. Frames that are not drawn get no gradient.
    """

    conformance: ClassVar[dict[str, str]] = {
        "options": "what is inside is a loss of any class, which JSON cannot name",
        "toy": "the toy has no frames",
    }
    example: ClassVar[dict[str, Any]] = {"inner": MatchState(target="real")}
    inner: Loss
    """What happens on them."""
    frames: PositiveInt = 2
    """K, how many of each clip."""

    @property
    def needs(self) -> tuple[str, ...]:
        return self.inner.needs

    @property
    def moves(self) -> tuple[str, ...]:
        return self.inner.moves

    def terms(self, event: Event, ctx: Context) -> Terms:
        size, length = event.x.shape[:2]
        stream = f"frames/{type(self.inner).__name__}"
        drawn = ctx.rng.uniform(size, length, stream=stream).argsort(1)[:, : self.frames]
        some = tree.tree_map(lambda clips: self._some(clips, drawn), event.x)
        many = event.cond.items()
        cond = {name: value.repeat_interleave(self.frames, 0) for name, value in many if name != "picture"}
        real = {"real": self._real(event, drawn)} if "picture" in event.cond or "real" in event.targets else {}
        seen = replace(event, x=some, cond=cond, targets=real, weight=None)
        terms = self.inner.terms(seen, ctx)
        return {name: self.inner.weight * value.view(size, -1).mean(1) for name, value in terms.items()}

    def _real(self, event: Event, drawn: Tensor) -> Tensor:
        pictures = event.cond.get("picture")
        if pictures is None:
            return self._some(event.real, drawn)
        return pictures.repeat_interleave(self.frames, 0)

    def _some(self, clips: Tensor, drawn: Tensor) -> Tensor:
        return clips[torch.arange(len(clips))[:, None], drawn].flatten(0, 1)


# ---------------------------------------------------------------- motion apart from appearance


class MotionNetwork(nn.Module):
    """Frames [B, F, C, H, W] plus what a small convolutional network makes of each; nothing until it is trained."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        inlet, outlet = (
            nn.Conv2d(*sizes, kernel, padding=kernel // 2) for sizes in ((channels, width), (width, channels))
        )
        nn.init.zeros_(outlet.weight)
        nn.init.zeros_(outlet.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(inlet, nn.SiLU(), outlet)

    def forward(self, clips: Tensor) -> Tensor:
        out: Tensor = clips + self.layers(clips.flatten(0, 1)).view_as(clips)
        return out


class MotionHead(HeadBuilder):
    """A learnt map to what of a clip is motion, frame by frame; the identity at first."""

    features: str = "teacher"
    """Role whose clips it maps."""
    width: PositiveInt = 32
    """Hidden channels."""
    kernel: PositiveInt = 1
    """Side of the convolutions; 1 in the paper, for latents."""

    def build(self, roles: Roles) -> nn.Module:
        shape: Any = roles[self.features].denoiser.shape
        return MotionNetwork(shape[1], self.width, self.kernel)


class MotionMatch(Loss):
    """Clips against others, both through a motion head (MCM: Zhai et al. 2024, arXiv:2406.06890, eq. 6).

    `√((h(x) − h⁻(x⁻))² + c²) − c` with the event's state x, its target x⁻, and h⁻ an average of h.
    """

    head: str = "motion"
    """Role of h; empty to compare the clips themselves."""
    average: str = "motion_average"
    """Role of h⁻."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.head, self.average) if self.head else ("student",)

    @property
    def moves(self) -> tuple[str, ...]:
        return ("student", self.head) if self.head else ("student",)

    def terms(self, event: Event, ctx: Context) -> Terms:
        x, target = event.x, event.targets["x"]
        if self.head:
            with torch.no_grad():
                target = ctx.roles[self.average](target)
            x = ctx.roles[self.head](x)
        return {"motion": distance("huber", x, target)}


# ---------------------------------------------------------------- discriminators


class FrameNetwork(nn.Module):
    """A small convolutional network that looks at pictures [B, C, H, W] and gives a logit for each: [B]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        sizes = ((channels, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1))
        steps = [(nn.Conv2d(a, b, 3, stride, 1), nn.LeakyReLU(0.2)) for a, b, stride in sizes]
        self.layers = nn.Sequential(*(part for step in steps for part in step), nn.Conv2d(2 * width, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.layers(pictures).flatten(1).mean(1)
        return out


class FrameHead(HeadBuilder):
    """A discriminator of single frames that looks at their pixels."""

    features: str = "teacher"
    """Role whose frames it looks at."""
    width: PositiveInt = 32
    """Channels of its first layer."""

    def build(self, roles: Roles) -> nn.Module:
        shape: Any = roles[self.features].denoiser.shape
        return FrameNetwork(shape[1], self.width)


class StepHeads(nn.Module):
    """Heads of which each knows one time: those of a state's own time speak. [B]"""

    times: Tensor

    def __init__(self, widths: Mapping[str, int], hidden: int, times: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("times", torch.tensor(times))
        self.heads = nn.ModuleList(Heads(widths, hidden) for _ in times)

    def forward(self, features: Mapping[str, Tensor], t: Tensor, cond: Any = None) -> Tensor:
        said = torch.stack([head(features) for head in self.heads], 1)
        nearest = (t[:, None] - self.times).abs().argmin(1)
        return said.gather(1, nearest[:, None])[:, 0]


class HeadsPerStep(FeatureHeads):
    """A discriminator with heads of its own for each of a sampler's times but the first."""

    features: str = "teacher"
    """Role whose features are looked at."""
    sampler: Sampler = Sampler(steps=5)
    """Whose times."""

    def build(self, roles: Roles) -> nn.Module:
        times = self.sampler.grid_for(roles[self.features].denoiser.path)[1:]
        return StepHeads(self.widths(roles), self.hidden, times)


class CountHeads(StepHeads):
    """Heads of which each knows one number of steps, which the condition `steps` says. [B]"""

    def forward(self, features: Mapping[str, Tensor], t: Any, cond: Any = None) -> Tensor:
        return super().forward(features, cond["steps"])


class HeadsByCount(FeatureHeads):
    """A discriminator with heads of its own for each number of steps, 1 to `most` (ASD: arXiv:2511.01419)."""

    most: PositiveInt = 3
    """Largest number of steps that has a partner."""

    def build(self, roles: Roles) -> nn.Module:
        return CountHeads(self.widths(roles), self.hidden, tuple(map(float, range(1, self.most + 1))))


# ---------------------------------------------------------------- several conditions, each with a weight


def nested(weights: Mapping[str, float]) -> Guidance:
    """Conditions that come in one after the other, each with a weight of its own.

    For c and then d, `p(∅) + w_c (p(c) − p(∅)) + w_d (p(c, d) − p(c))`; as many calls as conditions, and one.
    """
    names, factors = tuple(weights), (1.0, *weights.values(), 0.0)
    terms = [(factors[n] - factors[n + 1], frozenset(names[n:])) for n in range(len(names), -1, -1)]
    return Guidance(tuple(terms))


class GuidedScore(ScoreDifference):
    """Distribution matching with a teacher that has a weight for each condition, and with a given first frame.

    LiveTalk (arXiv:2512.23576): before teacher and critic are asked, frame 0 of the noised clip is made clean again.
    """

    weights: dict[str, float] = {}
    """w of each condition of the teacher, in the order in which they come in; `guidance` if empty."""
    anchors: int = 0
    """First frames that teacher and critic see as they are."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        with torch.no_grad():
            x_t, t = renoised(event, ctx, self.teacher, self.times, "score")
            x_t = torch.cat([event.real[:, : self.anchors], x_t[:, self.anchors :]], 1) if self.anchors else x_t
            guidance = nested(self.weights) if self.weights else guidance_of(self.guidance)
            real = consult(ctx.roles[self.teacher], x_t, t, event, guidance=guidance)
            fake = consult(ctx.roles[self.critic], x_t, t, event).x0
            gradient = SCALES[self.units](tree.combine((1.0, fake), (-1.0, real.x0)), event.x, real)
            gradient[:, : self.anchors] = 0
        return {"score_difference": surrogate(event.x, gradient)}


class MultiGuided(Loss):
    """One call of the student against several of its teacher, whose weights it is told, and against the data.

    FADA (arXiv:2412.16915): `‖p − p_T(w)‖² + λ ‖p − x‖²` in units of x0, at data noised anew, with weights drawn per
    batch and given as the extra inputs `w_NAME`. The paper's rule for λ is not public; ours is `min(1, q / e)²`, e
    being the teacher's squared error on a sample at one noise level, the same for all, and q the lowest quartile of
    the batch's: data that the teacher was made for count in full, and data that it finds strange count little.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy's conditions have other names"}
    teacher: str = "teacher"
    """Role that is asked once for each condition and once for none."""
    ranges: dict[str, tuple[float, float]] = {"text": (1.0, 5.0), "audio": (1.0, 5.0)}
    """Between which the weight of each condition is drawn, in the order in which they come in."""
    tokens: bool = True
    """Tell the student the weights."""
    taught: float = 1.0
    """Weight of the teacher's side; 0 leaves it out."""
    data: float = 1.0
    """Weight of the data's side before λ; 0 leaves it out."""
    adaptive: bool = True
    """Weigh the data's side by λ."""
    judged: float = 0.5
    """Noise level at which the teacher judges the data for λ, as a fraction of the path's range."""
    times: Times = UniformTimes(low=0.02, high=0.98)
    """Noise levels."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", self.teacher)

    def terms(self, event: Event, ctx: Context) -> Terms:
        size, student = tree.batch_size(event.x), ctx.roles["student"]
        path = student.denoiser.path
        t = self.times.draw(path, size, ctx.rng, "guided/time")
        x_t = path.noised(event.x, ctx.rng.normal_like(event.x, stream="guided/noise"), t)
        w = {name: draw_guidance(*ends, ctx, f"guided/{name}") for name, ends in self.ranges.items()}
        wanted = ctx.roles[self.teacher].ask(x_t, t, event.cond, guidance=nested(w)).x0
        ones = torch.ones(size, device=t.device)
        scalars: dict[str, Any] = {f"w_{name}": value * ones for name, value in w.items()} if self.tokens else {}
        said = student.predict(x_t, t, event.cond, **scalars).x0
        taught, data = distance("l2", said, wanted), distance("l2", said, event.x)
        terms = {"taught": self.taught * taught} if self.taught else {}
        if self.data:
            level = self._level(event, ctx) if self.adaptive else 1.0
            terms["data"] = self.data * level * data
        return terms

    @torch.no_grad()
    def _level(self, event: Event, ctx: Context) -> Tensor:
        """λ of each sample: [B]."""
        teacher, level = ctx.roles[self.teacher], UniformTimes(low=self.judged, high=self.judged)
        path, noise = teacher.denoiser.path, ctx.rng.normal_like(event.x, stream="guided/judged")
        t = level.draw(path, tree.batch_size(event.x), ctx.rng, "guided/judged-at")
        said = teacher.ask(path.noised(event.x, noise, t), t, event.cond).x0
        error = distance("l2", said, event.x).float()
        return (error.quantile(0.25) / error.clamp_min(1e-8)).clamp_max(1).square()
