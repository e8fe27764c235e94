"""Gaussians on a CPU: our renderer against every pixel with every Gaussian, and what its cost grows with."""

from __future__ import annotations

import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import torch
from table import LARGEST, Row
from torch import Tensor

from distill.core import Rng
from distill.three_d.cameras import Cameras, Orbit
from distill.three_d.composite import Screen, pairs_of
from distill.three_d.reference import render_dense
from distill.three_d.render import Rendered, project, render

COUNT, SIDE = 20_000, 128
ROWS = 4
"""Rows of pixels that the dense one draws at a time: more only make it slower, and need more memory."""
MIB, PAGE = 2**20, resource.getpagesize()
FIELDS = ("images", "alpha", "depth", "normals")
PLOT = Path(__file__).with_name("gaussians.svg")
SWEEP = [(count, size, side) for count in (2_500, 10_000, 40_000) for size in (0.01, 0.03) for side in (64, 128, 256)]
"""Scenes of the plot: Gaussians, their size, and the pixels of a side."""


def scene(count: int = COUNT, size: float = 0.02, gradient: bool = False) -> dict[str, Tensor]:
    """Gaussians in a ball, of sizes and opacities as fitted ones have."""
    rng = Rng(0)
    parts = {
        "means": 0.35 * rng.normal(count, 3, stream="means"),
        "quats": rng.normal(count, 4, stream="quats"),
        "scales": math.log(size) + 0.5 * rng.normal(count, 3, stream="scales"),
        "opacities": rng.normal(count, stream="opacities"),
        "sh0": rng.normal(count, 1, 3, stream="sh0"),
        "shN": torch.zeros(count, 0, 3),
    }
    return {part: value.requires_grad_(gradient) for part, value in parts.items()}


def camera(side: int = SIDE) -> Cameras:
    """One view of it."""
    return Orbit().even(1, side, side)


def strips(side: int = SIDE, rows: int = ROWS) -> Iterator[range]:
    """The rows of a picture, some at a time."""
    return (range(first, min(side, first + rows)) for first in range(0, side, rows))


def gap(count: int, side: int, dtype: torch.dtype) -> tuple[float, float]:
    """The largest difference from the dense picture, and the share of pixels beyond 1e-5."""
    parts = {part: value.to(dtype) for part, value in scene(count).items()}
    seen = camera(side).to(dtype)
    ours, worst, beyond = render(parts, seen), 0.0, 0
    for rows in strips(side):
        dense, both = render_dense(parts, seen, rows), slice(rows.start, rows.stop)
        apart = torch.stack([(getattr(ours, f)[:, :, both] - getattr(dense, f)).abs().amax(1) for f in FIELDS])
        worst, beyond = max(worst, float(apart.max())), beyond + int((apart.amax(0) > 1e-5).sum())
    return worst, beyond / side**2


def pulled(drawn: Rendered) -> Tensor:
    """A loss of a picture; its gradient reaches every part."""
    return drawn.images.square().sum() + drawn.depth.sum() + drawn.normals.square().sum()


def gradient_gap(count: int = 400, side: int = 48) -> float:
    """The largest difference of gradients, over the largest gradient of the same part, in double precision."""
    parts = {part: value.double().requires_grad_() for part, value in scene(count, 0.06).items()}
    named, seen = [part for part in parts if parts[part].numel()], camera(side).to(torch.float64)
    ours, dense = (
        torch.autograd.grad(pulled(draw(parts, seen)), [parts[part] for part in named])
        for draw in (render, render_dense)
    )
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, dense, strict=True))


def drawn_by_us(count: int, side: int, gradient: bool) -> None:
    """One picture, and its gradient."""
    drawn = render(scene(count, gradient=gradient), camera(side))
    if gradient:
        pulled(drawn).backward()


def drawn_densely(count: int, side: int, gradient: bool, most: int = SIDE) -> None:
    """The same by the dense one, some rows at a time, and no more than so many strips."""
    parts = scene(count, gradient=gradient)
    for _, rows in zip(range(most), strips(side), strict=False):
        drawn = render_dense(parts, camera(side), rows)
        if gradient:
            pulled(drawn).backward()


SIDES: dict[str, Callable[..., None]] = {"ours": drawn_by_us, "dense": drawn_densely}


def seconds(call: Callable[[], None], turns: int) -> float:
    """Median CPU time of a call, after a first one."""
    call()
    taken = []
    for _ in range(turns):
        before = time.process_time()
        call()
        taken.append(time.process_time() - before)
    return statistics.median(taken)


