"""Pairs are ranked, the winner is pulled and the loser pushed, and each side has a critic of its own."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch

from distill.core import Batch, Context, Denoiser, Engine, Event, Optimiser, Ragged, Rng, Role, Roles, assemble, tree
from distill.core.errors import RecipeError
from distill.methods.times import ListedTimes
from distill.three_d.lidar_pairs import CompletionPairs, DenoiseTarget, Preference
from distill.three_d.metrics_points import chamfer
from distill.three_d.papers.lidar_dpo import LidarDPO
from distill.three_d.points import Completed, LocalPath, PointDenoiser

PAIRS = CompletionPairs(repeat=2)
WEIGHTS = (1.0, 0.5, -1.5)
RATES = {"student_optimiser": Optimiser(lr=1e-3), "critic_optimiser": Optimiser(lr=1e-3)}


@cache
def network(seed=0):
    torch.manual_seed(seed)
    denoiser = PointDenoiser(width=8, depth=1, near=3, points=20, path=LocalPath(spread=0.5)).build()
    torch.nn.init.normal_(denoiser.network.outlet[1].weight, std=0.3)
    return denoiser


def batch(*lengths, seed=0):
    """Points on two planes, every other one of them seen."""
    draw = torch.Generator().manual_seed(seed)
    x = Ragged(torch.rand(sum(lengths), 3, generator=draw) * torch.tensor([2.0, 2.0, 0.05]), torch.tensor(lengths))
    scan = Ragged(torch.cat([part[::2] for part in x.split()]), (x.lengths + 1) // 2)
    return Batch(len(lengths), x, {"scan": scan})


def context(seed=0):
    names = {"teacher": 0, "student": 1, "winner": 2, "loser": 3}
    return Context(Roles({name: Role(name, network(n)) for name, n in names.items()}), Rng(seed))


def test_the_better_completion_of_each_pair_is_the_state():
    given = batch(64, 192, 100, 80)
    event = next(PAIRS.events(given, context(), attached=True))
    won, lost = (chamfer(x, given.x) for x in (event.x, event.targets["loser"]))
    assert (won < lost).all() and event.x.lengths.tolist() == [64, 192, 100, 80] and event.x.values.requires_grad
    assert not next(PAIRS.events(given, context(), attached=False)).x.values.requires_grad


def test_a_pair_starts_from_one_noise_at_two_scales():
    class Still(Denoiser):
        """Says that nothing is noise."""

        def _call(self, x, t, cond, cache):
            return tree.tree_map(torch.zeros_like, x), None

    ctx = Context(Roles({"student": Role("student", Still(torch.nn.Identity(), LocalPath(), "eps"))}), Rng(0))
    given = batch(40)
    event = next(PAIRS.events(given, ctx, attached=False))
    scan = given.cond["scan"].values.repeat(2, 1)
    gaps = sorted((x.values - scan for x in (event.x, event.targets["loser"])), key=torch.norm)
    torch.testing.assert_close(gaps[1], 1.1 * gaps[0])


def test_random_labels_do_not_look_at_the_clouds():
    given = batch(*[60] * 32)
    event = next(CompletionPairs(repeat=2, judge="random").events(given, context(), attached=False))
    won, lost = (chamfer(x, given.x) for x in (event.x, event.targets["loser"]))
    assert 4 < int((won < lost).sum()) < 28


def test_data_without_scans_are_named():
    with pytest.raises(RecipeError, match="completions start at scans: name a dataset whose conditions have 'scan'"):
        next(PAIRS.events(Batch(1, batch(8).x, {}), context(), attached=False))


def toy_event(seed=0):
    values = torch.randn(30, 3, generator=torch.Generator().manual_seed(seed))
    winner, loser = (Ragged(v.clone().requires_grad_(), torch.tensor([10, 20])) for v in (values, values + 0.1))
    scan = Ragged(values[:8], torch.tensor([3, 5]))
    return Event(winner, {"scan": scan}, targets={"loser": loser})


def test_the_gradient_is_the_difference_of_scores_of_each_side():
    """∂L/∂x_w = (ε_T − ε_w) / N and ∂L/∂x_l = −(ε_T − ε_l) / N, at one time and one noise."""
    event, ctx, time = toy_event(), context(), ListedTimes(times=(0.6,))
    total = Preference(form="paper", times=time).terms(event, ctx)["preference"]
    got = torch.autograd.grad(total.sum(), [event.x.values, event.targets["loser"].values])
    noise = Rng(0).normal_like(event.x, stream="preference/noise")
    for gradient, x, critic, sign in zip(
        got, (event.x, event.targets["loser"]), ("winner", "loser"), (1, -1), strict=True
    ):
        x_t = tree.combine((1.0, tree.detach(x)), (float(LocalPath(spread=0.5).sigma(torch.tensor(0.6))), noise))
        real, fake = (ctx.roles[name].ask(x_t, 0.6, event.cond).value.values for name in ("teacher", critic))
        count = 3 * x.lengths[x.owner, None]
        torch.testing.assert_close(gradient, sign * (real - fake) / count, atol=1e-6, rtol=1e-4)
        assert gradient.abs().max() > 1e-5


def test_swapped_labels_turn_the_gradient_round():
    """In the paper's form, with one critic on both sides, they differ by their labels alone."""
    event, ctx = toy_event(), context()
    swapped = Event(event.targets["loser"], event.cond, targets={"loser": event.x})
    loss, gradients = Preference(form="paper", winner="winner", loser="winner"), []
    for each in (event, swapped):
        total = loss.terms(each, Context(ctx.roles, Rng(0)))["preference"].sum()
        gradients.append(torch.autograd.grad(total, event.x.values)[0])
    torch.testing.assert_close(gradients[0], -gradients[1])


