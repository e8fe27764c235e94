"""Gathers the photographs that sr-student is trained on, from packages of Debian 12 and of Python.

    apt-get download mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 opencv-doc gcompris-qt-data
    for each in *.deb; do dpkg -x "$each" unpacked; done
    python sr_photographs.py unpacked photographs

Pictures are halved until what compression and lenses did to them is gone. None of `HELD_OUT` is among them. They stand
under licences of their own (CC BY, CC BY-SA, GPL, BSD, others: usr/share/doc/*/copyright); none is in this package.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from distill.image.super_resolution.data import HELD_OUT, photographs
from distill.image.super_resolution.degradations import to_picture

BACKGROUNDS = "usr/share/backgrounds"
SHARP = {
    f"{BACKGROUNDS}/mate/nature": "*.jpg",
    BACKGROUNDS: "[FIK]*_by_*.jpg",
    "usr/share/doc/opencv-doc/examples/data": (
        "HappyFish.jpg Blender_Suzanne1.jpg aloeL.jpg apple.jpg baboon.jpg basketball1.png board.jpg box_in_scene.png "
        "building.jpg butterfly.jpg fruits.jpg graf1.png home.jpg leuvenA.jpg messi5.jpg orange.jpg rubberwhale1.png "
        "squirrel_cls.jpg stuff.jpg"
    ),
}
"""Folders, and the files in them that are as sharp as they are large."""
SOFT = {BACKGROUNDS: "[!FIK]*_by_*.jpg", "usr/share/gcompris-qt/rcc": "explore_*.rcc erase.rcc"}
"""Those that are halved once in any case."""


def pictures(file: Path) -> Iterator[tuple[str, Image.Image]]:
    """The pictures of a file, which may be a bundle of them, and their names."""
    if file.suffix != ".rcc":
        yield file.stem, Image.open(file)
        return
    bundle = file.read_bytes()
    for n, found in enumerate(re.finditer(rb"RIFF(.{4})WEBP", bundle, re.DOTALL)):
        length = int.from_bytes(found[1], "little") + 8
        picture = Image.open(BytesIO(bundle[found.start() : found.start() + length]))
        if picture.mode == "RGB" and min(picture.size) >= 400:
            yield f"{file.stem}-{n}", picture


def found(unpacked: Path) -> Iterator[tuple[str, Image.Image, int]]:
    """Every picture, its name, and how often it is halved at least."""
    kinds = [(SHARP, 0), (SOFT, 1)]
    globs = [
        (unpacked / folder, each, n) for kind, n in kinds for folder, some in kind.items() for each in some.split()
    ]
    for folder, pattern, halvings in globs:
        for file in sorted(folder.glob(pattern)):
            yield from ((name, picture, halvings) for name, picture in pictures(file))


def main(unpacked: str, out: str) -> None:
    """Read, halve, write."""
    into = Path(out)
    into.mkdir(parents=True, exist_ok=True)
    for name, picture, halvings in found(Path(unpacked)):
        while min(picture.size) >> halvings >= 1000:
            halvings += 1
        size = (picture.width >> halvings, picture.height >> halvings)
        picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(into / f"{name}.png")
    for name, picture in photographs().items():
        if name not in HELD_OUT:
            to_picture(picture).save(into / f"{Path(name).stem}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
