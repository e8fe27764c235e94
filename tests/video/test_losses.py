"""Losses of clips: frames that are drawn, motion heads, heads for each step, weights for each condition."""

from __future__ import annotations

import pytest
import torch

from distill.core import Context, Event, Rng, Role, Roles, Sampler
from distill.methods.losses import AdversarialGenerator, Denoise, Match, ScoreDifference
from distill.methods.networks import MLPDenoiser
from distill.video import toys
from distill.video.losses import (
    FrameHead,
    GuidedScore,
    HeadsByCount,
    HeadsPerStep,
    MotionHead,
    MotionMatch,
    MultiGuided,
    OnFrames,
    nested,
)  # fmt: skip

SHAPE = (6, 1, 8, 8)


def picture_roles():
    torch.manual_seed(0)
    build = MLPDenoiser(shape=SHAPE[1:], width=16, depth=2).build
    return Roles({name: Role(name, build()) for name in ("student", "image", "critic")})


def test_frames_that_are_not_drawn_get_no_gradient():
    ctx, x = Context(picture_roles(), Rng(0)), torch.randn(4, *SHAPE, requires_grad=True)
    loss = OnFrames(inner=ScoreDifference(teacher="image"), frames=2)
    terms = loss.terms(Event(x), ctx)
    (slope,) = torch.autograd.grad(terms["score_difference"].sum(), x)
    assert terms["score_difference"].shape == (4,) and loss.moves == ("student",)
    assert slope.flatten(2).abs().amax(2).gt(0).sum(1).tolist() == [2, 2, 2, 2]


def test_a_critic_of_pictures_learns_frames_of_clips():
    terms = OnFrames(inner=Denoise(weight=3.0), frames=3).terms(
        Event(torch.randn(4, *SHAPE)), Context(picture_roles(), Rng(0))
    )
    assert terms["denoise_critic"].shape == (4,) and terms["denoise_critic"].requires_grad


def test_an_image_set_stands_beside_the_clips():
    seen = []

    class Look(AdversarialGenerator):
        def terms(self, event, ctx):
            seen.append(event)
            return {"adversarial": event.x.flatten(1).mean(1)}

    picture, x = torch.randn(4, 1, 8, 8), torch.randn(4, *SHAPE)
    label = torch.arange(4)
    event = Event(x, {"picture": picture, "label": label}, targets={"real": x})
    OnFrames(inner=Look(), frames=2).terms(event, Context(picture_roles(), Rng(0)))
    assert torch.equal(seen[0].real, picture.repeat_interleave(2, 0)) and "picture" not in seen[0].cond
    assert torch.equal(seen[0].cond["label"], label.repeat_interleave(2)) and seen[0].x.shape == (8, 1, 8, 8)


def clip_roles(**more):
    torch.manual_seed(0)
    roles = Roles({"teacher": Role("teacher", MLPDenoiser(shape=SHAPE, width=16, depth=3).build())})
    for name, build in more.items():
        roles.add(Role(name, build.build(roles)))
    return roles


def test_an_untrained_motion_head_changes_nothing():
    """The first loss of MCM is that of plain consistency."""
    roles = clip_roles(motion=MotionHead(), motion_average=MotionHead())
    event = Event(torch.randn(4, *SHAPE), targets={"x": torch.randn(4, *SHAPE)})
    ctx = Context(roles, Rng(0))
    with_head, without = (MotionMatch(head=head).terms(event, ctx)["motion"] for head in ("motion", ""))
    assert torch.equal(with_head, without) and MotionMatch().moves == ("student", "motion")
    gap = event.x - event.targets["x"]
    assert torch.allclose(without, ((gap**2 + 1e-6).sqrt() - 1e-3).flatten(1).mean(1), atol=1e-6)


def test_a_discriminator_of_frames_gives_one_logit_each():
    head = FrameHead().build(clip_roles())
    assert head(torch.randn(5, 1, 8, 8)).shape == (5,)


def test_heads_speak_at_their_own_time_or_count():
    roles = clip_roles()
    features = roles["teacher"].ask(torch.randn(3, *SHAPE), 0.5, taps=("hidden.0", "hidden.1")).features
    heads = HeadsPerStep(sampler=Sampler(steps=4)).build(roles)
    assert heads.times.tolist() == [0.75, 0.5, 0.25, 0.0]
    alone = torch.stack([head(features) for head in heads.heads])
    said = heads(features, torch.tensor([0.75, 0.0, 0.5]))
    assert torch.equal(said, torch.stack([alone[0, 0], alone[3, 1], alone[1, 2]]))
    counted = HeadsByCount(features="teacher", most=3).build(roles)
    one = counted(features, None, {"steps": torch.ones(3)})
    assert torch.equal(one, counted.heads[0](features)) and not torch.equal(one, counted.heads[1](features))


