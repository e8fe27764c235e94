"""Captioned pictures that a font ships: Noto's colour emoji under their Unicode names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource
from distill.core.data import Worded
from distill.core.errors import DataError
from distill.image.datasets_captioned import excerpts
from distill.methods.cache import Cache, digest
from distill.methods.captions import ENCODERS, Conditions, EncoderName

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
HANDED = re.compile(
    r"\b(left|right|flag|clock|clockwise|button|keycap|o’clock|thirty|arrow|symbol|input|sign|mark|watch|letter|"
    r"calendar|date|book|dollar|yen|euro|pound|hundred|notes?|clef|hand|wise|zodiac|abacus|chart|map|globe)\b"
)
"""Names of pictures that their mirror image contradicts: writing, directions, clocks, flags."""
PLACE = re.compile("[\U0001f1e6-\U0001f1ff]|\U0001f3f4[\U000e0020-\U000e007f]")
"""How the flags of countries and regions begin, whose names are those of the places alone."""


class Captioned(Worded):
    """Pictures in bytes [N, C, H, W], with the captions that some rows of conditions hold."""

    def __init__(self, pictures: Tensor, rows: Tensor, conditions: Conditions) -> None:
        self.pictures, self.rows, self.conditions = pictures, rows, conditions

    @property
    def captions(self) -> Sequence[str]:
        return [self.conditions.captions[row] for row in self.rows.tolist()]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([row]).items()}

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(rows)
        x = self.pictures[chosen].float() / 127.5 - 1
        return {"x": x, **self.conditions[self.rows[chosen].tolist()]}


class Emoji(DataSource):
    """1,899 emoji of Google's Noto font (OFL 1.1) on white, with their English names as captions.

    Skin tones are left out. A picture that its mirror image does not contradict is there twice, also mirrored.
    """

    conformance: ClassVar[dict[str, str]] = {"samples": "the font and the package `emoji` are not on every machine"}
    size: PositiveInt = 32
    """Side of the square in pixels, up to 128."""
    encoder: EncoderName = "minilm"
    """Who encodes the captions."""
    tokens: PositiveInt = 12
    """Tokens of a caption; few names have more."""
    mirrored: bool = True
    """Add mirror images where they are harmless."""
    font: Path = FONT
    """Where the font is."""
    cache: Path | None = None
    """Folder of the caches; one in the home folder if None."""

    def open(self, split: str = "train") -> Dataset[Any]:
        names, pictures = self._rendered()
        rows = torch.arange(len(names))
        if self.mirrored:
            harmless = torch.tensor([not HANDED.search(name) for name in names])
            pictures = torch.cat([pictures, pictures[harmless].flip(3)])
            rows = torch.cat([rows, rows[harmless]])
        return Captioned(pictures, rows, Conditions(names, ENCODERS[self.encoder](tokens=self.tokens), self.cache))

    def _rendered(self) -> tuple[list[str], Tensor]:
        """Names and pictures in bytes, of a cache where they are in one."""
        known = named()
        if not self.font.is_file():
            raise DataError(f"{self.font} is not there: apt-get install fonts-noto-color-emoji, or give its place")
        cache = Cache(
            self.cache / "emoji" if self.cache else None, "emoji", digest(excerpts(self.font), str(self.size))
        )
        table = cache.table(list(known), str, partial(rendered, self.font, self.size))
        found = table[range(len(table))]
        names = [name for name, there in zip(known.values(), found["there"].tolist(), strict=True) if there]
        return names, found["x"][found["there"]]


def rendered(font: Path, size: int, characters: Sequence[str]) -> dict[str, Tensor]:
    """Pictures `x` [N, 3, size, size] in bytes, and whether the font has each: `there` [N]."""
    from PIL import ImageFont

    face = ImageFont.truetype(str(font), 109)
    pictures = torch.stack([_drawn(face, character, size) for character in characters])
    parts_only = torch.tensor([face.getbbox(character)[2] > 150 for character in characters])
    return {"x": pictures, "there": (pictures.float().flatten(1).std(1) > 3) & ~parts_only}


def _drawn(face: Any, character: str, size: int) -> Tensor:
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (136, 128), "white")
    ImageDraw.Draw(sheet).text((0, 0), character, font=face, embedded_color=True)
    raw = torch.frombuffer(bytearray(sheet.resize((size, size)).tobytes()), dtype=torch.uint8)
    return raw.view(size, size, 3).permute(2, 0, 1)


def named() -> dict[str, str]:
    """Fully qualified emoji without skin tones, and their English names."""
    try:
        import emoji
    except ImportError as error:
        raise DataError(
            "the names of emoji are the package `emoji`, which is not installed: pip install emoji"
        ) from error
    known: dict[str, Any] = emoji.EMOJI_DATA
    full = {character: about["en"].strip(":").replace("_", " ") for character, about in known.items()
            if about["status"] == emoji.STATUS["fully_qualified"]}  # fmt: skip
    return {character: f"flag of {name}" if PLACE.match(character) else name
            for character, name in full.items() if "skin tone" not in name}  # fmt: skip
