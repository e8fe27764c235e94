"""Paths against closed forms, in double precision."""

from __future__ import annotations

import math

import pytest
import torch

from distill.core.paths import (
    Absorbing,
    Bridge,
    Cosine,
    Discrete,
    Flow,
    Joint,
    Karras,
    Trigonometric,
    UniformTokens,
)

torch.manual_seed(0)
TABLE = Discrete.scaled_linear(steps=50)
PATHS = {
    "flow": Flow(), "cosine": Cosine(), "trigonometric": Trigonometric(sigma_data=0.5), "karras": Karras(),
    "discrete": TABLE,
}  # fmt: skip
EACH = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
X, X0, NOISE = torch.randn(3, 4, 2, 5, dtype=torch.float64)


def inner(path, *fractions):
    """Times strictly inside the path's range."""
    low, high = max(path.t_min, 1e-3), path.t_max
    return torch.tensor([low + f * (high - low) for f in fractions], dtype=torch.float64)


CLOSED = {
    "flow": lambda t: (1 - t, t),
    "cosine": lambda t: (math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)),
    "trigonometric": lambda t: (math.cos(t), 0.5 * math.sin(t)),
    "karras": lambda t: (1.0, t),
}


@pytest.mark.parametrize("name", CLOSED)
def test_coefficients_have_their_closed_form(name):
    for t in inner(PATHS[name], 0.1, 0.5, 0.9):
        assert (float(PATHS[name].alpha(t)), float(PATHS[name].sigma(t))) == pytest.approx(
            CLOSED[name](float(t)), abs=1e-14
        )


def test_a_discrete_path_is_its_table_and_clean_at_zero():
    t = torch.arange(1, 51, dtype=torch.float64) / 50
    table = torch.tensor(TABLE.alphas_cumprod, dtype=torch.float64)
    torch.testing.assert_close(TABLE.alpha(t) ** 2, table, rtol=0, atol=1e-14)
    torch.testing.assert_close(TABLE.sigma(t) ** 2, 1 - table, rtol=0, atol=1e-14)
    torch.testing.assert_close(TABLE.native(t), torch.arange(50.0, dtype=torch.float64), rtol=0, atol=1e-12)
    assert TABLE.alpha(torch.zeros(1)) == 1 and TABLE.sigma(torch.zeros(1)) == 0


@EACH
def test_slopes_are_the_derivatives_of_the_coefficients(path):
    fractions = [0.11, 0.29, 0.51, 0.77] if path is not TABLE else [(k + 0.5) / 50 for k in (3, 14, 30, 44)]
    t = torch.tensor(fractions, dtype=torch.float64) * path.t_max
    for slope, coefficient in zip(path.slopes(t), (path.alpha, path.sigma), strict=True):
        expected = torch.autograd.functional.jacobian(lambda u, c=coefficient: c(u) + 0 * u, t).diagonal()
        torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-10)


@EACH
def test_a_jump_along_the_true_line_keeps_data_and_noise(path):
    t, s = inner(path, 0.9, 0.5, 0.3, 0.4), inner(path, 0.2, 0.7, 0.1, 0.8)
    x = path.noised(X0, NOISE, t)
    torch.testing.assert_close(path.jump(x, X0, t, s), path.noised(X0, NOISE, s), rtol=1e-12, atol=1e-10)


@EACH
def test_a_jump_to_the_same_time_copies_bit_for_bit(path):
    t = inner(path, 0.9, 0.5, 0.3, 0.4).float()
    t[0] = 0.0
    s = t.clone()
    s[1::2] *= 0.5
    out = path.jump(X.float(), X0.float(), t, s)
    assert torch.equal(out[::2], X.float()[::2]) and not torch.equal(out[1], X.float()[1])


def test_a_jump_with_times_per_frame_moves_each_frame_on_its_own():
    t, s = (
        torch.tensor([[0.9, 0.5]] * 4, dtype=torch.float64),
        torch.tensor([[0.1, 0.5]] * 4, dtype=torch.float64),
    )
    out = Flow().jump(X, X0, t, s)
    assert torch.equal(out[:, 1], X[:, 1])
    torch.testing.assert_close(out[:, 0], Flow().jump(X[:, 0], X0[:, 0], t[:, 0], s[:, 0]))


