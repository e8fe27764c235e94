"""Claim of Distillation-DPO: a student of scan completion learns from which of its own completions is better."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, cast

from torch.utils.data import Dataset

from distill.core import Claim, Denoiser, Optimiser, Rng, Role, Row
from distill.core.data import collate
from distill.methods import toys as plain
from distill.three_d.lidar import Lidar
from distill.three_d.lidar_pairs import CompletionPairs, Preference
from distill.three_d.metrics_points import bev_divergence, chamfer, voxel_iou
from distill.three_d.papers.lidar_dpo import LidarDPO
from distill.three_d.points import Completed, LocalPath, PointDenoiser, packed, repeated

DATA = "real scans of 32 beams, windows of 20 degrees and 4 m; every fourth beam is seen, at most 16 points of it"
WINDOWS = Lidar(sector=20, depth=4, near=3, far=12, scan_points=16, points=300)
COARSE = WINDOWS.model_copy(update={"points": 64, "voxel": 0.35})
NETWORK = PointDenoiser(width=24, depth=1, near=5, points=64, path=LocalPath(spread=0.7))
FITTED, STEPS, REPEAT, TESTED = 500, 80, 4, 48
RATES: dict[str, Any] = {
    "student_optimiser": Optimiser(lr=0.03, eps=1.0),
    "critic_optimiser": Optimiser(lr=1e-3),
}
"""With ε = 1 Adam's step is in proportion to the gradient, as that of the paper's SGD."""


class Kept(Dataset[Any]):
    """Records of a dataset, made once."""

    def __init__(self, source: Lidar, split: str, count: int) -> None:
        opened = source.open(split)
        self.records = [opened[row] for row in range(count)]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.records[row]


@cache
def windows(coarse: bool, count: int = 256) -> Kept:
    """Windows to learn from; coarse ones have few, even points."""
    return Kept(COARSE if coarse else WINDOWS, "train", count)


@cache
def held_out() -> dict[str, Any]:
    """Windows of directions that nobody has learnt from."""
    return dict(collate(Kept(WINDOWS, "test", TESTED).records))


@cache
def teacher(seed: int) -> Denoiser:
    """A point transformer fitted to complete clouds under their scans."""
    method = plain.Fitted(network=NETWORK, steps=FITTED, lr=4e-3, drop=0.1)
    return plain.train(method, {}, data=cast(Any, windows(True)), size=16, seed=seed).roles["student"].denoiser


def student(seed: int, push: float = 1.0, judge: Any = "chamfer") -> Role:
    """A student of the teacher, after the same number of steps for every choice."""
    method = LidarDPO(
        steps=STEPS, pairs=CompletionPairs(repeat=REPEAT, judge=judge), preference=Preference(push=push), **RATES
    )
    data = cast(Any, windows(False))
    engine = plain.train(method, {"teacher": copy.deepcopy(teacher(seed))}, data=data, size=8, seed=seed)
    return engine.roles["student"]


def judged(role: Role, steps: int, seed: int) -> tuple[float, float, float]:
    """Chamfer distance, divergence from above and voxels in common of completions of the held-out windows."""
    true, scan, rng = held_out()["truth"], held_out()["scan"], Rng(seed + 300)
    noise = rng.normal_like(repeated(packed(scan), REPEAT))
    x = Completed(steps=steps).sample(role, noise, {"scan": scan}, rng)
    return tuple(float(metric(x, true).mean()) for metric in (chamfer, bev_divergence, voxel_iou))  # type: ignore[return-value]


def claim(seed: int) -> Claim:
    """One step: the student, the winner's side alone, labels by chance, and the teacher it began as."""
    roles = {
        "full": student(seed), "winner": student(seed, push=0.0), "chance": student(seed, judge="random"),
        "teacher": Role("teacher", teacher(seed)),
    }  # fmt: skip
    one = {name: judged(role, 1, seed) for name, role in roles.items()}
    eight = judged(roles["teacher"], 8, seed)
    far = {name: values[0] for name, values in one.items()}
    told = {name: " / ".join(f"{value:.3f}" for value in values) for name, values in (*one.items(), ("eight", eight))}
    return Claim(
        "lidar-dpo",
        "A push away from completions that a metric ranks lower improves on distribution matching alone.",
        [
            Row("Chamfer distance / winner's side alone", far["full"] / far["winner"], "<=", 0.97, told["winner"]),
            Row("winner's side alone / teacher in 1 step", far["winner"] / far["teacher"], "<=", 1.0, told["teacher"]),
            Row("labels by chance / winner's side alone", far["chance"] / far["winner"], ">=", 1.0, told["chance"]),
            Row("Chamfer distance / labels by chance", far["full"] / far["chance"], "<=", 1.0, told["chance"]),
        ],
        broken=BROKEN,
        open=OPEN,
        settings={
            "data": DATA, "seed": seed, "teacher steps": FITTED, "student steps": STEPS, "held-out windows": TESTED,
            "Chamfer (m) / BEV divergence (bit) / voxel IoU": told,
        },
    )  # fmt: skip


BROKEN = "Labels by chance: measured in each run, as is the student without the push."
OPEN = (
    "That ranking helps. In 1 step the full method reaches 0.328, 0.326 and 0.322 m on seeds 0, 1, 2, the winner's "
    "side alone 0.356, 0.353 and 0.353, labels by chance 0.325, 0.323 and 0.322, and the teacher that all of them "
    "begin as 0.324, 0.324 and 0.322. So the push only undoes the pull: matching the law of this small teacher spoils "
    "its own answers of 1 step (its samples of 8 steps measure 0.349, 0.357 and 0.355), and who won is not seen in "
    "the result. Seed 0 in other settings: with four updates of the critics per update of the student and 240 "
    "iterations the full method reaches 0.324, labels by chance 0.322, swapped labels 0.320; with a guidance of 2 in "
    "the score the winner's side alone reaches 0.319, the full method 0.332; at ten times the rate the push diverges "
    "(1.09). A possible reason: where both completions of a pair lie close, the teacher cancels out of the gradient, "
    "and what is left leads from the winners' law to the losers'. The scan's points, repeated, measure 0.269 m, since "
    "they lie on the surface, with 0.196 of the voxels in common; the teacher has 0.283. Networks and data of the "
    "paper's size could not be tried."
)
