"""A causal denoiser with a time per chunk and a key-value cache: forked, written without gradient, dropped
(CausVid).

Clips are frames [B, 6, 2] in chunks of two frames; a token attends to its own chunk and to all that came
before.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from distill.core import (
    Cache,
    Denoiser,
    Engine,
    Event,
    Mixture,
    Optimiser,
    Plan,
    Rng,
    Role,
    Roles,
    Samples,
    Trajectory,
    Update,
    batches,
    rollout,
)  # fmt: skip
from distill.core.paths import Flow
from distill.core.plan import one_phase
from distill.methods.losses import Match, ScoreDifference

FRAMES, CHUNK, SIZE, WIDTH = 6, 2, 2, 32
TIMES = (1.0, 0.75, 0.5)


class Causal(nn.Module):
    """One layer of block-causal attention over frames; times are one a frame [B, F], or one a sample [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.time = nn.Linear(SIZE, WIDTH), nn.Linear(2, WIDTH)
        self.place = nn.Embedding(FRAMES, WIDTH)
        self.qkv, self.mix = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.outlet = nn.Sequential(nn.Linear(WIDTH, 64), nn.SiLU(), nn.Linear(64, SIZE))

    def forward(self, x, t, cond, cache=None):
        first = 0 if cache is None else cache.next_position
        frames = torch.arange(first, first + x.shape[1])
        t = t.reshape(len(t), -1, 1).expand(-1, x.shape[1], -1) / 1000
        h = self.inlet(x) + self.time(torch.cat([t, t**2], 2)) + self.place(frames)
        q, k, v = self.qkv(h).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, F, dim]
        written = None if cache is None else cache.commit({"attention": (k, v)})
        if written is not None:
            k, v = written.layers["attention"]
        mask = frames[:, None] // CHUNK >= torch.arange(k.shape[2])[None] // CHUNK
        seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = self.outlet(h + self.mix(seen.transpose(1, 2).flatten(2)))
        return out if cache is None else (out, written)


