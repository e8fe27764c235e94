"""The one loop: whom gradient reaches, in which order, how often, and what happens when something goes
wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from distill.core import (
    EMA,
    Batch,
    Copy,
    Denoiser,
    Engine,
    Event,
    Lens,
    Loss,
    Optimiser,
    Phase,
    Plan,
    Role,
    Roles,
    Sampler,
    Samples,
    Subject,
    Trajectory,
    Update,
    batches,
    checkpoint,
    tree,
)  # fmt: skip
from distill.core.contracts import Fit
from distill.core.errors import CheckpointError, NonFiniteError, RecipeError
from distill.core.paths import Flow

LOG: list = []


@pytest.fixture(autouse=True)
def empty_log():
    LOG.clear()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x, t, cond):
        return self.layers(x) * (1 - t[:, None] / 4000)


def role(name, seed=0, **options):
    torch.manual_seed(seed)
    return Role(name, Denoiser(Net(), Flow(), "x0", shape=(2,)), **options)


def roles(*names):
    return Roles({name: role(name, seed, frozen=name.endswith("ema")) for seed, name in enumerate(names)})


class Data(Trajectory):
    """Events at fixed times; the student's prediction carries gradient."""

    times: tuple[float, ...] = (0.5,)

    def events(self, batch, ctx, *, attached):
        LOG.append(("events", ctx.step, attached))
        for t in self.times:
            with torch.set_grad_enabled(attached):
                said = ctx.roles["student"].predict(batch.data, t, batch.cond)
            yield Event(said.x0, batch.cond, said.t, batch.data, prediction=said, targets={"x": batch.data})


class Regress(Loss):
    role: str = "student"
    also: tuple[str, ...] = ()
    """Roles that the gradient may pass, but not move."""
    value: float | None = None

    @property
    def moves(self):
        return (self.role,)

    def terms(self, event, ctx):
        LOG.append((self.role, ctx.step, weights(ctx.roles["student"])))
        x = event.x if self.role == "student" else ctx.roles[self.role].predict(event.x.detach(), 0.5).x0
        for name in self.also:
            x = ctx.roles[name].predict(x, 0.5).x0
        return {f"regress_{self.role}": tree.mean((x - 2 * event.targets["x"]) ** 2)}


def weights(role):
    return torch.cat([p.detach().flatten() for p in role.parameters()])


def updates(*losses, **options):
    return tuple(Update(trajectory=Data(), loss=loss, **options) for loss in losses)


def plan(*updates, steps=3, clip=None, lr=1e-2, **phase):
    moved = {name for update in updates for name in update.loss.moves}
    optimisers = {name: Optimiser(lr=lr, clip=clip) for name in moved}
    return Plan(phases=(Phase(steps=steps, updates=updates, optimisers=optimisers, **phase),))


def source(size=8):
    data = Samples(x=torch.randn(64, 2, generator=torch.Generator().manual_seed(0)))
    return lambda start: batches(data, size, start=start)


def engine(who, programme, *, size=8, **options):
    return Engine(who if isinstance(who, Roles) else roles(*who), programme, source(size), **options)


# ---------------------------------------------------------------- whom gradient reaches


def test_gradient_moves_the_named_role_and_passes_the_others():
    made = engine(("student", "teacher", "critic"), plan(*updates(Regress(also=("teacher", "critic")))))
    before = {name: weights(each) for name, each in made.roles.items()}
    made.run()
    changed = {name for name, each in made.roles.items() if not torch.equal(weights(each), before[name])}
    assert changed == {"student"}
    assert all(p.grad is None for name in ("teacher", "critic") for p in made.roles[name].parameters())


def test_a_critic_that_learns_too_gets_no_gradient_from_the_student_s_loss():
    both = engine(("student", "critic"), plan(*updates(Regress(also=("critic",)), Regress(role="critic"))), size=8)
    alone = engine(("student", "critic"), plan(*updates(Regress(role="critic"))))
    both.run(1), alone.run(1)
    assert torch.equal(weights(both.roles["critic"]), weights(alone.roles["critic"]))


