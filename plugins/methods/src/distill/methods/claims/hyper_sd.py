"""Claim of Hyper-SD: a student of segments gets better with every jump, where plain consistency gets worse."""

from __future__ import annotations

import copy

from distill.core import Claim, Denoiser, Optimiser, Role, Row, Sampler, Samples
from distill.core.paths import Cosine
from distill.core.rng import Rng
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.hyper_sd import HyperSD, Stage

NETWORK = MLPDenoiser(path="cosine", kind="v", width=128)
FIT, STEPS, LR, POINTS = 1000, 3000, 1e-3, 4096
STAGES = tuple(Stage(segments=count) for count in (10, 5, 2, 1))


def fitted(seed: int) -> tuple[Samples, Denoiser]:
    """Data of the ring, and a network fitted to them."""
    data = Samples(x=toys.ring(Cosine()).data(20000, Rng(seed)))
    fit = toys.Fitted(network=NETWORK, steps=FIT, level="truncated-snr")
    return data, toys.train(fit, {}, data=data, seed=seed).roles["student"].denoiser


def distilled(data: Samples, start: Denoiser, seed: int, **options: object) -> Role:
    """A student of the exact teacher after the given stages."""
    optimiser = Optimiser(lr=LR, schedule="cosine")
    settings = {"guidance": 1.0, "stages": STAGES, "hand_over": False, "optimiser": optimiser, "steps": STEPS}
    roles = {"teacher": toys.ring(Cosine()), "student": copy.deepcopy(start)}
    return toys.train(HyperSD(**{**settings, **options}), roles, data=data, seed=seed).roles["student"]


def claim(seed: int) -> Claim:
    """Distil in stages of 10, 5, 2 and 1 segments, and by plain consistency with the same updates."""
    (data, start), law = fitted(seed), toys.ring(Cosine())
    reference = law.data(POINTS, Rng(seed), stream="reference")

    def measure(role: Role, steps: int) -> float:
        return toys.sliced_wasserstein(toys.draw(role, Sampler(steps=steps), POINTS, seed + 1), reference)

    student = distilled(data, start, seed)
    plain = distilled(data, start, seed, stages=(Stage(anywhere=False),))
    ours, theirs = ({n: measure(role, n) for n in (1, 2, 4)} for role in (student, plain))
    ddim = {n: measure(Role("teacher", law), n) for n in (1, 2)}
    return Claim(
        "hyper-sd",
        "Consistency within segments, fewer at every stage, gives one student for every number of jumps.",
        [
            Row("SW of 2 jumps / consistency's", ours[2] / theirs[2], "<=", 0.85, f"plain: {theirs[2]:.3f}"),
            Row("SW of 4 jumps / consistency's", ours[4] / theirs[4], "<=", 0.6, f"plain: {theirs[4]:.3f}"),
            Row("SW of 2 jumps / DDIM's", ours[2] / ddim[2], "<=", 0.3, f"DDIM, 2 steps: {ddim[2]:.3f}"),
            Row("SW of 1 jump / DDIM's", ours[1] / ddim[1], "<=", 0.5, f"DDIM, 1 step: {ddim[1]:.3f}"),
            Row("SW of 2 jumps / of 1", ours[2] / ours[1], "<=", 1.0, f"1 jump: {ours[1]:.3f}"),
            Row("SW of 4 jumps / of 2", ours[4] / ours[2], "<=", 1.0, f"2 jumps: {ours[2]:.3f}"),
            Row("consistency's 4 jumps / its 1", theirs[4] / theirs[1], ">=", 1.0, f"1 jump: {theirs[1]:.3f}"),
        ],
        broken=BROKEN,
        open=OPEN,
        settings={"data": "ring of 8, std 0.1, cosine path", "seed": seed, "steps": (FIT, STEPS), "lr": LR},
    )


BROKEN = (
    "The teacher's move left out, so that targets begin at x_t (seed 0): SW of 1, 2 and 4 jumps 0.21, 0.61 and 1.01 "
    "instead of 0.27, 0.06 and 0.05."
)
OPEN = (
    "Stages are not separated from a single stage of one segment with the same updates: SW of 1, 2 and 4 jumps "
    "0.268, 0.061, 0.041 against 0.267, 0.056, 0.046 (seed 0). The rows keep the first teacher in every stage; with "
    "the hand-over of the defaults 1 jump is better, 0.112, and 2 and 4 jumps are worse, 0.224 and 0.353. 2 jumps "
    "were expected at 0.65 of plain consistency's SW, and 0.56, 0.70 and 0.74 were measured on seeds 0, 1, 2. The "
    "GAN, the feedback from reward models and the single-step stage are not part of this measurement."
)
