"""Where training events of clips come from: stored routes, chunks with times of their own, the student's roll-outs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from distill.core import Batch, Cache, Context, Event, Role, Sampler, Trajectory, rollout, tree
from distill.core.prediction import Prediction
from distill.core.rng import Rng
from distill.core.sampling import DDIM, Consistency, finish
from distill.core.store import pack, unpack
from distill.methods.pairs import RecordStates, recalled
from distill.video.streaming import reach_of, share

# ---------------------------------------------------------------- data that are partly the student's own


class Mixed(Trajectory):
    """Another trajectory, fed with data of which some are the student's own, made in one step from noise alone.

    MCM (Zhai et al. 2024, arXiv:2406.06890, section 3.3): a student meets in training what it meets in sampling.
    """

    conformance: ClassVar[dict[str, str]] = {
        "options": "what is inside is a trajectory of any class, which JSON cannot name",
        "toy": "what is inside has no default",
    }
    inner: Trajectory
    """What happens with them."""
    share: float = 0.5
    """Probability of a sample to be the student's own."""

    @property
    def moves(self) -> tuple[str, ...]:
        return self.inner.moves

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        own = ctx.rng.uniform(batch.size, stream="mixed/share") < self.share
        role, noise = ctx.roles["student"], batch.noise(ctx.rng, "mixed/noise")
        path = role.denoiser.path
        said = role.ask(path.prior(noise), path.t_max, batch.cond).x0
        x = tree.where(own, said, batch.data)
        yield from self.inner.events(replace(batch, x=x), ctx, attached=attached)


# ---------------------------------------------------------------- stored routes


