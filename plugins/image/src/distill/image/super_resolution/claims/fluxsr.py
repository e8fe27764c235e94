"""FluxSR on held-out photographs: pairs that keep their noise, variation in the distance, tokens that differ."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from distill.core import (
    Claim,
    Context,
    Engine,
    Event,
    GaussianPath,
    Optimiser,
    Rng,
    Role,
    Roles,
    Row,
    Sampler,
    assemble,
    batches,
)  # fmt: skip
from distill.image.super_resolution import toys
from distill.image.super_resolution.claims.ctmsr import measures
from distill.image.super_resolution.losses import Perceptual
from distill.image.super_resolution.papers.fluxsr import FluxSR
from distill.image.super_resolution.paths import Tempered
from distill.image.super_resolution.trajectories import AnchoredPairs
from distill.methods.losses import TokenDiversity

STEPS, PAIRS, SIZE, JUDGED, MIDDLE = 100, 512, 16, 96, 0.6
TEACHER = Tempered(steps=6, temperature=0.7)


class Unpaired(AnchoredPairs):
    """Every picture meets the noise of another one."""

    def between(self, path: GaussianPath, low: Tensor, noise: Tensor, ctx: Context) -> tuple[Tensor, Any]:
        return super().between(path, low, noise.roll(1, 0), ctx)


def run(seed: int, store: Path, **options: Any) -> Engine:
    """Train a copy of the toy on its own pairs; runs of a seed share them."""
    parts: dict[str, Any] = {"perceptual": Perceptual(weight=0), "diversity": TokenDiversity(weight=0)} | options
    method = FluxSR(
        steps=STEPS, pairs=PAIRS, pair_sampler=TEACHER, store=store, adapter=None, decay=0.9,
        optimiser=Optimiser(lr=1e-3, clip=1.0, warmup=10, schedule="cosine"), **parts,
    )  # fmt: skip
    data, roles = toys.train_data(PAIRS), assemble(method, Roles({"teacher": toys.teacher()}))

    def source(start: int) -> Any:
        return batches(data, SIZE, seed=seed, start=start)

    return Engine(roles, method.plan(Sampler()), source, seed=seed, dataset=data).run()


@torch.no_grad()
def paired_error(role: Role, seed: int) -> float:
    """Squared error, in thousandths, to the teacher's pictures of held-out pairs, asked half-way to their noise."""
    low, path = toys.judged(JUDGED).tensors["low"], role.denoiser.path
    noise, cond = Rng(seed).normal(*low.shape), {"low": low}
    share = (MIDDLE - AnchoredPairs().anchor) / (1 - AnchoredPairs().anchor)
    said = role.ask(share * path.prior(noise), MIDDLE, cond)
    return 1000 * float((said.x0 - TEACHER.sample(toys.teacher(), noise, cond)).square().mean())


def alike(role: Role) -> float:
    """Mean cosine of tokens and their mean, in the one step that sampling takes."""
    low = toys.judged(JUDGED).tensors["low"]
    said = role.ask(torch.zeros_like(low), AnchoredPairs().anchor, {"low": low}, taps=role.denoiser.taps)
    none = Context(Roles({}), Rng(0))
    return float(TokenDiversity().terms(Event(low, prediction=said), none)["diversity"].mean())


def claim(seed: int) -> Claim:
    """The same run with one thing changed at a time, on the pairs of one teacher."""
    with TemporaryDirectory() as folder:
        store = Path(folder) / "pairs"
        plain, unpaired, diverse, seen, varied = (
            run(seed, store, **options)
            for options in (
                {}, {"anchored": Unpaired()}, {"diversity": TokenDiversity(weight=DIVERSE)},
                {"perceptual": Perceptual(weight=SEEN)}, {"perceptual": Perceptual(weight=SEEN, varied=0.5)},
            )
        )  # fmt: skip
    roles = [engine.roles["student_ema"] for engine in (plain, unpaired, diverse)]
    kept, lost = (paired_error(role, seed) for role in roles[:2])
    near, apart, flat, sharp = (measures(engine) for engine in (plain, diverse, seen, varied))
    return Claim(
        "fluxsr",
        "Stored noises lead back to their pictures; variation in the distance sharpens, and tokens are kept apart.",
        (
            Row("error to the teacher's pictures half-way to their noise, in thousandths", kept, "<=", 0.8 * lost,
                "0.8 x with noises of other pictures"),
            Row("detail with TV-LPIPS, of the truth's high frequencies", sharp["detail"], ">=", 1.03 * flat["detail"],
                f"1.03 x LPIPS-type alone; neither: {near['detail']:.3f}"),
            Row("distance to real photographs with TV-LPIPS", sharp["real"], "<=", 0.98 * flat["real"],
                f"0.98 x LPIPS-type alone; neither: {near['real']:.2f}"),
            Row("cosine of tokens and their mean, with diversification", alike(roles[2]), "<=",
                alike(roles[0]) - 0.05, "0.05 below without it"),
            Row("PSNR, with diversification", apart["psnr"], ">=", near["psnr"] - 0.3, "0.3 dB below without it"),
        ),
        broken=BROKEN, open=OPEN,
        settings={
            "seed": seed, "data": f"32x32 crops at ratio 4, {JUDGED} judged, of photographs never trained on",
            "teacher": "sr-toy in 6 steps from 0.7 of the noise", "pairs": PAIRS, "iterations": STEPS, "batch": SIZE,
            "T": AnchoredPairs().anchor, "features": "efficientnet-lite0",
        },
    )  # fmt: skip


DIVERSE, SEEN = 5e-4, 0.02
BROKEN = "In every run: pairs whose noises are those of other pictures. Seed 0: error 0.69 where 0.43 is right."
OPEN = (
    "Half the error of unpaired noises: 0.62 to 0.66 of it here. Realism on held-out photographs: both distances in "
    "features bring the one step to what this small teacher invents, and away from real pictures (1.58 with TV-LPIPS, "
    "1.00 with neither on seed 0; 35.6 dB and 37.1 dB). Noise pairing adds nothing there, for the one step has no "
    "noise. Diversification at six times the weight costs 1.2 dB; there is no attention, and blocks stand for it."
)
