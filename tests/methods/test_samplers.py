"""Samplers that ask several roles: who is asked when, what becomes of the state, and what it costs."""

import json

import pytest
import torch
from torch import nn

from distill.core import Denoiser, Rng, Role, Roles, Sampler
from distill.core.errors import DistillError, RecipeError
from distill.core.paths import Cosine, Flow, Karras
from distill.core.sampling import DDIM, Consistency, Heun
from distill.methods import few_step, toys
from distill.methods.samplers import Assisted, HandOver, Pruned, Refined, best

PATH, TIMES = Cosine(), (1.0, 0.75, 0.5, 0.25)
STUDENT = few_step.sampler(TIMES)
NOISE = Rng(0).normal(6, 2)


class Says(nn.Module):
    """A network that says one thing, or a share of the state, and notes the times at which it was asked."""

    def __init__(self, share=0.5):
        super().__init__()
        self.share, self.asked = share, []

    def forward(self, x, t, cond):
        self.asked += [(round(float(t[0]) / 1000, 6), len(x))]
        return self.share * x


class Likes(nn.Module):
    """An oracle that likes what lies to the right, and notes how much it saw."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, x, t, cond):
        self.asked.append(len(x))
        return x[:, 0]


def cast(path=PATH, **shares):
    parts = {name: Denoiser(Says(share), path, "x0", shape=(2,)) for name, share in shares.items()}
    parts["oracle"] = Denoiser(Likes(), path, "logits", shape=(2,))
    return Roles({name: Role(name, module) for name, module in parts.items()})


def asked(roles, name):
    return roles[name].denoiser.network.asked


def total(roles, *names):
    return sum(count for name in names for _, count in asked(roles, name)) / len(NOISE)


def draw(sampler, roles, noise=NOISE):
    return sampler.sample(roles["student"], noise, None, Rng(1), roles)


def test_the_teacher_walks_its_own_grid_to_the_student_s_time() -> None:
    roles = cast(teacher=0.3, student=0.5)
    sampler = HandOver(**dict(STUDENT), base=Sampler(steps=10), first=2)
    draw(sampler, roles)
    assert [t for t, _ in asked(roles, "teacher")] == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6], abs=1e-5)
    assert [t for t, _ in asked(roles, "student")] == pytest.approx([0.5, 0.25], abs=1e-5)
    assert sampler.calls(PATH) == total(roles, "teacher", "student") == 7


def test_a_hand_over_is_two_roll_outs_end_to_end() -> None:
    roles = cast(teacher=0.3, student=0.5)
    x = NOISE
    for role, t, s in (("teacher", 1.0, 0.5), ("student", 0.5, 0.0)):
        time = torch.full((6,), t)
        x = PATH.jump(x, roles[role].predict(x, time).x0, time, torch.full((6,), s))
    sampler = HandOver(times=(1.0, 0.5), steps=2, base=Sampler(steps=2), first=1)
    torch.testing.assert_close(draw(sampler, roles), x)


@pytest.mark.parametrize("first, alone", [(0, "student"), (4, "teacher")])
def test_handing_over_nothing_or_everything(first, alone) -> None:
    roles = cast(teacher=0.3, student=0.5)
    base = Sampler(steps=5, solver=Heun(), free_first=True)
    sampler = HandOver(**dict(STUDENT), base=base, first=first)
    one = {"student": STUDENT, "teacher": base}[alone]
    torch.testing.assert_close(draw(sampler, roles), one.sample(roles[alone], NOISE, None, Rng(1)), rtol=0, atol=0)
    assert sampler.calls(PATH) == one.calls(PATH)


def test_every_move_of_both_can_be_looked_at() -> None:
    roles = cast(teacher=0.3, student=0.5)
    moves = list(HandOver(**dict(STUDENT), base=Sampler(steps=8)).walk(roles["student"], NOISE, None, Rng(0), roles))
    assert [round(move.t, 3) for move in moves] == [1.0, 0.875, 0.75, 0.5, 0.25]


def test_paths_must_be_one() -> None:
    roles = cast(student=0.5)
    roles.add(Role("teacher", Denoiser(Says(), Flow(), "x0")))
    with pytest.raises(RecipeError, match="one path"):
        draw(HandOver(**dict(STUDENT)), roles)


def test_a_role_that_is_not_there_is_named() -> None:
    roles = cast(student=0.5)
    with pytest.raises(DistillError, match="asks the role 'teacher', and was given student, oracle"):
        draw(Assisted(**dict(STUDENT)), roles)


# ---------------------------------------------------------------- assistance


def test_without_a_share_the_student_is_alone_bit_for_bit() -> None:
    roles = cast(teacher=0.3, student=0.5)
    sampler = Assisted(**dict(STUDENT), shares=(0.0, 0.0, 0.0))
    assert torch.equal(draw(sampler, roles), STUDENT.sample(roles["student"], NOISE, None, Rng(1)))


@pytest.mark.parametrize("solver", [DDIM(), Consistency()])
def test_the_prediction_is_mixed_and_the_solver_goes_on_from_it(solver) -> None:
    roles, share, rng = cast(teacher=0.3, student=0.5), 0.4, Rng(1)
    sampler = Assisted(times=(1.0, 0.5), steps=2, solver=solver, shares=(share,))
    said = 0.5 * NOISE
    a, s = (float(c(torch.tensor(0.5))) for c in (PATH.alpha, PATH.sigma))
    noised = a * said + s * rng.normal_like(said, stream="sample/assist")
    x0 = (1 - share) * said + share * 0.3 * noised
    time = torch.full((6,), 1.0)
    moved = PATH.jump(NOISE, x0, time, torch.full((6,), 0.5))
    moved = moved if isinstance(solver, DDIM) else a * x0 + s * rng.normal_like(said, stream="sample")
    walk = sampler.walk(roles["student"], NOISE, None, Rng(1), roles)
    torch.testing.assert_close(next(walk).next, moved)


def test_the_last_step_is_the_student_s_own() -> None:
    roles = cast(teacher=0.3, student=0.5)
    sampler = Assisted(**dict(STUDENT), shares=(0.5,) * 9)
    draw(sampler, roles)
    assert [t for t, _ in asked(roles, "teacher")] == pytest.approx([0.75, 0.5, 0.25], abs=1e-5)
    assert sampler.calls(PATH) == total(roles, "teacher", "student") == 7


# ---------------------------------------------------------------- refinement


def refined(**options):
    return Refined(**dict(STUDENT), **{"base": Sampler(steps=10), "until": 0.7, **options})


def test_only_poor_samples_are_improved_and_all_stay_in_their_places() -> None:
    roles = cast(teacher=0.3, student=0.5)
    plain = STUDENT.sample(roles["student"], NOISE, None, Rng(1))
    threshold = float(plain[:, 0].median()) + 1e-6
    out, good = draw(refined(threshold=threshold), roles), plain[:, 0] >= threshold
    assert torch.equal(out[good], plain[good]) and not (out[~good] == plain[~good]).any()
    assert {count for _, count in asked(roles, "teacher")} == {int((~good).sum())}


def test_seven_of_ten_steps_fall_after_the_start() -> None:
    roles, sampler = cast(teacher=0.3, student=0.5), refined(fraction=0.5)
    draw(sampler, roles)
    assert [t for t, _ in asked(roles, "teacher")] == pytest.approx([0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], abs=1e-5)
    assert sampler.calls(PATH) == 4 + 0.5 * 7


def test_at_the_last_time_samples_are_made_anew() -> None:
    roles = cast(teacher=0.3, student=0.5)
    fresh = Rng(1).normal_like(NOISE, stream="sample/refine")
    anew = Sampler(steps=10).sample(roles["teacher"], fresh)
    torch.testing.assert_close(draw(refined(until=1.0), roles), anew)


# ---------------------------------------------------------------- pruning


def test_survivors_are_chosen_for_each_sample() -> None:
    scores = torch.tensor([[1.0, 9.0], [3.0, 2.0], [2.0, 8.0]])  # three candidates of two samples
    assert best(scores, 1).tolist() == [2, 1]
    assert sorted(best(scores, 2).tolist()) == [1, 2, 4, 5]


def test_a_pruned_search_returns_the_candidate_that_ends_best() -> None:
    roles = cast(student=0.9)
    sampler = Pruned(steps=5, candidates=7, at=(2,), keep=(0.43,), aware=False)
    streams = [NOISE, *(Rng(1).normal_like(NOISE, stream=f"sample/candidate-{n}") for n in range(1, 7))]
    ends = torch.stack([Sampler(steps=5).sample(roles["student"], noise) for noise in streams])
    rows = ends[..., 0].argmax(0)  # a network that scales keeps the order, so nobody good is given up
    torch.testing.assert_close(draw(sampler, roles), ends[rows, torch.arange(6)])


def test_calls_and_scores_of_a_search() -> None:
    roles = cast(student=0.9)
    sampler = Pruned(steps=20, candidates=38, aware=False)
    draw(sampler, roles)
    assert sampler.stages(20) == [(0, 2, 38), (2, 6, 15), (6, 11, 6), (11, 20, 3)]
    assert sampler.calls(PATH) == total(roles, "student") == 2 * 38 + 4 * 15 + 5 * 6 + 9 * 3
    assert asked(roles, "oracle") == [6 * n for n in (38, 15, 6, 3)]


def test_with_other_steps_nothing_is_given_up() -> None:
    sampler = Pruned(steps=20, candidates=5)
    assert sampler.with_steps(10).stages(10) == [(0, 10, 5)] and sampler.with_steps(20) == sampler


def test_each_moment_has_a_judge_of_its_own() -> None:
    sampler = Pruned(at=(2, 6), keep=(0.5, 0.5))
    assert sampler.needs == ("oracle", "oracle-2", "oracle-6")
    assert sampler.model_copy(update={"aware": False}).needs == ("oracle",)


@pytest.mark.parametrize("at, keep", [((2, 2), (0.5, 0.5)), ((20,), (0.5,)), ((2, 6), (0.5,))])
def test_moments_that_cannot_be_are_refused(at, keep) -> None:
    with pytest.raises(RecipeError, match="cannot be given up"):
        Pruned(at=at, keep=keep).stages(20)


@pytest.mark.parametrize("sampler", [HandOver(), Assisted(), Refined(), Pruned()], ids=lambda s: type(s).__name__)
def test_they_survive_json(sampler) -> None:
    kept = json.loads(json.dumps(sampler.model_dump(mode="json")))
    assert type(sampler).model_validate(kept) == sampler


def test_conditions_follow_their_samples() -> None:
    law = toys.ring(Karras(), weights=toys.class_weights((0, 1), (4, 5)))
    roles = Roles({"student": Role("student", law), "teacher": Role("teacher", law), **_judges(law)})
    label = torch.tensor([0, 1] * 20)
    noise = Rng(3).normal(40, 2)
    for sampler in (Refined(steps=6, base=Sampler(steps=6), until=5.0, threshold=0.0),
                    Pruned(steps=6, candidates=3, at=(2,), keep=(0.5,), aware=False)):  # fmt: skip
        x = sampler.sample(roles["student"], noise, {"label": label}, Rng(0), roles)
        assert ((x[:, 0] < 0).long() == label).float().mean() > 0.95


def _judges(law):
    return {"oracle": Role("oracle", Denoiser(Likes(), law.path, "logits", shape=(2,)))}