@EACH
def test_inverse_jump_recovers_the_prediction(path):
    t, s = inner(path, 0.9, 0.5, 0.3, 0.4), inner(path, 0.2, 0.7, 0.1, 0.8)
    back = path.inverse_jump(X, path.jump(X, X0, t, s), t, s)
    torch.testing.assert_close(back, X0, rtol=0, atol=1e-10)


@EACH
def test_renoising_has_the_law_of_the_path(path):
    """x_s → x_t keeps α_t x0, and the two independent noises add up to σ_t²."""
    s, t = inner(path, 0.2, 0.4, 0.3, 0.1), inner(path, 0.7, 0.8, 0.5, 0.9)
    zero, one = torch.zeros_like(X), torch.ones_like(X)
    signal = path.renoise(path.noised(one, zero, s), zero, s, t)
    kept, fresh = path.renoise(path.noised(zero, one, s), zero, s, t), path.renoise(zero, one, s, t)
    torch.testing.assert_close(signal[:, 0, 0], path.alpha(t))
    torch.testing.assert_close((kept**2 + fresh**2)[:, 0, 0], path.sigma(t) ** 2)


@EACH
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_stochastic_jump_has_the_law_of_the_path(path, eta):
    t, s = inner(path, 0.7, 0.8, 0.5, 0.9), inner(path, 0.2, 0.4, 0.3, 0.1)
    zero, one = torch.zeros_like(X), torch.ones_like(X)
    signal = path.stochastic_jump(path.noised(one, zero, t), one, zero, t, s, eta)
    kept = path.stochastic_jump(path.noised(zero, one, t), zero, zero, t, s, eta)
    fresh = path.stochastic_jump(zero, zero, one, t, s, eta)
    torch.testing.assert_close(signal[:, 0, 0], path.alpha(s))
    torch.testing.assert_close((kept**2 + fresh**2)[:, 0, 0], path.sigma(s) ** 2)
    assert (fresh.abs().max() > 0) == (eta > 0)


@EACH
def test_an_ancestral_jump_is_the_posterior_of_the_path(path):
    """η = 1 is q(x_s | x_t, x0): its covariance with x_t is that of the forward chain, (α_t/α_s) σ_s²."""
    t, s = inner(path, 0.7, 0.8, 0.5, 0.9), inner(path, 0.2, 0.4, 0.3, 0.1)
    zero, one = torch.zeros_like(X), torch.ones_like(X)
    kept = path.stochastic_jump(path.noised(zero, one, t), zero, zero, t, s, 1.0)[:, 0, 0]
    torch.testing.assert_close(kept * path.sigma(t), path.alpha(t) / path.alpha(s) * path.sigma(s) ** 2)


@EACH
def test_without_churn_a_stochastic_jump_is_a_jump(path):
    t, s = inner(path, 0.7, 0.8, 0.5, 0.9), inner(path, 0.2, 0.4, 0.3, 0.1)
    torch.testing.assert_close(path.stochastic_jump(X, X0, NOISE, t, s, 0.0), path.jump(X, X0, t, s))


@EACH
def test_log_snr_falls_with_time(path):
    level = path.logsnr(inner(path, 0.05, 0.3, 0.6, 0.95))
    assert (level.diff() < 0).all()
    t = inner(path, 0.4)
    assert float(level.new_tensor(math.log(path.alpha(t) / path.sigma(t)))) == pytest.approx(float(path.logsnr(t)))


