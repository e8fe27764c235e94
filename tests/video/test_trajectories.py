"""Events of clips: key states, chunks with their own times, roll-outs on a cache, continuations, spoilt histories."""

from __future__ import annotations

import pytest
import torch

from distill.core import Batch, Context, Rng, Role, Roles, Sampler
from distill.core.prediction import Prediction
from distill.core.store import pack
from distill.video.attention import Reach
from distill.video.networks import VideoDiT
from distill.video.samplers import Continued, FirstChunk, Windowed
from distill.video.streaming import ChunkSampler
from distill.video.toys import SMALL
from distill.video.trajectories import (
    ChunkKeys,
    ChunkNoise,
    Continuation,
    Mixed,
    Resampled,
    SelfRollout,
    Stretches,
    TwoRollouts,
    continued,
    rolled,
    thinned,
)  # fmt: skip

TIMES, SHAPE = (1.0, 0.6, 0.3), (12, 8, 1, 1)


def network(chunk=3, seed=0, **options):
    torch.manual_seed(seed)
    built = VideoDiT(**{**dict(SMALL), "width": 24, "reach": Reach(chunk=chunk), **options}).build()
    for parameter in built.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # nothing stays at zero
    return built


def context(**roles):
    return Context(Roles({name: Role(name, module) for name, module in roles.items()}), Rng(0))


def only(trajectory, ctx, size=4, attached=True):
    (event,) = trajectory.events(Batch(size, torch.randn(size, *SHAPE), shape=SHAPE), ctx, attached=attached)
    return event


def routes(ctx, sampler, size=16):
    walk = list(sampler.walk(ctx.roles["student"], torch.randn(size, *SHAPE)))
    kept = {f"x-{n}": move.x for n, move in enumerate(walk)} | {"end": walk[-1].next, "noise": walk[0].x}
    ctx.state.update(pack({"states": kept}))
    return kept


def test_stretches_are_walked_in_order_and_the_own_route_goes_on():
    ctx, walk = context(student=network(chunk=0)), Sampler(steps=6)
    kept, events = Stretches(stretches=3, sampler=walk), []
    routes(ctx, walk)
    for _ in range(4):
        events.append(only(kept, ctx))
    assert kept.at() == (0, 2, 4) and [event.meta["step"] for event in events] == [0, 1, 2, 0]
    assert torch.equal(events[0].real, events[1].x_t) and events[0].x.requires_grad
    time = events[1].t[0]
    mean = (events[1].real - events[1].x_t) / float(events[1].meta["level"][0] - time)
    assert torch.allclose(events[1].targets["velocity"], mean)
    said = ctx.roles["student"].ask(events[0].x.detach(), events[1].t).velocity
    expected = events[0].x + (events[1].meta["level"][0] - time) * said
    assert torch.allclose(events[1].x, expected, atol=1e-5)


def test_key_states_come_chunk_by_chunk_and_clean_ones_teach_nothing():
    ctx, walk = context(student=network()), Sampler(steps=4)
    kept = routes(ctx, walk)
    event = only(ChunkKeys(at=(0, 2), sampler=walk), ctx, 32)
    assert set(event.t.unique().tolist()) == {0.0, 0.5, 1.0}
    assert (event.t.view(32, 4, 3) == event.t.view(32, 4, 3)[:, :, :1]).all()
    clean = event.t == 0
    assert torch.equal(event.x[clean], event.targets["x0"][clean])
    assert any(torch.equal(event.x_t[0, 0], each[row, 0]) for each in kept.values() for row in range(16))
    noisy = only(ChunkKeys(at=(0, 2), sampler=walk, clean=False), ctx, 32)
    assert set(noisy.t.unique().tolist()) == {0.5, 1.0}


def test_chunks_are_noised_to_times_of_their_own_and_answered_in_one_pass():
    event = only(ChunkNoise(times=(1.0, 0.5, 0.0)), context(student=network()), 16)
    clean = event.t == 0
    assert torch.equal(event.x[clean], event.real[clean]) and event.x.requires_grad
    expected = (1 - event.t[..., None, None, None]) * event.real + event.t[..., None, None, None] * event.noise
    assert torch.allclose(event.x_t, expected, atol=1e-6)


def test_a_roll_out_is_what_sampling_gives_and_one_step_carries_gradient():
    student, rng = Role("student", network()), torch.randn(2, *SHAPE)
    sampled = ChunkSampler(times=TIMES, steps=3).sample(student, rng)
    ours = rolled(student, rng, TIMES, 2, {}, Rng(0), attached=True, solver=ChunkSampler().solver)
    torch.testing.assert_close(ours, sampled, atol=1e-5, rtol=1e-5)
    assert ours.requires_grad and not rolled(student, rng, TIMES, 0, {}, Rng(0), attached=False).requires_grad


def test_gradient_does_not_run_through_the_history():
    """The noise of a chunk moves the chunks after it, but no gradient comes back from them."""
    student, noise = Role("student", network()), torch.randn(2, *SHAPE).requires_grad_()
    x = rolled(student, noise, (1.0,), 0, {}, Rng(0), attached=True)
    (slope,) = torch.autograd.grad(x[:, 6:].sum(), noise, allow_unused=True)
    assert slope is None or not slope[:, :6].any()
    moved = rolled(
        student, noise.detach() + torch.eye(12)[0].view(1, 12, 1, 1, 1), (1.0,), 0, {}, Rng(0), attached=False
    )
    assert (moved - x)[:, 6:].abs().max() > 1e-4