def test_only_roles_that_learn_train_and_want_gradient():
    actions = {"actions": (EMA(),), "at_end": (Copy(target="teacher"),)}
    made = engine(("student", "teacher", "student_ema"), plan(*updates(Regress()), **actions))
    state = {n: (r.module.training, all(p.requires_grad for p in r.parameters())) for n, r in made.roles.items()}
    assert state == {"student": (True, True), "teacher": (False, False), "student_ema": (False, False)}


def test_an_adapter_is_freed_although_its_base_is_frozen():
    teacher = role("teacher")
    own = {"a": teacher.module.network.layers[0].bias}
    made = engine(
        Roles({"teacher": teacher, "student": Role("student", teacher.module, own=own)}),
        plan(*updates(Regress())),
    )
    base = teacher.module.network.layers[0].weight.clone()
    made.run()
    assert torch.equal(base, teacher.module.network.layers[0].weight) and not teacher.module.training
    assert made.saved_roles() == ["student"] and set(made.roles["student"].tensors()) == {"a"}


def test_two_losses_share_one_event_s_graph_and_move_different_roles():
    class Both(Regress):
        @property
        def moves(self):
            return ("student", "critic")

    who = plan(*updates(Regress(), Both(also=("critic",)), Regress(role="critic")))
    made = engine(("student", "critic"), who)
    before = weights(made.roles["critic"])
    made.run()
    assert not torch.equal(weights(made.roles["critic"]), before)


def test_a_loss_that_cannot_reach_its_role_is_an_error():
    class Detached(Regress):
        def terms(self, event, ctx):
            return {"x": (event.x.detach() ** 2).mean()}

    with pytest.raises(RecipeError, match="Detached does not reach student"):
        engine(("student",), plan(*updates(Detached()))).run()


@pytest.mark.parametrize("who, programme, says", [
    (("student",), plan(*updates(Regress(role="critic"))), "needs the role critic, and this run has student"),
    (("student",), Plan(phases=(Phase(steps=1, updates=updates(Regress())),)),
    "moves student without an optimiser"),
    (("student",), plan(*updates(Regress()), actions=(EMA(),)), "needs the role student_ema"),
], ids=["role", "optimiser", "action"])  # fmt: skip
def test_a_plan_that_does_not_fit_is_refused_at_once(who, programme, says):
    with pytest.raises(RecipeError, match=says):
        engine(who, programme)


def test_a_role_without_parameters_cannot_learn():
    with pytest.raises(RecipeError, match="'student' has no parameters to train"):
        engine(Roles({"student": role("student", frozen=True)}), plan(*updates(Regress()))).run()


# ---------------------------------------------------------------- order and cadence


def cadence(name):
    return [step for kind, step, *_ in LOG if kind == name]


def test_updates_take_place_when_they_are_due():
    late = Update(trajectory=Data(), loss=Regress(), every=2, start=3, stop=8)
    engine(("student", "critic"), plan(late, *updates(Regress(role="critic")), steps=10)).run()
    assert cadence("student") == [3, 5, 7] and cadence("critic") == list(range(10))


def test_neighbours_share_events_unless_one_is_fresh_or_another_stands_between():
    twice = plan(*updates(Regress(), Regress(role="critic")), steps=1)
    engine(("student", "critic"), twice).run()
    assert len(cadence("events")) == 1
    LOG.clear()
    fresh = plan(*updates(Regress()), *updates(Regress(role="critic"), fresh=True), steps=1)
    engine(("student", "critic"), fresh).run()
    assert len(cadence("events")) == 2
    LOG.clear()
    other = Update(trajectory=Data(times=(0.1,)), loss=Regress(role="critic"))
    engine(("student", "critic"), plan(updates(Regress())[0], other, *updates(Regress(role="critic")), steps=1)).run()
    assert len(cadence("events")) == 3


