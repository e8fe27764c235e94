"""Music: how long 32 s take the teacher that ships and its student, in latents and as sound."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from table import Row

from distill.audio.codecs import FromLatent
from distill.audio.teachers import MusicStudent, MusicTeacher
from distill.core import Rng, Role

SECONDS, RATE, TOKEN = 32, 16_000, 1024
TOKENS = SECONDS * RATE // TOKEN
TURNS = 3
"""Times that each side is asked; the medians count."""


def player(builder: Any, tokens: int = TOKENS) -> Callable[[], Any]:
    """Makes latents [1, tokens, 32] of music by a text, chords left to the network."""
    role, sampler = Role("player", builder.build()), builder.sampler()
    cond = builder.encode(["organ, G minor, slow"]) | {"chords": torch.zeros(1, tokens, 12)}
    noise = Rng(0).normal(1, tokens, 32, stream="start")

    @torch.inference_mode()
    def play() -> Any:
        return sampler.sample(role, noise, cond, Rng(0))

    return play


def timed(sides: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds of a call of each side; the sides take turns."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(TURNS):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            took[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in took.items()}


def music(tokens: int = TOKENS) -> list[Row]:
    """Teacher against student, with all layers and with some left out; the codec apart."""
    whole = MusicStudent(layers=None, weights=str(MusicTeacher().file))
    sides = {
        "teacher": player(MusicTeacher(), tokens), "student": player(MusicStudent(), tokens),
        "all layers": player(whole, tokens),
    }  # fmt: skip
    latents = sides["student"]()
    with torch.inference_mode():
        took = timed({**sides, "codec": lambda: FromLatent()(latents)})
    seconds = tokens * TOKEN / RATE

    def row(what: str, bar: float, slow: float, fast: float, note: str) -> Row:
        ours, theirs = (f"{value:.2f} s, {value / seconds:.3f}" for value in (fast, slow))
        return Row(what, bar, slow / fast, ours, theirs, note, at_least=True)

    slow, fast, codec = took["teacher"], took["student"], took["codec"]
    return [
        row("32 s of music as latents, the teacher's time over its student's", 12, slow, fast,
            "seconds, and as a share of the sound's own; 128 calls against 4, in one piece"),
        row("32 s of music as sound, the teacher's time over its student's", 12, slow + codec, fast + codec,
            f"the same with the codec, which takes {codec:.2f} s of both"),
        row("four calls with all layers over four that leave layers out", 1.3, took["all layers"], fast, "as latents"),
    ]  # fmt: skip