class ChunkNoise(Trajectory):
    """Clips whose chunks are noised to levels of their own: the student's prediction in one masked pass."""

    def events(self, batch, ctx, *, attached):
        role = ctx.roles["student"]
        t = ctx.rng.uniform(batch.size, FRAMES // CHUNK, stream="chunk/time").repeat_interleave(CHUNK, 1)
        x_t = role.denoiser.path.noised(batch.x, batch.noise(ctx.rng, "chunk/noise"), t)
        yield Event(batch.x, t=t, x_t=x_t, prediction=role.predict(x_t, t), targets={"x0": batch.x})


class ChunkRollout(Trajectory):
    """The student's own clip, chunk by chunk: the last step of each carries gradient, what it leaves in
    the cache not.
    """

    def events(self, batch, ctx, *, attached):
        role, cache, chunks = ctx.roles["student"], Cache(), []
        for noise in batch.noise(ctx.rng, "roll/noise").split(CHUNK, 1):
            steps = {len(TIMES) - 1} if attached else set()
            walk = rollout(role, noise, (*TIMES, 0.0), cache=cache.fork(), attach=steps)
            chunks.append(list(walk)[-1].next)
            cache = role.ask(chunks[-1].detach(), 0.0, cache=cache).cache.detach()
        yield Event(torch.cat(chunks, 1), meta={"cache": cache})


def clips(size, seed=0):
    """Clips that stand still at +1 or −1: a chunk must look at the one before to know which."""
    means = torch.stack([torch.ones(FRAMES, SIZE), -torch.ones(FRAMES, SIZE)])
    teacher = Mixture(means, 0.1, Flow())
    return teacher, Samples(x=teacher.data(size, Rng(seed)))


def denoiser(seed=0):
    torch.manual_seed(seed)
    return Denoiser(Causal(), Flow(), "x0", shape=(FRAMES, SIZE))


@pytest.fixture
def noisy():
    t = torch.tensor([[0.0, 0.3, 0.9], [0.2, 0.0, 0.6]]).repeat_interleave(CHUNK, 1)
    return Rng(3).normal(2, FRAMES, SIZE), t


def chunk_by_chunk(student, x, t):
    cache, said = Cache(), []
    for part, when in zip(x.split(CHUNK, 1), t.split(CHUNK, 1), strict=True):
        prediction = student.predict(part, when, cache=cache)
        cache = prediction.cache
        said.append(prediction.value)
    return torch.cat(said, 1), cache


def test_one_masked_pass_equals_the_cached_pass_chunk_by_chunk(noisy):
    student = denoiser()
    said, cache = chunk_by_chunk(student, *noisy)
    torch.testing.assert_close(student.predict(*noisy).value, said, atol=1e-6, rtol=1e-5)
    assert cache.positions.tolist() == list(range(FRAMES))


def test_a_later_frame_changes_no_earlier_chunk(noisy):
    x, t = noisy
    later = x.clone()
    later[:, 4] += 1
    change = (denoiser().predict(later, t).value - denoiser().predict(x, t).value).abs().amax((0, 2))
    assert change[:4].max() == 0 and change[4:].min() > 0


def test_views_take_a_time_per_frame(noisy):
    prediction = denoiser().predict(*noisy)
    back = prediction.path.noised(prediction.x0, prediction.eps, prediction.t)
    later = noisy[1] > 0
    torch.testing.assert_close(back[later], noisy[0][later])


def test_a_fork_grows_on_its_own(noisy):
    student, (x, t) = denoiser(), noisy
    parent = student.predict(x[:, :CHUNK], t[:, :CHUNK], cache=Cache()).cache
    before = [part.clone() for part in parent.layers["attention"]]
    left, right = (student.predict(s * x[:, 2:4], t[:, 2:4], cache=parent.fork()).cache for s in (1, -1))
    assert len(parent) == CHUNK and len(left) == len(right) == 2 * CHUNK
    assert all(torch.equal(a, b) for a, b in zip(before, parent.layers["attention"], strict=True))
    assert not torch.equal(left.layers["attention"][0], right.layers["attention"][0])


def test_an_evicted_cache_keeps_the_sink_and_the_window(noisy):
    _, cache = chunk_by_chunk(denoiser(), *noisy)
    kept = cache.evict(sink=1, window=2)
    assert kept.positions.tolist() == [0, 4, 5] and kept.next_position == FRAMES
    assert torch.equal(kept.layers["attention"][0], cache.layers["attention"][0][:, :, [0, 4, 5]])


def run(trajectory, loss, steps, student, teacher, data, lr=3e-3):
    plan = Plan(phases=one_phase([Update(trajectory=trajectory, loss=loss)], steps, {"student": Optimiser(lr=lr)}))
    roles = Roles({"student": Role("student", student), "teacher": Role("teacher", teacher)})
    return Engine(roles, plan, partial(_batches, data), seed=0).run()


def _batches(data, start):
    return batches(data, 64, start=start)


def samples(student):
    """Clips that the student makes on its own, and what it left in the cache."""
    engine = run(ChunkRollout(), ScoreDifference(critic=""), 0, student, *clips(64))
    batch = next(batches(clips(256)[1], 256))
    event = next(ChunkRollout().events(batch, engine.ctx, attached=True))
    return event.x, event.meta["cache"]


def test_what_a_rollout_leaves_behind_carries_no_gradient():
    student = denoiser()
    x, cache = samples(student)
    assert not any(part.requires_grad for part in cache.layers["attention"])
    whole = torch.autograd.grad(x.square().mean(), student.parameters(), allow_unused=True)
    # the same clip with every chunk's context written by another network of equal weights
    twin, context, chunks = denoiser(), denoiser(), []
    noise, cache = Rng(0).normal(256, FRAMES, SIZE, stream="roll/noise"), Cache()
    for part in noise.split(CHUNK, 1):
        for t, s in zip(TIMES, (*TIMES[1:], 0.0), strict=True):
            part = twin.path.jump(
                part.detach(), twin.predict(part.detach(), t, cache=cache).x0, *map(torch.tensor, (t, s))
            )
        chunks.append(part)
        cache = context.predict(part.detach(), 0.0, cache=cache).cache.detach()
    alone = torch.autograd.grad(torch.cat(chunks, 1).square().mean(), twin.parameters(), allow_unused=True)
    for a, b in zip(whole, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_chunks_learn_to_agree_and_then_to_sharpen():
    teacher, data = clips(512)
    student = denoiser()
    run(ChunkNoise(), Match(), 250, student, teacher, data)
    first = samples(student)[0].detach()
    assert (first.mean(2).sign() == first.mean((1, 2)).sign()[:, None]).float().mean() > 0.95
    run(ChunkRollout(), ScoreDifference(critic=""), 40, student, teacher, data, lr=1e-3)
    gap = [(x.abs() - 1).square().mean() for x in (first, samples(student)[0].detach())]
    assert gap[1] < 0.8 * gap[0]