def test_a_group_reads_the_weights_from_before_it_and_a_fresh_update_those_after():
    for options, same in (({}, True), ({"fresh": True}, False)):
        LOG.clear()
        who = plan(*updates(Regress()), *updates(Regress(role="critic"), **options), steps=1)
        engine(("student", "critic"), who).run()
        first, second = (entry[2] for entry in LOG if entry[0] != "events")
        assert torch.equal(first, second) is same


def test_events_are_attached_only_where_their_role_learns():
    late = Update(trajectory=Data(), loss=Regress(), every=2)
    engine(("student", "critic"), plan(late, *updates(Regress(role="critic")), steps=4)).run()
    assert [attached for kind, _, attached in LOG if kind == "events"] == [True, False, True, False]


def test_the_optimiser_steps_between_the_events_of_a_trajectory():
    each = Update(trajectory=Data(times=(0.2, 0.5, 0.8)), loss=Regress())
    engine(("student",), plan(each, steps=1)).run()
    seen = [entry[2] for entry in LOG if entry[0] == "student"]
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


def test_phases_follow_each_other_with_new_optimisers():
    first, second = (
        Phase(name=n, steps=4, updates=updates(Regress()), optimisers={"student": Optimiser(lr=1e-2)}) for n in "ab"
    )
    made = engine(("student",), Plan(phases=(first, second)))
    made.run(4)
    ages = [float(s["step"]) for s in made.optimisers["student"].state_dict()["state"].values()]
    assert made.phase.name == "b" and ages == []
    made.run()
    assert made.step == 8 and made.phase_index == 2


def test_a_run_in_pieces_is_a_run_in_one():
    whole, pieces = (engine(("student",), plan(*updates(Regress()), steps=9)) for _ in range(2))
    whole.run()
    for steps in (2, 3, 4, 5):
        pieces.run(steps)
    assert torch.equal(weights(whole.roles["student"]), weights(pieces.roles["student"]))


# ---------------------------------------------------------------- sizes of steps


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_add_up_to_the_big_batch(accumulate):
    def train(size, accumulate):
        norms = []
        made = engine(("student",), plan(*updates(Regress()), steps=5), size=size, accumulate=accumulate)
        made.on_step = lambda _, metrics: norms.append(metrics["student_grad_norm"])
        return weights(made.run().roles["student"]), torch.tensor(norms)

    for big, small in zip(train(16, 1), train(16 // accumulate, accumulate), strict=True):
        torch.testing.assert_close(small, big, rtol=0, atol=1e-6)


def test_micro_batches_with_unequal_numbers_of_events_leave_no_gradient_behind():
    class Uneven(Data):
        def events(self, batch, ctx, *, attached):
            yield from list(super().events(batch, ctx, attached=attached))[: 1 if batch.data[0, 0] > 0 else 2]

    uneven = Update(trajectory=Uneven(times=(0.2, 0.8)), loss=Regress())
    made = engine(("student",), plan(uneven, steps=4), size=2, accumulate=3).run()
    assert all(p.grad is None for p in made.roles["student"].parameters())


def test_events_weigh_their_samples():
    class Weighed(Data):
        def events(self, batch, ctx, *, attached):
            for event in super().events(batch, ctx, attached=attached):
                event.weight = torch.zeros(batch.size)
                yield event

    made = engine(("student",), plan(Update(trajectory=Weighed(), loss=Regress()), steps=1))
    before = weights(made.roles["student"])
    made.run()
    assert torch.equal(before, weights(made.roles["student"]))


def test_gradients_are_clipped_to_their_norm_and_the_norm_is_reported():
    norms = []
    made = engine(("student",), plan(*updates(Regress()), steps=1, clip=1e-3), on_step=lambda _, m: norms.append(m))
    made._make_optimisers()
    seen = []
    made.optimisers["student"].optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.stack([p.grad.norm() for p in made.roles["student"].parameters()]).norm())
    )
    made.run()
    assert float(seen[0]) == pytest.approx(1e-3, rel=1e-3) and norms[0]["student_grad_norm"] > 1e-2


