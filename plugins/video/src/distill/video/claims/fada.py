"""Claim of FADA: one call that is told the weights of two conditions says what three calls of the teacher say."""

from __future__ import annotations

import copy
from itertools import product

import torch
from torch import Tensor

from distill.core import Claim, Engine, Optimiser, Rng, Role, Row
from distill.methods import toys as plain
from distill.video import toys
from distill.video.losses import MultiGuided, nested
from distill.video.papers.fada import FADA

STEPS, WEIGHTS, TIMES = 1600, (1.0, 3.0, 5.0), (0.2, 0.5, 0.8)


def trained(seed: int, tokens: bool) -> Engine:
    """A small transformer that learns from the exact teacher, told the weights or not."""
    method = FADA(
        steps=STEPS,
        guided=MultiGuided(tokens=tokens, data=0.0),
        optimiser=Optimiser(lr=2e-3, schedule="cosine", clip=1),
    )
    roles = {"teacher": toys.Driven(), "student": copy.deepcopy(toys.driven_start(seed))}
    for ends in method.guided.ranges if tokens else ():
        roles["student"].add_scalar(f"w_{ends}", 0.2)
    return plain.train(method, roles, data=toys.Driven().samples(8192, Rng(seed + 30)), size=64, seed=seed)


@torch.no_grad()
def compared(student: Role, tokens: bool, seed: int) -> tuple[float, float]:
    """Squared error over what guidance changes, and the student's change with the sound's weight over the teacher's."""
    data, teacher = toys.Driven().samples(512, Rng(seed + 40)).tensors, Role("teacher", toys.Driven())
    cond, noise = {name: data[name] for name in ("text", "audio")}, Rng(seed + 41).normal(*data["x"].shape)
    error, change, slopes = 0.0, 0.0, [0.0, 0.0]
    for time in TIMES:
        t = torch.full((512,), time)
        x_t = teacher.denoiser.path.noised(data["x"], noise, t)

        def say(w: tuple[float, float], x_t: Tensor = x_t, t: Tensor = t) -> tuple[torch.Tensor, torch.Tensor]:
            named = dict(zip(("text", "audio"), w, strict=True))
            told = {f"w_{name}": torch.full((512,), value) for name, value in named.items()} if tokens else {}
            wanted = teacher.ask(x_t, t, cond, guidance=nested(named)).x0
            return student.ask(x_t, t, cond, **told).x0, wanted

        plainly = teacher.ask(x_t, t, cond).x0
        for w in product(WEIGHTS, WEIGHTS):
            said, wanted = say(w)
            error += float((said - wanted).square().sum())
            change += float((wanted - plainly).square().sum())
        (low, true_low), (high, true_high) = say((3.0, 1.0)), say((3.0, 5.0))
        slopes[0] += float(((high - low) * (true_high - true_low)).sum())
        slopes[1] += float((true_high - true_low).square().sum())
    return error / change, slopes[0] / slopes[1]


def claim(seed: int) -> Claim:
    """Clips that a reference and a real track of sound drive, with an exact teacher of three calls."""
    told, slope = compared(trained(seed, True).roles["student"], True, seed)
    untold, _ = compared(trained(seed, False).roles["student"], False, seed)
    return Claim(
        "fada",
        "A student that is told the weights of two conditions does in one call what guidance does in three.",
        [
            Row("squared error / what guidance changes, one call", told, "<=", 0.1, "teacher: three calls"),
            Row("the same without being told the weights", untold, ">=", 0.3),
            Row("|response to the sound's weight / the teacher's − 1|", abs(slope - 1), "<=", 0.2),
        ],
        broken=BROKEN,
        open=OPEN,
        settings={
            "data": "AR1-VIDEO with a reference in every frame and the loudness of a chorale in one channel",
            "weights": "1 to 5 each", "seed": seed, "steps": STEPS, "student": "transformer, 2 x 48",
        },
    )  # fmt: skip


BROKEN = "Not told the weights: measured in each run."
OPEN = (
    "That data of two tiers and λ beat teacher and data alone: the teacher here is exact, and data add nothing. "
    "The learnt tokens in the attention context are inputs beside the time here."
)
