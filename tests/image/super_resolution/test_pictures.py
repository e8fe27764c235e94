from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image

from distill.core.errors import DataError
from distill.image.super_resolution.pictures import PngWriter, load

DRAW = np.random.default_rng(0)
COLOURS = DRAW.integers(0, 256, (9, 7, 3), dtype=np.uint8)


def saved(path, values, mode=None, **options):
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return load(path)


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [("RGB", "png", 3), ("L", "png", 1), ("1", "png", 1), ("P", "png", 3), ("RGBA", "png", 4), ("LA", "png", 2),
     ("CMYK", "jpg", 3), ("CMYK", "tif", 3), ("RGB", "bmp", 3), ("RGB", "webp", 3)],
)  # fmt: skip
def test_every_sort_of_picture_is_read(tmp_path, mode, suffix, channels):
    picture = saved(tmp_path / f"a.{suffix}", COLOURS, mode)
    assert picture.values.shape == (9, 7, channels) and picture.clear == (channels in (2, 4))
    assert picture.rows(2, 5).shape == (3, 3, 7) and picture.rows(0, 9).abs().max() <= 1


def test_a_palette_may_be_clear(tmp_path):
    with Image.fromarray(COLOURS).convert("P") as palette:
        palette.save(tmp_path / "a.png", transparency=palette.getpixel((0, 0)))
    picture = load(tmp_path / "a.png")
    assert picture.clear and picture.alpha(0, 9).shape == (1, 9, 7) and picture.alpha(0, 1)[0, 0, 0] == -1


def test_a_turned_photograph_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = saved(tmp_path / "a.png", COLOURS, exif=exif)
    assert picture.size == (7, 9) and np.array_equal(picture.values, np.rot90(COLOURS, -1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_written_is_read_again(tmp_path, channels, bits):
    if bits == 16 and channels > 1:
        pytest.importorskip("av")
    top = (1 << bits) - 1
    values = DRAW.integers(0, top + 1, (9, 7, channels))
    rows = torch.from_numpy(values / top * 2 - 1).permute(2, 0, 1).float()
    writer = PngWriter(tmp_path / "a.png", (9, 7), channels, bits, "key")
    for part in rows.split(4, 1):
        writer.write(part)
    writer.finish()
    again = load(tmp_path / "a.png")
    assert again.bits == bits and np.array_equal(again.values, values)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_picture_is_gone_on_with(tmp_path):
    rows = torch.rand(3, 12, 5) * 2 - 1
    parts = rows.split(4, 1)
    first = PngWriter(tmp_path / "a.png", (12, 5), 3, 8, "key")
    first.write(parts[0], seen=1)
    first.file.write(b"cut off in the middle")
    first.file.close()
    second = PngWriter(tmp_path / "a.png", (12, 5), 3, 8, "key")
    assert second.strips == 1 and second.state["notes"] == {"seen": 1}
    for part in parts[1:]:
        second.write(part)
    second.finish()
    assert np.array_equal(load(tmp_path / "a.png").values, ((rows + 1) * 127.5).round().permute(1, 2, 0).numpy())


def test_a_part_of_another_picture_is_begun_anew(tmp_path):
    with closing(PngWriter(tmp_path / "a.png", (4, 4), 3, 8, "one")) as writer:
        writer.write(torch.zeros(3, 4, 4))
    with closing(PngWriter(tmp_path / "a.png", (4, 4), 3, 8, "other")) as writer:
        assert writer.strips == 0


def test_a_profile_is_kept(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = saved(tmp_path / "a.png", COLOURS, icc_profile=profile)
    writer = PngWriter(tmp_path / "b.png", (9, 7), 3, 8, "key", picture.profile)
    writer.write(picture.rows(0, 9))
    writer.finish()
    assert load(tmp_path / "b.png").profile == profile


def test_bad_files_get_one_message_each(tmp_path):
    good = tmp_path / "good.jpg"
    Image.fromarray(DRAW.integers(0, 256, (99, 99, 3), dtype=np.uint8)).save(good)
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:3000])
    (tmp_path / "none.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, message in {"cut.jpg": "damaged", "none.png": "no picture", "empty.png": "no picture"}.items():
        with pytest.raises(DataError, match=message):
            load(tmp_path / name)


def test_a_bomb_is_not_opened(tmp_path):
    writer = PngWriter(tmp_path / "bomb.png", (60_000, 60_000), 3, 8, "key")
    writer.write(torch.zeros(3, 1, 1))
    writer.finish()
    with pytest.raises(DataError, match="million pixels"):
        load(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="more than 6e-05 million pixels"):
        Image.fromarray(COLOURS).save(tmp_path / "a.png")
        load(tmp_path / "a.png", most=60)
