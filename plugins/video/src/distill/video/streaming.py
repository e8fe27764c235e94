"""Clips that are made chunk by chunk: whole ones in memory, or as long as one likes into a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from distill.core import Cache, Denoiser, Rng, Role, RollingCache, Sampler, State, rollout, tree
from distill.core.contracts import Streaming
from distill.core.errors import DataError, RecipeError
from distill.core.probe import as_in_use
from distill.core.sampling import ALONE, Move
from distill.video.attention import FRAMED, Reach
from distill.video.audio import Sound, track

Conditions = Mapping[str, Any]
MODES = {1: "gray", 3: "rgb24"}
"""FFmpeg's name for frames of so many channels."""

AAC_RATE = 48_000
"""Samples a second of a film's sound."""


def reach_of(denoiser: Denoiser) -> Reach:
    """Who sees whom in a network, in frames of its states.

    Raises:
        RecipeError: its frames are not made in chunks.
    """
    reach = getattr(denoiser.network, "reach", None)
    if not isinstance(reach, Reach) or not reach.chunk:
        raise RecipeError(
            f"{type(denoiser.network).__name__} sees all frames of a clip at once, so it cannot make them one chunk "
            "after the other: take a block-causal network, such as a student with the transform 'block-causal'"
        )
    return reach


def cache_for(denoiser: Denoiser) -> Cache:
    """An empty cache for a network, of fixed size where it has a window."""
    reach: Any = reach_of(denoiser)
    if not reach.window:
        return Cache()
    patch: Any = denoiser.network.patch
    seen = reach.over(patch[0])
    return RollingCache.of(sink=seen.sink, window=seen.window, room=max(seen.window, 4 * seen.chunk))


@dataclass
class Stream:
    """A clip under way.

    A finished chunk is not written to the cache by a call of its own, as published roll-outs do: the first call of the
    next chunk writes it along. Where the conditions change, it is written under those that it was made with.
    """

    role: Role
    sampler: Sampler
    rng: Rng | None = None
    cache: Cache = field(default_factory=Cache)
    cond: Conditions = field(default_factory=dict)
    calls: int = 0

    @classmethod
    def of(cls, role: Role, sampler: Sampler, rng: Rng | None = None) -> Stream:
        """One that has no frame yet. Guided predictions share an ordinary cache, since each writes its own entries."""
        return cls(role, sampler, rng, Cache() if sampler.guide.calls > 1 else cache_for(role.denoiser))

    def follow(self, frames: Tensor, cond: Conditions) -> None:
        """Go on from given frames [B, F, C, H, W]."""
        size = reach_of(self.role.denoiser).chunk
        for start in range(0, frames.shape[1], size):
            self._settle()
            self._leave(frames[:, start : start + size], share(cond, start, size))

    def chunk(self, noise: Tensor, cond: Conditions) -> Tensor:
        """The next frames [B, F, C, H, W], from standard normal noise of their shape."""
        if not _alike(cond, self.cond):
            self._settle()
        x = noise
        for move in self._walk(noise, cond):
            x, self.cache = move.next, move.cache or self.cache
        self.calls += int(self.sampler.calls(self.role.denoiser.path))
        self._leave(x, cond)
        return x

    def _walk(self, noise: Tensor, cond: Conditions) -> Iterator[Move]:
        sampler, ones = self.sampler, torch.ones(len(noise), device=noise.device)
        return rollout(
            self.role, sampler.start(self.role, noise), sampler.grid_for(self.role.denoiser.path), cond=cond,
            solver=sampler.solver, rng=self.rng, stream="sample", guidance=sampler.guide, cache=self.cache,
            scalars={name: value * ones for name, value in sampler.scalars.items()},
        )  # fmt: skip

    def _leave(self, x: Tensor, cond: Conditions) -> None:
        self.cond, self.cache = cond, self.cache.defer(x, cond)

    def _settle(self) -> None:
        """Write what was deferred, by a call of its own."""
        pending, cache = self.cache.take()
        if pending is not None:
            self.calls += 1
            self.cache = self.role.ask(pending.x, 0.0, self.cond, cache=cache).cache or cache


def _alike(cond: Conditions, before: Conditions) -> bool:
    """Whether two chunks are told the same, but for what has one value a frame."""
    kept = [name for name in cond if name in before and name not in FRAMED]
    return all(cond[name] is before[name] or torch.equal(cond[name], before[name]) for name in kept)


