"""Tokens on an absorbing path, a loss on logits, and a student that becomes the teacher every N steps (SDTT).

Two tokens of two symbols with a known joint; a tabular network holds one row of logits for each pair of
symbols.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distill.core import (
    Batch,
    Copy,
    Denoiser,
    DistillError,
    Engine,
    Event,
    Loss,
    Optimiser,
    Plan,
    Rng,
    Role,
    Roles,
    Trajectory,
    Update,
)  # fmt: skip
from distill.core.paths import Absorbing
from distill.core.plan import one_phase

PATH = Absorbing(vocabulary=3)
MASK = 2
JOINT = torch.tensor([[0.55, 0.10], [0.10, 0.25]])


class Table(nn.Module):
    """Logits [B, 2, 3] looked up by the pair of tokens; the mask has no mass, and what is known is copied."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)  # [3, 3, 2, 2]

    def forward(self, x, t, cond):
        free = nn.functional.pad(self.rows[x[:, 0], x[:, 1]], (0, 1), value=-1e6).log_softmax(-1)
        known = nn.functional.one_hot(x, 3).log().clamp_min(-1e6)
        return torch.where((x == MASK)[..., None], free, known)


def exact() -> Denoiser:
    """The posterior of each token given what is seen of the other."""
    rows = torch.zeros(3, 3, 2, 2)
    rows[2, 2] = torch.stack([JOINT.sum(1), JOINT.sum(0)])
    for seen in (0, 1):
        rows[seen, 2, 1], rows[2, seen, 0] = (
            JOINT[seen] / JOINT[seen].sum(),
            JOINT[:, seen] / JOINT[:, seen].sum(),
        )
    return Denoiser(Table(rows.clamp_min(1e-9).log()), PATH, "logits", shape=(2,))


class TwoSteps(Trajectory):
    """Two steps of the teacher from tokens that are all masked: each token's target is what was said when
    it appeared.
    """

    keep: float = 0.5
    """Time after the first step; the second unmasks the rest."""

    def events(self, batch, ctx, *, attached):
        teacher, student = ctx.roles["teacher"], ctx.roles["student"]
        start = torch.full((batch.size, 2), MASK)
        t, s = torch.ones(batch.size), torch.full((batch.size,), self.keep)
        said = teacher.ask(start, t).logits
        chances = PATH.posterior(said.log_softmax(-1), start, t, s).cumsum(-1)
        drawn = (chances < ctx.rng.uniform(batch.size, 2, stream="token")[..., None]).sum(-1).clamp_max(MASK)
        later = teacher.ask(drawn, s).logits
        target = torch.where((drawn == MASK)[..., None], later, said)
        yield Event(start, t=t, prediction=student.predict(start, t), targets={"logits": target})


class Divergence(Loss):
    """KL divergence between student and target, token by token: forward, or reverse (SDTT's default)."""

    reverse: bool = True
    """KL(student ‖ target) instead of KL(target ‖ student)."""

    def terms(self, event, ctx):
        q, p = event.prediction.logits.log_softmax(-1), event.targets["logits"].log_softmax(-1)
        q, p = (q, p) if self.reverse else (p, q)
        return {"divergence": (q.exp() * (q - p)).sum(-1).mean(-1)}


def engine(loss, steps, *actions, lr=0.02, size=512):
    plan = Plan(
        phases=one_phase(
            [Update(trajectory=TwoSteps(), loss=loss)],
            steps,
            {"student": Optimiser(lr=lr, schedule="cosine")},
            actions=actions,
        )
    )
    roles = Roles({name: Role(name, exact()) for name in ("teacher", "student")})
    with torch.no_grad():
        roles["student"].module.network.rows[2, 2].zero_()
    return Engine(roles, plan, lambda start: iter(lambda: Batch(size), None))


def first_token(role) -> float:
    """The chance of symbol 0 that a role gives to a masked token when nothing is seen."""
    said = role.ask(torch.full((1, 2), MASK), 1.0).logits.softmax(-1)
    return float(said[0, :, 0].mean())


def geometric() -> float:
    """The normalised geometric mean of the targets: where reverse KL has its minimum."""
    alone, seen = JOINT.sum(1), JOINT / JOINT.sum(1, keepdim=True)
    # both appear at once or first (3/4 of the time for each token), or one waits for the other
    chance = 0.75 * alone.log() + 0.25 * (alone[:, None] * seen.log()).sum(0)
    return float(chance.softmax(0)[0])


@pytest.mark.parametrize(("loss", "fixed"), [(Divergence(reverse=False), 0.65), (Divergence(), geometric())])
def test_the_student_finds_the_fixed_point_of_its_divergence(loss, fixed):
    """Forward KL: the mean of the targets, which is the teacher's own marginal. Reverse: their geometric
    mean.
    """
    run = engine(loss, 250).run()
    assert first_token(run.roles["student"]) == pytest.approx(fixed, abs=4e-3)


def test_the_student_becomes_the_teacher_every_so_many_steps():
    run = engine(Divergence(), 12, Copy(every=5))
    seen = []
    run.on_step = lambda engine, _: seen.append(engine.roles["teacher"].module.network.rows[2, 2].detach().clone())
    run.run()
    changes = [n + 1 for n in range(1, 12) if not torch.equal(seen[n], seen[n - 1])]
    assert changes == [5, 10] and torch.equal(seen[0], exact().network.rows[2, 2])


def test_after_the_hand_over_the_teacher_speaks_as_the_student_did():
    run = engine(Divergence(), 250, Copy(every=250)).run()
    assert first_token(run.roles["teacher"]) == first_token(run.roles["student"]) != pytest.approx(0.65, abs=1e-3)


def test_a_token_path_loses_tokens_at_the_rate_of_its_time():
    tokens = Rng(0).integers(2, 4000, 2)
    masked = PATH.noised(tokens, Rng(0).uniform(4000, 2), torch.full((4000,), 0.3))
    assert (masked == MASK).float().mean() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(masked[masked != MASK], tokens[masked != MASK])


@pytest.mark.parametrize("view", ["x0", "eps", "v", "velocity", "score"])
def test_logits_have_no_gaussian_view(view):
    with pytest.raises(DistillError, match="use .logits"):
        getattr(exact().predict(torch.full((1, 2), MASK), 1.0), view)
