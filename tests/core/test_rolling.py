"""A rolling cache says what an ordinary one says, in memory that never grows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core import Cache, DistillError, RollingCache
from distill.core.cache import Span


def entries(start, count, tokens=1):
    key = torch.arange(start * tokens, (start + count) * tokens, dtype=torch.float32).view(1, 1, -1, 1)
    return key, 10 * key


def span(start, stop, window, sink):
    return Span(start, stop, max(0, start - window), sink)


def shift(keys, by):
    return keys + 100 * by


@settings(deadline=None)
@given(
    window=st.integers(1, 6), sink=st.integers(0, 4), room=st.integers(3, 9), tokens=st.integers(1, 2),
    moving=st.booleans(), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=12),
)  # fmt: skip
def test_it_reads_what_an_ordinary_cache_reads(window, sink, room, tokens, moving, sizes):
    caches, start = [Cache(), RollingCache.of(sink=sink, window=window, room=room)], 0
    for size in sizes:
        seen = span(start, start + size, window, sink)
        drafts = [cache.draft(range(start, start + size), tokens) for cache in caches]
        for draft in drafts:
            draft.write("layer", *entries(start, size, tokens))
        mine, theirs = (draft.read("layer", seen, shift if moving else None) for draft in drafts)
        assert torch.equal(mine[0], theirs[0]) and torch.equal(mine[1], theirs[1])
        caches = [draft.commit(seen) for draft in drafts]
        assert caches[0].positions.tolist() == caches[1].positions.tolist()
        start += size


def test_its_memory_stays_where_it_is():
    cache, seen = RollingCache.of(sink=1, window=3, room=2), set()
    for n in range(50):
        cache = cache.commit({"layer": entries(n, 1)})
        seen.add((cache.store.layers["layer"][0].data_ptr(), cache.store.layers["layer"][0].shape))
    assert len(seen) == 1 and len(cache.store.owner) <= 6
    assert cache.plain().layers["layer"][0].flatten().tolist()[0] == 0


def test_an_older_value_serves_until_its_entries_are_overwritten():
    first = RollingCache.of(window=2, room=2).commit({"layer": entries(0, 2)})
    second = first.commit({"layer": entries(2, 1)})
    again = first.commit({"layer": entries(2, 1)})
    with pytest.raises(DistillError, match="overwritten by a later call"):
        second.commit({"layer": entries(3, 1)})
    assert again.context().next_position == 2 and again.commit({"layer": entries(3, 1)}).next_position == 4


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"other": entries(2, 1)}, "belongs to another network"),
        ({"layer": tuple(part.expand(2, -1, -1, -1) for part in entries(2, 1))}, "or to another batch"),
    ],
)
@pytest.mark.parametrize("empty", [Cache(), RollingCache.of(window=3, room=2)])
def test_entries_of_another_network_are_refused(empty, layers, said):
    with pytest.raises(DistillError, match=said):
        empty.fork().commit({"layer": entries(0, 2)}).commit(layers)


def test_memory_that_is_too_small_says_so():
    with pytest.raises(DistillError, match="do not fit"):
        RollingCache.of(window=2, room=1).commit({"layer": entries(0, 4)})
    with pytest.raises(DistillError, match="needs a window and room"):
        RollingCache.of(window=0, room=1)
