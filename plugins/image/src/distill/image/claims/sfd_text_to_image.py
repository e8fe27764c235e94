"""Claim of SFD on a real text-to-image teacher: four steps that end nearer to where its fifty do."""

from __future__ import annotations

import torch

from distill.core import Claim, Role, Roles, Row, Sampler, Samples
from distill.core.sampling import Grid
from distill.image.datasets_emoji import named
from distill.image.teachers import EmojiTeacher
from distill.methods import toys
from distill.methods.captions import MiniLM
from distill.methods.papers.sfd import SFD

CALLS, STEPS, SIZE, LR, LONG, JUDGED = 4, 60, 8, 4e-5, 50, 16


def claim(seed: int) -> Claim:
    """Train on prompts alone, without guidance as the paper does, and judge on prompts that were kept out."""
    prompts = list(named().values())
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed)).tolist()
    text = MiniLM(tokens=12)([prompts[row] for row in order])["text"]
    teacher = Role("teacher", EmojiTeacher().build(), frozen=True)

    def ends(role: Role, steps: int) -> torch.Tensor:
        return toys.draw(role, Sampler(steps=steps), JUDGED, seed, {"text": text[:JUDGED]})

    method = SFD(counts=(CALLS,), refine=2, grid=Grid(), free_first=False, lr=LR, steps=STEPS)
    engine = toys.train(method, Roles({"teacher": teacher}), data=Samples(text=text[JUDGED:]), size=SIZE, seed=seed)
    truth = ends(teacher, LONG)
    ours, euler = (toys.rmse(ends(role, CALLS), truth) for role in (engine.roles["student"], teacher))
    return Claim(
        "sfd-text-to-image",
        "Four steps, trained on prompts alone for a minute, end nearer to where fifty do.",
        [Row("RMSE of 4 steps to the teacher's 50 / Euler's", ours / euler, "<=", 0.9, f"Euler: {euler:.3f}")],
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


BROKEN = "Targets one step too early on the teacher's route (seed 0): 2.45 times Euler's error instead of 0.70."
OPEN = (
    "Guidance in sampling, which training has not: at w = 3 four steps end no nearer than Euler's, 1.10 (seed 0, from "
    "the guided teacher's 50). Two steps of the teacher's route in one of the student's here, four in the paper."
)
