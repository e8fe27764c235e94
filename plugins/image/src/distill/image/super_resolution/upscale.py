"""`distill upscale`: a picture at several times its size, by a network that is asked tile by tile."""

from __future__ import annotations

import hashlib
import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn.functional import avg_pool2d

from distill.core import Builder, Role, Sampler
from distill.core.errors import DataError, RecipeError
from distill.core.registry import default_registry
from distill.image.super_resolution.pictures import MOST, Picture, PngWriter, load
from distill.image.super_resolution.tiles import Enlarged, Tiled, Tiling

LARGEST = 4.0
"""Ratio that the networks know."""


@dataclass(frozen=True)
class Job:
    """A picture to be made: from what, by whom, how large, and from which noise."""

    picture: Picture
    role: Role
    sampler: Sampler
    scale: float
    tiling: Tiling = Tiling()
    seed: int = 0

    @property
    def outside(self) -> tuple[int, int]:
        """Height and width of the result."""
        height, width = self.picture.size
        return max(1, round(height * self.scale)), max(1, round(width * self.scale))

    @property
    def channels(self) -> int:
        """Of the result, alpha included."""
        return self.picture.colours + self.picture.clear

    def tiled(self) -> Tiled:
        """The colours of the result."""
        colours = Enlarged(self.picture.rows, self.picture.size, self.outside)
        return Tiled(self.role, self.sampler, colours, self.tiling, self.seed)

    def finished(self, top: int, rows: Tensor) -> Tensor:
        """Rows as they are written: grey if the picture is, and with its alpha, enlarged."""
        rows = rows.mean(0, keepdim=True) if self.picture.colours == 1 else rows
        if not self.picture.clear:
            return rows
        alpha = Enlarged(self.picture.alpha, self.picture.size, self.outside)
        return torch.cat([rows, alpha.part(top, top + rows.shape[1], 0, rows.shape[2])])

    def gap(self, top: int, rows: Tensor) -> tuple[float, int]:
        """What squares of 4x4 pixels have gained or lost in brightness against the enlarged input: sum and count."""
        colours = Enlarged(self.picture.rows, self.picture.size, self.outside)
        change = (rows - colours.part(top, top + rows.shape[1], 0, rows.shape[2]).clamp(-1, 1)) / 2
        side = [max(1, min(4, length)) for length in change.shape[1:]]
        coarse = avg_pool2d(change[None], (side[0], side[1]))
        return float(coarse.double().square().sum()), coarse.numel()


def make(job: Job, out: Path, key: str, tick: Any = lambda done, total: None) -> float:
    """Write the picture, or the rest of it. Returns how well it agrees with its input, as the PSNR of squares of 4×4
    pixels in decibels.
    """
    with closing(PngWriter(out, job.outside, job.channels, job.picture.bits, key, job.picture.profile)) as writer:
        notes = _written(job, writer, tick)
        writer.finish()
    return -10 * math.log10(max(1e-12, notes["error"] / max(1, notes["count"])))


def _written(job: Job, writer: PngWriter, tick: Any) -> dict[str, Any]:
    """Write the strips that are missing; returns the sums over all of them."""
    tiled, notes = job.tiled(), {"error": 0.0, "count": 0, **writer.state["notes"]}
    done, total = writer.strips * tiled.columns, tiled.strips * tiled.columns
    tick(done, total)

    def ticked() -> None:
        nonlocal done
        done += 1
        tick(done, total)

    for top, rows in tiled.run(writer.strips, ticked) if writer.strips < tiled.strips else ():
        error, count = job.gap(top, rows)
        notes = {"error": notes["error"] + error, "count": notes["count"] + count}
        writer.write(job.finished(top, rows), **notes)
    return notes


def model_of(name: str) -> Builder:
    """A denoiser by its name, or the result of a run by its folder."""
    from distill.core.run import FromRun, is_folder

    registry = default_registry()
    if is_folder(name, registry):
        return FromRun(folder=Path(name))
    kind: Any = registry.load("denoiser", name)
    return kind()


def ready(builder: Builder, steps: int | None) -> tuple[Role, Sampler]:
    """Who restores, and how.

    Raises:
        RecipeError: the network knows no low-resolution pictures.
    """
    denoiser = builder.build().eval().requires_grad_(False)
    if "low" not in denoiser.null:
        raise RecipeError("this network is given no low-resolution picture: name one such as sr-student")
    return Role("student", denoiser, frozen=True), builder.sampler().with_steps(steps)


def check(picture: Path, out: Path, scale: float, overwrite: bool) -> None:
    """Refuse what would do harm, or cannot be done.

    Raises:
        DataError: with the remedy.
    """
    if not 1 <= scale <= LARGEST:
        raise DataError(f"--scale is between 1 and {LARGEST:g}, not {scale:g}: for more, upscale the result once more")
    if out.suffix.lower() != ".png":
        raise DataError(f"pictures are written as PNG, which loses nothing: name it {out.with_suffix('.png').name}")
    if out.exists() and not overwrite:
        what = "is the picture itself" if picture.exists() and out.samefile(picture) else "is there already"
        raise DataError(f"{out} {what}: give another name, or say --overwrite")
    if not picture.is_file():
        raise DataError(f"{picture} is no file: give a picture")
    if not out.parent.is_dir():
        raise DataError(f"{out.parent} is no folder: make it first")


def upscale(
    picture: Annotated[Path, typer.Argument(help="A picture: PNG, JPEG, WebP, TIFF or BMP.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The PNG to write; beside the picture if left out.")
    ] = None,
    scale: Annotated[float, typer.Option(help="How many times larger, between 1 and 4; 2.5 is fine.")] = 4.0,
    model: Annotated[str, typer.Option(help="A network for super-resolution, or the folder of a run.")] = "sr-student",
    steps: Annotated[int | None, typer.Option(min=1, help="Network calls; by default what it was trained for.")] = None,
    seed: Annotated[int, typer.Option(help="The seed of the noise.")] = 0,
    tile: Annotated[
        int, typer.Option(min=64, help="Side of a tile in pixels of the result: less needs less memory.")
    ] = 320,
    compare: Annotated[bool, typer.Option("--compare", help="Also write a page with a slider between both.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there, even the picture itself.")
    ] = False,
    most: Annotated[int, typer.Option(help="Millions of pixels of the largest picture that is read.")] = MOST // 10**6,
) -> None:
    """Make a picture larger. Alpha and 16 bits stay; begun again after an interruption, it goes on where it stopped."""
    out = picture.with_name(f"{picture.stem}-x{scale:g}.png") if out is None else out
    check(picture, out, scale, overwrite)
    role, sampler = ready(model_of(model), steps)
    job = Job(load(picture, most * 10**6), role, sampler, scale, Tiling(size=tile), seed)
    key = hashlib.sha256(picture.read_bytes() + f"{scale} {model} {sampler} {seed} {tile}".encode()).hexdigest()
    agreement = _shown(job, out, key)
    height, width = job.outside
    typer.echo(f"{out}: {width}x{height} pixels; squares of 4x4 pixels agree with the input to {agreement:.1f} dB")
    if compare:
        from distill.image.super_resolution.page import slider

        typer.echo(slider(job.picture, out, job.outside))


def _shown(job: Job, out: Path, key: str) -> float:
    """`make` with a bar of tiles."""
    from distill.core.commands import progress_bar

    with progress_bar() as progress:
        bar = progress.add_task("tiles", total=None, losses="")
        try:
            return make(job, out, key, lambda done, total: progress.update(bar, completed=done, total=total))
        except KeyboardInterrupt:
            raise DataError(f"stopped; the same command goes on where it stopped ({out.name}.part)") from None