class Stretches(Trajectory):
    """One stretch after another of a teacher's stored routes, for the student's own route beside them.

    The prediction is the student's at a stored key state, with the mean velocity to the next one as the target
    `velocity`; the event's state is the student's own, one step further along its own route from fresh noise, and
    `targets["real"]` the stored state there. Nothing is noised anew (AccVideo: Zhang et al. 2025, arXiv:2503.19462).
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "a phase before must have recorded states"}
    stretches: int = 5
    """m, into which the teacher's steps are divided evenly."""
    sampler: Sampler = Sampler()
    """How the teacher had walked."""

    def at(self) -> tuple[int, ...]:
        """Numbers of steps after which a stretch begins."""
        return tuple(range(0, self.sampler.steps, self.sampler.steps // self.stretches))

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        student = ctx.roles["student"]
        n, route = self._route(batch, ctx)
        times = self.sampler.grid_for(student.denoiser.path)
        begin, end = (student.denoiser.times(times[k], route["own"]) for k in self._ends(n))
        states = [route[f"x-{k}"] for k in self.at()] + [route["end"]]
        with torch.set_grad_enabled(attached):
            said = student.predict(states[n], begin, route["cond"])
            move = student.predict(route["own"], begin, route["cond"])
            own = move.path.jump(route["own"], move.x0, begin, end)
        ctx.state |= pack({"stretches": {"own": own.detach()}})
        mean = (states[n + 1] - states[n]) / float(end[0] - begin[0])
        yield Event(
            own, route["cond"], begin, states[n], prediction=said, targets={"velocity": mean, "real": states[n + 1]},
            meta={"level": end, "step": n},
        )  # fmt: skip

    def _ends(self, n: int) -> tuple[int, int]:
        starts = (*self.at(), self.sampler.steps)
        return starts[n], starts[n + 1]

    def _route(self, batch: Batch, ctx: Context) -> tuple[int, dict[str, Any]]:
        """Which stretch it is, and the routes that are walked: new ones where it is the first."""
        held = {name: value for name, value in ctx.state.items() if name.startswith("stretches/")}
        n = int(held["stretches/n"]) % self.stretches if held else 0
        if n == 0:
            found = recalled("states", batch.size, ctx, RecordStates)
            path = ctx.roles["student"].denoiser.path
            found["own"] = path.prior(ctx.rng.normal_like(found["noise"], stream="stretches/noise"))
            held = pack({"stretches": found})
        ctx.state |= held | {"stretches/n": torch.tensor(n + 1)}
        return n, {"cond": {}, **unpack(held)["stretches"]}


# ---------------------------------------------------------------- chunks with times of their own


def per_frame(drawn: torch.Tensor, size: int, frames: int) -> torch.Tensor:
    """One value a chunk [B, chunks] as one a frame [B, F]."""
    return drawn.repeat_interleave(size, 1)[:, :frames]


def settled(said: Prediction) -> Any:
    """A prediction's x0, and the states themselves where their time says that they are clean."""
    return tree.where(said.t <= said.path.t_min, said.x, said.x0)


class ChunkKeys(Trajectory):
    """Stored routes of a teacher, each chunk of a clip at a key time of its own, with the route's end as `x0`.

    Causal students begin so (CausVid: Yin et al. 2024, arXiv:2412.07772, section 4.3).
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "a phase before must have recorded states"}
    at: tuple[int, ...] = (0,)
    """Numbers of steps of the teacher after which states were kept."""
    sampler: Sampler = Sampler()
    """How the teacher had walked."""
    clean: bool = True
    """The end is one of the key states; a chunk there is context, and teaches nothing."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role, found = ctx.roles["student"], recalled("states", batch.size, ctx, RecordStates)
        places = (*self.at, self.sampler.steps) if self.clean else self.at
        states = torch.stack([found["end" if k == self.sampler.steps else f"x-{k}"] for k in places])
        frames, size = states.shape[2], reach_of(role.denoiser).chunk
        drawn = ctx.rng.integers(len(places), batch.size, -(-frames // size), stream="keys/index")
        index = per_frame(drawn, size, frames)
        times = self.sampler.grid_for(role.denoiser.path)
        t = torch.tensor([times[k] for k in places], device=states.device)[index]
        x_t = states[index, torch.arange(batch.size)[:, None], torch.arange(frames)]
        with torch.set_grad_enabled(attached):
            said = role.predict(x_t, t, found["cond"])
            said = said.replace_x0(settled(said))
        yield Event(said.x0, found["cond"], t, x_t, prediction=said, targets={"x0": found["end"]})


class ChunkNoise(Trajectory):
    """Clips whose chunks are noised to one of a few times each, and the student's answers in one masked pass.

    A chunk at time 0 is clean context for those after it, and gets no gradient.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy is not causal"}
    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25, 0.0)
    """The times that are drawn from."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role, frames = ctx.roles["student"], batch.data.shape[1]
        size = reach_of(role.denoiser).chunk
        drawn = ctx.rng.integers(len(self.times), batch.size, -(-frames // size), stream="chunks/time")
        t = torch.tensor(self.times, device=drawn.device)[per_frame(drawn, size, frames)]
        noise = batch.noise(ctx.rng, "chunks/noise")
        x_t = role.denoiser.path.noised(batch.data, noise, t)
        with torch.set_grad_enabled(attached):
            said = role.predict(x_t, t, batch.cond)
            x = settled(said)
        yield Event(x, batch.cond, t, x_t, noise, said, targets={"real": batch.data})


# ---------------------------------------------------------------- the student's own clips, chunk by chunk


def rolled(
    role: Role, noise: Any, times: tuple[float, ...], exit_at: int, cond: Any, rng: Rng, *,
    attached: bool, stream: str = "roll", solver: Any = None,
) -> Any:  # fmt: skip
    """A clip that a causal role makes chunk by chunk, each of them its x0 at step `exit_at` of the times.

    Only that step carries gradient; what is written to the cache, the chunk as if it were clean, does not.
    """
    path, size, cache, parts = role.denoiser.path, reach_of(role.denoiser).chunk, Cache(), []
    for n, chunk in enumerate(noise.split(size, 1)):
        told = share(cond, n * size, chunk.shape[1])
        walk = rollout(
            role, path.prior(chunk, times[0]), (*times, path.t_min), solver=solver or Consistency(), cond=told,
            rng=rng, stream=f"{stream}/renoise", attach={exit_at} if attached else (), cache=cache,
        )  # fmt: skip
        with torch.set_grad_enabled(attached):
            x = next(move for move in walk if move.n == exit_at).prediction.x0
        parts.append(x)
        written = role.ask(x.detach(), path.t_min, told, cache=cache).cache
        cache = (written or cache).detach()
    return torch.cat(parts, 1)


class SelfRollout(Trajectory):
    """The student's own clips, made as in sampling, chunk by chunk on a cache of what it made before.

    One exit step is drawn for the whole roll-out (Self-Forcing: Huang et al. 2025, arXiv:2506.08009, algorithm 1).
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy is not causal"}
    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times, descending."""
    shares: tuple[float, ...] = ()
    """Probability of each to be the exit step; equal if empty."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        noise = batch.noise(ctx.rng, "roll/noise")
        k = ctx.rng.choice(len(self.times), shares=self.shares, stream="roll/exit")
        x = rolled(ctx.roles["student"], noise, self.times, k, batch.cond, ctx.rng, attached=attached)
        real = {} if batch.x is None else {"real": batch.x}
        yield Event(x, batch.cond, noise=noise, targets=real, meta={"step": k})


class TwoRollouts(Trajectory):
    """Clips of the student in n steps, and in n + 1 from other noises, for a discriminator that knows n.

    n is drawn for each batch. The second clip has no gradient and is `targets["real"]`; the condition `steps` [B] is
    n (ASD: arXiv:2511.01419).
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy is not causal"}
    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times; fewer steps take some of them, evenly."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role = ctx.roles["student"]
        n = 1 + ctx.rng.choice(len(self.times) - 1, stream="two/steps")
        clips = []
        for steps, name in ((n, "fewer"), (n + 1, "more")):
            noise, times = batch.noise(ctx.rng, f"two/{name}"), thinned(self.times, steps)
            with_gradient = attached and name == "fewer"
            clips.append(
                rolled(role, noise, times, steps - 1, batch.cond, ctx.rng, attached=with_gradient, stream=f"two/{name}")
            )
        told = torch.full((batch.size,), float(n), device=clips[0].device)
        yield Event(clips[0], {**batch.cond, "steps": told}, targets={"real": clips[1].detach()}, meta={"step": n})


def thinned(times: tuple[float, ...], steps: int) -> tuple[float, ...]:
    """That many of the times, evenly, the first among them."""
    return tuple(times[n * len(times) // steps] for n in range(steps))


# ---------------------------------------------------------------- chunks that continue others, without a cache


def continued(
    role: Role, noise: Any, motion: Any, times: tuple[float, ...], exit_at: int, cond: Any, rng: Rng, *,
    attached: bool, solver: Any = None,
) -> Any:  # fmt: skip
    """A chunk whose first frames are given: they are written over its states at the start and after every step."""
    path, given = role.denoiser.path, motion.shape[1]

    def over(x: Any) -> Any:
        return torch.cat([motion, x[:, given:]], 1)

    walk = rollout(
        role, over(path.prior(noise, times[0])), (*times, path.t_min), solver=solver or Consistency(), cond=cond,
        rng=rng, stream="continued/renoise", attach={exit_at} if attached else (),
    )  # fmt: skip
    with torch.set_grad_enabled(attached):
        move = next(walk)
        while move.n < exit_at:
            move = walk.send(over(move.next))
        return over(move.prediction.x0)


class Continuation(Trajectory):
    """A clip of the student that continues its own clips: K − 1 of them without gradient, then one that carries it.

    K is drawn up to `chunks`; the last frames of a clip are the first of the next one, and those of the data begin the
    first. The exit step is drawn too (SoulX-FlashTalk: Shen et al. 2025, arXiv:2512.23379, section 3.2).
    """

    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times."""
    chunks: int = 5
    """Largest K."""
    motion: int = 1
    """Frames that a clip shares with the one before."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role, last = ctx.roles["student"], len(self.times) - 1
        count, k = (
            ctx.rng.choice(n, stream=f"continued/{what}") for n, what in ((self.chunks, "chunks"), (last + 1, "exit"))
        )
        motion = batch.data[:, : self.motion]
        for n in range(count + 1):
            noise, final = batch.noise(ctx.rng, "continued/noise"), n == count
            x = continued(
                role, noise, motion, self.times, k if final else last, batch.cond, ctx.rng, attached=attached and final
            )
            motion = x[:, -self.motion :].detach()
        yield Event(x, batch.cond, targets={"real": batch.data}, meta={"step": k, "chunk": count})


# ---------------------------------------------------------------- histories that a model has spoilt itself


class Resampled(Trajectory):
    """Noised clips with a history that the student itself has drawn again from a noisy version of it.

    Each chunk sees the chunks before it as they came out, and its target `velocity` is that of the true clip
    (Resampling Forcing: arXiv:2512.15702, algorithm 1). All chunks are learnt in one pass.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy is not causal"}
    mode: Literal["autoregressive", "parallel", "none"] = "autoregressive"
    """Each chunk redrawn on redrawn ones, all at once on true ones, or not at all, which is teacher forcing."""
    shift: float = 0.6
    """s of `t ← s t / (1 + (s − 1) t)` with logit t normal: how strongly the history is noised."""
    steps: int = 2
    """Steps in which it is drawn again."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role = ctx.roles["student"]
        path, size = role.denoiser.path, reach_of(role.denoiser).chunk
        history = self.history(batch, ctx)
        drawn = ctx.rng.uniform(batch.size, -(-batch.data.shape[1] // size), stream="resampled/time")
        t = per_frame(drawn, size, batch.data.shape[1])
        noise = batch.noise(ctx.rng, "resampled/noise")
        x_t = path.noised(batch.data, noise, t)
        with torch.set_grad_enabled(attached):
            said = role.predict(x_t, t, batch.cond, cache=Cache().defer(history, batch.cond).at(0))
        wanted = Prediction("x0", batch.data, x_t, t, path).velocity
        yield Event(said.x0, batch.cond, t, x_t, noise, said, targets={"velocity": wanted, "history": history})

    @torch.no_grad()
    def history(self, batch: Batch, ctx: Context) -> Any:
        """The clips as the student draws them again."""
        if self.mode == "none":
            return batch.data
        role = ctx.roles["student"]
        u = torch.sigmoid(torch.randn((), generator=ctx.rng.generator("resampled/level"), device=ctx.rng.device))
        start = float(self.shift * u / (1 + (self.shift - 1) * u))
        times = tuple(start * (1 - n / self.steps) for n in range(self.steps + 1))
        noise = batch.noise(ctx.rng, "resampled/history")
        t = role.denoiser.times(start, batch.data)
        x, size = role.denoiser.path.noised(batch.data, noise, t), reach_of(role.denoiser).chunk
        cache, parts = Cache(), []
        for n, chunk in enumerate(x.split(size, 1)):
            told = share(batch.cond, n * size, chunk.shape[1])
            parts.append(finish(rollout(role, chunk, times, solver=DDIM(), cond=told, cache=cache)))
            kept = parts[-1] if self.mode == "autoregressive" else batch.data[:, n * size : n * size + size]
            cache = role.ask(kept, 0.0, told, cache=cache).cache or cache
        return torch.cat(parts, 1)
