"""The cache is a value: every operation returns a new one, and none changes what is there."""

from __future__ import annotations

import torch

from distill.core import Cache


def entries(*values, grad=False):
    key = torch.tensor(values, dtype=torch.float32).view(1, 1, -1, 1)
    return {"layer": (key.clone().requires_grad_(grad), 10 * key)}


def keys(cache):
    return cache.layers["layer"][0].flatten().tolist()


def test_commits_append_and_count_positions():
    empty = Cache()
    two = empty.commit(entries(1, 2)).commit(entries(3))
    assert keys(two) == [1, 2, 3] and two.positions.tolist() == [0, 1, 2] and two.next_position == 3
    assert len(empty) == 0 and empty.next_position == 0
    assert two.layers["layer"][1].flatten().tolist() == [10, 20, 30]


def test_forks_grow_apart():
    base = Cache().commit(entries(1))
    fork = base.fork()
    left, right = base.commit(entries(2)), fork.commit(entries(3))
    assert (keys(base), keys(left), keys(right)) == ([1], [1, 2], [1, 3])


def test_eviction_keeps_sinks_and_window_and_goes_on_counting():
    cache = Cache().commit(entries(*range(8))).evict(sink=1, window=3)
    assert keys(cache) == [0, 5, 6, 7] and cache.positions.tolist() == [0, 5, 6, 7]
    assert cache.commit(entries(9)).positions.tolist() == [0, 5, 6, 7, 8]
    assert cache.evict(sink=2, window=2) is cache


def test_selection_orders_entries():
    cache = Cache().commit(entries(5, 6, 7)).select(torch.tensor([2, 0]))
    assert keys(cache) == [7, 5] and cache.positions.tolist() == [2, 0]


def test_detaching_cuts_the_gradient_of_the_copy_only():
    cache = Cache().commit(entries(1, grad=True))
    assert cache.layers["layer"][0].requires_grad and not cache.detach().layers["layer"][0].requires_grad


def test_entries_of_one_position_stay_together():
    cache = Cache().commit(entries(*range(6)), torch.tensor([0, 0, 1, 1, 2, 2])).evict(sink=1, window=1)
    assert keys(cache) == [0, 1, 4, 5] and cache.positions.tolist() == [0, 0, 2, 2] and cache.next_position == 3
    assert keys(cache.before(2)) == [0, 1]


def test_what_the_last_call_saw_is_all_but_its_own_entries():
    cache = Cache().commit(entries(1, 2)).commit(entries(3))
    assert keys(cache.context()) == [1, 2]


def test_deferred_states_are_kept_and_taken():
    cache = Cache().defer(torch.ones(1, requires_grad=True), {"label": 1}, t=0.1)
    pending, rest = cache.detach().take()
    assert pending.cond == {"label": 1} and pending.t == 0.1 and not pending.x.requires_grad
    assert rest.pending is None and cache.pending is not None
