"""Pictures on disk are the pictures that were drawn, pixel by pixel."""

from __future__ import annotations

import numpy
import pytest
import torch
from PIL import Image as Pillow

from distill.core.errors import DataError
from distill.image.modality import Image, grid, to_bytes

SHADES = torch.linspace(-1, 1, 3 * 2 * 4 * 4).view(2, 3, 4, 4)


def read(path):
    return torch.from_numpy(numpy.array(Pillow.open(path)))


def test_bytes_of_the_ends_and_beyond():
    assert to_bytes(torch.tensor([-2.0, -1, 0, 1, 2]).view(1, 1, 1, 5)).flatten().tolist() == [
        0,
        0,
        128,
        255,
        255,
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_written_pictures_are_exact(tmp_path, channels):
    samples = SHADES[:, :channels]
    paths = Image().write(samples, tmp_path / "new")
    assert [path.name for path in paths] == ["sample-0000.png", "sample-0001.png"]
    pixels = torch.stack([read(path) for path in paths]).reshape(2, 4, 4, channels)
    assert torch.equal(pixels, to_bytes(samples))
    assert (pixels.permute(0, 3, 1, 2) / 127.5 - 1 - samples).abs().max() <= 1 / 255


def test_a_sheet_has_a_line_between_its_pictures():
    pixels = to_bytes(SHADES[:, :1])
    sheet = grid(torch.cat([pixels, pixels[:1]]), columns=2)
    assert sheet.shape == (11, 11, 1) and (sheet[0] == 64).all() and (sheet[:, 5] == 64).all()
    assert torch.equal(sheet[1:5, 6:10], pixels[1]) and torch.equal(sheet[6:10, 1:5], pixels[0])
    assert (sheet[6:10, 6:10] == 64).all()


def test_previews_of_small_pictures_are_enlarged(tmp_path):
    picture = read(Image(scale=3).preview(SHADES, tmp_path / "deep" / "p.png"))
    assert picture.shape == (18, 33, 3) and torch.equal(picture[::3, ::3], grid(to_bytes(SHADES), columns=2))
    large = Image().preview(torch.zeros(40, 1, 64, 64), tmp_path / "q.png")
    assert read(large).shape == (4 * 65 + 1, 10 * 65 + 1)


@pytest.mark.parametrize("samples", [torch.zeros(2, 4, 8, 8), torch.zeros(3, 8, 8), {"x": torch.zeros(1)}])
def test_what_is_no_picture_is_refused(tmp_path, samples):
    with pytest.raises(DataError, match="latents need a decoder"):
        Image().write(samples, tmp_path)
