"""SwD: exact resizing, a sampler whose states grow, inputs with the blur of sampling, and moments of features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.core import Batch, Context, Denoiser, Event, Rng, Role, Roles, Sampler, Samples
from distill.core.errors import RecipeError
from distill.core.paths import Flow
from distill.methods import toys
from distill.methods.losses import FeatureMoments, ScoreDifference
from distill.methods.papers.swd import SwD
from distill.methods.scales import Growing, GrowingData, corner, resized

SIZES, TIMES = ((4, 4), (6, 6), (8, 8)), (1.0, 0.8, 0.6)


class Local(nn.Module):
    """One convolution: it answers at every size."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.outlet = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x, t, cond):
        return self.outlet(torch.nn.functional.silu(self.inlet(x)))


def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(Local(), Flow(), "velocity", shape=(1, 8, 8), taps=("inlet",))


def context() -> Context:
    return Context(Roles({name: Role(name, denoiser()) for name in ("student", "teacher")}), Rng(0))


def test_resizing_keeps_constants_and_slopes() -> None:
    assert torch.allclose(resized(torch.ones(2, 1, 8, 8), (4, 6)), torch.ones(2, 1, 4, 6))
    line = torch.arange(4.0)
    assert torch.allclose(resized(line[None], (8,))[0, 1:-1], torch.linspace(0.25, 2.75, 6))
    assert torch.equal(resized(line[None], (4,))[0], line)


def test_resizing_maps_over_states_of_any_rank() -> None:
    state = {"sound": torch.randn(2, 3, 16), "volume": torch.randn(2, 1, 4, 4, 16)}
    small = resized(state, (8,))
    assert small["sound"].shape == (2, 3, 8) and small["volume"].shape == (2, 1, 4, 4, 8)


def test_a_corner_of_noise_is_noise() -> None:
    noise = torch.randn(2000, 1, 8, 8)
    assert corner(noise, (4, 4)).shape[-2:] == (4, 4) and float(corner(noise, (4, 4)).std()) == pytest.approx(
        1, abs=0.02
    )


def test_states_grow_and_are_noised_at_their_new_size() -> None:
    role, sampler = Role("student", denoiser()), Growing(times=TIMES, sizes=SIZES)
    moves = list(sampler.walk(role, torch.randn(256, 1, 8, 8), {}, Rng(0)))
    assert [move.x.shape[-1] for move in moves] == [4, 6, 8] and moves[-1].next.shape == (256, 1, 8, 8)
    fresh = moves[0].next - 0.2 * moves[0].prediction.x0
    assert float(fresh.std()) == pytest.approx(0.8, abs=0.02)


def test_a_sampler_of_sizes_takes_no_other_steps() -> None:
    sampler = Growing(times=TIMES, sizes=SIZES)
    assert sampler.with_steps(3) is sampler and Growing.model_validate(sampler.model_dump()) == sampler
    with pytest.raises(RecipeError, match="sizes"):
        sampler.with_steps(1)


def test_inputs_carry_the_blur_of_the_size_before() -> None:
    ctx, data = context(), torch.randn(4, 1, 8, 8)
    for _ in range(8):
        event = next(GrowingData(times=TIMES, sizes=SIZES).events(Batch(4, data), ctx, attached=True))
        k = event.meta["step"]
        blurred = resized(resized(data, SIZES[max(k - 1, 0)]), SIZES[k])
        clean = (event.x_t - TIMES[k] * event.noise) / (1 - TIMES[k]) if k else blurred
        assert torch.allclose(clean, blurred, atol=1e-4) and torch.equal(event.real, resized(data, SIZES[k]))
        assert event.x.requires_grad and event.x.shape[-2:] == SIZES[k]


def test_moments_vanish_with_their_gradient_where_states_agree() -> None:
    ctx, real = context(), torch.randn(4, 1, 8, 8)
    for x, zero in ((real.clone(), True), (real + 0.5, False)):
        term = FeatureMoments(features="teacher").terms(Event(x.requires_grad_(), targets={"real": real}), ctx)[
            "moments"
        ]
        (slope,) = torch.autograd.grad(term.sum(), x)
        assert (float(term.detach().abs().max()) < 1e-7) == zero and (float(slope.abs().max()) == 0) == zero


def test_every_time_needs_a_size() -> None:
    with pytest.raises(RecipeError, match="size"):
        SwD(times=TIMES).plan(Sampler())


def test_it_trains_and_samples_at_full_size() -> None:
    method = SwD(times=TIMES, sizes=SIZES, score=ScoreDifference(), steps=6, critic_updates=2)
    run = toys.train(method, {"teacher": denoiser()}, data=Samples(x=torch.randn(32, 1, 8, 8)), size=8)
    x = toys.draw(run.roles["student"], run.sampler, 4, 0)
    assert x.shape == (4, 1, 8, 8) and torch.isfinite(x).all()
