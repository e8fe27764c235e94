"""Streaming: what a chunk costs as a clip gets longer, against no cache, and against the roll-out of Self-Forcing."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from table import LARGEST, Row, duel
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from distill.core import Denoiser, Rng, Role
from distill.core.sampling import Consistency
from distill.video.networks import VideoDiT
from distill.video.streaming import ChunkSampler, Stream

CHUNK, WINDOW, SINK = 3, 9, 3
TIMES = (1.0, 0.9375, 0.8333, 0.625)
"""[1000, 750, 500, 250] at shift 5, as Self-Forcing's configuration has them."""
WORDS, LETTERS = 64, 128
SMALL, LARGE = 16, 32
"""Pixels of a side: 16 and 64 tokens a frame."""
MIB, PAGE = 2**20, resource.getpagesize()


def network(side: int = SMALL, **reach: int) -> Denoiser:
    """A video transformer of the default size, 2 M parameters, with text; all of its weights are random."""
    reach = reach or {"chunk": CHUNK, "window": WINDOW, "sink": SINK}
    draw = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"size": (side, side), "text": LETTERS, "words": WORDS, "reach": reach}
    denoiser = VideoDiT(channels=4, frames=CHUNK, **options).build().eval()
    with torch.no_grad():
        for weight in denoiser.parameters():
            scale = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.02
            weight.copy_(torch.randn(weight.shape, generator=draw) * scale)
    return denoiser


def text() -> Tensor:
    """A prompt."""
    return torch.randn(1, WORDS, LETTERS, generator=torch.Generator().manual_seed(1))


class Ours:
    """Our stream, a chunk a call."""

    def __init__(self, denoiser: Denoiser) -> None:
        sampler = ChunkSampler(times=TIMES, solver=Consistency())
        self.stream = Stream.of(Role("student", denoiser), sampler, Rng(0))
        self.cond, self.shape = {"text": text()}, denoiser.shape

    @torch.inference_mode()
    def __call__(self) -> Tensor:
        assert self.stream.rng is not None
        noise = self.stream.rng.normal(1, CHUNK, *self.shape[1:], stream="noise")  # type: ignore[index]
        return self.stream.chunk(noise, self.cond)