def peak(side: str, gradient: bool, **options: int) -> int:
    """Bytes that drawing adds at most to what a fresh process holds."""
    asked = json.dumps({"side": side, "gradient": gradient, "count": COUNT, "pixels": SIDE, **options})
    done = subprocess.run([sys.executable, __file__, asked], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def resident() -> int:
    """Bytes that this process holds now."""
    return PAGE * int(Path("/proc/self/statm").read_text().split()[1])


def measure_peak(side: str, gradient: bool, count: int, pixels: int, **options: int) -> int:
    """The same in this process; a small picture first, for what libraries need once."""
    torch.set_num_threads(1)
    over, held = Event(), [0]

    def watch() -> None:
        while not over.wait(1e-3):
            held.append(resident())

    with torch.set_grad_enabled(gradient):
        SIDES[side](100, 16, gradient)
        before, watcher = resident(), Thread(target=watch)
        watcher.start()
        SIDES[side](count, pixels, gradient, **options)
        over.set()
        watcher.join()
    return max(held) - before


def against_dense(gradient: bool) -> list[Row]:
    """Time and memory of one picture; the dense one draws some strips, and is scaled to all of them."""
    what = "a picture and its gradient" if gradient else "a picture"
    what = f"{what}, {COUNT:,} Gaussians, {SIDE}×{SIDE}, against every pixel with every Gaussian"
    with torch.set_grad_enabled(gradient):
        ours = seconds(lambda: drawn_by_us(COUNT, SIDE, gradient), 5)
        dense = seconds(lambda: drawn_densely(COUNT, SIDE, gradient, most=2), 3) * SIDE / (2 * ROWS)
    mine, theirs = peak("ours", gradient), peak("dense", gradient, most=1) * SIDE // ROWS
    strip = f"{ROWS} rows of pixels, times {SIDE // ROWS}"
    return [
        Row(f"time of {what}", 15, dense / ours, f"{1e3 * ours:.0f} ms", f"{1e3 * dense:.0f} ms",
            f"CPU time on one thread; the dense one: {strip}", at_least=True),
        Row(f"memory of {what}", 10, theirs / mine, f"{mine / MIB:.0f} MiB", f"{theirs / MIB:.0f} MiB",
            f"by which the process grows; the dense one: {strip}", at_least=True),
    ]  # fmt: skip


def sweep() -> list[tuple[int, float, float]]:
    """Of each scene: (tile, Gaussian) pairs, pixels × Gaussians, and seconds of a picture with its gradient."""
    points = []
    for count, size, side in SWEEP:
        parts, seen = scene(count, size, gradient=True), camera(side)
        pairs = len(pairs_of(project(parts, seen), Screen(1, side, side)).splats)
        points.append((pairs, count * side**2, seconds(lambda p=parts, s=seen: pulled(render(p, s)).backward(), 3)))
    return points


def explained(x: list[float], y: list[float]) -> float:
    """Squared correlation of logarithms."""
    table = torch.tensor([x, y]).double().log()
    return float(torch.corrcoef(table)[0, 1] ** 2)


def plot(points: list[tuple[int, float, float]], path: Path = PLOT) -> None:
    """Seconds over both measures of work, on logarithmic axes, as SVG."""
    size, room = 300, 45
    parts = []
    for number, (key, name) in enumerate(((0, "tiles × depth (pairs)"), (1, "pixels × Gaussians"))):
        x = [math.log10(point[key]) for point in points]
        y = [math.log10(point[2]) for point in points]
        left = number * (size + room) + room
        across = [left + size * 0.9 * (v - min(x)) / (max(x) - min(x)) for v in x]
        down = [size - size * 0.9 * (v - min(y)) / (max(y) - min(y)) for v in y]
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="#369"/>' for a, b in zip(across, down, strict=True)]
        span = f"10^{min(x):.1f} to 10^{max(x):.1f}"
        fit = explained([point[key] for point in points], [point[2] for point in points])
        parts.append(f'<path d="M{left - 8} 0V{size + 8}H{left + size}" fill="none" stroke="#999"/>')
        parts.append(f'<text x="{left}" y="{size + 24}">{name}: {span}; R² {fit:.2f}</text>')
    low, high = min(point[2] for point in points), max(point[2] for point in points)
    parts.append(f'<text x="12" y="{size}" transform="rotate(-90 12 {size})">seconds: {low:.2f} to {high:.2f}</text>')
    style = 'font-family="sans-serif" font-size="12"'
    wide, tall = 2 * (size + room) + room, size + 36
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{tall}" {style}>'
    path.write_text(f"{head}{''.join(parts)}</svg>\n", encoding="utf-8")


def cost() -> list[Row]:
    """What a picture's cost grows with."""
    points = sweep()
    plot(points)
    times = [point[2] for point in points]
    pairs, dense = (explained([point[key] for point in points], times) for key in (0, 1))
    note = f"{len(points)} scenes, logarithms; by pixels × Gaussians {dense:.2f}: gaussians.svg"
    return [Row("share of a picture's cost that tiles × depth explain (R²)", 0.9, pairs, note=note, at_least=True)]


def gaussians() -> list[Row]:
    """All of it, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        exact, _ = gap(2_000, 64, torch.float64)
        single, beyond = gap(COUNT, SIDE, torch.float32)
    cut = f"largest difference {single:.1e}: there rounding decides a cut of the definition"
    rows = [
        Row("same pictures as by every pixel with every Gaussian, double precision", 1e-5, exact, note=LARGEST),
        Row("share of pixels beyond 1e-5 in single precision", 1e-3, beyond, note=cut),
        Row("same gradients, double precision", 1e-5, gradient_gap(), note="largest difference over largest gradient"),
        *against_dense(False),
        *against_dense(True),
        *cost(),
    ]
    torch.set_num_threads(threads)
    return rows


if __name__ == "__main__":
    print(measure_peak(**json.loads(sys.argv[1])))
