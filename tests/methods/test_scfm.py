"""SCFM: pairs of windows on shifted grids, the mean velocity over them, and two averages of the student."""

import torch

from distill.core import Batch, Context, Rng, Role, Sampler, Samples, assemble
from distill.core.paths import Flow
from distill.methods import toys
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.scfm import SCFM
from distill.methods.teacher_paths import WindowPairs

ROLES = ("teacher", "fast", "slow", "student")


def setting(size=64, classes=0, **options):
    torch.manual_seed(0)
    roles = assemble(
        SCFM(), {"teacher": Role("teacher", MLPDenoiser(width=8, kind="velocity", classes=classes).build())}
    )
    for name in ("fast", "slow"):
        torch.nn.init.normal_(roles[name].denoiser.network.inlet.bias)
    batch = Batch(size, torch.randn(size, 2), {"label": torch.arange(size) % classes} if classes else {})
    return Context(roles, Rng(0)), batch, WindowPairs(**options)


def event_of(ctx, batch, windows):
    return next(windows.events(batch, ctx, attached=True))


def test_the_target_is_the_euler_velocity_over_both_windows() -> None:
    ctx, batch, windows = setting()
    event = event_of(ctx, batch, windows)
    t, m, s, count = event.t, event.meta["middle"], event.meta["end"], event.meta["of_teacher"]
    v = ctx.roles["fast"].ask(event.x_t, t).velocity
    v[:count] = ctx.roles["teacher"].ask(event.x_t, t).velocity[:count]
    x_m = event.x_t + (m - t)[:, None] * v
    x_s = x_m + (s - m)[:, None] * ctx.roles["slow"].ask(x_m, m).velocity
    expected = (x_s - event.x_t) / (s - t)[:, None]
    torch.testing.assert_close(event.targets["velocity"], expected, atol=1e-4, rtol=1e-3)
    assert not event.targets["velocity"].requires_grad and event.prediction.value.requires_grad


def test_windows_are_neighbours_on_one_shifted_grid() -> None:
    ctx, batch, windows = setting(500, shift=(3.0, 3.0))
    edges = torch.stack(windows.windows(200, batch, Flow(), ctx))
    even = edges / (3 - 2 * edges)
    torch.testing.assert_close(even[0] - even[1], even[1] - even[2], atol=1e-5, rtol=0)
    steps = (1 / (even[0] - even[1])).round()
    assert set(steps[:200].tolist()) == {32} and set(steps[200:].tolist()) == {2, 4, 8, 16}
    assert torch.all((even[2] * steps / 2 - (even[2] * steps / 2).round()).abs() < 1e-4)
    assert float(even.min()) >= 0 and float(even.max()) == 1


def test_the_share_of_the_teacher_holds_on_average_whatever_the_batch() -> None:
    ctx, batch, windows = setting(1)
    counts = [event_of(ctx, batch, windows).meta["of_teacher"] for _ in range(300)]
    assert set(counts) == {0, 1} and abs(sum(counts) / 300 - 0.4) < 0.1


def test_guidance_is_drawn_for_each_sample_of_the_teacher() -> None:
    ctx, batch, _ = setting(classes=2)
    plain, guided = (
        event_of(Context(ctx.roles, Rng(0)), batch, WindowPairs(share=1.0, weights=weights)).targets["velocity"]
        for weights in ((1.0, 1.0), (2.0, 7.0))
    )
    assert float((plain - guided).abs().max()) > 1e-3


def test_averages_follow_at_their_own_rates_and_start_again() -> None:
    def after(steps):
        teacher = MLPDenoiser(width=8, kind="velocity").build()
        method = SCFM(steps=steps, restart=30, optimiser={"lr": 1e-2})
        roles = toys.train(method, {"teacher": teacher}, data=Samples(x=torch.randn(64, 2)), size=16).roles
        start, fast, slow, now = (torch.cat([p.flatten() for p in roles[n].parameters()]) for n in ROLES)
        return (fast - now).norm() / (start - now).norm(), (slow - now).norm() / (start - now).norm()

    fast, slow = after(29)
    assert 0 < fast <= slow
    assert after(30) == (0, 0)


def test_the_slow_average_is_the_result_and_needs_no_step_size() -> None:
    plan = SCFM(inference_steps=3).plan(Sampler())
    assert plan.result == "slow" and not plan.sampler.scalars
    assert abs(plan.sampler.grid_for(Flow())[1] - 6 / 7) < 1e-12
