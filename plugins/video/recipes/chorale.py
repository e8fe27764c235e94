"""The track of sound that distill-video ships: four voices of Bach's chorale BWV 66.6 on plucked strings.

    pip install music21 soundfile && python chorale.py OUT.flac

The score is music21's (Bach, 1725, in the public domain); the strings are computed here (Karplus & Strong 1983).
"""

from __future__ import annotations

import sys

import music21
import numpy as np
import soundfile

RATE, QUARTER, SECONDS = 8_000, 0.6, 22.0


def string(pitch: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A plucked string: noise that runs round a delay line and is smoothed at every turn."""
    period = round(RATE / (440 * 2 ** ((pitch - 69) / 12)))
    line, out = rng.uniform(-1, 1, period), np.empty(round(seconds * RATE))
    for start in range(0, len(out), period):
        part = out[start : start + period]
        part[:] = line[: len(part)]
        line = 0.996 * (line + np.roll(line, -1)) / 2
    return out


def main(path: str) -> None:
    """Write the track."""
    rng, sound = np.random.default_rng(0), np.zeros(round((SECONDS + 2) * RATE))
    for part in music21.corpus.parse("bach/bwv66.6").parts:
        for note in part.flatten().notes:
            first = round(float(note.offset) * QUARTER * RATE)
            tone = string(note.pitch.midi, float(note.quarterLength) * QUARTER + 0.3, rng)
            room = sound[first : first + len(tone)]
            room += tone[: len(room)]
    sound = sound[: round(SECONDS * RATE)]
    soundfile.write(path, 0.9 * sound / np.abs(sound).max(), RATE, subtype="PCM_16")


if __name__ == "__main__":
    main(sys.argv[1])
