"""Music and sound to learn from: Bach's chorales, which need no download, and folders of recordings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.audio import sound
from distill.audio.codecs import FromLatent, ToLatent
from distill.audio.words import told
from distill.core import DataSource
from distill.core.data import Worded, collate
from distill.core.errors import DataError

TRAINING = 310
"""Pieces of the training split; the others are of the test split."""
PACES = ((80.0, "slow"), (100.0, "moderate"), (1e9, "fast"))
"""What a tempo below so many quarters a minute is called."""


# ---------------------------------------------------------------- chorales


class Music:
    """The chorales that ship: latents [P, 256, 32], chords [P, 256, 12], tempo and label [P], keys and captions."""

    def __init__(self, file: Path) -> None:
        from safetensors import safe_open

        with safe_open(file, "pt") as known:
            about = known.metadata()
            held = {name: known.get_tensor(name) for name in known.keys()}  # noqa: SIM118
        self.latents = held["latents"].float() * held["scale"]
        self.chords, self.tempo, self.label = bits(held["chords"]), held["tempo"], held["label"].long()
        self.instruments: list[str] = json.loads(about["instruments"])
        self.captions = [self._caption(row, key) for row, key in enumerate(json.loads(about["keys"]))]

    def _caption(self, row: int, key: str) -> str:
        pace = next(name for limit, name in PACES if float(self.tempo[row]) < limit)
        return f"{self.instruments[int(self.label[row])]}, {key}, {pace}"


def bits(numbers: Tensor) -> Tensor:
    """The twelve bits of each number: [..., 12]."""
    return ((numbers.long()[..., None] >> torch.arange(12)) & 1).float()


@cache
def music() -> Music:
    """The music that ships with this package, made by `recipes/chorales.py`."""
    return Music(Path(str(files("distill.audio") / "data" / "chorales.safetensors")))


class Windows(Worded):
    """Windows of pieces; record k depends on the options and k alone."""

    def __init__(self, source: Chorales, pieces: Tensor) -> None:
        self.source, self.pieces, self.known = source, pieces, music()
        last = self.known.latents.shape[1] - source.tokens
        self.starts = torch.arange(0, last + 1, source.every)

    @property
    def captions(self) -> Sequence[str]:
        return [self.known.captions[int(self.pieces[row // len(self.starts)])] for row in range(len(self))]

    def __len__(self) -> int:
        return len(self.pieces) * len(self.starts)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: value[0] for name, value in self.__getitems__([row]).items()}

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        chosen, source, known = torch.as_tensor(rows), self.source, self.known
        piece = self.pieces[chosen // len(self.starts)]
        start = self.starts[chosen % len(self.starts)]
        place = start[:, None] + torch.arange(source.tokens)
        latents = known.latents[piece[:, None], place]
        begin, whole = start * 1024 / 160_000, torch.full((len(rows),), known.latents.shape[1] * 1024 / 160_000)
        fields = {
            "label": known.label[piece], "tempo": known.tempo[piece] / 100, "seconds": torch.stack([begin, whole], 1),
            "chords": known.chords[piece[:, None], place] * self._heard(chosen)[:, None, None],
        }  # fmt: skip
        if source.text:
            fields["text"] = told([known.captions[int(row)] for row in piece], source.words, source.text)
        x = latents if source.form == "latents" else FromLatent(rounds=8)(latents)
        return {"x": x, **{name: value for name, value in fields.items() if name in source.conditions}}

    def _heard(self, rows: Tensor) -> Tensor:
        """Whether chords are told, in rows that are spread evenly: [B]."""
        return ((rows * 0.6180339887).frac() >= self.source.hide).float()


class Chorales(DataSource):
    """Bach's chorales on piano, harpsichord, organ, strings, choir and brass: the first 16.4 s of 340, at 16 kHz.

    They ship as latents of the codec that ships, [tokens, 32], 15.6 tokens a second, and can be had as waveforms.
    Scores: music21's corpus; sound font: MuseScore_General (MIT). Captions read "organ, G minor, slow".
    """

    tokens: PositiveInt = 64
    """Tokens of a window; 64 are 4.1 s."""
    every: PositiveInt = 4
    """Tokens from the beginning of a window to that of the next."""
    form: Literal["latents", "sound"] = "latents"
    """Latents [tokens, 32], or waveforms [1, 1024 tokens] decoded from them."""
    conditions: tuple[Literal["label", "tempo", "seconds", "chords", "text"], ...] = ("label", "tempo", "chords")
    """Conditions that samples come with."""
    text: NonNegativeInt = 0
    """Values of a word of the condition `text`; 0 is without."""
    words: PositiveInt = 8
    """Words of a text."""
    hide: float = Field(0.0, ge=0, le=1)
    """Share of the windows whose chords are not told."""

    def open(self, split: str = "train") -> Dataset[Any]:
        known = music()
        if self.tokens > known.latents.shape[1]:
            raise DataError(f"the pieces have {known.latents.shape[1]} tokens each, and a window has {self.tokens}")
        if "text" in self.conditions and not self.text:
            raise DataError("the condition text needs a width: give data.text, as that of the network")
        rows = torch.arange(len(known.latents))
        return Windows(self, rows[:TRAINING] if split == "train" else rows[TRAINING:])


# ---------------------------------------------------------------- folders


class Recordings(Worded):
    """Windows of files; each file is read when it is first asked for."""

    def __init__(self, source: AudioFolder, rows: Sequence[dict[str, Any]]) -> None:
        self.source, self.rows = source, rows
        self.labels = sorted({row["caption"] for row in rows})
        self.known: dict[Path, Tensor] = {}
        for row in rows:
            self._sound(row["file"])
        length = source.length
        self.windows = [
            (n, start)
            for n, row in enumerate(rows)
            for start in range(0, self._sound(row["file"]).shape[1] - length + 1, length)
        ]

    @property
    def captions(self) -> Sequence[str]:
        return [self.rows[n]["caption"] for n, _ in self.windows]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        n, start = self.windows[row]
        about, source = self.rows[n], self.source
        heard = self._sound(about["file"])
        x = heard[:, start : start + source.length]
        seconds = torch.tensor([start, heard.shape[1]]) / source.rate / 10
        fields = {"x": ToLatent()(x[None])[0] if source.form == "latents" else x, "seconds": seconds}
        fields["label"] = torch.tensor(self.labels.index(about["caption"]))
        if source.text:
            fields["text"] = told([about["caption"]], source.words, source.text)[0]
        return fields | ({"tempo": torch.tensor(about["tempo"] / 100)} if source.tempo else {})

    def __getitems__(self, rows: Sequence[int]) -> Any:
        return collate([self[row] for row in rows])

    def _sound(self, file: Path) -> Tensor:
        if file not in self.known:
            self.known[file] = self.source.load(file)
        return self.known[file]


class AudioFolder(DataSource):
    """A folder of WAV, FLAC, OGG or MP3 files, resampled, mixed and cut into windows that do not overlap.

    What a file holds stands in a text file of its own name (`tune.flac`, `tune.txt`), or in `metadata.jsonl` with one
    line a file: {"file": "tune.flac", "text": "a fiddle tune", "tempo": 96}. Conditions are `label`, the rank of the
    caption among all captions, `seconds`, and as asked for `text` and `tempo`.
    """

    example: ClassVar[dict[str, Any]] = {"folder": "recordings"}
    conformance: ClassVar[dict[str, str]] = {"samples": "there is no folder of recordings that every machine has"}
    folder: Path
    """Where the files are."""
    rate: PositiveInt = 16_000
    """Samples a second; files at another rate are resampled."""
    channels: Literal[1, 2] = 1
    """One channel or two; files with another number are mixed, or doubled."""
    window: PositiveFloat = 4.096
    """Seconds of a window."""
    form: Literal["sound", "latents"] = "sound"
    """Waveforms [channels, T], or latents of the codec that ships."""
    text: NonNegativeInt = 0
    """Values of a word of the condition `text`; 0 is without."""
    words: PositiveInt = 8
    """Words of a text."""
    tempo: bool = False
    """Give the tempo that metadata.jsonl says."""
    refuse_clipped: bool = True
    """Refuse files of which more than 1 % is at full scale."""

    @property
    def length(self) -> int:
        """Samples of a window; with latents a multiple of a token's."""
        count = round(self.window * self.rate)
        return count if self.form == "sound" else max(1, round(count / 1024)) * 1024

    def open(self, split: str = "train") -> Dataset[Any]:
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is no folder: give the folder that holds the recordings")
        if self.form == "latents" and self.rate != 16_000:
            raise DataError(f"the codec that ships is for 16,000 samples a second: set rate: 16000, not {self.rate}")
        found = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in sound.SUFFIXES)
        if not found:
            raise DataError(f"{self.folder} holds no recordings ({', '.join(sorted(sound.SUFFIXES))})")
        said = self._metadata()
        return Recordings(self, [self._about(path, said) for path in found])

    def load(self, file: Path) -> Tensor:
        """The sound of a file [channels, T], refused if nothing can be learnt from it."""
        heard = sound.read(file, self.rate, self.channels)
        sound.check(heard, file, self.length, self.rate, self.refuse_clipped)
        return heard

    def _about(self, file: Path, said: dict[str, dict[str, Any]]) -> dict[str, Any]:
        about = {"caption": "", **said.get(file.relative_to(self.folder).as_posix(), {}), "file": file}
        beside = file.with_suffix(".txt")
        if beside.is_file():
            about["caption"] = _text(beside).strip()
        if self.tempo and not isinstance(about.get("tempo"), int | float):
            raise DataError(f"metadata.jsonl says no tempo of {file}: add one, or set tempo: false")
        return about

    def _metadata(self) -> dict[str, dict[str, Any]]:
        file, known = self.folder / "metadata.jsonl", {}
        lines = _text(file).splitlines() if file.is_file() else []
        for number, line in enumerate(lines, 1):
            try:
                about = json.loads(line)
                known[about["file"]] = {**about, "caption": str(about.get("text", ""))}
            except (json.JSONDecodeError, TypeError, KeyError) as error:
                raise DataError(f'{file}:{number}: no line like {{"file": "a.wav", "text": "..."}}: {error}') from error
        return known


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no UTF-8 text: {error}. Save it as UTF-8.") from error
