"""Claim of HeadArtist: one teacher's two opinions make a head, and landmarks keep its one face in front."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distill.core import Claim, Context, Event, Loss, Rng, Role, Row, Samples
from distill.core.roles import Roles
from distill.methods.trajectories import View
from distill.three_d import toys
from distill.three_d.directions import Directions, Landmarks
from distill.three_d.losses import SelfScore, ViewScore
from distill.three_d.papers.headartist import HeadArtist
from distill.three_d.papers.sds import SDS
from distill.three_d.trajectories import DirectedView

MODES, STEPS, W, BACK, FRONT = 200, 400, 7.5, [3, 4, 5], [7, 0, 1]
TEXTS = Directions(front={"label": 1}, side={"label": 2}, back={"label": 3})
MARKS = Landmarks(size=0.7, dot=0.06)


def on_ring(loss: Loss, seed: int) -> tuple[Tensor, Tensor]:
    """Where points begin, and where they end that are asked for one of the ring's modes."""
    begin = 0.3 * Rng(seed).normal(MODES, 2, stream="begin")
    kind = HeadArtist if isinstance(loss, SelfScore) else SDS
    method = kind(views=View(), score=loss, steps=STEPS, optimiser=toys.descent(0.2, MODES))
    data = Samples(label=torch.full((MODES,), seed % 8))
    return begin, toys.distilled(method, toys.ring(True), begin, seed, data=data)


def head(loss: Loss, seed: int, marks: Landmarks | None) -> tuple[float, float]:
    """How much of a face is seen from behind as a share of what the front shows, and the error of the views."""
    teacher, views = toys.Heads(), DirectedView(directions=TEXTS, landmarks=marks)
    kind = HeadArtist if isinstance(loss, SelfScore) else SDS
    method = kind(views=views, score=loss, steps=200, optimiser=toys.QUICK)
    seen = toys.painted(method, teacher, seed, label=False)
    face = toys.features(seen)
    return float(face[BACK].mean() / face[FRONT].mean()), float((seen - teacher.means[: toys.VIEWS]).square().mean())


def gap(seed: int) -> float:
    """Largest difference of `g_SDS − g_SSD` and `σ² (ε_c − ε)` under one noise and level."""
    teacher, rng = Role("teacher", toys.ring(True)), Rng(seed)
    x, noise, cond = rng.normal(64, 2), rng.normal(64, 2, stream="own"), {"label": torch.arange(64) % 8}
    event = Event(x, cond, noise=noise)
    said = [
        loss.gradient(event, Context(Roles({"teacher": teacher}), Rng(seed)), W)
        for loss in (ViewScore(guidance=W), SelfScore(guidance=W))
    ]
    path, t = teacher.denoiser.path, ViewScore().times.draw(teacher.denoiser.path, 64, Rng(seed), "score/time")
    own = teacher.predict(path.noised(x, noise, t), t, cond).eps
    return float((said[0] - said[1] - path.sigma(t)[:, None] ** 2 * (own - noise)).abs().max())


def claim(seed: int) -> Claim:
    """Points of a ring by class, and heads whose colours are found by their views."""
    plain: dict[str, Any] = {"guidance": W, "plain": {"label": 0}}
    begin, still = on_ring(SelfScore(guidance=1), seed)
    ours, sds = on_ring(SelfScore(guidance=W), seed)[1], on_ring(ViewScore(), seed)[1]
    away = float((sds - toys.ring().means[seed % 8]).norm(dim=1).mean())
    found = float((toys.modes(ours, toys.ring()) == seed % 8).float().mean())
    (marked, error), (bare, _) = head(SelfScore(**plain), seed, MARKS), head(SelfScore(**plain), seed, None)
    (sds_marked, sds_error), (sds_bare, _) = (
        head(ViewScore(guidance=W), seed, MARKS),
        head(ViewScore(guidance=W), seed, None),
    )
    return Claim(
        "headartist",
        "A teacher's guided opinion against its own plain one makes a head, whose landmarks leave it one face.",
        [
            Row("largest move at guidance 1", float((still - begin).abs().max()), "<=", 1e-6),
            Row("SDS at guidance 1: distance to the class", away, "<=", 0.1, "baseline"),
            Row("points in the class that was asked for, w = 7.5", found, ">=", 0.99),
            Row("largest |g_SDS - g_SSD - σ² (ε_c - ε)|", gap(seed), "<=", 1e-5, "exact"),
            Row(
                "face seen from behind / from the front", marked, "<=", 0.5 * bare, f"half of {bare:.3f} without marks"
            ),
            Row("the same, against SDS without them", marked, "<=", 0.5 * sds_bare, f"half of {sds_bare:.3f}"),
        ],
        broken=BROKEN,
        open=OPEN.format(error=error, sds=sds_error, marked=sds_marked),
        settings={"data": [toys.RING, toys.HEADS], "seed": seed, "steps": [STEPS, 200], "guidance": W},
    )


BROKEN = "The landmarks left out, measured in each run: then the head has faces behind as well."
OPEN = (
    "That the heads are less saturated than those of SDS was not found: with landmarks SDS has a squared error of "
    "{sds:.4f} and self distillation {error:.4f}, because a difference of two guidances has no term that keeps to the "
    "data. SDS with the same landmarks has as little of a face behind ({marked:.3f}): it is they that remove it."
)
