import pytest
import torch

from distill.core import Samples
from distill.core.data import collate
from distill.core.errors import DataError
from distill.image.super_resolution import data
from distill.image.super_resolution.degradations import to_picture


@pytest.fixture
def folder(tmp_path):
    for n in range(4):
        to_picture(torch.full((3, 40, 52), n / 2 - 0.9)).save(tmp_path / f"{n}.png")
    return tmp_path


def test_photographs_are_held_out_whole():
    source = data.Photographs(size=48)
    train, test = source.pictures("train"), source.pictures("test")
    assert len(train) >= 10 and len(test) == 4
    assert not any(a.shape == b.shape and torch.equal(a, b) for a in train for b in test)


def test_states_and_conditions_make_the_picture():
    options = {"size": 32, "rows": 4, "with_high": True}
    residual, picture = (data.Photographs(state=state, **options).open() for state in ("residual", "picture"))
    one, other = collate([residual[2]]), collate([picture[2]])
    assert torch.allclose(one["x"] + one["low"], other["x"], atol=1e-6) and torch.equal(one["low"], other["low"])
    assert torch.allclose(data.whole(one["x"], one["low"]), one["high"]) and len(residual) == 4


def test_an_end_of_the_data_is_an_end(folder):
    source = data.PhotographFolder(folder=folder, size=16, rows=5).open()
    assert len(list(source)) == 5 and torch.equal(source[3]["x"], source[3]["x"])


def test_own_folders_hold_pictures_out_by_name(folder):
    source = data.PhotographFolder(folder=folder, size=16, every=2)
    means = [[round(float(p.mean()), 1) for p in source.pictures(split)] for split in ("train", "test")]
    assert means == [[-0.4, 0.6], [-0.9, 0.1]]


def test_paired_folders_go_by_name(folder, tmp_path):
    low = tmp_path / "low"
    low.mkdir()
    for n in range(1, 4):
        to_picture(torch.full((3, 10, 13), n / 2 - 0.9)).save(low / f"{n}.png")
    high = tmp_path / "high"
    high.mkdir()
    for n in range(1, 4):
        (folder / f"{n}.png").rename(high / f"{n}.png")
    sample = data.PairedFolder(high=high, low=low, size=16, rows=3).open()[0]
    assert sample["x"].shape == (3, 16, 16) and float(sample["x"].abs().max()) < 1e-5
    (low / "3.png").unlink()
    with pytest.raises(DataError, match=r"lacks 3\.png"):
        data.PairedFolder(high=high, low=low).open()


def test_what_cannot_be_cut_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="lower 'size'"):
        data.PhotographFolder(folder=folder, size=64).open()
    with pytest.raises(DataError, match="is no folder"):
        data.PhotographFolder(folder=tmp_path / "none").open()


def test_latents_of_pairs():
    pairs = data.crops([torch.rand(3, 32, 32) * 2 - 1], 16)
    coded = data.latents(pairs, lambda x: torch.nn.functional.avg_pool2d(3 * x, 4))
    assert isinstance(coded, Samples) and coded.tensors["x"].shape == (4, 3, 4, 4)
    wanted = torch.nn.functional.avg_pool2d(3 * data.whole(pairs.tensors["x"], pairs.tensors["low"]), 4)
    assert torch.allclose(coded.tensors["x"] + coded.tensors["low"], wanted, atol=1e-5)