def test_nested_guidance_is_the_sum_of_the_cards():
    guide = nested({"text": 2.0, "audio": 3.0})
    assert dict((dropped, w) for w, dropped in guide.terms) == {
        frozenset(): 3.0, frozenset({"audio"}): -1.0, frozenset({"text", "audio"}): -1.0,
    }  # fmt: skip
    assert sum(w for w, _ in guide.terms) == 1 and guide.calls == 3


def test_nested_guidance_of_a_known_teacher():
    teacher, data = toys.Driven(), toys.Driven().samples(8, Rng(0)).tensors
    cond, t = {name: data[name] for name in ("text", "audio")}, torch.full((8,), 0.6)
    role = Role("teacher", teacher)

    def say(*dropped):
        return teacher.predict(data["x"], t, teacher.drop(cond, frozenset(dropped), data["x"])).x0

    bare, text, both = say("text", "audio"), say("audio"), teacher.predict(data["x"], t, cond).x0
    expected = bare + 2 * (text - bare) + 3 * (both - text)
    said = role.ask(data["x"], t, cond, guidance=nested({"text": 2.0, "audio": 3.0})).x0
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-5)


def test_a_driven_teacher_is_the_best_linear_one():
    """Whatever is dropped, its squared error is lower than that of a teacher with other conditions."""
    teacher, data = toys.Driven(), toys.Driven().samples(3000, Rng(0)).tensors
    cond, t = {name: data[name] for name in ("text", "audio")}, torch.full((3000,), 0.7)
    x_t = teacher.path.noised(data["x"], Rng(1).normal(*data["x"].shape), t)
    errors = [
        float((teacher.predict(x_t, t, c).x0 - data["x"]).square().mean())
        for c in (
            cond,
            teacher.drop(cond, frozenset({"audio"}), x_t),
            teacher.drop(cond, frozenset({"text", "audio"}), x_t),
        )
    ]
    assert errors[0] < errors[1] < errors[2]


def test_given_frames_are_shown_clean_and_get_no_score():
    seen = []

    teacher = toys.AR1()
    predict = teacher.predict
    teacher.predict = lambda x, t, cond=None, **options: seen.append(x) or predict(x, t, cond, **options)
    roles = Roles({"teacher": Role("teacher", teacher), "critic": Role("critic", toys.GaussianClips())})
    real, x = torch.randn(4, 12, 8, 1, 1), torch.randn(4, 12, 8, 1, 1, requires_grad=True)
    terms = GuidedScore(anchors=1).terms(Event(x, targets={"real": real}), Context(roles, Rng(0)))
    (slope,) = torch.autograd.grad(terms["score_difference"].sum(), x)
    assert torch.equal(seen[0][:, 0], real[:, 0]) and not torch.equal(seen[0][:, 1], real[:, 1])
    assert not slope[:, 0].any() and slope[:, 1:].abs().sum() > 0


@pytest.mark.parametrize("tokens", [True, False])
def test_one_call_against_three(tokens):
    student = toys.SMALL.model_copy(update={"text": 8, "words": 1, "audio": 1}).build()
    for name in ("w_text", "w_audio") if tokens else ():
        student.add_scalar(name)
    roles = Roles({"teacher": Role("teacher", toys.Driven()), "student": Role("student", student)})
    data = toys.Driven().samples(8, Rng(0)).tensors
    event = Event(data["x"], {name: data[name] for name in ("text", "audio")}, targets={"real": data["x"]})
    terms = MultiGuided(tokens=tokens).terms(event, Context(roles, Rng(0)))
    assert set(terms) == {"taught", "data"} and all(term.shape == (8,) for term in terms.values())
    taught, data_alone = (
        MultiGuided(tokens=tokens, **off).terms(event, Context(roles, Rng(0))) for off in ({"data": 0}, {"taught": 0})
    )
    assert set(taught) == {"taught"} and set(data_alone) == {"data"} and Match().moves == ("student",)


def test_data_that_the_teacher_finds_strange_count_little():
    """Half of the clips flicker, which the teacher's law does not."""
    x = toys.AR1().data(64, Rng(0))
    x[32:] += 1.2 * torch.randn(32, 12, 8, 1, 1)
    roles = Roles({"teacher": Role("teacher", toys.AR1(rho=0.7)), "student": Role("student", toys.linear((0.5,)))})
    event, options = Event(x), {"ranges": {}, "tokens": False, "taught": 0.0}
    weighed, plain = (
        MultiGuided(adaptive=adaptive, **options).terms(event, Context(roles, Rng(0)))["data"]
        for adaptive in (True, False)
    )
    level = (weighed / plain).detach()
    assert level[:32].mean() > 0.6 and level[32:].mean() < 0.2 and float(level.max()) == pytest.approx(1)
