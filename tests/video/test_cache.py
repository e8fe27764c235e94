"""A stream with a cache says what one masked pass over the whole clip says, for every denoiser."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.core import Cache, DistillError, RollingCache
from distill.video.attention import Reach, routed

reaches = st.builds(
    Reach,
    chunk=st.integers(1, 5), window=st.integers(0, 6), sink=st.integers(0, 4), moving=st.booleans(),
    top=st.sampled_from([0, 0, 1, 3]),
)  # fmt: skip
often = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def caches(reach):
    """An ordinary cache, and a rolling one with little room, where the network has a window."""
    rolling = RollingCache.of(sink=reach.sink, window=reach.window, room=2 * reach.chunk + 1) if reach.window else None
    return [Cache(), *([rolling] if rolling else [])]


@torch.no_grad()
def streamed(denoiser, clip, cache, chunk):
    """Chunk by chunk; each is asked twice, and what the first call left is dropped."""
    said = []
    for start in range(0, clip.x.shape[1], chunk):
        x, t, cond = clip.part(start, start + chunk)
        denoiser.predict(-x, t, cond, cache=cache)
        prediction = denoiser.predict(x, t, cond, cache=cache)
        said.append(prediction.value)
        cache = prediction.cache
    return torch.cat(said, 1)


@often
@given(reach=reaches, frames=st.integers(2, 13), seed=st.integers(0, 99))
def test_one_masked_pass_equals_the_stream(name, spoken, clip, reach, frames, seed):
    denoiser = spoken(name)
    denoiser.network.reach = reach
    whole = clip(denoiser, frames, seed=seed)
    expected = denoiser.predict(whole.x, whole.t, whole.cond).value.detach()
    for cache in caches(reach):
        torch.testing.assert_close(streamed(denoiser, whole, cache, reach.chunk), expected, **CLOSE)


@often
@given(reach=reaches, frames=st.integers(2, 12), data=st.data())
@torch.no_grad()
def test_a_frame_changes_no_earlier_chunk_and_its_own(name, spoken, clip, reach, frames, data):
    denoiser = spoken(name)
    denoiser.network.reach = reach
    whole = clip(denoiser, frames)
    frame = data.draw(st.integers(0, frames - 1))
    before = denoiser.predict(whole.x, whole.t, whole.cond).value
    whole.x[:, frame] += 1
    change = (denoiser.predict(whole.x, whole.t, whole.cond).value - before).abs().amax((0, 2, 3, 4))
    start = frame // reach.chunk * reach.chunk
    assert change[:start].sum() == 0 and change[start : start + reach.chunk].min() > 0


@torch.no_grad()
def rolled(denoiser, clip, cache, chunk, fold):
    """Two steps a chunk; the finished chunk is written by a call of its own, or by the next chunk's first."""
    said, calls = [], 0
    for start in range(0, clip.x.shape[1], chunk):
        x, _, cond = clip.part(start, start + chunk)
        for t in (0.9, 0.4):
            prediction = denoiser.predict(x, t, cond, cache=cache)
            x, calls = prediction.x0, calls + 1
            cache = prediction.cache.context() if cache.pending else cache
        said.append(x)
        if fold:
            cache = cache.defer(x, cond)
        else:
            cache, calls = denoiser.predict(x, 0.0, cond, cache=cache).cache, calls + 1
    return torch.cat(said, 1), calls


@often
@given(reach=reaches, chunks=st.integers(1, 6))
def test_a_folded_commit_says_the_same_with_one_call_less_a_chunk(name, spoken, clip, reach, chunks):
    denoiser = spoken(name)
    denoiser.network.reach = reach
    whole = clip(denoiser, chunks * reach.chunk)
    expected, calls = rolled(denoiser, whole, Cache(), reach.chunk, fold=False)
    scale = expected.abs().max()
    for cache in caches(reach):
        found, fewer = rolled(denoiser, whole, cache, reach.chunk, fold=True)
        assert fewer == calls - chunks
        torch.testing.assert_close(found / scale, expected / scale, **CLOSE)


