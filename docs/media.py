"""Make the pictures, clips, sounds and scenes of the site from the models that ship.

python docs/media.py                # all of them, in about six minutes on two cores
python docs/media.py scene.gif      # one
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parent
PROMPT = "smiling cat with heart eyes"
SOUNDS, BITS = 3, 48_000
"""How many sounds follow each other, and the bits of a second of them."""


class Medium(NamedTuple):
    """The command that makes a medium, the files that it leaves, how they become one, and the most bytes of it."""

    command: Sequence[str]
    files: str
    become: Callable[[list[Path], Path], Any]
    most: int


def copy(files: list[Path], path: Path) -> None:
    """The file as it is."""
    shutil.copy(files[0], path)


def mp3(files: list[Path], path: Path) -> None:
    """Sounds one after the other."""
    import av

    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libmp3lame", rate=16_000)
        stream.bit_rate, stream.layout = BITS, "mono"
        resampler = av.AudioResampler(format="s16p", layout="mono", rate=16_000)
        for file in files[:SOUNDS]:
            with av.open(str(file)) as source:
                for frame in source.decode(audio=0):
                    frame.pts = None
                    for part in resampler.resample(frame):
                        sink.mux(stream.encode(part))
        sink.mux(stream.encode())


MEDIA = {
    "demo.png": Medium(["demo"], "previews/together.png", copy, 50_000),
    "prompt.png": Medium(["demo", "--prompt", PROMPT], "prompt.png", copy, 200_000),
    "video.gif": Medium(["demo", "video"], "beside.gif", copy, 400_000),
    "music.mp3": Medium(["demo", "audio"], "sounds/student-*.wav", mp3, 100_000),
    "scene.gif": Medium(["demo", "3d"], "previews/turn.gif", copy, 300_000),
}


def make(name: str, folder: Path) -> None:
    """Run a medium's command, and put what it made where the site looks for it."""
    medium = MEDIA[name]
    subprocess.run([Path(sys.executable).with_name("distill"), *medium.command, "-o", folder], check=True)
    path = DOCS / name
    medium.become(sorted(folder.glob(medium.files)), path)
    print(f"{path}: {path.stat().st_size:,} bytes, at most {medium.most:,}")


def main(names: Sequence[str]) -> None:
    """Make those that are named, or all."""
    for name in names or MEDIA:
        with tempfile.TemporaryDirectory() as folder:
            make(name, Path(folder) / "made")


if __name__ == "__main__":
    main(sys.argv[1:])
