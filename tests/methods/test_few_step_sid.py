"""Few-step SiD: one step with gradient, SiD for a chain of one, and the strategies of guidance."""

from __future__ import annotations

import copy

import pytest
import torch

from distill.core import Batch, Context, Event, Guidance, Rng, Role, Roles, Sampler, Samples
from distill.methods import toys
from distill.methods.losses import AdversarialGenerator, Denoise, ScoreIdentity
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.few_step_sid import FewStepSiD
from distill.methods.papers.sid import SiD
from distill.methods.times import LogNormalTimes

NETWORK = MLPDenoiser(width=16, depth=2, path="karras", sigma_data=0.5)
LABELLED = MLPDenoiser(width=16, depth=2, classes=3)
LABELS = Samples(x=torch.randn(30, 2, generator=torch.Generator().manual_seed(0)), label=torch.arange(30) % 3)


def updates(method: FewStepSiD):
    return [[u.loss for u in group] for _, group in method.plan(Sampler()).phases[0].groups(0)]


def test_a_chain_of_one_is_sid_bit_for_bit() -> None:
    torch.manual_seed(0)
    teacher, critic = NETWORK.build(), Denoise(view="x0", level="edm", times=LogNormalTimes())
    rates = {name: getattr(SiD(), name) for name in ("student_optimiser", "critic_optimiser")}
    same = {"identity": ScoreIdentity(weight=100), "critic": critic, "steps": 3} | rates
    chain = FewStepSiD(times=(2.5,), **same)
    ours, theirs = (
        toys.train(method, {"teacher": copy.deepcopy(teacher)}, size=8).roles["student"].tensors()
        for method in (chain, SiD(time=2.5, **same))
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_one_step_of_the_chain_carries_gradient() -> None:
    (events, _), *_ = FewStepSiD(times=(1.0, 0.7, 0.3)).plan(Sampler()).phases[0].groups(0)
    graded = []

    class Watched(Role):
        def predict(self, *args, **options):
            graded.append(torch.is_grad_enabled())
            return super().predict(*args, **options)

    roles = Roles({"student": Watched("student", LABELLED.build())})
    ctx = Context(roles, Rng(0))
    batch = Batch(4, cond={"label": torch.zeros(4, dtype=torch.long)}, shape=(2,))
    for _ in range(8):
        graded.clear()
        (event,) = events.events(batch, ctx, attached=True)
        assert sum(graded) == 1 and graded[-1] and len(graded) == event.meta["step"] + 1


@pytest.mark.parametrize("strategy, w, expected", [
    ("lsg", 3.0, (3.0, 3.0, 3.0, 0.0)), ("zero-cfg", 3.0, (1, 0, 1, 1)), ("anti-cfg", -0.5, (1, -0.5, 1, 0.1)),
])  # fmt: skip
def test_strategies_set_all_four_weights(strategy, w, expected) -> None:
    (critic,), (identity,) = updates(FewStepSiD(strategy=strategy, w=w))
    assert (identity.guidance, identity.critic_guidance, critic.guidance, critic.drop) == expected


def test_guided_scores_are_asked_with_their_own_weights(monkeypatch) -> None:
    seen = {}
    plain = Role.predict

    def watch(self, *args, guidance: Guidance | None = None, **options):
        seen[self.name] = guidance
        return plain(self, *args, guidance=guidance, **options)

    monkeypatch.setattr(Role, "predict", watch)
    roles = Roles({name: Role(name, LABELLED.build()) for name in ("teacher", "critic")})
    event = Event(torch.zeros(6, 2, requires_grad=True), {"label": torch.arange(6) % 3})
    ScoreIdentity(guidance=2.0, critic_guidance=0.0).terms(event, Context(roles, Rng(0)))
    assert seen["teacher"].calls == 2 and seen["critic"].calls == 1


def test_zero_cfg_leaves_the_critic_without_conditions() -> None:
    """A critic that never sees a label answers the same whatever the label is."""
    (critic,), _ = updates(FewStepSiD(strategy="zero-cfg"))
    roles = Roles({"critic": Role("critic", LABELLED.build())})
    terms = [
        critic.terms(Event(torch.zeros(6, 2), {"label": torch.full((6,), label)}), Context(roles, Rng(0)))
        for label in (0, 2)
    ]
    assert torch.equal(terms[0]["denoise_critic"], terms[1]["denoise_critic"])


def test_means_of_features_are_logits() -> None:
    roles = Roles({"critic": Role("critic", LABELLED.build())})
    loss = AdversarialGenerator(heads="", times=None)
    event = Event(torch.ones(4, 2), {"label": torch.zeros(4, dtype=torch.long)})
    ctx = Context(roles, Rng(0))
    features = loss.look(event.x, None, event, ctx)
    expected = torch.stack([feature.mean(1) for feature in features.values()], 1)
    torch.testing.assert_close(loss.opinion(event.x, None, event, ctx), expected)


def test_with_a_gan_critic_and_discriminator_share_events_and_no_role_is_added() -> None:
    method = FewStepSiD(generator=AdversarialGenerator(heads="", weight=0.001), steps=2)
    assert [[loss.moves for loss in group] for group in updates(method)] == [
        [("critic",), ("critic",)],
        [("student",), ("student",)],
    ]
    run = toys.train(method, {"teacher": LABELLED.build()}, data=LABELS, size=6)
    assert set(run.roles) == {"teacher", "student", "critic", "student_ema"} and run.step == 2
    assert FewStepSiD().plan(Sampler()).needs() == {"student", "teacher", "critic"}