@torch.no_grad()
def test_clean_history_and_noisy_chunks_in_one_call(name, spoken, clip):
    """Teacher forcing: the same as each noisy chunk on its own, after the clean ones before it."""
    denoiser = spoken(name)
    denoiser.network.reach = Reach(chunk=2, window=4, sink=1)
    clean, noisy = clip(denoiser, 8, seed=1), clip(denoiser, 8, seed=2)
    noisy.cond = clean.cond
    found = denoiser.predict(noisy.x, noisy.t, clean.cond, cache=Cache().defer(clean.x, clean.cond).at(0)).value
    cache = Cache()
    for start in range(0, 8, 2):
        x, t, cond = noisy.part(start, start + 2)
        expected = denoiser.predict(x, t, cond, cache=cache).value
        torch.testing.assert_close(found[:, start : start + 2], expected, **CLOSE)
        cache = denoiser.predict(clean.part(start, start + 2)[0], 0.0, cond, cache=cache).cache


@torch.no_grad()
def test_before_the_window_fills_all_is_seen_and_then_the_sinks_and_the_window(name, spoken, clip):
    denoiser, whole = spoken(name), clip(spoken(name), 9)
    said = []
    for reach in (Reach(chunk=1), Reach(chunk=1, window=4, sink=2)):
        denoiser.network.reach = reach
        said.append(denoiser.predict(whole.x, whole.t, whole.cond).value)
    gap = (said[0] - said[1]).abs().amax((0, 2, 3, 4))
    assert gap[:7].max() < 1e-5 and gap[7:].min() > 1e-4


@torch.no_grad()
def test_moved_sinks_have_the_keys_of_their_new_positions(name, spoken, clip):
    denoiser, whole = spoken(name), clip(spoken(name), 2)
    denoiser.network.reach = Reach(chunk=2)
    here = denoiser.predict(*whole.part(0, 2), cache=Cache()).cache
    there = denoiser.predict(*whole.part(0, 2), cache=Cache().at(7)).cache
    move = denoiser.network.rope.move if name == "video-dit" else denoiser.network.desk.move
    first = next(iter(here.layers))
    rounding = 1e-3 if name == "ltx-video" else 1e-5  # diffusers turns by up to 15,000 rad in single precision
    torch.testing.assert_close(move(here.layers[first][0], 7), there.layers[first][0], atol=rounding, rtol=0)


@torch.no_grad()
def test_texts_are_read_once(name, spoken, clip):
    denoiser, whole = spoken(name), clip(spoken(name), 4)
    denoiser.network.reach = Reach(chunk=2)
    first = denoiser.predict(*whole.part(0, 2), cache=Cache())
    second = denoiser.predict(*whole.part(2, 4), cache=first.cache)
    assert first.cache.fixed and all(
        kept[1][0] is second.cache.fixed[layer][1][0] for layer, kept in first.cache.fixed.items()
    )
    whole.cond["text"] = whole.cond["text"] + 1
    other = denoiser.predict(*whole.part(2, 4), cache=first.cache)
    fresh = denoiser.predict(*whole.part(2, 4), cache=Cache(first.cache.layers, first.cache.positions))
    torch.testing.assert_close(other.value, fresh.value)
    assert (other.value - second.value).abs().max() > 1e-4


def test_gradient_runs_through_a_cache_and_stops_where_it_is_detached(spoken, clip):
    denoiser, whole = spoken("video-dit"), clip(spoken("video-dit"), 4)
    denoiser.network.reach = Reach(chunk=2)
    x, t, cond = whole.part(0, 2)
    kept = denoiser.predict(x.requires_grad_(), t, cond, cache=Cache()).cache
    for cache, reached in ((kept, True), (kept.detach(), False)):
        value = denoiser.predict(*whole.part(2, 4), cache=cache).value
        found = torch.autograd.grad(value.sum(), [x], allow_unused=True)[0]
        assert (found is not None and bool(found.any())) is reached


