"""FluxSR: the way from a low-resolution picture to noise, two forms of its loss, and stored pairs."""

import pytest
import torch

from distill.core import Batch, Context, Event, Prediction, Rng, Role, Roles, Sampler, Samples
from distill.core.errors import RecipeError
from distill.core.paths import Flow
from distill.core.store import pack
from distill.image.super_resolution import toys
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.papers.fluxsr import FluxSR
from distill.image.super_resolution.trajectories import AnchoredPairs
from distill.methods.losses import TokenDiversity
from distill.methods.pairs import PairRegression
from distill.methods.toys import train

SMALL = RestorerDenoiser(width=8, blocks=3, size=16, path="flow")
T = 0.25


def stored(count=6):
    torch.manual_seed(0)
    low = torch.rand(count, 3, 16, 16) * 2 - 1
    pairs = {"noise": torch.randn(count, 3, 16, 16), "end": 0.1 * low.flip(1), "cond": {"low": low}}
    ctx = Context(Roles({"student": Role("student", SMALL.build())}), Rng(0))
    ctx.state.update(pack({"pairs": pairs}))
    return ctx, pairs


@pytest.mark.parametrize("state", ["residual", "picture"])
def test_the_way_begins_at_the_low_resolution_picture_and_ends_at_the_noise(state, monkeypatch) -> None:
    ctx, pairs = stored()
    trajectory = AnchoredPairs(anchor=T, state=state)
    low = pairs["cond"]["low"] if state == "picture" else torch.zeros_like(pairs["end"])
    for share, place, time in ((0.0, low, T), (1.0, pairs["noise"], 1.0)):
        monkeypatch.setattr(ctx.rng, "uniform", lambda size, stream, share=share: torch.full((size,), share))
        t, x_t = trajectory.between(Flow(), low, pairs["noise"], ctx)
        torch.testing.assert_close(x_t, place)
        torch.testing.assert_close(t, torch.full((6,), time))


def test_both_forms_of_the_loss_agree_and_the_sr_velocity_lands_on_the_picture() -> None:
    low, end, noise, v = (torch.randn(4, 3, 8, 8, dtype=torch.float64) for _ in range(4))
    said = Prediction("velocity", v, noise, torch.full((4,), 0.6), Flow())
    made = AnchoredPairs(anchor=T).answer(said, low)
    (found,) = PairRegression(weight=1).terms(Event(made, targets={"end": end}, meta={"paired": made}), None).values()
    along = (noise - end) - T * v - (noise - low)
    torch.testing.assert_close(found, along.square().mean((1, 2, 3)))
    torch.testing.assert_close(found, T**2 * (v - (low - end) / T).square().mean((1, 2, 3)))
    right = Prediction("velocity", (low - end) / T, noise, said.t, Flow())
    torch.testing.assert_close(AnchoredPairs(anchor=T).answer(right, low), end)


def test_pairs_keep_their_noise() -> None:
    ctx, pairs = stored()
    event = next(AnchoredPairs(anchor=T).events(Batch(20), ctx, attached=True))
    rows = [int((pairs["end"] - end).square().flatten(1).sum(1).argmin()) for end in event.targets["end"]]
    assert torch.equal(event.noise, pairs["noise"][rows]) and torch.equal(event.cond["low"], pairs["cond"]["low"][rows])
    assert not event.x_t.any() and set(event.prediction.features) == set(ctx.roles["student"].denoiser.taps)


def test_tokens_that_are_alike_cost_one_and_gradient_tells_them_apart() -> None:
    same, apart = torch.ones(2, 5, 4), torch.eye(4).expand(2, 4, 4).contiguous()
    ctx = Context(Roles({}), Rng(0))

    def cost(h):
        return TokenDiversity().terms(Event(h, prediction=Prediction("x0", h, h, None, Flow(), {"a": h})), ctx)

    torch.testing.assert_close(cost(same)["diversity"], torch.ones(2))
    torch.testing.assert_close(cost(apart)["diversity"], torch.full((2,), 0.5))
    with pytest.raises(RecipeError, match="features"):
        TokenDiversity().terms(Event(same), ctx)


def test_the_one_step_comes_nearer_to_its_teachers_pictures() -> None:
    low = torch.rand(32, 3, 16, 16) * 2 - 1
    teacher = Role("teacher", SMALL.build(), frozen=True)
    torch.nn.init.normal_(teacher.denoiser.network.outlet.weight, std=0.1)
    method = FluxSR(
        steps=40, pairs=32, pair_sampler=Sampler(steps=2), perceptual={"weight": 0}, adapter=None, decay=0.9,
        diversity={"weight": 0}, optimiser={"lr": 1e-2},
    )  # fmt: skip
    engine = train(method, {"teacher": teacher}, data=Samples(x=0.1 * low.flip(1), low=low), size=32)
    noise, end, given = (engine.ctx.state[f"pairs/{name}"] for name in ("noise", "end", "cond/low"))
    torch.testing.assert_close(Sampler(steps=2).sample(teacher, noise, {"low": given}), end)
    sampler, data = method.plan(Sampler()).sampler, Samples(x=end, low=given)
    before, after = (
        (toys.restore(engine.roles[name], sampler, data) - toys.truth(data)).square().mean()
        for name in ("teacher", "student_ema")
    )
    assert after < 0.8 * before and sampler.calls(teacher.denoiser.path) == 1


def test_what_weighs_nothing_is_left_out() -> None:
    losses = [update.loss for update in FluxSR(diversity=TokenDiversity(weight=0)).plan(Sampler()).phases[1].updates]
    assert len(losses) == 3 and "teacher" not in {role for loss in losses for role in loss.needs}
