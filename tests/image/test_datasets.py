"""Picture data: the digits that ship with scikit-learn, and folders."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from distill.core.data import batches
from distill.core.errors import DataError
from distill.image.datasets import Digits, PictureFolder


def picture(path, size=(8, 8), colour=128, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if isinstance(colour, tuple) else "L", size, colour).save(path, **options)


def test_digits():
    data = Digits().open()
    assert len(data) == 1797 and data[0]["x"].shape == (1, 8, 8) and data[0]["label"] == 0
    assert data.tensors["x"].min() == -1 and data.tensors["x"].max() == 1
    assert sorted(set(data.tensors["label"].tolist())) == list(range(10))


def test_a_folder_of_folders_is_labelled_in_alphabetical_order(tmp_path):
    for name, shade in (("b/1", 255), ("a/1", 0), ("a/2", 51)):
        picture(tmp_path / f"{name}.png", colour=shade)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    data = PictureFolder(folder=tmp_path, size=8, mode="L").open()
    assert [int(data[n]["label"]) for n in range(3)] == [0, 0, 1]
    assert [round(float(data[n]["x"].mean()), 4) for n in range(3)] == [-1, -0.6, 1]


def test_pictures_are_cropped_to_a_square_of_one_size_and_colour(tmp_path):
    picture(tmp_path / "wide.png", (40, 20), (255, 0, 0))
    picture(tmp_path / "tall.jpg", (20, 40), 255)
    batch = next(batches(PictureFolder(folder=tmp_path, size=16).open(), 2))
    assert batch.x.shape == (2, 3, 16, 16)
    red = PictureFolder(folder=tmp_path, size=16).open()[1]["x"]
    assert torch.equal(red[:, 3, 3], torch.tensor([1.0, -1, -1]))


def test_photographs_stand_upright(tmp_path):
    photo, turned = Image.new("L", (8, 8), 0), Image.Exif()
    photo.paste(255, (0, 0, 8, 4))
    turned[0x0112] = 3
    photo.save(tmp_path / "a.png", exif=turned)
    x = PictureFolder(folder=tmp_path, size=8, mode="L").open()[0]["x"]
    assert x[0, 0].max() == -1 and x[0, 7].min() == 1


@pytest.mark.parametrize("damage", ["text", "cut", "empty"])
def test_an_unreadable_picture_is_named(tmp_path, damage):
    picture(tmp_path / "a.png", (64, 64))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes({"text": b"hello", "cut": whole[: len(whole) // 2], "empty": b""}[damage])
    with pytest.raises(DataError, match=r"a.png is not a readable picture: .* Mend or remove it"):
        PictureFolder(folder=tmp_path).open()[0]


def test_folders_without_pictures(tmp_path):
    with pytest.raises(DataError, match="holds no pictures"):
        PictureFolder(folder=tmp_path).open()
    with pytest.raises(DataError, match="is no folder"):
        PictureFolder(folder=tmp_path / "none").open()
