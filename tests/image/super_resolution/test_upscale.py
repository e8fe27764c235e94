import numpy as np
import pytest
import torch
from PIL import Image

from distill.core import Sampler
from distill.core.errors import DataError, RecipeError
from distill.image.super_resolution import upscale
from distill.image.super_resolution.degradations import resized
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.pictures import load
from distill.image.super_resolution.tiles import Tiling
from distill.image.super_resolution.upscale import Job, make

NETWORK = RestorerDenoiser(width=8, blocks=2, steps=1)
TILING = Tiling(size=64, overlap=32, fade=8)


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """A network without training says what bicubic says."""
    monkeypatch.setattr(upscale, "model_of", lambda name: NETWORK)


@pytest.fixture
def picture(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (40, 23, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def job(path, scale=4.0):
    return Job(load(path), *upscale.ready(NETWORK, None), scale, TILING)


def test_a_new_network_is_bicubic(picture, tmp_path, capsys):
    upscale.upscale(picture, tmp_path / "out.png", 4.0, "any", None, 0, 64, False, False, 100)
    wanted = resized(load(picture).rows(0, 40), (160, 92)).clamp(-1, 1)
    assert (load(tmp_path / "out.png").rows(0, 160) - wanted).abs().max() <= 1.1 / 127.5
    assert "92x160" in capsys.readouterr().out


@pytest.mark.parametrize(("mode", "size", "scale"), [("L", (1, 1), 4), ("LA", (5, 9), 1), ("RGBA", (30, 7), 2.5)])
def test_sorts_sizes_and_ratios(tmp_path, mode, size, scale):
    Image.new(mode, size, (200, 100)[: 2 if mode == "LA" else 1] if mode != "RGBA" else (9, 99, 199, 60)).save(
        tmp_path / "a.png"
    )
    make(job(tmp_path / "a.png", scale), tmp_path / "o.png", "key")
    with Image.open(tmp_path / "o.png") as out, Image.open(tmp_path / "a.png") as given:
        assert out.mode == mode and out.size == tuple(round(side * scale) for side in size)
        assert out.getpixel((0, 0)) == given.getpixel((0, 0))


class Stop(Exception):
    pass


def test_an_interrupted_picture_is_the_same_in_the_end(picture, tmp_path):
    make(job(picture), tmp_path / "whole.png", "key")

    def stop(done, total):
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        make(job(picture), tmp_path / "o.png", "key", stop)
    assert not (tmp_path / "o.png").exists()
    seen = []
    make(job(picture), tmp_path / "o.png", "key", lambda done, total: seen.append((done, total)))
    assert seen[0] == (4, 6) and seen[-1] == (6, 6)
    assert (tmp_path / "o.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


def test_agreement_tells_of_what_is_lost(picture, tmp_path):
    torch.manual_seed(0)
    denoiser = NETWORK.build()
    torch.nn.init.normal_(denoiser.network.outlet.weight, std=0.3)
    spoilt = Job(load(picture), upscale.Role("student", denoiser), Sampler(steps=1), 4.0, TILING)
    assert make(job(picture), tmp_path / "a1.png", "k") > 60 > 40 > make(spoilt, tmp_path / "a2.png", "k")


def test_nothing_is_overwritten_unasked(picture, tmp_path):
    before = picture.read_bytes()
    for out, message in ((picture, "is the picture itself"), (tmp_path / "o.jpg", "name it o.png")):
        with pytest.raises(DataError, match=message):
            upscale.upscale(picture, out)
    assert picture.read_bytes() == before
    upscale.upscale(picture, picture, 2.0, "any", None, 0, 64, False, True, 100)
    assert load(picture).size == (80, 46)


@pytest.mark.parametrize(("options", "message"), [({"scale": 5.0}, "between 1 and 4"), ({"scale": 0.5}, "between")])
def test_what_cannot_be_done_is_said(picture, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        upscale.upscale(picture, tmp_path / "o.png", **options)
    with pytest.raises(DataError, match="is no file"):
        upscale.upscale(tmp_path / "none.png")


def test_a_network_without_low_resolution_is_refused():
    with pytest.raises(RecipeError, match="is given no low-resolution picture"):
        upscale.ready(RestorerDenoiser(width=8, blocks=1, given=0), None)


def test_a_page_compares_however_large_the_result_is(picture, tmp_path, monkeypatch):
    with Image.open(picture) as seen:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", seen.width * seen.height)  # Pillow stops at twice as many
    upscale.upscale(picture, tmp_path / "o & p.png", 2.0, "any", None, 0, 64, True, False, 100)
    page = (tmp_path / "o & p.html").read_text()
    assert 'src="o%20%26%20p.png"' in page and (tmp_path / "o & p-before.png").exists() and 'type="range"' in page