class ByHand:
    """The roll-out of guandeh17/Self-Forcing with a network's weights, rebuilt from how its pipeline goes about it.

    Each chunk is denoised in as many calls as there are times, and once more at time zero to write its keys. Keys are
    turned as complex numbers in double precision, and lie as [B, length, heads, dim] in memory of sinks, window and
    chunk, whose rolling part is moved by the first call of every chunk once it is full; where it ends is a tensor. A
    text is projected by every call, and its keys are kept; x0 is made in double precision, its level looked up in a
    list of a thousand. Left out, in its favour: attention in bfloat16, and queries, keys and values one by one.
    """

    def __init__(self, denoiser: Denoiser, double: bool = True) -> None:
        self.net: Any = denoiser.network
        self.shape, self.double = denoiser.shape, double
        self.rng, self.text, self.start = Rng(0), text(), 0
        rows = denoiser.shape[2] // self.net.patch[1]  # type: ignore[index]
        self.grid, self.tokens = torch.tensor([[CHUNK, rows, rows]]), rows * rows
        self.levels = torch.cat([torch.tensor(sorted({*TIMES}, reverse=True)), torch.linspace(0.6, 0, 996)])
        places = torch.arange(4096, dtype=torch.float64)
        self.turns = [torch.polar(torch.ones(()).double(), places[:, None] * rate) for rate in self.net.rope.rates]
        heads = self.net.blocks[0].heads
        self.size = (SINK + WINDOW + CHUNK) * self.tokens
        empty = (1, self.size, heads, self.net.inlet.out_features // heads)
        self.memory: list[dict[str, Any]] = [
            {"k": torch.zeros(empty), "v": torch.zeros(empty), "end": torch.tensor([0]), "last": torch.tensor([0])}
            for _ in self.net.blocks
        ]

    @torch.inference_mode()
    def __call__(self) -> Tensor:
        x = self.rng.normal(1, CHUNK, *self.shape[1:], stream="noise")  # type: ignore[index]
        for n, t in enumerate(TIMES):
            x0 = self.clean(x, t)
            if n + 1 < len(TIMES):
                level = self.level(TIMES[n + 1])
                x = (1 - level) * x0 + level * self.rng.normal_like(x0, stream="sample")
        self.clean(x0, 0.0)
        self.start += CHUNK
        return x0

    def level(self, t: float) -> Tensor:
        """The level of a time, one a frame."""
        gaps = (self.levels[None] - torch.full((CHUNK,), t)[:, None]).abs()
        return self.levels[gaps.argmin(1)].reshape(1, -1, 1, 1, 1)

    def clean(self, x: Tensor, t: float) -> Tensor:
        """The clean chunk that the network expects; its keys stand in memory afterwards."""
        said = self.ask(x, t)
        return (x.double() - self.level(t).double() * said.double()).to(x.dtype)

    def ask(self, x: Tensor, t: float) -> Tensor:
        """What the network says."""
        net = self.net
        tokens, grid = net._patches(x)
        times = torch.full((CHUNK,), 1000 * t)
        told = silu(net.time(times)[None] + net.still({}, x)[:, None])
        words, h = net.text(self.text), net.inlet(tokens)
        for block, memory in zip(net.blocks, self.memory, strict=True):
            h = self.block(block, memory, h, told, words)
        shift, scale = net.modulation(told)[:, :, None].chunk(2, -1)
        out = (net.norm(h).unflatten(1, (CHUNK, -1)) * (1 + scale) + shift).flatten(1, 2)
        return net._frames(net.outlet(out), grid)

    def block(self, block: Any, memory: dict[str, Any], h: Tensor, told: Tensor, words: Tensor) -> Tensor:
        """One block."""
        e = block.modulation(told)[:, :, None].chunk(6, -1)
        y = (block.norm(h).unflatten(1, (CHUNK, -1)) * (1 + e[1]) + e[0]).flatten(1, 2)
        q, k, v = (part.unflatten(2, (block.heads, -1)) for part in block.qkv(y).chunk(3, -1))
        q, k = (self.turned(block.norm_qk(part)) for part in (q, k))
        y = block.out(self.attend(memory, q, k, v).flatten(2))
        h = h + (y.unflatten(1, (CHUNK, -1)) * e[2]).flatten(1, 2)
        if "text" not in memory:
            memory["text"] = [part.transpose(1, 2) for part in block._text(words)]
        asked = block.query(block.norm_text(h)).unflatten(2, (block.heads, -1))
        h = h + block.said(attention(asked, *memory["text"]).flatten(2))
        y = block.mlp((block.norm2(h).unflatten(1, (CHUNK, -1)) * (1 + e[4]) + e[3]).flatten(1, 2))
        return h + (y.unflatten(1, (CHUNK, -1)) * e[5]).flatten(1, 2)

    def attend(self, memory: dict[str, Any], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write the keys, roll where the memory is full, and attend to what is there."""
        new, stop = k.shape[1], (self.start + CHUNK) * self.tokens
        sinks, out = SINK * self.tokens, 0
        if stop > memory["last"].item() and new + memory["end"].item() > self.size:
            out = new + memory["end"].item() - self.size
            rolled = memory["end"].item() - out - sinks
            for part in (memory["k"], memory["v"]):
                part[:, sinks : sinks + rolled] = part[:, sinks + out : sinks + out + rolled].clone()
        end = memory["end"].item() + stop - memory["last"].item() - out
        memory["k"][:, end - new : end], memory["v"][:, end - new : end] = k, v
        said = attention(q, memory["k"][:, :end], memory["v"][:, :end])
        memory["last"].fill_(stop)
        memory["end"].fill_(end)
        return said

    def turned(self, x: Tensor) -> Tensor:
        """Rotary positions by complex numbers."""
        kind, made = torch.float64 if self.double else torch.float32, []
        for row, (frames, high, wide) in enumerate(self.grid.tolist()):
            time, up, along = self.turns
            turn = torch.cat([
                time[self.start : self.start + frames].view(frames, 1, 1, -1).expand(-1, high, wide, -1),
                up[:high].view(1, high, 1, -1).expand(frames, -1, wide, -1),
                along[:wide].view(1, 1, wide, -1).expand(frames, high, -1, -1),
            ], -1).reshape(frames * high * wide, 1, -1)  # fmt: skip
            pairs = torch.view_as_complex(x[row].to(kind).unflatten(-1, (-1, 2)))
            made.append(torch.view_as_real(pairs * turn.to(pairs.dtype)).flatten(2))
        return torch.stack(made).type_as(x)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of [B, length, heads, dim]."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()


def gap(chunks: int = 12, side: int = SMALL) -> float:
    """The largest difference between our chunks and those of the roll-out by hand."""
    denoiser = network(side)
    ours, theirs = Ours(denoiser), ByHand(denoiser)
    return max(float((ours() - theirs()).abs().max()) for _ in range(chunks))


def _against_self_forcing() -> list[Row]:
    rows = [Row("same chunks as by Self-Forcing's roll-out", 1e-4, gap(), note=LARGEST)]
    for side, double, bar, note in (
        (SMALL, True, 1 / 1.2, "4 steps, 3 frames of 16 tokens, window full"),
        (SMALL, False, 1.0, "the same, but its keys turned in single precision"),
        (LARGE, True, 1.0, "3 frames of 64 tokens: arithmetic decides, which is the same on both sides"),
    ):
        denoiser = network(side)
        ours, theirs = Ours(denoiser), ByHand(denoiser, double)
        for _ in range(2 * (SINK + WINDOW) // CHUNK):
            ours(), theirs()
        rows.append(duel(f"time of a chunk against Self-Forcing's roll-out, {side}×{side}", bar, ours, theirs, note))
    return rows


def flatness(early: int = 10, late: int = 200, around: int = 8) -> tuple[float, float]:
    """Seconds of a chunk at two places of one stream: the medians of some chunks around each."""
    ours, times = Ours(network()), []
    for _ in range(late + around):
        before = time.perf_counter()
        ours()
        times.append(time.perf_counter() - before)
    first, second = (statistics.median(times[at - around : at + around]) for at in (early, late))
    return first, second


@torch.inference_mode()
def without_cache(chunks: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """The last of so many chunks: with a cache that holds those before, and by masked passes over them all."""
    denoiser = network(SMALL, chunk=CHUNK, window=0)
    role, cond = Role("student", denoiser), {"text": text()}
    clip = Rng(0).normal(1, chunks * CHUNK, *denoiser.shape[1:])  # type: ignore[index]
    cache = role.ask(clip[:, :-CHUNK], 0.0, cond, cache=Stream.of(role, ChunkSampler(times=TIMES)).cache).cache
    t = torch.cat([torch.zeros(1, (chunks - 1) * CHUNK), torch.full((1, CHUNK), TIMES[1])], 1)

    @torch.inference_mode()
    def ours() -> Tensor:
        return role.ask(clip[:, -CHUNK:], TIMES[1], cond, cache=cache).value

    @torch.inference_mode()
    def theirs() -> Tensor:
        return role.ask(clip, t, cond).value[:, -CHUNK:]

    return ours, theirs


def speedup(chunks: int, turns: int = 3) -> Row:
    """How much a cache saves in one call of the last chunk."""
    ours, theirs = without_cache(chunks)
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for side, times in zip((ours, theirs), taken, strict=True):
            before = time.perf_counter()
            side()
            times.append(time.perf_counter() - before)
    mine, other = map(statistics.median, taken)
    what = f"cache against none, a call of chunk {chunks} that sees all before it"
    return Row(what, 8, other / mine, f"{1e3 * mine:.0f} ms", f"{1e3 * other:.0f} ms", at_least=True)


TEACHER = (
    "teacher={name: video-dit, channels: 1, size: [16, 16], width: 24, depth: 2, heads: 2, frames: 6, "
    "reach: {chunk: 3, window: 9, sink: 3}, steps: 2}"
)


def resident(seconds: float) -> int:
    """Bytes that a process holds when it has streamed so many seconds into a file; importing took more for a moment."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["sample", "video-dit", TEACHER, "--stream", "--seconds", str(seconds), "-o", f"{folder}/a.mp4"]
        code = (
            "from distill.core.cli import main\n"
            f"try: main({arguments!r})\nexcept SystemExit: print(open('/proc/self/statm').read().split()[1])"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return PAGE * int(done.stdout.split()[-1])


def streams() -> list[Row]:
    """All of it."""
    early, late = flatness()
    short, long = resident(30), resident(600)
    return [
        *_against_self_forcing(),
        Row("time of chunk 200 over chunk 10, with a window", 1.1, late / early, f"{1e3 * late:.0f} ms",
            f"{1e3 * early:.0f} ms"),
        speedup(64),
        Row("memory after 600 s of a stream over after 30 s", 1.02, long / short, f"{long / MIB:.0f} MiB",
            f"{short / MIB:.0f} MiB", "7,200 frames and 360; the whole process"),
    ]  # fmt: skip
