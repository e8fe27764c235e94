"""Ragged point clouds in one batch, and two roll-outs of one student ranked by a metric without gradient
(LiDAR-DPO).

A scan is noised in place, `x_t = x + t ε`: points keep where they are, and no cloud is padded.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from distill.core import (
    Batch,
    Context,
    Denoiser,
    Engine,
    Event,
    Loss,
    Method,
    Optimiser,
    Plan,
    Ragged,
    Rng,
    Role,
    Roles,
    RoleSpec,
    Trajectory,
    Update,
    assemble,
    batches,
    tree,
)  # fmt: skip
from distill.core.paths import Karras
from distill.core.plan import one_phase
from distill.methods.losses import Denoise, surrogate
from distill.methods.times import LogNormalTimes
from distill.methods.trajectories import Data

PATH = Karras(t_min=0.02, t_max=1.0)
LEVELS = LogNormalTimes(mean=-1.5, std=0.8)


def cloud_mean(rows, like):
    """Mean of each cloud's rows [B, C]."""
    total = rows.new_zeros(len(like.lengths), rows.shape[1]).index_add(0, like.owner, rows)
    return total / like.lengths[:, None]


class Points(nn.Module):
    """A point sees itself, the time, and the pooled features of its own cloud."""

    def __init__(self, width=48):
        super().__init__()
        self.inlet = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.outlet = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x, t, cond):
        h = self.inlet(torch.cat([x.values, t[x.owner, None]], 1))
        return replace(x, values=self.outlet(torch.cat([h, cloud_mean(h, x)[x.owner]], 1)))


class Rings(torch.utils.data.Dataset):
    """Circles of unequal radius, of 6 to 24 points each."""

    def __len__(self):
        return 256

    def __getitem__(self, row):
        rng = Rng(row)
        n = 6 + rng.choice(19)
        angle = 6.2832 * rng.uniform(n)
        radius = 0.4 + 0.6 * rng.uniform(1, stream="radius")
        return {"x": Ragged(radius * torch.stack([angle.cos(), angle.sin()], 1), torch.tensor([n]))}


def denoiser(seed=0):
    torch.manual_seed(seed)
    return Denoiser(Points(), PATH, "x0", sigma_data=0.5)


def loader(start, size=16):
    return batches(Rings(), size, start=start)


def denoise(role="student"):
    return Denoise(role=role, view="x0", times=LEVELS, level="edm")


def fitted(steps=300):
    """A small teacher of rings."""
    optimisers = {"student": Optimiser(lr=2e-2, schedule="cosine")}
    plan = Plan(phases=one_phase([Update(trajectory=Data(), loss=denoise())], steps, optimisers))
    roles = Roles({"student": Role("student", denoiser())})
    notes = []
    engine = Engine(roles, plan, loader, on_step=lambda _, metrics: notes.append(metrics["denoise_student"]))
    return engine.run(), notes


@pytest.fixture(scope="module")
def teacher():
    return fitted()


# ---------------------------------------------------------------- ragged


def test_a_batch_holds_clouds_of_unequal_size():
    batch = next(loader(0))
    assert batch.size == 16 and len(set(batch.x.lengths.tolist())) > 4
    assert len(batch.x.values) == batch.x.lengths.sum()


def test_clouds_in_one_batch_are_what_they_are_alone():
    x, t = next(loader(0)).x, Rng(1).uniform(16) + 0.1
    noisy, student = PATH.noised(x, Rng(2).normal_like(x), t), denoiser()
    together = tree.mean(tree.tree_map(torch.square, student.predict(noisy, t).x0))
    alone = [
        tree.mean(
            tree.tree_map(torch.square, student.predict(tree.index(noisy, torch.tensor([row])), t[row : row + 1]).x0)
        )
        for row in range(16)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=1e-5)


def test_local_noise_keeps_the_mean_of_a_cloud():
    x = next(loader(0)).x
    noisy = PATH.noised(x, Rng(0).normal_like(x), torch.full((16,), 0.3))
    shift = (cloud_mean(noisy.values, x) - cloud_mean(x.values, x)).abs() * x.lengths[:, None] ** 0.5
    assert shift.max() < 3.5 * 0.3


def test_the_denoising_loss_trains_a_point_denoiser(teacher):
    _, notes = teacher
    assert sum(notes[-20:]) < 0.8 * sum(notes[:20])


# ---------------------------------------------------------------- preference pairs


def chamfer(a: Ragged, b: Ragged) -> torch.Tensor:
    """Symmetric nearest-neighbour distance per cloud [B], computed without gradient."""
    with torch.no_grad():
        pairs = (torch.cdist(p, q) for p, q in zip(a.split(), b.split(), strict=True))
        return torch.stack([(d.amin(0).mean() + d.amin(1).mean()) / 2 for d in pairs])


class Pairs(Trajectory):
    """Two completions of each scan, from noises of two scales; the better one by the metric is the event's
    state.
    """

    sign: int = 1
    """−1 swaps winners and losers."""

    def events(self, batch, ctx, *, attached):
        student, noise = ctx.roles["student"], batch.noise(ctx.rng, "pair/noise")
        scan, t = batch.x, 0.5
        with torch.set_grad_enabled(attached):
            both = [student.predict(tree.combine((1.0, scan), (t * k, noise)), t).x0 for k in (1.0, 1.1)]
        better = self.sign * (chamfer(both[0], scan) - chamfer(both[1], scan)) <= 0
        winner, loser = tree.where(better, *both), tree.where(better, *reversed(both))
        yield Event(winner, targets={"loser": loser, "scan": scan})


