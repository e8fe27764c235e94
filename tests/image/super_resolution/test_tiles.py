import pytest
import torch

from distill.core import Rng, Role, Sampler
from distill.core.errors import DataError
from distill.image.super_resolution import tiles
from distill.image.super_resolution.data import whole
from distill.image.super_resolution.degradations import resized
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.tiles import Enlarged, Tiled, Tiling

SMALL = Tiling(size=64, overlap=32, fade=8)


@pytest.fixture(scope="module")
def role():
    torch.manual_seed(0)
    denoiser = RestorerDenoiser(width=8, blocks=3).build()
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return Role("student", denoiser.requires_grad_(False))


def enlarged(height, width, to):
    x = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return x, Enlarged(lambda first, last: x[:, first:last], (height, width), to)


@pytest.mark.parametrize("to", [(148, 212), (93, 131), (37, 53), (1, 4), (148, 1500)])
def test_parts_are_those_of_pillows_bicubic(to):
    size = (1, 1) if to == (1, 4) else (37, 53)
    x, picture = enlarged(*size, to)
    bottom, right = to[0] - to[0] // 4, to[1] - to[1] // 3
    part = picture.part(to[0] // 3, bottom, to[1] // 5, right)
    assert torch.allclose(part, resized(x, to)[:, to[0] // 3 : bottom, to[1] // 5 : right], atol=1e-4)


@pytest.mark.parametrize("to", [(148, 212), (130, 87), (64, 64), (5, 3)])
def test_tiles_have_no_seams(role, to):
    _, picture = enlarged(max(1, to[0] // 4), max(1, to[1] // 4), to)
    strips = list(Tiled(role, Sampler(steps=1), picture, SMALL).run())
    given, noise = picture.part(0, to[0], 0, to[1])[None], tiles.noise(0, 3, 0, to[0], 0, to[1])[None]
    at_once = whole(Sampler(steps=1).sample(role, noise, {"low": given}, Rng(0)), given)[0]
    assert [top for top, _ in strips] == [sum(r.shape[1] for _, r in strips[:n]) for n in range(len(strips))]
    assert torch.allclose(torch.cat([rows for _, rows in strips], 1), at_once, atol=1e-4)


def test_many_steps_have_hardly_any(role):
    _, picture = enlarged(40, 40, (160, 160))
    rows = torch.cat([rows for _, rows in Tiled(role, Sampler(steps=5), picture, SMALL).run()], 1)
    jumps = (rows[:, :, 1:] - rows[:, :, :-1]).abs().mean((0, 1))
    assert jumps[[63, 127]].max() < 1.5 * jumps.median()


@pytest.mark.parametrize("first", [1, 2])
def test_a_strip_begun_anew_is_the_same(role, first):
    _, picture = enlarged(40, 20, (160, 80))
    tiled = Tiled(role, Sampler(steps=1), picture, SMALL)
    for (top, rows), (again, others) in zip(list(tiled.run())[first:], tiled.run(first), strict=True):
        assert top == again and torch.equal(rows, others)


def test_noise_belongs_to_its_place():
    field = tiles.noise(3, 3, 0, 200, 0, 150)
    assert torch.equal(tiles.noise(3, 3, 70, 131, 40, 129), field[:, 70:131, 40:129])
    assert not torch.equal(tiles.noise(4, 3, 0, 9, 0, 9), field[:, :9, :9]) and float(field.std()) == pytest.approx(
        1, abs=0.02
    )


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="multiples of 4"):
        Tiling(size=66)
