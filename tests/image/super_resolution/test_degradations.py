import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from distill.image.super_resolution import degradations as d
from distill.image.super_resolution.data import Crops


def picture(side=48, seed=0):
    return (
        (torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(seed)) * 2 - 1)
        .repeat_interleave(side // 12, 1)
        .repeat_interleave(side // 12, 2)
    )


def test_bicubic_is_pillows():
    x = picture()
    wanted = d.from_picture(d.to_picture(x).resize((12, 12), Image.Resampling.BICUBIC))
    assert (d.Bicubic()(x, 4, torch.Generator()) - wanted).abs().max() < 0.02


@pytest.mark.parametrize("kind", [d.Bicubic(), d.RealWorld(), d.RealWorld(twice=1.0, last_sinc=1.0)])
@pytest.mark.parametrize("side", [48, 12])
def test_a_seed_gives_one_picture(kind, side):
    x = torch.stack([picture(side), picture(side)])
    low, again, other = d.degraded(x, 4, kind), d.degraded(x, 4, kind), d.degraded(x, 4, kind, seed=9)
    assert low.shape == (2, 3, side // 4, side // 4) and torch.equal(low, again)
    assert low.abs().max() <= 1 and low.isfinite().all()
    assert torch.equal(low, other) == isinstance(kind, d.Bicubic)


def test_workers_give_what_the_main_process_gives():
    data = Crops([picture()], 8, 24, (4.0, 2.0), d.RealWorld(), "residual", 3, augment=True)
    alone, shared = (list(DataLoader(data, 4, num_workers=n)) for n in (0, 1))
    assert all(
        torch.equal(a["x"], b["x"]) and torch.equal(a["low"], b["low"]) for a, b in zip(alone, shared, strict=True)
    )


def test_kernels_keep_brightness():
    draw = torch.Generator().manual_seed(0)
    kernels = [d.blur_kernel(draw, 21, (0.2, 3.0)) for _ in range(50)] + [d.sinc_kernel(draw, 21) for _ in range(20)]
    assert all(float(kernel.sum()) == pytest.approx(1, abs=1e-4) for kernel in kernels)
    flat = torch.full((3, 9, 9), 0.3)
    assert torch.allclose(d.filtered(flat, kernels[0]), flat, atol=1e-4)


def test_jpeg_is_real():
    x = picture()
    worse, better = ((d.compressed(x, quality) - x).abs().mean() for quality in (10, 95))
    assert worse > 2 * better > 0