class Preference(Loss):
    """Pull the winner towards the teacher, push the loser away: a score difference each, with a critic of
    its own.
    """

    def terms(self, event, ctx):
        t = LEVELS.draw(PATH, tree.batch_size(event.x), ctx.rng, "preference/time")
        noise = ctx.rng.normal_like(event.x, stream="preference/noise")
        pull = self._side(event.x, "winner", t, noise, ctx)
        return {"preference": pull - self._side(event.targets["loser"], "loser", t, noise, ctx)}

    def _side(self, x, critic, t, noise, ctx):
        x_t = PATH.noised(tree.detach(x), noise, t)
        fake, real = (ctx.roles[name].ask(x_t, t).x0 for name in (critic, "teacher"))
        return surrogate(x, tree.combine((1.0, fake), (-1.0, real)))


class DenoiseLoser(Denoise):
    """The denoising loss on the losers."""

    def terms(self, event, ctx):
        return super().terms(replace(event, x=event.targets["loser"]), ctx)


class PairMethod(Method):
    """A student and two critics."""

    sign: int = 1
    """−1 swaps winners and losers."""

    def roles(self):
        return {name: RoleSpec(copy_of="teacher") for name in ("student", "winner", "loser")}

    def plan(self, teacher):
        pairs = Pairs(sign=self.sign)
        losses = (Preference(), denoise("winner"), DenoiseLoser(**denoise("loser").model_dump()))
        optimisers = {name: Optimiser(lr=rate) for name, rate in (("student", 5e-4), ("winner", 2e-3), ("loser", 2e-3))}
        updates = [Update(trajectory=pairs, loss=loss) for loss in losses]
        return Plan(phases=one_phase(updates, self.steps, optimisers))


def pair_engine(teacher, **options):
    method = PairMethod(**options)
    roles = assemble(method, {"teacher": Role("teacher", teacher)})
    return Engine(roles, method.plan(None), partial(loader, size=8))


def student_gradient(engine):
    batch = next(loader(0, 8))
    event = next(Pairs(sign=engine.plan.phases[0].updates[0].trajectory.sign).events(batch, engine.ctx, attached=True))
    total = Preference().terms(event, engine.ctx)["preference"].mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, engine.roles["student"].parameters())])


def critics_apart(engine):
    for p, q in zip(engine.roles["winner"].parameters(), engine.roles["teacher"].parameters(), strict=True):
        p.data = 0.5 * q.data
    engine.roles["loser"].load(engine.roles["winner"].tensors())


def test_swapped_labels_turn_the_gradient_round(teacher):
    """With equal critics the two sides differ by their labels alone."""
    network, gradients = teacher[0].roles["student"].module, []
    for sign in (1, -1):
        engine = pair_engine(network, steps=1, sign=sign)
        critics_apart(engine)
        gradients.append(student_gradient(engine))
    sum_, difference = gradients[0] + gradients[1], gradients[0] - gradients[1]
    assert difference.norm() > 1e-4 and sum_.norm() < 1e-4 * difference.norm()


def test_the_residual_times_the_noise_has_no_gradient(teacher):
    """Why the loss multiplies x and not x_t − x: the difference is the noise, whatever the student said."""
    x, noise = next(loader(0)).x, Rng(0).normal_like(next(loader(0)).x)
    moved = replace(x, values=x.values.clone().requires_grad_())
    product = tree.combine((1.0, PATH.noised(moved, noise, torch.full((16,), 0.3))), (-1.0, moved))
    assert torch.autograd.grad(product.values.square().sum(), moved.values)[0].abs().max() < 1e-5


def test_winners_beat_losers_by_the_metric(teacher):
    engine = pair_engine(teacher[0].roles["student"].module, steps=1)
    event = next(Pairs().events(next(loader(0)), engine.ctx, attached=False))
    won, lost = (chamfer(x, event.targets["scan"]) for x in (event.x, event.targets["loser"]))
    assert (won <= lost).all() and (won < lost).float().mean() > 0.9 and not event.x.values.requires_grad


def test_the_pair_moves_student_and_critics_in_one_iteration(teacher):
    network = teacher[0].roles["student"].module
    engine = pair_engine(network, steps=30)
    before = {name: {k: v.clone() for k, v in role.tensors().items()} for name, role in engine.roles.items()}
    engine.run()
    moved = {
        name
        for name, role in engine.roles.items()
        for k, v in role.tensors().items()
        if not torch.equal(v, before[name][k])
    }
    assert moved == {"student", "winner", "loser"}


def test_the_losers_critic_learns_the_losers(teacher):
    """Each critic denoises the completions of its own side better than the other side's critic does."""
    engine = pair_engine(teacher[0].roles["student"].module, steps=60)
    engine.run()
    ctx = Context(engine.roles, Rng(5))
    event = next(Pairs().events(Batch(64, next(loader(0, 64)).x), ctx, attached=False))

    def error(role, x):
        noisy = PATH.noised(x, Rng(7).normal_like(x), torch.full((64,), 0.2))
        gap = tree.combine((1.0, engine.roles[role].ask(noisy, 0.2).x0), (-1.0, x))
        return tree.mean(tree.tree_map(torch.square, gap)).mean()

    assert error("winner", event.x) < error("teacher", event.x)
    assert error("loser", event.targets["loser"]) < error("teacher", event.targets["loser"])