def test_learning_rates_warm_up_and_fall():
    optimiser = Optimiser(lr=1.0, schedule="cosine", warmup=4)
    assert [optimiser.rate(step, 8) for step in (0, 1)] == pytest.approx([0.25, 0.5 * (1 + math.cos(math.pi / 8)) / 2])
    assert Optimiser(lr=1.0, schedule="linear").rate(6, 8) == 0.25 and Optimiser(lr=2.0).rate(7, 8) == 2.0
    rates = []
    linear = {"student": Optimiser(lr=1.0, schedule="linear")}
    falling = Plan(phases=(Phase(steps=4, updates=updates(Regress()), optimisers=linear),))
    made = engine(("student",), falling)
    made.on_step = lambda *_: rates.append(made.optimisers["student"].param_groups[0]["lr"])
    made.run()
    assert rates == [1.0, 0.75, 0.5, 0.25]


def test_terms_are_weighted_and_averaged():
    seen = []
    heavy = engine(("student",), plan(*updates(Regress(weight=0.0)), steps=1), on_step=lambda _, m: seen.append(m))
    before = weights(heavy.roles["student"])
    heavy.run()
    assert torch.equal(before, weights(heavy.roles["student"])) and seen[0]["regress_student"] > 0


def test_an_event_without_terms_moves_nobody():
    class Sometimes(Regress):
        def terms(self, event, ctx):
            return super().terms(event, ctx) if ctx.step % 2 else {}

    made = engine(("student",), plan(*updates(Sometimes()), steps=4)).run()
    assert made.step == 4 and len(LOG) == 6


# ---------------------------------------------------------------- EMA, hand-over, subjects, lenses, fit


def test_several_averages_follow_their_decay():
    slow, fast = EMA(target="slow_ema", decay=0.9), EMA(target="fast_ema", decay=0.05, every=2)
    made = engine(("student", "slow_ema", "fast_ema"), plan(*updates(Regress()), steps=4, actions=(slow, fast)))
    expected = {name: weights(made.roles[name]) for name in ("slow_ema", "fast_ema")}
    for step in range(4):
        made.run(1)
        now = weights(made.roles["student"])
        expected["slow_ema"].lerp_(now, 1 - min(0.9, (1 + step) / (10 + step)))
        if step % 2:
            expected["fast_ema"].lerp_(now, 1 - 0.05)
    for name, value in expected.items():
        torch.testing.assert_close(weights(made.roles[name]), value)


def test_roles_are_handed_over_every_so_often_and_at_the_end():
    often = Copy(source="student", target="teacher", every=3)
    made = engine(
        ("student", "teacher", "past"),
        plan(*updates(Regress()), steps=6, actions=(often,), at_end=(Copy(target="past"),)),
    )
    start = weights(made.roles["teacher"])
    made.run(2)
    assert torch.equal(weights(made.roles["teacher"]), start)
    made.run(1)
    third = weights(made.roles["student"])
    assert torch.equal(weights(made.roles["teacher"]), third)
    made.run(2)
    assert torch.equal(weights(made.roles["teacher"]), third)
    made.run()
    assert torch.equal(weights(made.roles["past"]), weights(made.roles["student"]))


class Points(Subject):
    """A cloud that grows by one point every third step."""

    def __init__(self):
        super().__init__()
        self.points, self.age = nn.Parameter(torch.zeros(2, 2)), 0

    def materialise(self, batch, rng):
        return self.points

    def on_step_end(self):
        self.age += 1
        if self.age % 3:
            return False
        self.points = nn.Parameter(torch.cat([self.points.detach(), torch.ones(1, 2)]))
        return True


class Show(Trajectory):
    def events(self, batch, ctx, *, attached):
        yield Event(ctx.through_lens(ctx.roles["student"].module.materialise(batch, ctx.rng)))


class ToOne(Loss):
    def terms(self, event, ctx):
        return {"gap": (event.x - 1) ** 2}


class Double(Lens):
    def __call__(self, state):
        return 2 * state