def test_the_product_with_the_noise_has_no_gradient():
    """Why the loss multiplies x: x_t − x is the noise, whatever the student made."""
    event = toy_event()
    x_t = LocalPath().noised(event.x, Rng(0).normal_like(event.x), torch.tensor([0.3, 0.7]))
    gap = tree.combine((1.0, x_t), (-1.0, event.x))
    assert torch.autograd.grad(gap.values.square().sum(), event.x.values)[0].abs().max() < 1e-6


def test_unequal_clouds_in_one_batch_have_the_loss_that_they_have_alone():
    ctx = context()
    joint = batch(64, 192)
    event = next(PAIRS.events(joint, ctx, attached=False))
    noise, t = Rng(1).normal_like(event.x), torch.tensor([0.3, 0.8])
    loss = Preference()
    together = loss._side(event, event.x, WEIGHTS, noise, t, ctx)
    for row in range(2):
        one = torch.tensor([row])
        cond = {"scan": tree.index(joint.cond["scan"], one)}
        alone = loss._side(Event(event.x, cond), tree.index(event.x, one), WEIGHTS, tree.index(noise, one), t[one], ctx)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-6, rtol=1e-5)


def engine(steps=2, **options):
    method = LidarDPO(steps=steps, pairs=PAIRS, **RATES, **options)
    roles = assemble(method, {"teacher": Role("teacher", network())})
    return Engine(roles, method.plan(None), lambda start: iter(lambda: batch(20, 30, 16), None))


def changed(run):
    before = {name: {k: v.clone() for k, v in role.tensors().items()} for name, role in run.roles.items()}
    run.run()
    return {n for n, r in run.roles.items() if any(not torch.equal(v, before[n][k]) for k, v in r.tensors().items())}


def test_the_student_and_both_critics_learn_from_one_pair():
    run = engine()
    assert changed(run) == {"student", "winner", "loser"}
    assert isinstance(run.sampler, Completed) and run.sampler.guidance == 3.5 and run.sampler.steps == 8
    given = batch(20, 30)
    x = run.sampler.sample(run.roles["student"], Rng(0).normal_like(given.x), given.cond, Rng(0))
    assert x.lengths.tolist() == [20, 30] and bool(x.values.isfinite().all())


def test_without_a_push_there_is_no_critic_of_losers():
    run = engine(preference=Preference(form="paper", push=0.0))
    assert set(run.roles) == {"teacher", "student", "winner"} and changed(run) == {"student", "winner"}