def test_top_frames_are_those_of_a_sort_by_hand():
    draw = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 2, 3, 4, generator=draw), torch.randn(1, 2, 15, 4, generator=draw)
    mask = routed(q, k, 4, 3, 2)
    for head in range(2):
        for row in range(3):
            scores = [float(q[0, head, row] @ k[0, head, 3 * f : 3 * f + 3].mean(0)) for f in range(4)]
            best = sorted(range(4), key=lambda f: -scores[f])[:2]  # noqa: B023
            assert {int(e) // 3 for e in mask[0, head, row].nonzero()} == {*best, 4}


@torch.no_grad()
def test_routing_to_all_frames_is_dense_attention(name, spoken, clip):
    denoiser, whole = spoken(name), clip(spoken(name), 6)
    said = []
    for top in (0, 4, 2):
        denoiser.network.reach = Reach(chunk=2, top=top)
        said.append(denoiser.predict(whole.x, whole.t, whole.cond).value)
    torch.testing.assert_close(said[1], said[0], **CLOSE)
    assert (said[2] - said[0]).abs().max() > 1e-4


# ---------------------------------------------------------------- memory


def memory(cache):
    """Addresses and sizes of what a rolling cache holds."""
    return {name: [(p.data_ptr(), p.shape) for p in made] for name, made in cache.store.layers.items()}


@torch.no_grad()
def test_a_rolling_cache_never_grows_and_never_moves(name, spoken, clip):
    denoiser = spoken(name)
    denoiser.network.reach = reach = Reach(chunk=2, window=4, sink=1)
    cache, seen = RollingCache.of(sink=1, window=4, room=5), []
    for n in range(40):
        x, t, cond = clip(denoiser, 2, seed=n).part(0, 2)
        cache = denoiser.predict(x, t, cond, cache=cache).cache
        seen.append(memory(cache))
    assert len(cache.positions) // (len(cache.positions) // len(cache.positions.unique())) == 1 + 4 + reach.chunk
    assert all(each == seen[0] for each in seen)


@torch.no_grad()
def test_a_fork_rolls_on_its_own_and_a_stale_cache_is_refused(spoken, clip):
    denoiser, whole = spoken("video-dit"), clip(spoken("video-dit"), 6)
    denoiser.network.reach = Reach(chunk=2, window=2)
    first = denoiser.predict(*whole.part(0, 2), cache=RollingCache.of(window=2, room=2)).cache
    left = denoiser.predict(*whole.part(2, 4), cache=first.fork()).value
    right = denoiser.predict(*whole.part(2, 4), cache=first)
    torch.testing.assert_close(left, right.value)
    other = denoiser.predict(*whole.part(0, 2), cache=first)
    with pytest.raises(DistillError, match="overwritten by a later call"):
        denoiser.predict(*whole.part(4, 6), cache=right.cache)
    denoiser.predict(*whole.part(4, 6), cache=other.cache)


@torch.no_grad()
def test_a_rolling_cache_as_an_ordinary_one(spoken, clip):
    denoiser, whole = spoken("video-dit"), clip(spoken("video-dit"), 8)
    denoiser.network.reach = Reach(chunk=2, window=2, sink=1)
    rolling, plain = RollingCache.of(sink=1, window=2, room=2), Cache()
    for start in range(0, 8, 2):
        rolling, plain = (denoiser.predict(*whole.part(start, start + 2), cache=c).cache for c in (rolling, plain))
    same = rolling.plain()
    assert same.positions.tolist() == plain.positions.tolist()
    for layer, made in plain.layers.items():
        torch.testing.assert_close(same.layers[layer], made)
    assert set(rolling.evict(sink=1, window=1).positions.tolist()) == {0, 7}


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("kind", ["plain", "rolling"])
@torch.no_grad()
def test_a_cache_of_another_network_is_refused(spoken, clip, kind):
    mine, other = spoken("video-dit"), spoken("wan")
    for denoiser in (mine, other):
        denoiser.network.reach = Reach(chunk=2, window=4)
    cache = {"plain": Cache(), "rolling": RollingCache.of(window=4, room=4)}[kind]
    x, t, cond = clip(other, 2).part(0, 2)
    written = other.predict(x, t, cond, cache=cache).cache
    with pytest.raises(DistillError, match="belongs to another network|entries a position"):
        mine.predict(*clip(mine, 2).part(0, 2), cache=written)


@torch.no_grad()
def test_a_window_beyond_the_memory_is_refused(spoken, clip):
    denoiser = spoken("video-dit")
    denoiser.network.reach = Reach(chunk=2, window=6)
    cache = RollingCache.of(window=2, room=2)
    with pytest.raises(DistillError, match="looks back to position"):
        for n in range(4):
            cache = denoiser.predict(*clip(denoiser, 2, seed=n).part(0, 2), cache=cache).cache


def test_no_gradient_through_a_rolling_cache(spoken, clip):
    denoiser = spoken("video-dit")
    denoiser.network.reach = Reach(chunk=2, window=2)
    with pytest.raises(DistillError, match="no gradient runs through"):
        denoiser.predict(*clip(denoiser, 2).part(0, 2), cache=RollingCache.of(window=2, room=2))
