"""Emoji under their names: what is rendered, which are mirrored, and what is said where a part is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from distill.core.errors import DataError
from distill.image.datasets_emoji import FONT, HANDED, Emoji, named, rendered

HERE = FONT.is_file() and all(map(find_spec, ("emoji", "wordllama")))
needs_the_font = pytest.mark.skipif(not HERE, reason="fonts-noto-color-emoji, emoji or wordllama is not installed")


@needs_the_font
def test_pictures_are_those_of_their_names(monkeypatch, tmp_path):
    some = dict(list(named().items())[::60])
    monkeypatch.setattr("distill.image.datasets_emoji.named", lambda: some)
    data = Emoji(size=16, encoder="wordllama", cache=tmp_path).open()
    assert data[0]["x"].shape == (3, 16, 16) and data[0]["text"].shape == (12, 256)
    assert data[0]["x"].max() == 1 and data[0]["x"].min() < 0 and len(data) > len(some) * 1.5
    again = Emoji(size=16, encoder="wordllama", cache=tmp_path).open()
    assert all(torch.equal(again[3][name], value) for name, value in data[3].items())


@needs_the_font
def test_colours_and_what_the_font_does_not_have():
    made = rendered(FONT, 8, ["🔴", "🔵", "🫪🫪🫪"])
    assert made["there"].tolist() == [True, True, False]
    red, blue = made["x"][0, :, 4, 4].tolist(), made["x"][1, :, 4, 4].tolist()
    assert red[0] > 180 > 100 > red[2] and blue[2] > 180 > 100 > blue[0]


@needs_the_font
def test_flags_say_that_they_are_flags():
    names = set(named().values())
    assert {"flag of Kenya", "flag of Scotland", "red apple", "cat face"} <= names
    assert not any("skin tone" in name for name in names) and len(names) > 1800


@pytest.mark.parametrize("name, handed", [
    ("flag of Kenya", True), ("right arrow", True), ("five-thirty", True), ("AB button (blood type)", True),
    ("red apple", False), ("cat face", False), ("brightness", False),
])  # fmt: skip
def test_what_may_be_mirrored(name, handed):
    assert bool(HANDED.search(name)) == handed


@needs_the_font
def test_a_missing_font_is_named():
    with pytest.raises(DataError, match="apt-get install fonts-noto-color-emoji"):
        Emoji(font=Path("nowhere.ttf")).open()


def test_missing_names_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "emoji", None)
    with pytest.raises(DataError, match="pip install emoji"):
        Emoji().open()