class Exact(Denoiser):
    """The law, after noising, of points δ + z that win (side 1), lose (−1) or are all there is (0), in closed form.

    Of two points drawn from N(δ, 1) the larger one wins; the teacher is N(0, 1), the same with δ = 0.
    """

    def __init__(self, shift, side):
        super().__init__(torch.nn.Identity(), LocalPath(), "eps")
        self.shift, self.side = shift, side

    def _call(self, x, t, cond, cache):
        sigma = self.path.sigma(t)[:, None]
        left = 1 / (1 + sigma**2)
        rate = left / (1 + sigma**2 * left).sqrt()
        away = x - self.shift()
        u = torch.distributions.Normal(0, 1)
        odds = u.log_prob(self.side * rate * away).exp() / u.cdf(self.side * rate * away)
        return -sigma * (self.side * rate * odds - away * left), None


def settled(loss, labels, steps=150, rate=2.0, size=512):
    """Where one number δ ends that a loss moves, with critics that know the law of δ + z exactly."""
    shift = torch.zeros(1, requires_grad=True)
    now = partial(shift.detach)
    sides = {"teacher": (lambda: torch.zeros(1), 0), "winner": (now, labels), "loser": (now, -labels)}
    ctx = Context(Roles({name: Role(name, Exact(*side)) for name, side in sides.items()}), Rng(0))
    for step in range(steps):
        x = shift + ctx.rng.normal(2, size, 1, stream="pair")
        better = x.amax(0), x.amin(0)
        chance = torch.rand(size, 1, generator=torch.Generator().manual_seed(step)) < 0.5
        won, lost = {1: better, -1: better[::-1], 0: (torch.where(chance, *x), torch.where(chance, x[1], x[0]))}[labels]
        term = loss.terms(Event(won, targets={"loser": lost}), ctx)["preference"].mean()
        (gradient,) = torch.autograd.grad(term, shift)
        with torch.no_grad():
            shift -= rate * gradient / (1 + step / 20)
    return float(shift.detach())


def wanted(pull, push, points=20_000):
    """The δ at which `pull E[σ s_teacher] + push E[σ (s_w − s_l)]` is zero, by a sum over the student's law."""
    path, u = LocalPath(), torch.distributions.Normal(0, 1)
    t = path.t_min + (path.t_max - path.t_min) * torch.linspace(0.02, 0.98, points)
    sigma = path.sigma(t)
    z = Rng(1).normal(points) * (1 + sigma**2).sqrt()
    rate = 1 / ((1 + sigma**2) * (1 + sigma**2 / (1 + sigma**2)).sqrt())
    odds = u.log_prob(rate * z).exp() / u.cdf(rate * z)
    return float(2 * push * (sigma * rate * odds).mean() / (pull * (sigma / (1 + sigma**2)).mean()))


def test_a_tilted_law_is_found_where_dpo_has_it_and_labels_tell():
    """Right labels, flipped ones, and labels by chance, of a student that is one number."""
    right, flipped, chance = (settled(Preference(push=0.5), labels) for labels in (1, -1, 0))
    assert abs(right - wanted(1.0, 0.5)) < 0.1 and abs(flipped + wanted(1.0, 0.5)) < 0.1 and abs(chance) < 0.1


def test_the_papers_form_leads_to_what_loses():
    """With critics that are exact: the teacher cancels out, and its pull on the better ones is the weaker."""
    right, flipped, chance = (settled(Preference(form="paper"), labels, steps=20) for labels in (1, -1, 0))
    assert right < -0.3 and flipped > 0.3 and abs(chance) < 0.1


def test_the_losers_critic_looks_at_losers():
    event, ctx = toy_event(), context()
    mine = DenoiseTarget().terms(event, ctx)["denoise_loser"]
    other = DenoiseTarget().terms(Event(event.targets["loser"], event.cond, targets={"loser": event.x}), context())
    assert not torch.allclose(mine, other["denoise_loser"]) and DenoiseTarget().moves == ("loser",)