def subject_engine(**options):
    show = plan(Update(trajectory=Show(), loss=ToOne()), steps=60, lr=5e-2)
    return Engine(Roles({"student": Role("student", Points())}), show, lambda start: batches(None, 4), **options)


def test_a_subject_grows_while_it_is_optimised_through_a_lens():
    made = subject_engine(lens=Double()).run()
    points = made.roles["student"].module.points
    assert points.shape == (22, 2) and points.requires_grad
    torch.testing.assert_close(points[:2].detach(), torch.full((2, 2), 0.5), rtol=0, atol=0.05)


def test_a_subject_that_grew_is_resumed_in_its_size(tmp_path):
    whole = subject_engine(folder=tmp_path, checkpoint_every=10)
    whole.run(10)
    resumed = subject_engine().resume(whole.last_checkpoint())
    assert torch.equal(weights(resumed.roles["student"]), weights(whole.roles["student"]))
    assert resumed.run(1).roles["student"].module.points.shape == (5, 2)


class Halve(Fit):
    def fit(self, batch, ctx, sampler):
        LOG.append(("fit", ctx.step, batch.data.clone(), batch.noise(ctx.rng, "fit")))
        return Sampler(steps=sampler.steps // 2)


def fitting():
    train = plan(*updates(Regress()), steps=3).phases[0]
    return Plan(
        phases=(train, Phase(name="fit", fit=Halve()), train.model_copy(update={"fit": Halve()})),
        sampler=Sampler(steps=64),
    )


def test_a_fit_phase_replaces_the_sampler_once_and_sees_the_next_batch():
    made = engine(("student",), fitting())
    for _ in range(9):
        made.run(1)
    assert made.sampler.steps == 16 and cadence("fit") == [3, 3]
    upcoming = next(source()(3)).data
    assert all(torch.equal(entry[2], upcoming) for entry in LOG if entry[0] == "fit")


def test_data_after_a_fit_are_those_of_a_resumed_run(tmp_path):
    whole = engine(("student",), fitting(), folder=tmp_path, checkpoint_every=4, keep=9).run()
    resumed = engine(("student",), fitting()).resume(tmp_path / "checkpoints" / "step-4").run()
    assert torch.equal(weights(whole.roles["student"]), weights(resumed.roles["student"]))
    assert resumed.sampler == whole.sampler


# ---------------------------------------------------------------- precision


@pytest.fixture
def bf16() -> Iterator[Accelerator]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bf16_computes_low_and_keeps_weights_and_moments_high(bf16):
    made = engine(
        ("student", "critic"),
        plan(*updates(Regress(), Regress(role="critic")), clip=1.0, steps=20),
        accelerator=bf16,
    )
    kinds, losses = [], []
    made.roles["student"].module.network.layers[2].register_forward_hook(lambda *a: kinds.append(a[2].dtype))
    made.on_step = lambda _, metrics: losses.append(metrics["regress_student"])
    made.run()
    assert set(kinds) == {torch.bfloat16} and losses[-1] < losses[0]
    assert {p.dtype for p in made.roles["student"].parameters()} == {torch.float32}


def test_a_look_without_gradient_does_not_cut_the_gradient_of_the_next_under_bf16(bf16):
    class Twice(Regress):
        def terms(self, event, ctx):
            goal = ctx.roles["student"].ask(event.x_t, 0.1).x0
            return {"gap": tree.mean((ctx.roles["student"].predict(event.x_t, 0.9).x0 - goal - 1) ** 2)}

    made = engine(("student",), plan(*updates(Twice()), steps=1), accelerator=bf16)
    before = weights(made.roles["student"])
    made.run()
    assert (weights(made.roles["student"]) != before).all()


# ---------------------------------------------------------------- what is not a number


class Breaks(Regress):
    at: int = 5
    how: str = "loss"
    HOW: ClassVar = {
        "loss": lambda value: value * float("nan"),
        "infinite": lambda value: value + float("inf"),
        "gradient": lambda value: value + (value - value.detach()).abs().sqrt(),
    }

    def terms(self, event, ctx):
        (value,) = super().terms(event, ctx).values()
        return {"broken": self.HOW[self.how](value) if ctx.step == self.at else value}


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("how, says", [
    ("loss", "step 5: the term 'broken' became nan"), ("infinite", "step 5: the term 'broken' became inf"),
    ("gradient", "step 5: the gradient of role 'student' became nan"),
])  # fmt: skip
def test_what_is_not_finite_stops_the_run_before_it_is_applied(tmp_path, how, says, clip):
    bad = plan(*updates(Breaks(how=how)), steps=10, clip=clip)
    made = engine(("student",), bad, folder=tmp_path, checkpoint_every=2)
    made.run(5)
    before = weights(made.roles["student"])
    with pytest.raises(NonFiniteError, match=says) as caught:
        made.run()
    assert torch.equal(weights(made.roles["student"]), before)
    assert made.last_checkpoint().name == "step-4" and "step-4" in str(caught.value)
    assert all(value.isfinite().all() for value in checkpoint.read(made.last_checkpoint())[0]["role-student"].values())


def test_without_a_checkpoint_the_message_says_so():
    with pytest.raises(NonFiniteError, match="no checkpoint was written before"):
        engine(("student",), plan(*updates(Breaks(at=0)))).run()


# ---------------------------------------------------------------- checkpoints of an engine


def test_identity_decides_who_may_resume(tmp_path):
    who = partial(engine, ("student",), plan(*updates(Regress())))
    path = who(folder=tmp_path, identity={"recipe": "a", "versions": (1, 2)}).run(1).save()
    assert who(identity={"recipe": "a", "versions": (1, 2)}).resume(path).step == 1
    with pytest.raises(CheckpointError, match="another run: recipe differ"):
        who(identity={"recipe": "b", "versions": (1, 2)}).resume(path)


def test_a_checkpoint_of_another_plan_or_network_does_not_fit(tmp_path):
    path = engine(("student",), plan(*updates(Regress())), folder=tmp_path).run(1).save()
    with pytest.raises(CheckpointError, match=r"does not fit this run: .*role-critic"):
        engine(("student", "critic"), plan(*updates(Regress(), Regress(role="critic")))).resume(path)
    wide = role("student")
    wide.module.network.layers[0] = nn.Linear(2, 9)
    with pytest.raises(CheckpointError, match=r"layers\.0\.bias"):
        engine(Roles({"student": wide}), plan(*updates(Regress()))).resume(path)


def test_a_checkpoint_from_before_the_first_step_can_be_resumed(tmp_path):
    made = engine(("student",), plan(*updates(Regress())), folder=tmp_path)
    path = made.save()
    resumed = engine(("student",), plan(*updates(Regress()))).resume(path).run()
    assert torch.equal(weights(resumed.roles["student"]), weights(made.run().roles["student"]))


def test_only_the_last_checkpoints_are_kept_and_a_finished_run_can_be_resumed(tmp_path):
    made = engine(("student",), plan(*updates(Regress()), steps=10), folder=tmp_path, checkpoint_every=2, keep=2).run()
    folder = tmp_path / "checkpoints"
    assert checkpoint.steps(folder) == [8, 10] and sorted(p.name for p in folder.iterdir()) == [
        "step-10",
        "step-8",
    ]
    again = engine(("student",), plan(*updates(Regress()), steps=10)).resume(made.last_checkpoint()).run()
    assert again.step == 10 and torch.equal(weights(again.roles["student"]), weights(made.roles["student"]))


def test_without_a_folder_nothing_is_written():
    made = engine(("student",), plan(*updates(Regress()))).run()
    assert made.last_checkpoint() is None
    with pytest.raises(CheckpointError, match="no folder"):
        made.save()


def test_a_batch_without_data_says_which_key_is_missing():
    with pytest.raises(RecipeError, match="data:"):
        Engine(roles("student"), plan(*updates(Regress())), lambda start: iter([Batch(2, shape=(2,))])).run()
