"""Random streams: named, independent, equal for every split of a batch, and resumable."""

from __future__ import annotations

import pytest
import torch

from distill.core import Masked, Ragged, Rng, tree

DRAWS = {
    "normal": lambda rng: rng.normal(8, 3),
    "uniform": lambda rng: rng.uniform(8),
    "integers": lambda rng: rng.integers(5, 8),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_global_generator_stays_where_it_is(draw):
    before = torch.get_rng_state()
    draw(Rng(0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", DRAWS)
def test_ranks_together_draw_what_one_process_draws(name, world):
    alone = DRAWS[name](Rng(3))
    size = 8 // world
    share = {
        "normal": lambda rng: rng.normal(size, 3), "uniform": lambda rng: rng.uniform(size),
        "integers": lambda rng: rng.integers(5, size),
    }[name]  # fmt: skip
    assert torch.equal(torch.cat([share(Rng(3, rank=rank, world=world)) for rank in range(world)]), alone)


def test_streams_do_not_disturb_each_other():
    plain, busy = Rng(1), Rng(1)
    busy.normal(100, stream="other")
    assert torch.equal(plain.normal(4), busy.normal(4))
    assert not torch.equal(plain.normal(4, stream="a"), plain.normal(4, stream="b"))


def test_seeds_and_forks_differ_and_repeat():
    assert not torch.equal(Rng(1).normal(4), Rng(2).normal(4))
    assert torch.equal(Rng(1).fork("x").normal(4), Rng(1).fork("x").normal(4))
    assert not torch.equal(Rng(1).fork("x").normal(4), Rng(1).fork("y").normal(4))


def test_a_choice_is_the_same_on_every_rank():
    ranks = [Rng(5, rank=rank, world=3) for rank in range(3)]
    assert len({tuple(rng.choice(100) for _ in range(6)) for rng in ranks}) == 1


def test_a_restored_generator_goes_on_where_it_was():
    rng = Rng(0)
    rng.normal(5), rng.uniform(3)
    saved = {name: position.clone() for name, position in rng.state().items()}
    expected = rng.normal(4), rng.uniform(4), rng.normal(2, stream="later")
    rng.restore(saved)
    got = rng.normal(4), rng.uniform(4), rng.normal(2, stream="later")
    assert all(map(torch.equal, expected, got))


def test_noise_has_the_structure_of_the_state():
    state = {
        "a": torch.zeros(2, 3, dtype=torch.float64),
        "b": Ragged(torch.zeros(5, 2), torch.tensor([2, 3])),
        "c": Masked(torch.zeros(2, 4), torch.ones(2, 4, dtype=torch.bool)),
    }
    noise = Rng(0).normal_like(state)
    assert noise["a"].dtype == torch.float64 and noise["b"].lengths is state["b"].lengths
    assert all(leaf.std() > 0.1 for leaf in tree.leaves(noise))


def test_ragged_noise_differs_between_ranks():
    state = Ragged(torch.zeros(5, 2), torch.tensor([2, 3]))
    a, b = (Rng(0, rank=rank, world=2).normal_like(state).values for rank in range(2))
    assert not torch.equal(a, b)
