"""The music that distill-audio ships: Bach's chorales, played by a sound font, as audio and as latents.

    pip install music21 soundfile && pip install --no-deps tinysoundfont
    apt-get install musescore-general-soundfont-small
    python chorales.py play SOUNDFONT FOLDER        (16.4 s of each chorale, 16 kHz, mono, and notes.json)
    python chorales.py codec FOLDER CODEC           (fit the codec to them; a quarter of an hour on a core)
    python chorales.py pack FOLDER CODEC LATENTS    (all of them as latents in bytes, with conditions)
    python chorales.py excerpt FOLDER OUT.flac      (twelve seconds of audio, to try codecs on)

The scores are music21's (Bach, in the public domain); the sound font is MuseScore_General (MIT: F. Wen, M. Cowgill,
S. C. Collins).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

RATE, SECONDS, PIECES = 16_000, 16.384, 340
TOKEN = 1024
PROGRAMS = {"piano": 0, "harpsichord": 6, "organ": 19, "strings": 48, "choir": 52, "brass": 61}
"""Instruments, and their General MIDI programs."""
TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


def notes_of(score: Any, quarter: float, shift: int) -> list[tuple[float, float, int]]:
    """Start and end in seconds and MIDI pitch of every note; tied notes are one."""
    found = []
    for part in score.parts:
        for note in part.stripTies().flatten().notes:
            start = float(note.offset) * quarter
            for pitch in note.pitches:
                found.append((start, start + float(note.quarterLength) * quarter, int(pitch.midi) + shift))
    return sorted(found)


def played(synth: Any, program: int, notes: list[tuple[float, float, int]], seed: int) -> np.ndarray:
    """The notes on one instrument, with small differences of loudness and time: [samples]."""
    rng = np.random.default_rng(seed)
    synth.notes_off()
    synth.program_select(0, synth.sfid, 0, program)
    events = []
    for start, end, pitch in notes:
        begin = start + abs(rng.normal(0, 0.006))
        events += [(begin, 1, pitch, int(rng.integers(70, 100))), (max(begin + 0.05, end - 0.02), 0, pitch, 0)]
    out, now = [], 0
    for time, on, pitch, velocity in sorted(events):
        step = min(round(time * RATE), round(SECONDS * RATE)) - now
        if step > 0:
            out.append(np.frombuffer(bytes(synth.generate(step)), np.float32).reshape(-1, 2).mean(1))
            now += step
        (synth.noteon(0, pitch, velocity) if on else synth.noteoff(0, pitch))
    rest = round(SECONDS * RATE) - now
    out += [np.frombuffer(bytes(synth.generate(rest)), np.float32).reshape(-1, 2).mean(1)] if rest > 0 else []
    synth.sounds_off()
    return np.concatenate(out)


def chords_of(notes: list[tuple[float, float, int]]) -> np.ndarray:
    """Which pitch classes sound for half of each token's time or more, as the bits of a number: [tokens]."""
    count = round(SECONDS * RATE) // TOKEN
    edges = np.arange(count + 1) * TOKEN / RATE
    out = np.zeros((count, 12))
    for start, end, pitch in notes:
        inside = np.clip(np.minimum(end, edges[1:]) - np.maximum(start, edges[:-1]), 0, None)
        out[:, pitch % 12] += inside * RATE / TOKEN
    return ((out >= 0.5) @ (1 << np.arange(12))).astype(np.int16)


def play(font: str, folder: str) -> None:
    """Render every chorale that is long enough, each on one instrument in one key at one tempo."""
    import music21
    import soundfile
    import tinysoundfont

    synth = tinysoundfont.Synth(samplerate=RATE, gain=-6)
    synth.sfid = synth.sfload(font)
    out, rng, known = Path(folder), np.random.default_rng(0), []
    out.mkdir(parents=True, exist_ok=True)
    for score in music21.corpus.chorales.Iterator():
        if len(known) == PIECES:
            break
        instrument = list(PROGRAMS)[len(known) % len(PROGRAMS)]
        tempo, shift = float(rng.uniform(60, 120)), int(rng.integers(-2, 3))
        notes = notes_of(score, 60 / tempo, shift)
        if not notes or max(end for _, end, _ in notes) < SECONDS:
            continue
        key = score.analyze("key")
        sound = played(synth, PROGRAMS[instrument], notes, len(known))
        sound = 0.5 * sound / max(float(np.sqrt((sound**2).mean())) * 4, 1e-6)
        name = f"{len(known):04d}-{instrument}.flac"
        soundfile.write(out / name, np.clip(sound, -1, 1), RATE, subtype="PCM_16")
        tonic = TONICS[(key.tonic.pitchClass + shift) % 12]
        known.append({
            "file": name, "instrument": instrument, "tempo": tempo, "key": f"{tonic} {key.mode}",
            "notes": [(round(a, 4), round(b, 4), p) for a, b, p in notes if a < SECONDS],
        })  # fmt: skip
    (out / "notes.json").write_text(json.dumps(known))
    print(len(known), "pieces")


def codec(folder: str, to: str) -> None:
    """Fit the codec that ships, and say what a round trip loses."""
    import soundfile
    import torch

    from distill.audio.codecs import LatentCodec, fitted

    torch.manual_seed(0)
    sounds = [soundfile.read(path, dtype="float32")[0] for path in sorted(Path(folder).glob("*.flac"))]
    made = fitted(LatentCodec(), torch.tensor(np.stack(sounds)), report=print)
    made.save(Path(to))


def pack(folder: str, codec_file: str, to: str) -> None:
    """Latents in bytes, chords in bits, tempo, instrument and key of every piece."""
    import soundfile
    import torch
    from safetensors.torch import save_file

    from distill.audio.codecs import LatentCodec

    known = json.loads((Path(folder) / "notes.json").read_text())
    made = LatentCodec.load(Path(codec_file))
    rows = []
    with torch.no_grad():
        for piece in known:
            sound = torch.tensor(soundfile.read(Path(folder) / piece["file"], dtype="float32")[0])
            rows.append(made.encode(sound[None])[0])
    latents = torch.stack(rows)
    scale = latents.abs().amax((0, 1)) / 127
    chords = np.stack([chords_of([tuple(note) for note in piece["notes"]]) for piece in known])
    tensors = {
        "latents": (latents / scale).round().to(torch.int8),
        "scale": scale,
        "chords": torch.tensor(chords),
        "tempo": torch.tensor([piece["tempo"] for piece in known]),
        "label": torch.tensor([list(PROGRAMS).index(piece["instrument"]) for piece in known], dtype=torch.uint8),
    }
    keys = json.dumps([piece["key"] for piece in known])
    save_file(tensors, to, metadata={"keys": keys, "instruments": json.dumps(list(PROGRAMS))})


def excerpt(folder: str, to: str) -> None:
    """Two seconds of each instrument."""
    import soundfile

    parts = [soundfile.read(path, dtype="float32", start=RATE, frames=2 * RATE)[0]
             for path in sorted(Path(folder).glob("*.flac"))[-len(PROGRAMS) :]]  # fmt: skip
    soundfile.write(to, np.concatenate(parts), RATE, subtype="PCM_16")


if __name__ == "__main__":
    {"play": play, "codec": codec, "pack": pack, "excerpt": excerpt}[sys.argv[1]](*sys.argv[2:])
