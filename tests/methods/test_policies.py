"""Policies: exact transfer of a mixture, jumps of a constant grid, and a denoiser whose one jump is the policy."""

import pytest
import torch

from distill.core import Batch, Context, DistillError, Mixture, Rng, Role, Roles, Sampler
from distill.core.paths import Cosine, Flow
from distill.core.sampling import Grid
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.policies import GridPolicy, MixturePolicy, PolicyHead, PolicyRoute, policy_of


def posterior(law, x, t) -> MixturePolicy:
    """The mixture q(x0 | x_t) of a law, in closed form."""
    path, means = law.path, law.means
    a, s = path.alpha(t), path.sigma(t)
    spread = ((a * law.std) ** 2 + s**2)[:, None, None]
    parts = (a[:, None, None] * law.std**2 * x[:, None] + (s**2)[:, None, None] * means) / spread
    gap = x[:, None] - a[:, None, None] * means
    logits = law.weights[-1].log() - (gap**2).sum(2) / (2 * spread[..., 0])
    std = (law.std * s / spread[:, 0, 0].sqrt())[:, None, None]
    return MixturePolicy(path, x, t, torch.zeros_like(t), parts, logits, std)


@pytest.mark.parametrize("path", [Flow(), Cosine()])
@pytest.mark.parametrize("start", [0.999, 0.6])
def test_a_true_mixture_is_exact_at_every_later_state(path, start) -> None:
    law = toys.ring(path)
    x, rng = law.means.double().repeat(5, 1), Rng(0)
    law = Mixture(law.means.double(), law.std, path)
    t = torch.full((40,), start, dtype=torch.float64)
    policy = posterior(law, path.noised(x, rng.normal(40, 2).double(), t), t)
    for later in (1.0, 0.8, 0.3, 0.05):
        time = t * later
        state = path.noised(x, rng.normal(40, 2).double(), time)
        torch.testing.assert_close(policy.x0(state, time), law.predict(state, time).x0, atol=1e-5, rtol=1e-5)


def test_a_constant_grid_is_one_jump() -> None:
    x, x0, t, s = torch.randn(6, 2), torch.randn(6, 2), torch.full((6,), 0.9), torch.full((6,), 0.4)
    policy = GridPolicy(Flow(), x, t, s, x0[:, None].expand(6, 5, 2), torch.zeros(6, 5), torch.zeros(6, 1, 1))
    torch.testing.assert_close(policy.follow(x, t, s, 50), Flow().jump(x, x0, t, s))


def test_a_grid_is_linear_between_its_times() -> None:
    parts = torch.tensor([0.0, 1.0, 4.0]).view(1, 3, 1)
    one = torch.ones(1)
    policy = GridPolicy(Flow(), torch.zeros(1, 1), one, 0 * one, parts, torch.zeros(1, 3), torch.zeros(1, 1, 1))
    said = [float(policy.x0(torch.zeros(1, 1), torch.tensor([t]))) for t in (1.0, 0.75, 0.5, 0.25, 0.0)]
    assert said == [0, 0.5, 1, 2.5, 4]


def test_dropped_parts_have_no_weight_unless_all_are_dropped() -> None:
    law = toys.ring(Flow())
    policy = posterior(law, torch.randn(3, 2), torch.full((3,), 0.9))
    gone = torch.zeros(3, 8, dtype=torch.bool)
    gone[0, 1:], gone[1] = True, True
    left = policy.without(gone).logits.softmax(1)
    assert left[0].tolist() == [1] + [0] * 7
    torch.testing.assert_close(left[1:], policy.logits.softmax(1)[1:])


def student(**head):
    torch.manual_seed(0)
    roles = Roles({"student": Role("student", MLPDenoiser(kind="velocity", width=16, classes=2).build())})
    PolicyHead(**{"steps": 2, "substeps": 16, **head}).apply(roles, "student")
    return roles["student"], {"label": torch.arange(12) % 2}


@pytest.mark.parametrize("kind", ["mixture", "grid"])
def test_a_jump_along_the_prediction_ends_where_the_policy_ends(kind) -> None:
    role, cond = student(policy=kind, grid=Grid(shift=3.2))
    x, edges = torch.randn(12, 2), role.denoiser.edges
    for t, s in zip(edges[:-1].expand(12, -1).unbind(1), edges[1:].expand(12, -1).unbind(1), strict=True):
        policy = policy_of(role, x, t, cond)
        assert torch.equal(policy.s, s)
        landed = Flow().jump(x, role.ask(x, t, cond).x0, t, s)
        torch.testing.assert_close(landed, policy.follow(x, t, s, 16), atol=1e-4, rtol=1e-4)


def test_the_sampler_calls_the_network_once_a_segment() -> None:
    role, cond = student()
    calls = []
    role.denoiser.network.register_forward_hook(lambda *args: calls.append(1))
    x = toys.draw(role, Sampler(steps=2), 12, 0, cond)
    assert len(calls) == 2 and x.isfinite().all()


def test_only_the_last_evaluation_of_the_policy_carries_gradient() -> None:
    role, cond = student()
    ctx = Context(Roles({"student": role, "teacher": role}), Rng(0))
    event = next(PolicyRoute(substeps=8).events(Batch(12, torch.randn(12, 2), cond), ctx, attached=True))
    assert not event.x_t.requires_grad and event.prediction.x0.requires_grad
    assert event.x_t.shape == (24, 2) and torch.all(event.t[:12] >= event.t[12:])
    assert torch.all(event.t <= event.meta["start"].repeat(2)) and float(event.t.min()) >= 0.01


def test_without_data_a_segment_begins_where_the_student_got_to() -> None:
    role, cond = student()
    ctx = Context(Roles({"student": role, "teacher": role}), Rng(1))
    starts = {}
    for _ in range(10):
        x, t = PolicyRoute().begin(Batch(12, None, cond, (2,)), role, ctx)
        starts[float(t[0])] = x
    assert set(starts) == {1.0, 0.5} and starts[0.5].isfinite().all()


def test_other_layers_and_roles_without_a_head_are_refused() -> None:
    with pytest.raises(DistillError, match="linear or a convolution"):
        student(layer="outlet")
    plain = Role("teacher", MLPDenoiser().build())
    with pytest.raises(DistillError, match="policy-head"):
        policy_of(plain, torch.zeros(1, 2), 0.5, {})
