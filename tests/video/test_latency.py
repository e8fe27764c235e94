"""Waits are measured frame by frame, and drawn so that a page can hold them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from distill.core import Role, Sampler
from distill.core.sampling import Consistency
from distill.video import latency
from distill.video.attention import Reach
from distill.video.streaming import ChunkSampler


@pytest.fixture
def role(spoken):
    denoiser = spoken("video-dit")
    denoiser.network.reach = Reach(chunk=2)
    return Role("student", denoiser)


def test_a_clip_of_chunks_is_ready_chunk_by_chunk_and_a_whole_one_at_once(role):
    cond = role.denoiser.example(1)[2]
    parts = latency.waits(role, ChunkSampler(times=(1.0, 0.5), solver=Consistency()), cond)
    whole = latency.waits(role, Sampler(steps=2), cond)
    assert 0 < parts[0] == parts[1] < parts[2] == parts[3] and len(set(whole)) == 1 and len(whole) == 4


def test_the_plot_is_an_svg_with_a_line_for_each_way():
    lines = {"teacher, 50 steps": [2.0] * 4, "student <4>": [0.02, 0.02, 0.4, 0.4]}
    drawn = ElementTree.fromstring(latency.plot(lines))
    texts = {each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"teacher, 50 steps", "student <4>", "10 ms", "10 s", "frame 4"} <= texts
    levels = [each.get("points") for each in drawn.iter("{http://www.w3.org/2000/svg}polyline")]
    heights = [[float(point.split(",")[1]) for point in line.split()] for line in levels]
    assert len(set(heights[0])) == 1 and heights[0][0] < heights[1][-1] < heights[1][0]
    assert "student <4>: first frame after 20 ms, last after 400 ms" in latency.told(lines)
