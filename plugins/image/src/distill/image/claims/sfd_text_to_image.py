"""Claim of SFD on a real text-to-image teacher: four steps that end nearer to where its fifty do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from distill.core import Batch, Claim, Engine, Role, Roles, Row, Sampler, Samples, batches
from distill.core.rng import Rng
from distill.core.sampling import Grid
from distill.core.setup import assemble
from distill.image.captions import MiniLM
from distill.image.datasets_emoji import named
from distill.image.teachers import EmojiTeacher
from distill.methods.papers.sfd import SFD

CALLS, STEPS, SIZE, LR, LONG, JUDGED = 4, 40, 8, 1e-4, 50, 24
BOUNDS = {1.0: 0.8, 3.0: 1.0}
"""For each w in sampling; training has none."""


def claim(seed: int) -> Claim:
    """Train on prompts alone and without guidance, as the paper does; judge on prompts that were kept out."""
    prompts = list(named().values())
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed)).tolist()
    text = MiniLM(tokens=12)([prompts[row] for row in order])["text"]
    teacher = Role("teacher", EmojiTeacher().build(), frozen=True)
    grid = Grid()
    truth = {w: ends(teacher, Sampler(steps=LONG, guidance=w), text[:JUDGED], seed) for w in BOUNDS}

    def error(role: Role, w: float) -> float:
        found = ends(role, Sampler(steps=CALLS, grid=grid, guidance=w), text[:JUDGED], seed)
        return float(((found - truth[w]) ** 2).mean().sqrt())

    method = SFD(counts=(CALLS,), refine=2, grid=grid, free_first=False, lr=LR, steps=STEPS)
    torch.manual_seed(seed)
    roles = assemble(method, Roles({"teacher": teacher}))
    source = partial(_source, Samples(text=text[JUDGED:]), seed, teacher.denoiser.shape)
    cast = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="bf16")
    engine = Engine(roles, method.plan(Sampler()), source, seed=seed, accelerator=cast).run()
    few = {w: (error(engine.roles["student"], w), error(teacher, w)) for w in BOUNDS}
    return Claim(
        "sfd-text-to-image",
        "Four steps, trained on prompts alone for a minute, end nearer to where fifty do.",
        [
            Row(f"RMSE of {CALLS} steps / Euler's, w = {w:g}", ours / euler, "<=", BOUNDS[w], f"Euler: {euler:.4f}")
            for w, (ours, euler) in few.items()
        ],
        broken=BROKEN,
        open=OPEN,
        settings={
            "teacher": "emoji-teacher, 32x32, text of MiniLM, 50 Euler steps",
            "seed": seed,
            "iterations": (STEPS, SIZE),
            "lr": LR,
            "prompts": f"{JUDGED} judged, {len(text) - JUDGED} trained on",
        },
    )


def _source(data: Samples, seed: int, shape: Any, start: int) -> Iterator[Batch]:
    return batches(data, SIZE, seed=seed, start=start, shape=shape)


def ends(role: Role, sampler: Sampler, text: Tensor, seed: int) -> Tensor:
    """Where a sampler ends, from the same noises for everyone: [N, 3, 32, 32]."""
    noise = Batch(len(text), shape=role.denoiser.shape).noise(Rng(seed), "sample/start")
    found: Tensor = sampler.sample(role, noise, {"text": text})
    return found


BROKEN = ""
OPEN = ""
