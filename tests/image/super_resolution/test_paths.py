import pytest
import torch

from distill.core import Denoiser, Rng, Role, Sampler
from distill.core.paths import Flow
from distill.image.super_resolution.paths import FromLow, ResidualShift, Shifting, ShiftSampler, Tempered


def shift_of(path, k):
    """√η of the paper's step k, written out."""
    return path.low * (path.high**0.5 / path.low) ** (((k - 1) / (path.count - 1)) ** path.power)


def test_times_are_the_papers_steps():
    path = ResidualShift()
    for k in (1, 4, 15):
        assert float(path.root(torch.tensor(k / 15))) == pytest.approx(shift_of(path, k), rel=1e-5)
    assert float(path.sigma(torch.tensor(0.0))) == 0 and float(path.alpha(torch.tensor(0.0))) == 1


def test_residuals_on_the_path_are_the_papers_pictures():
    path, (x0, y, noise) = ResidualShift(kappa=2.0), torch.randn(3, 5, 3, 4, 4)
    t = torch.full((5,), 7 / 15)
    eta = shift_of(path, 7) ** 2
    paper = x0 + eta * (y - x0) + 2.0 * eta**0.5 * noise
    assert torch.allclose(path.noised(x0 - y, noise, t) + y, paper, atol=1e-5)


def test_slopes_are_derivatives():
    path, t = ResidualShift(), torch.tensor([0.03, 0.2, 0.7], dtype=torch.float64)
    step = 1e-6
    for said, of in zip(path.slopes(t), (path.alpha, path.sigma), strict=True):
        assert torch.allclose(said, (of(t + step) - of(t - step)) / (2 * step), rtol=1e-4)


def test_shifting_draws_the_papers_posterior():
    path, times = ResidualShift(), (8 / 15, 7 / 15)
    weights = Shifting().weights(path, times, 0)
    now, then = shift_of(path, 8) ** 2, shift_of(path, 7) ** 2
    assert weights.keep == pytest.approx(then / now) and weights.pulls[0] == pytest.approx(1 - then / now, rel=1e-5)
    assert weights.fresh**2 == pytest.approx(path.kappa**2 * then * (now - then) / now, rel=1e-5)


def test_the_deterministic_sampler_is_sinsrs():
    path = ResidualShift()
    now, then = shift_of(path, 8) ** 2, shift_of(path, 7) ** 2
    x, x0, y = torch.randn(3, 2, 3, 4, 4)
    keep = (then / now) ** 0.5
    paper = keep * x + (1 - then + (then * now) ** 0.5 - keep) * x0 + (then - (then * now) ** 0.5) * y
    said = path.jump(x - y, x0 - y, torch.full((2,), 8 / 15), torch.full((2,), 7 / 15)) + y
    assert torch.allclose(said, paper, atol=1e-5)


class Known(torch.nn.Module):
    def forward(self, x, t, cond):
        return cond["low"]


def test_both_samplers_end_at_what_the_network_says():
    low = torch.randn(2, 3, 4, 4)
    role = Role("student", Denoiser(Known(), ResidualShift(), "x0", shape=(3, 4, 4)))
    for sampler in (ShiftSampler(), Sampler(steps=15), Sampler(times=(0.4,))):
        assert torch.allclose(sampler.sample(role, torch.randn(2, 3, 4, 4), {"low": low}, Rng(0)), low, atol=1e-5)


def test_sampling_starts_at_the_noised_low_resolution_picture():
    low, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    role = Role("student", Denoiser(Known(), Flow(), "x0", shape=(3, 4, 4)))
    sampler = FromLow(steps=2, strength=0.6)
    first = next(sampler.walk(role, noise, {"low": low}))
    assert first.t == pytest.approx(0.6) and torch.allclose(first.x, 0.4 * low + 0.6 * noise, atol=1e-6)
    assert sampler.calls(Flow()) == 2


def test_a_cooler_start_has_less_noise():
    noise = torch.randn(2, 3, 4, 4)
    role = Role("student", Denoiser(Known(), ResidualShift(), "x0", shape=(3, 4, 4)))
    cool, whole = (next(s.walk(role, noise, {"low": noise})).x for s in (Tempered(temperature=0.25), Sampler(steps=15)))
    assert torch.allclose(cool, 0.25 * whole)
