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

CALLS, STEPS, SIZE, LR, LONG, JUDGED = 4, 60, 8, 4e-5, 50, 16


def claim(seed: int) -> Claim:
    """Train on prompts alone, without guidance as the paper does, and judge on prompts that were kept out."""
    prompts = list(named().values())
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed)).tolist()
    text = MiniLM(tokens=12)([prompts[row] for row in order])["text"]
    teacher = Role("teacher", EmojiTeacher().build(), frozen=True)
    grid = Grid()
    truth = ends(teacher, Sampler(steps=LONG), text[:JUDGED], seed)

    def error(role: Role) -> float:
        found = ends(role, Sampler(steps=CALLS, grid=grid), text[:JUDGED], seed)
        return float((found - truth).square().mean().sqrt())

    method = SFD(counts=(CALLS,), refine=2, grid=grid, free_first=False, lr=LR, steps=STEPS)
    torch.manual_seed(seed)
    roles = assemble(method, Roles({"teacher": teacher}))
    source = partial(_source, Samples(text=text[JUDGED:]), seed, teacher.denoiser.shape)
    cast = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="bf16")
    engine = Engine(roles, method.plan(Sampler()), source, seed=seed, accelerator=cast).run()
    ours, euler = error(engine.roles["student"]), error(teacher)
    return Claim(
        "sfd-text-to-image",
        "Four steps, trained on prompts alone for a minute, end nearer to where fifty do.",
        [
            Row(
                f"RMSE of {CALLS} steps to the teacher's {LONG} / Euler's",
                ours / euler,
                "<=",
                0.9,
                f"Euler: {euler:.4f}",
            )
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


BROKEN = "Targets one step too early on the teacher's route (seed 0): 2.45 times Euler's error instead of 0.70."
OPEN = (
    "Guidance in sampling, which training has not: at w = 3 four steps end no nearer than Euler's, 1.10 (seed 0, from "
    "the guided teacher's 50). Two steps of the teacher's route in one of the student's here, four in the paper."
)