def share(cond: Conditions, start: int, frames: int) -> dict[str, Any]:
    """The conditions of some frames of a clip: of what has one value a frame, theirs.

    Raises:
        DataError: it ends before them.
    """
    own = dict(cond)
    for name in FRAMED:
        if name in own and own[name].ndim == 3 and own[name].shape[1] > 1:
            own[name] = own[name][:, start : start + frames]
            if own[name].shape[1] < frames:
                raise DataError(
                    f"the condition '{name}' ends after {cond[name].shape[1]} frames, and the clip goes on to "
                    f"{start + frames}: give a longer one, or ask for fewer frames"
                )
    return own


class ChunkSampler(Sampler):
    """A causal student's clips, chunk by chunk with a cache; `calls` are those that a chunk costs."""

    @torch.no_grad()
    def sample(
        self, role: Role, noise: Any, cond: Any = None, rng: Rng | None = None, roles: Mapping[str, Role] = ALONE
    ) -> Any:
        return torch.cat(list(self.chunks(role, noise, cond or {}, rng)), 1)

    def chunks(self, role: Role, noise: Tensor, cond: Conditions, rng: Rng | None = None) -> Iterator[Tensor]:
        """The parts of a clip as they are made, [B, chunk, C, H, W] each, without gradients."""
        stream, size = Stream.of(role, self, rng), reach_of(role.denoiser).chunk
        for n, x in enumerate(noise.split(size, 1)):
            yield stream.chunk(x, share(cond, n * size, x.shape[1]))


