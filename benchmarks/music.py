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
TURNS, PAIRS = 3, 15
"""Times that each side is asked: teacher, student and codec; the student with all its layers and without some."""


def player(builder: Any, tokens: int = TOKENS, whole: bool = False) -> Callable[[], Any]:
    """Makes latents [1, tokens, 32] of music by a text, chords left to the network; `whole` runs all its layers."""
    role, sampler = Role("player", builder.build()), builder.sampler()
    if whole:
        role.denoiser.network.budget.on = False
    cond = builder.encode(["organ, G minor, slow"]) | {"chords": torch.zeros(1, tokens, 12)}
    noise = Rng(0).normal(1, tokens, 32, stream="start")

    @torch.inference_mode()
    def play() -> Any:
        return sampler.sample(role, noise, cond, Rng(0))

    return play


def timed(sides: dict[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Seconds of each call of each side; the sides take turns."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(turns):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            took[name].append(time.perf_counter() - started)
    return took


def music(tokens: int = TOKENS) -> list[Row]:
    """Teacher against student, in latents and as sound; one student with all its layers and without some."""
    seconds, middle = tokens * TOKEN / RATE, statistics.median
    teacher, student = player(MusicTeacher(), tokens), player(MusicStudent(), tokens)
    latents = student()
    with torch.inference_mode():
        took = timed({"teacher": teacher, "student": student, "codec": lambda: FromLatent()(latents)}, TURNS)
    slow, fast, codec = (middle(took[name]) for name in ("teacher", "student", "codec"))
    pairs = timed({"all": player(MusicStudent(), tokens, whole=True), "some": student}, PAIRS)
    gain = middle(a / b for a, b in zip(pairs["all"], pairs["some"], strict=True))

    def row(what: str, bar: float, value: float, fast: float, slow: float, note: str) -> Row:
        ours, theirs = (f"{took:.2f} s, {took / seconds:.3f}" for took in (fast, slow))
        return Row(f"{seconds:.0f} s of music{what}", bar, value, ours, theirs, note, at_least=True)

    calls = f"{MusicTeacher().sampler().calls(MusicTeacher().build().path)} calls against {len(MusicStudent().times)}"
    return [
        row(" as latents, the teacher's time over its student's", 12, slow / fast, fast, slow,
            f"seconds, and as a share of the sound's own; {calls}, in one piece"),
        row(" as sound, the teacher's time over its student's", 12, (slow + codec) / (fast + codec), fast + codec,
            slow + codec, f"the same with the codec, which takes {codec:.2f} s of both"),
        row(", the student with all its layers over the same without some", 1.3, gain, middle(pairs["some"]),
            middle(pairs["all"]), f"as latents; the median of {PAIRS} pairs"),
    ]  # fmt: skip
