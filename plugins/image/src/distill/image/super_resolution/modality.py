"""What runs of super-resolution show in their reports: held-out photographs side by side, and where each way stands."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from distill.core.contracts import Way
from distill.core.tree import index
from distill.image.modality import Image, to_bytes
from distill.image.super_resolution import metrics, toys
from distill.methods.sheets import tiled

ROOM, EDGE = 320, 48
"""Side of the plot and its margin, in pixels."""


class Restored(Image):
    """Residuals of pictures to their up-sampled low-resolution pictures."""

    pair: ClassVar[tuple[str, str] | None] = ("sr-teacher", "sr-student")
    pair_data: ClassVar[dict[str, Any] | None] = {"name": "photographs", "size": 48, "ratios": [4]}
    judged: int = 24
    """Crops of the held-out photographs that reports measure."""
    shown: int = 6
    """How many of them they show."""

    def side_by_side(self, ways: Mapping[str, Way], folder: Path) -> dict[str, str]:
        """Crops of the held-out photographs by all ways, and their distortion and perception."""
        side = next(iter(ways.values())).role.denoiser.shape
        data = toys.judged(self.judged, size=side[1]) if isinstance(side, tuple | list) else toys.judged(self.judged)
        low, truth = data.tensors["low"], toys.truth(data)
        made = {"bicubic": low} | {name: toys.restore(way.role, way.sampler, data) for name, way in ways.items()}
        self._sheet(made | {"truth": truth}, folder / "beside.png")
        points = {name: _place(pictures, truth) for name, pictures in made.items()}
        (folder / "perception-distortion.svg").write_text(plot(points), encoding="utf-8")
        told = "; ".join(f"{name} {psnr:.2f} dB, {far:.3f}" for name, (psnr, far) in points.items())
        names = ", ".join([*made, "truth"])
        return {
            "beside.png": f"held-out photographs, from top to bottom: {names}",
            "perception-distortion.svg": f"PSNR of Y against distance in EfficientNet-lite0's features: {told}",
        }

    def _sheet(self, made: Mapping[str, Tensor], path: Path) -> None:
        """Some of the crops, one row a way, at twice their size."""
        from PIL import Image as Pillow

        rows = torch.linspace(0, self.judged - 1, self.shown).long()
        pixels = to_bytes(torch.cat([index(pictures, rows) for pictures in made.values()]))
        larger = pixels.repeat_interleave(2, 1).repeat_interleave(2, 2)
        path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(tiled(larger, self.shown).numpy()).save(path)


def _place(pictures: Tensor, truth: Tensor) -> tuple[float, float]:
    """Distortion and perception of pictures: PSNR, and distance in features."""
    return float(metrics.psnr(pictures, truth).mean()), float(metrics.lpips_type(pictures, truth).mean())


def plot(points: Mapping[str, tuple[float, float]]) -> str:
    """PSNR to the right, distance downwards: the best corner is at the lower right."""
    spans = [_span([point[axis] for point in points.values()]) for axis in (0, 1)]
    marks = []
    for name, (psnr, far) in points.items():
        x = EDGE + (psnr - spans[0][0]) / (spans[0][1] - spans[0][0]) * (ROOM - 2 * EDGE)
        y = ROOM - EDGE - (far - spans[1][0]) / (spans[1][1] - spans[1][0]) * (ROOM - 2 * EDGE)
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/><text x="{x:.1f}" y="{y - 9:.1f}">{escape(name)}</text>'
        )
    corner = ROOM - EDGE + 14
    axes = (
        f'<path d="M{EDGE - 10} {EDGE - 14}V{corner}H{ROOM - EDGE + 14}" fill="none" stroke="currentColor"/>'
        f'<text x="{ROOM / 2}" y="{ROOM - 8}">PSNR in dB, {spans[0][0]:.2f} to {spans[0][1]:.2f}</text>'
        f'<text x="{ROOM / 2}" y="18">distance in features, {spans[1][0]:.3f} to {spans[1][1]:.3f}, low is good</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {ROOM} {ROOM}" width="{ROOM}" fill="currentColor" '
        f'font-family="sans-serif" font-size="12" text-anchor="middle">{axes}{"".join(marks)}</svg>'
    )


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
