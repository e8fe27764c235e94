"""How long one waits for each frame of a clip: measured, and drawn."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor

from distill.core import Batch, Rng, Role, Sampler, tree
from distill.core.contracts import Way
from distill.core.probe import as_in_use
from distill.video.streaming import ChunkSampler

COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#b07d12")
WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 40
"""Margins of the plot in pixels."""


@torch.no_grad()
def waits(role: Role, sampler: Sampler, cond: Mapping[str, Any], seed: int = 0) -> list[float]:
    """Seconds from the order of one clip until each of its frames is ready."""
    device = next(role.module.parameters()).device
    told = {name: tree.to(value, device) for name, value in cond.items()}
    rng = Rng(seed, device=device)
    noise: Any = Batch(1, shape=role.denoiser.shape).noise(rng, "sample/start")
    found: list[float] = []
    with as_in_use(role):
        before = time.perf_counter()
        for part in _parts(role, sampler, noise, told, rng):
            ready = part.cpu()  # what a device still computes has to arrive
            found += [time.perf_counter() - before] * ready.shape[1]
    return found


def _parts(role: Role, sampler: Sampler, noise: Tensor, cond: Mapping[str, Any], rng: Rng) -> Iterator[Tensor]:
    """A clip chunk by chunk, or whole where it is made as a whole."""
    if isinstance(sampler, ChunkSampler):
        yield from sampler.chunks(role, noise, cond, rng)
    else:
        yield sampler.sample(role, noise, cond, rng)


def measured(ways: Mapping[str, Way]) -> dict[str, list[float]]:
    """The waits of each way; it has drawn before, so that none pays for what is set up once."""
    return {name: waits(way.role, way.sampler, way.conditions(1)) for name, way in ways.items()}


def told(lines: Mapping[str, Sequence[float]]) -> str:
    """The plot in words."""
    said = (f"{name}: first frame after {_time(each[0])}, last after {_time(each[-1])}" for name, each in lines.items())
    return f"time until each frame of a clip is ready, measured once; {'; '.join(said)}"


def plot(lines: Mapping[str, Sequence[float]]) -> str:
    """An SVG: over the number of a frame, the time at which it is ready, on a logarithmic axis."""
    every = [wait for line in lines.values() for wait in line]
    low, high = math.floor(math.log10(max(min(every), 1e-6))), math.ceil(math.log10(max(*every, 1e-5)))
    frames, span = max(map(len, lines.values())), max(1, high - low)

    def place(frame: float, wait: float) -> str:
        x, y = frame / frames, (math.log10(max(wait, 1e-6)) - low) / span
        return f"{LEFT + x * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM):.1f}"

    rules = "".join(_rule(place(0, 10.0**power), 10.0**power) for power in range(low, low + span + 1))
    drawn = "".join(
        f'<polyline fill="none" stroke="{colour}" stroke-width="2.5" points="{_steps(line, place)}"/>'
        f'<text x="{LEFT + 8 + 230 * n}" y="18" fill="{colour}">{escape(name)}</text>'
        for n, ((name, line), colour) in enumerate(zip(lines.items(), COLOURS, strict=False))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui,sans-serif" font-size="13"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<g fill="#444">{rules}<text x="{LEFT}" y="{HEIGHT - 20}">frame 1</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 20}" text-anchor="end">frame {frames}</text>'
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">time until a frame is ready</text></g>'
        f"{drawn}</svg>\n"
    )


def _steps(line: Sequence[float], place: Any) -> str:
    """Each frame as a level stretch of its width."""
    return " ".join(f"{place(n, wait)} {place(n + 1, wait)}" for n, wait in enumerate(line))


def _rule(at: str, wait: float) -> str:
    y = float(at.partition(",")[2])
    return (
        f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#ccc"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_time(wait)}</text>'
    )


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
