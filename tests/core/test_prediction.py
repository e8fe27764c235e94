"""Views of a prediction agree with each other and with closed forms, whatever the network says."""

from __future__ import annotations

import pytest
import torch

from distill.core import Mixture, Prediction, Ragged, tree
from distill.core.errors import DistillError
from distill.core.paths import Cosine, Discrete, Flow, Joint, Karras, Trigonometric

PATHS = {
    "flow": Flow(), "cosine": Cosine(), "trigonometric": Trigonometric(sigma_data=0.5), "karras": Karras(),
    "discrete": Discrete.scaled_linear(steps=50),
}  # fmt: skip
EACH = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
VIEWS = ("x0", "eps", "v", "velocity")
generator = torch.Generator().manual_seed(0)
X0, EPS = torch.randn(2, 5, 3, 2, generator=generator, dtype=torch.float64)


def truth(path, t=None):
    fractions = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.95], dtype=torch.float64)
    t = max(path.t_min, 1e-3) + fractions * (path.t_max - path.t_min) * 0.99 if t is None else t
    return Prediction("x0", X0, path.noised(X0, EPS, t), t, path)


@EACH
@pytest.mark.parametrize("kind", VIEWS)
def test_every_kind_gives_every_view(path, kind):
    exact = truth(path)
    said = Prediction(kind, getattr(exact, kind), exact.x, exact.t, path)
    for view in (*VIEWS, "score"):
        torch.testing.assert_close(getattr(said, view), getattr(exact, view), rtol=1e-9, atol=1e-9)


@EACH
def test_views_have_their_closed_forms(path):
    said = truth(path)
    a, s = (tree.expand(c(said.t), X0) for c in (path.alpha, path.sigma))
    da, ds = (tree.expand(c, X0) for c in path.slopes(said.t))
    torch.testing.assert_close(said.eps, EPS, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(said.v, a * EPS - s * X0)
    torch.testing.assert_close(said.velocity, da * X0 + ds * EPS)
    torch.testing.assert_close(said.score, -EPS / s, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", [Flow(), Cosine(), Karras(t_max=5.0)], ids=["flow", "cosine", "karras"])
def test_the_score_of_an_exact_denoiser_is_the_gradient_of_the_log_density(path):
    teacher = Mixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.3, path).double()
    x = torch.randn(6, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    t = torch.full((6,), 0.4, dtype=torch.float64)
    a, spread = path.alpha(t)[0], (path.alpha(t)[0] * 0.3) ** 2 + path.sigma(t)[0] ** 2
    density = (-((x[:, None] - a * teacher.means) ** 2).sum(-1) / (2 * spread)).logsumexp(1)
    (expected,) = torch.autograd.grad(density.sum(), x)
    torch.testing.assert_close(teacher.predict(x, t).score, expected, rtol=1e-8, atol=1e-8)


def test_times_per_frame_and_ragged_states_have_views():
    t = torch.linspace(0.1, 0.9, 15, dtype=torch.float64).view(5, 3)
    torch.testing.assert_close(truth(Flow(), t).eps, EPS, rtol=1e-9, atol=1e-9)
    x0, eps = (Ragged(v.flatten(0, 1), torch.tensor([2, 3, 4, 5, 1])) for v in (X0, EPS))
    times = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    said = Prediction("x0", x0, Flow().noised(x0, eps, times), times, Flow())
    torch.testing.assert_close(said.eps.values, eps.values, rtol=1e-9, atol=1e-9)


def test_a_joint_prediction_is_its_members_key_by_key():
    path, t = Joint(paths={"a": Flow(), "b": Cosine()}), torch.linspace(0.2, 0.8, 5, dtype=torch.float64)
    x0, times = {"a": X0, "b": EPS}, {"a": t, "b": t.flip(0)}
    said = Prediction("x0", x0, path.noised(x0, {"a": EPS, "b": X0}, times), times, path)
    torch.testing.assert_close(said.eps["b"], X0, rtol=1e-9, atol=1e-9)
    again = Prediction("velocity", said.velocity, said.x, times, path)
    torch.testing.assert_close(again.x0["a"], X0)


def test_a_replaced_x0_changes_every_view():
    said = truth(Flow())
    assert said.eps is said.eps
    moved = said.replace_x0(X0 + 1)
    torch.testing.assert_close(moved.velocity, Prediction("x0", X0 + 1, said.x, said.t, Flow()).velocity)
    assert not torch.equal(moved.eps, said.eps)


def test_logits_have_no_gaussian_views_and_the_reverse():
    logits = Prediction("logits", torch.zeros(2, 4), torch.zeros(2), None, Flow())
    assert logits.logits.shape == (2, 4)
    for view in ("x0", "eps", "score", "velocity", "v"):
        with pytest.raises(DistillError, match="logits"):
            getattr(logits, view)
    with pytest.raises(DistillError, match="no logits"):
        _ = truth(Flow()).logits