def test_self_roll_outs_leave_at_a_step_that_is_drawn():
    ctx = context(student=network())
    assert {only(SelfRollout(times=TIMES), ctx, attached=False).meta["step"] for _ in range(12)} == {0, 1, 2}
    event = only(SelfRollout(times=TIMES), ctx)
    assert event.x.shape == (4, *SHAPE) and event.x.requires_grad


def test_clips_of_n_steps_and_of_one_more():
    event = only(TwoRollouts(times=TIMES), context(student=network()))
    assert event.x.requires_grad and not event.real.requires_grad
    assert event.cond["steps"].unique().tolist() == [event.meta["step"]]
    assert thinned((1.0, 0.75, 0.5, 0.25), 2) == (1.0, 0.5) and thinned(TIMES, 1) == (1.0,)


def test_given_frames_stay_bit_for_bit_and_get_no_gradient():
    student, motion = Role("student", network(chunk=0)), torch.randn(2, 2, 8, 1, 1)
    noise = torch.randn(2, *SHAPE)
    for k in range(3):
        x = continued(student, noise, motion, TIMES, k, {}, Rng(0), attached=True)
        assert torch.equal(x[:, :2], motion) and x[:, 2:].requires_grad


def test_a_continuation_begins_with_the_data_or_with_the_students_own():
    ctx, seen = context(student=network(chunk=0)), set()
    for _ in range(12):
        event = only(Continuation(times=TIMES, chunks=3, motion=1), ctx)
        own = not torch.equal(event.x[:, :1], event.real[:, :1])
        assert own == (event.meta["chunk"] > 0)
        seen.add(event.meta["chunk"])
    assert seen == {0, 1, 2}


def test_long_clips_share_frames_where_they_meet():
    student = Role("student", network(chunk=0))
    sampler = Continued(times=TIMES, steps=3, motion=2)
    motion, noise = torch.randn(2, 2, 8, 1, 1), torch.randn(2, 20, 8, 1, 1)
    x = sampler.sample(student, noise, {"motion": motion}, Rng(0))
    assert x.shape == (2, 22, 8, 1, 1) and torch.equal(x[:, :2], motion)
    assert sampler.sample(student, noise, None, Rng(0)).shape == (2, 20, 8, 1, 1)


def test_the_first_chunk_takes_more_steps():
    student, noise = Role("student", network()), torch.randn(2, *SHAPE)
    both, one = (FirstChunk(times=TIMES, steps=3, first_steps=n, later_steps=1) for n in (3, 1))
    first = ChunkSampler(times=TIMES, steps=3).sample(student, noise, None, Rng(0))
    assert torch.allclose(both.sample(student, noise, None, Rng(0))[:, :3], first[:, :3], atol=1e-6)
    assert not torch.allclose(one.sample(student, noise, None, Rng(0))[:, :3], first[:, :3], atol=1e-3)
    assert both.calls(student.denoiser.path) == 1 and one.with_steps(3).calls(student.denoiser.path) == 3


def test_a_window_changes_what_later_chunks_see_and_the_network_stays():
    module = network()
    student, noise = Role("student", module), torch.randn(2, *SHAPE)
    full = ChunkSampler(times=TIMES, steps=3).sample(student, noise, None, Rng(0))
    windowed = Windowed(times=TIMES, steps=3, reach=Reach(chunk=3, window=3, sink=0)).sample(
        student, noise, None, Rng(0)
    )
    assert torch.allclose(windowed[:, :6], full[:, :6], atol=1e-5)
    assert not torch.allclose(windowed[:, 9:], full[:, 9:], atol=1e-4) and module.network.reach == Reach(chunk=3)


@pytest.mark.parametrize("mode", ["autoregressive", "parallel", "none"])
def test_one_pass_on_a_spoilt_history_is_what_a_cache_gives(mode):
    ctx = context(student=network())
    event = only(Resampled(mode=mode), ctx)
    student, history, x_t, t = ctx.roles["student"], event.targets["history"], event.x_t, event.t
    assert torch.equal(history, event.x) is False and not history.requires_grad
    cache = student.ask(history[:, :6], 0.0, {}, cache=_empty()).cache
    said = student.ask(x_t[:, 6:9], t[:, 6:9], {}, cache=cache).velocity
    assert torch.allclose(event.prediction.velocity[:, 6:9], said, atol=1e-5)
    truth = Prediction("x0", event.targets["velocity"], x_t, t, event.prediction.path).value
    assert torch.equal(truth, event.targets["velocity"])


def _empty():
    from distill.core import Cache

    return Cache()


def test_modes_of_spoiling_differ_after_the_first_chunk_only():
    drawn = {}
    data = torch.randn(4, *SHAPE)
    for mode in ("autoregressive", "parallel", "none"):
        ctx = context(student=network())
        (event,) = Resampled(mode=mode).events(Batch(4, data, shape=SHAPE), ctx, attached=False)
        drawn[mode] = event.targets["history"]
    assert torch.equal(drawn["none"], data)
    assert torch.allclose(drawn["autoregressive"][:, :3], drawn["parallel"][:, :3], atol=1e-6)
    assert not torch.allclose(drawn["autoregressive"][:, 3:], drawn["parallel"][:, 3:], atol=1e-4)


def test_data_are_partly_the_students_own():
    ctx, data = context(student=network(chunk=0)), torch.randn(64, *SHAPE)
    inner = ChunkNoise(times=(0.0,))
    ctx.roles["student"].denoiser.network.reach = Reach(chunk=3)
    (event,) = Mixed(inner=inner).events(Batch(64, data, shape=SHAPE), ctx, attached=False)
    kept = torch.stack([torch.equal(a, b) * torch.ones(()) for a, b in zip(event.real, data, strict=True)])
    assert 0.3 < float(kept.mean()) < 0.7