@EACH
def test_the_prior_is_noise_at_the_last_time(path):
    expected = float(path.sigma(torch.tensor(path.t_max, dtype=torch.float64)))
    torch.testing.assert_close(path.prior(NOISE), expected * NOISE, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- joint, bridge


def test_a_joint_path_is_its_members_key_by_key():
    joint = Joint(paths={"a": Flow(), "b": Karras()})
    t, s = (
        {"a": inner(Flow(), 0.3, 0.9, 0.2, 0.6), "b": inner(Karras(), 0.5, 0.1, 0.9, 0.4)},
        inner(Flow(), 0.25, 0.25, 0.25, 0.25),
    )
    x, x0, noise = {"a": X, "b": X0}, {"a": X0, "b": NOISE}, {"a": NOISE, "b": X}
    for move in ("jump", "inverse_jump"):
        out = getattr(joint, move)(x, x0, t, s)
        for key, path in joint.paths.items():
            torch.testing.assert_close(out[key], getattr(path, move)(x[key], x0[key], t[key], s))
    torch.testing.assert_close(joint.noised(x, noise, t)["b"], Karras().noised(X0, X, t["b"]))
    torch.testing.assert_close(joint.slopes(t)[1]["a"], Flow().slopes(t["a"])[1])


def test_a_bridge_ends_at_both_ends_and_its_posterior_has_its_law():
    path, end = Bridge(kappa=0.7), torch.randn(4, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(path.noised(X0, NOISE, torch.zeros(4).double(), end), X0)
    torch.testing.assert_close(path.noised(X0, NOISE, torch.ones(4).double(), end), end)
    t, s = torch.tensor([0.9, 0.5, 0.3, 0.7]).double(), torch.tensor([0.2, 0.1, 0.29, 0.6]).double()
    zero, one = torch.zeros_like(X), torch.ones_like(X)
    kept = path.posterior(path.noised(zero, one, t, zero), zero, zero, t, s)
    fresh = path.posterior(zero, zero, one, t, s)
    torch.testing.assert_close((kept**2 + fresh**2)[:, 0, 0], 0.49 * s * (1 - s))
    mean = path.posterior(path.noised(X0, zero, t, end), X0, zero, t, s)
    torch.testing.assert_close(mean, path.noised(X0, zero, s, end))


# ---------------------------------------------------------------- tokens


def transition(path, keep):
    law = path.noise_law(torch.zeros(1, dtype=torch.float64))
    return keep * torch.eye(path.vocabulary, dtype=torch.float64) + (1 - keep) * law


TOKENS = pytest.mark.parametrize(
    "path", [Absorbing(vocabulary=5), UniformTokens(vocabulary=5)], ids=["absorbing", "uniform"]
)


@TOKENS
def test_a_token_posterior_is_bayes_rule_by_enumeration(path):
    """With p(x0 | x_t) from the network, the outcome is p(x_s) q(x_t | x_s) / p(x_t)."""
    t, s = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    prior = torch.tensor([0.1, 0.5, 0.2, 0.2, 0.0], dtype=torch.float64)
    down, step = transition(path, 0.6), transition(path, 0.3 / 0.6)
    for now in range(5):
        reach = prior * (down @ step)[:, now]
        expected = (prior @ down) * step[:, now] / reach.sum()
        got = path.posterior((reach / reach.sum()).log()[None], torch.tensor([now]), t, s)
        torch.testing.assert_close(got[0], expected, rtol=0, atol=1e-10)


def test_an_unmasked_token_stays_although_the_network_rules_it_out():
    log_x0 = torch.tensor([[-200.0, 0.0, -200.0, -300.0]])
    got = Absorbing(vocabulary=4).posterior(log_x0, torch.tensor([2]), torch.tensor([0.5]), torch.tensor([0.2]))
    assert got.tolist() == [[0.0, 0.0, 1.0, 0.0]]


@TOKENS
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_noised_tokens_have_their_law(path, t):
    n, tokens = 200_000, torch.full((1, 200_000), 1)
    uniform = torch.rand(1, n, generator=torch.Generator().manual_seed(0))
    shares = torch.bincount(path.noised(tokens, uniform, torch.tensor([t]))[0], minlength=5) / n
    torch.testing.assert_close(shares.double(), transition(path, 1 - t)[1], rtol=0, atol=5e-3)


def test_edge_draws_stay_in_the_vocabulary():
    edges = torch.tensor([[0.0, 0.5, 1 - 2**-24]])
    masked = Absorbing(vocabulary=4).noised(torch.zeros(1, 3, dtype=torch.long), edges, torch.tensor([1.0]))
    assert masked.tolist() == [[3, 3, 3]]
    drawn = UniformTokens(vocabulary=50_257).noised(torch.zeros(1, 3, dtype=torch.long), edges, torch.tensor([1.0]))
    assert drawn[0, 0] == 0 and drawn.max() <= 50_256