class Film:
    """An MP4 in fragments, with sound if there is any: what was written plays, however the process ends."""

    def __init__(self, path: Path, rate: float, sound: Sound | None = None) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        flags = {"movflags": "+empty_moov+default_base_moof+delay_moov", "frag_duration": "1000", "flush_packets": "1"}
        self.file: Any = av.open(str(path), "w", format="mp4", options=flags)
        self.rate = Fraction(rate).limit_denominator(1001)
        self.track: Any = None
        self.heard: Any = None
        self.sound, self.count = sound, 0
        self.codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *error: object) -> None:
        for each in (self.track, self.heard):
            if each is not None:
                self.file.mux(each.encode())
        self.file.close()

    def write(self, pixels: Tensor) -> None:
        """Add frames, bytes [F, H, W, 3], and what is heard meanwhile; odd sides lose a line."""
        import av

        height, width = (side - side % 2 for side in pixels.shape[1:3])
        self.track = self.track or self._track(height, width)
        for frame in pixels[:, :height, :width].contiguous().numpy():
            self.file.mux(self.track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        self.count += len(pixels)
        if self.sound is not None:
            self._hear(self.sound)

    def _hear(self, sound: Sound) -> None:
        import av

        start, samples = sound.place, sound.until(self.count / float(self.rate))
        if samples.shape[1]:
            layout = "stereo" if len(samples) == 2 else "mono"
            part = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            part.sample_rate, part.pts, part.time_base = sound.rate, start, Fraction(1, sound.rate)
            self.file.mux(self.heard.encode(part))

    def _track(self, height: int, width: int) -> Any:
        tuned = {"tune": "zerolatency", "preset": "veryfast", "g": "12"} if self.codec == "libx264" else {"g": "12"}
        track = self.file.add_stream(self.codec, rate=self.rate, options=tuned)
        track.width, track.height, track.pix_fmt = width, height, "yuv420p"
        self.heard = self.file.add_stream("aac", rate=AAC_RATE) if self.sound else None
        return track


def frames_of(start: Path | State, denoiser: Denoiser) -> Tensor:
    """The frames of a picture or clip, a file or a state, as a network's states: [1, F, C, H, W] in [−1, 1]."""
    from distill.video.datasets import decoded

    shape: Any = denoiser.shape
    _, channels, height, width = shape
    name = start if isinstance(start, Path) else "the clip"
    if channels not in MODES:
        raise RecipeError(f"{name} cannot be the start of states with {channels} channels: they need an encoder")
    if isinstance(start, Path):
        clip = decoded(start, height, width, mode=MODES[channels]).float()[None] / 127.5 - 1
    else:
        clip = _resized(start, channels, height, width)
    patch: Any = denoiser.network.patch
    if clip.shape[1] % patch[0]:
        raise DataError(f"{name} has {clip.shape[1]} frames: give a multiple of {patch[0]}, the length of a patch")
    return clip


def _resized(state: State, channels: int, height: int, width: int) -> Tensor:
    """A clip [1, F, C, H, W] with other sides; grey ones get colours, and colours become grey."""
    if not isinstance(state, Tensor) or state.ndim != 5 or len(state) != 1:
        raise DataError("a clip goes on from one clip, [1, F, C, H, W], and this is another state")
    weights = state.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    own = state if state.shape[2] == channels else (state * weights).sum(2, True) if channels == 1 else state
    sized = interpolate(own[0], (height, width), mode="bilinear", antialias=True)
    return sized.expand(-1, channels, -1, -1)[None]


@torch.inference_mode()
def whole(role: Role, request: Streaming, rate: float) -> Tensor:
    """A clip of so many seconds in memory, [1, F, C, H, W]; it begins with the frames that it goes on from."""
    device = next(role.module.parameters()).device
    stream, cond = Stream.of(role, request.sampler, Rng(request.seed, device=device)), request.conditions[0][1]
    shape: Any = role.denoiser.shape
    clip = torch.zeros(1, 0, *shape[1:]) if request.start is None else frames_of(request.start, role.denoiser)
    given, count = clip.shape[1], round(request.seconds * rate)
    if given >= count:
        raise DataError(f"the clip goes on from {given} frames, and {request.seconds:g} s are {count}: ask for more")
    with as_in_use(role):
        if given:
            stream.follow(clip.to(device), share(cond, 0, given))
        made_of = [clip.to(device), *made(stream, count - given, rate, [(0.0, cond)], given)]
    return torch.cat(made_of, 1).cpu()


def made(
    stream: Stream, frames: int, rate: float, schedule: Sequence[tuple[float, Conditions]], given: int = 0
) -> Iterator[Tensor]:
    """Chunk after chunk of so many new frames; the schedule says what they show from which second on.

    What has one value a frame has them for the given frames first.
    """
    denoiser, rng = stream.role.denoiser, stream.rng or Rng(0)
    shape: Any = denoiser.shape
    for start in range(0, frames, size := reach_of(denoiser).chunk):
        cond = [said for second, said in schedule if second * rate <= start][-1]
        noise = rng.normal(1, size, *shape[1:], stream="sample/start")
        yield stream.chunk(noise, share(cond, given + start, size))[:, : frames - start]


def write(role: Role, request: Streaming, rate: float, pixels: Callable[[Tensor], Tensor]) -> str:
    """Stream a clip into a file; `pixels` makes bytes [F, H, W, 3] of states [1, F, C, H, W]."""
    device, chunk = next(role.module.parameters()).device, reach_of(role.denoiser).chunk
    stream = Stream.of(role, request.sampler, Rng(request.seed, device=device))
    given = frames_of(request.start, role.denoiser).to(device) if request.start else None
    before, count = 0 if given is None else given.shape[1], max(1, round(request.seconds * rate))
    chunks = -(-count // chunk)
    heard = followed(request.files, role.denoiser, rate, before + count)
    schedule = [
        (second, tree.to(lasting({**cond, **heard}, before + count, before + chunks * chunk), device))
        for second, cond in request.conditions
    ]
    sound = Sound(request.files["audio"]) if "audio" in request.files else None
    latency, started = 0.0, time.perf_counter()
    with torch.inference_mode(), as_in_use(role), Film(request.out, rate, sound) as film:
        if given is not None:
            film.write(pixels(given))
            stream.follow(given, share(schedule[0][1], 0, before))
        for x in made(stream, count, rate, schedule, before):
            film.write(pixels(x))
            latency = latency or time.perf_counter() - started
    seconds = time.perf_counter() - started
    return (
        f"{count} frames in {request.out}: {count / seconds:.1f} frames a second, first frame after "
        f"{1000 * latency:.0f} ms, {stream.calls / chunks:.3g} calls a chunk"
    )


def followed(files: Mapping[str, Path], denoiser: Denoiser, rate: float, frames: int) -> dict[str, Tensor]:
    """The conditions that files hold for every frame, [1, F, D] each.

    Raises:
        DataError: a file ends before the clip does.
        RecipeError: the network takes no such condition.
    """
    for name in files:
        if name not in FRAMED or name not in denoiser.null:
            raise RecipeError(
                f"the network takes no '{name}' that follows a file; it takes {', '.join(denoiser.null) or 'nothing'}"
            )
    return {name: track(file, rate, denoiser.null[name].shape[-1], frames)[None] for name, file in files.items()}


def lasting(cond: Conditions, frames: int, whole: int) -> dict[str, Any]:
    """The conditions of a clip; what has one value a frame stays as it ends until the last chunk is whole."""
    own = share(cond, 0, frames)
    for name in FRAMED:
        if name in own and own[name].ndim == 3 and own[name].shape[1] == frames:
            last = own[name][:, -1:].expand(-1, whole - frames, -1)
            own[name] = torch.cat([own[name], last], 1)
    return own
