"""What the claim of ASD and FFE spends steps with."""

from __future__ import annotations

import pytest
import torch

from distill.core import Rng, Role
from distill.core.sampling import DDIM, Consistency
from distill.methods import toys as plain
from distill.video import toys
from distill.video.claims import asd_ffe
from distill.video.samplers import FirstChunk
from distill.video.streaming import ChunkSampler
from distill.video.trajectories import rolled


def role():
    torch.manual_seed(0)
    return Role("student", asd_ffe.walker())


@pytest.mark.parametrize("student", [asd_ffe.walker(), toys.linear(asd_ffe.TIMES, 6, 2)])
def test_students_of_toys_remember_the_chunk_before_in_every_step(student):
    """A chunk that the next call writes, and a call of its own for each, make one clip."""
    for parameter in student.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    made, noise = Role("student", student), torch.randn(4, *student.shape)
    streamed = ChunkSampler(times=asd_ffe.TIMES, steps=2, solver=DDIM()).sample(made, noise)
    with torch.no_grad():
        written = rolled(made, noise, asd_ffe.TIMES, 1, {}, Rng(0), attached=False, solver=DDIM())
    assert torch.allclose(streamed, written, atol=1e-5)


def test_steps_are_spent_frame_by_frame():
    sampler = FirstChunk(times=asd_ffe.TIMES, steps=2, solver=Consistency(), first_steps=2, later_steps=1)
    said = asd_ffe.clips(role(), sampler, (2, 1, 1), 8, 0)
    assert torch.allclose(said, plain.draw(role(), sampler, 8, 0), atol=1e-5)
    assert not torch.allclose(said, asd_ffe.clips(role(), sampler, (1, 1, 2), 8, 0), atol=1e-2)
