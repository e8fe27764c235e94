"""Video methods as a whole: their plans, a few steps of each, and what their students are sampled with."""

from __future__ import annotations

import pytest
import torch

from distill.core import Batch, Context, Optimiser, Rng, Role, Roles, Sampler, Samples
from distill.methods import toys as plain
from distill.methods.losses import Denoise
from distill.methods.networks import MLPDenoiser
from distill.video import toys
from distill.video.attention import Reach
from distill.video.editing import Clips, Edit, EditedClips, EditScore, between, within
from distill.video.losses import GuidedScore, HeadsByCount, HeadsPerStep, MultiGuided
from distill.video.papers.accvideo import AccVideo
from distill.video.papers.asd_ffe import ASDFFE
from distill.video.papers.avdm2 import AVDM2
from distill.video.papers.causvid import CausVid
from distill.video.papers.dreammotion import DreamMotion
from distill.video.papers.fada import FADA
from distill.video.papers.livetalk import LiveTalk
from distill.video.papers.mcm import MCM
from distill.video.papers.resampling_forcing import ResamplingForcing
from distill.video.papers.self_forcing import SelfForcing
from distill.video.papers.soulx_flashtalk import SoulXFlashTalk
from distill.video.samplers import Continued, FirstChunk, Windowed
from distill.video.streaming import ChunkSampler

TIMES, SHAPE = (1.0, 0.5), (6, 1, 8, 8)
CAUSAL = {"reach": Reach(chunk=3), "times": TIMES, "walk": Sampler(steps=4), "at": (0, 2), "routes": 8, "first": 2,
          "steps": 2, "critic_updates": 1, "score": GuidedScore()}  # fmt: skip
DATA = Samples(x=toys.AR1().data(32, Rng(0)))


def teacher(**options):
    torch.manual_seed(0)
    return toys.SMALL.model_copy(update={"width": 24, **options}).build()


def moved(before, after):
    return any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


@pytest.mark.parametrize(("method", "sampler"), [(CausVid, ChunkSampler), (SelfForcing, ChunkSampler)])
def test_causal_students_learn_and_are_sampled_chunk_by_chunk(method, sampler):
    bidirectional = teacher()
    run = plain.train(method(**CAUSAL), {"teacher": bidirectional}, data=DATA, size=4)
    student = run.roles["student"]
    assert moved(bidirectional, student.denoiser) and student.denoiser.network.reach == Reach(chunk=3)
    assert bidirectional.network.reach.chunk == 0 and type(run.sampler) is sampler
    assert plain.draw(student, run.sampler, 2, 0).shape == (2, 12, 8, 1, 1)


def test_without_routes_there_is_one_phase():
    assert [phase.name for phase in CausVid(routes=0).plan(Sampler()).phases] == ["matching"]
    assert [phase.name for phase in CausVid().plan(Sampler()).phases] == ["routes", "regression", "matching"]


def test_clips_of_few_steps_are_brought_to_those_of_more():
    method = ASDFFE(**CAUSAL, first_steps=2, later_steps=1)
    run = plain.train(method, {"teacher": teacher()}, data=DATA, size=4)
    assert isinstance(run.sampler, FirstChunk) and "discriminator" in run.roles
    assert isinstance(method.roles()["discriminator"].build, HeadsByCount)
    assert method.model_copy(update={"pair": method.pair.model_copy(update={"weight": 0.0})}).roles().keys() == {
        "student", "critic",
    }  # fmt: skip
    assert plain.draw(run.roles["student"], run.sampler, 2, 0).shape == (2, 12, 8, 1, 1)


def test_the_pair_of_equal_laws_gives_no_gradient_to_a_blind_discriminator():
    """One that says the same everywhere moves nothing."""
    run = plain.train(ASDFFE(**CAUSAL), {"teacher": teacher()}, data=DATA, size=4)
    for parameter in run.roles["discriminator"].parameters():
        parameter.data.zero_()
    pair, (trajectory, _) = ASDFFE().pair, run.plan.phases[-1].groups(0)[-1]
    event = next(trajectory.events(Batch(4, DATA.tensors["x"][:4]), run.ctx, attached=True))
    terms = pair.terms(event, run.ctx)["relativistic"]
    assert not torch.autograd.grad(terms.mean(), event.x)[0].any()


def test_a_talking_student_is_an_average_with_anchors_and_a_window():
    options = {**CAUSAL, "score": GuidedScore(weights={"text": 2.0, "audio": 2.0}, anchors=1)}
    built = teacher(text=8, words=1, audio=1)
    run = plain.train(LiveTalk(**options), {"teacher": built}, data=toys.Driven().samples(32, Rng(0)), size=4)
    assert run.plan.result == "student_ema" and isinstance(run.sampler, Windowed)
    assert moved(built, run.roles["student_ema"].denoiser)


def test_a_model_learns_on_a_history_of_its_own_without_a_teacher():
    built = teacher()
    run = plain.train(ResamplingForcing(reach=Reach(chunk=2), warmup=2, steps=2), {"teacher": built}, data=DATA, size=4)
    assert run.plan.needs() == {"student"} and moved(built, run.roles["student"].denoiser)
    assert plain.draw(run.roles["student"], run.sampler.with_steps(2), 2, 0).shape == (2, 12, 8, 1, 1)


def test_a_student_that_continues_itself():
    method = SoulXFlashTalk(times=TIMES, chunks=2, steps=3, critic_updates=1)
    run = plain.train(method, {"teacher": teacher()}, data=DATA, size=4)
    noise = torch.randn(2, 20, 8, 1, 1)
    assert isinstance(run.sampler, Continued)
    assert run.sampler.sample(run.roles["student"], noise, None, Rng(0)).shape == noise.shape


def flat(shape=SHAPE):
    torch.manual_seed(0)
    return MLPDenoiser(shape=shape, width=24, depth=3, kind="x0").build()


def test_pictures_say_how_frames_look():
    method = AVDM2(times=TIMES, steps=3, critic_updates=1)
    roles = {"teacher": flat(), "image": flat(SHAPE[1:])}
    run = plain.train(method, roles, data=toys.rolling(count=32), size=4)
    assert run.roles["critic"].denoiser.shape == SHAPE[1:] and moved(roles["image"], run.roles["critic"].denoiser)
    alone = AVDM2(score=AVDM2().score.model_copy(update={"weight": 0.0}))
    assert "critic" not in alone.roles() and "image" not in alone.plan(Sampler()).needs()


@pytest.mark.parametrize(
    "options", [{}, {"motion": None, "consistency": 0.0}, {"own": 0.0, "adversarial": 0.0}, {"w": (2.0, 4.0)}]
)
def test_motion_and_appearance_apart(options):
    conditions = {"classes": 10} if "w" in options else {}
    torch.manual_seed(0)
    built = MLPDenoiser(shape=SHAPE, width=24, depth=2, kind="x0", **conditions).build()
    run = plain.train(MCM(steps=2, **options), {"teacher": built}, data=toys.rolling(count=32), size=4)
    cond = {"label": torch.zeros(2, dtype=torch.long)} if conditions else None
    assert plain.draw(run.roles["student"], run.sampler, 2, 0, cond).shape == (2, *SHAPE)
    assert ("motion" in run.roles) == (options.get("motion", 1) is not None)


def test_stored_routes_are_learnt_without_data():
    built = flat()
    method = AccVideo(stretches=2, sampler=Sampler(steps=4), count=8, steps=5, optimiser=Optimiser(lr=1e-3))
    run = plain.train(method, {"teacher": built}, size=4)
    assert moved(built, run.roles["student"].denoiser) and run.sampler.steps == 2
    heads = method.roles()["discriminator"].build
    assert isinstance(heads, HeadsPerStep) and heads.sampler.steps == 2


def test_weights_of_conditions_are_inputs_of_the_student():
    method = FADA(steps=2, guided=MultiGuided(), sample_steps=2)
    assert [t.scalar for t in method.roles()["student"].transforms] == ["w_text", "w_audio"]
    data, built = toys.Driven().samples(16, Rng(0)), teacher(text=8, words=1, audio=1)
    run = plain.train(method, {"teacher": built}, data=data, size=4)
    cond = {name: data.tensors[name][:2] for name in ("text", "audio")}
    assert run.sampler.scalars == {"w_text": 3.0, "w_audio": 3.0}
    assert plain.draw(run.roles["student"], run.sampler, 2, 0, cond).shape == (2, 12, 8, 1, 1)


def edit(label=1, mask=None, **score):
    """One event and its terms: two clips under a teacher of two labels."""
    torch.manual_seed(0)
    network = MLPDenoiser(shape=SHAPE, width=24, depth=2, kind="x0", classes=3).build()
    clips = EditedClips(count=2).build(Roles({"teacher": Role("teacher", network)}))
    ctx = Context(Roles({"teacher": Role("teacher", network), "student": Role("student", clips)}), Rng(0))
    cond = {"label": torch.zeros(2, dtype=torch.long)} | ({} if mask is None else {"mask": mask})
    (event,) = Edit(to={"label": label}).events(Batch(2, torch.randn(2, *SHAPE), cond), ctx, attached=True)
    return clips, EditScore(guidance=1.0, **score).terms(event, ctx)


def test_equal_conditions_move_nothing():
    clips, terms = edit(label=0, space=0.0, time=0.0)
    assert not torch.autograd.grad(terms["score"].sum(), clips.clips)[0].any()
    clips, terms = edit(label=1, space=0.0, time=0.0)
    assert torch.autograd.grad(terms["score"].sum(), clips.clips)[0].any()


def test_scores_leave_alone_what_the_mask_hides():
    mask = torch.zeros(2, 1, 1, 8, 8)
    mask[..., :4] = 1
    clips, terms = edit(mask=mask, space=0.0, time=0.0)
    slope = torch.autograd.grad(terms["score"].sum(), clips.clips)[0]
    assert not slope[..., 4:].any() and slope[..., :4].any()


def test_likenesses_are_cosines():
    feature = torch.randn(2, 6 * 4, 5)
    space, time = within(feature, 6), between(feature, 6)
    assert space.shape == (2, 6, 4, 4) and time.shape == (2, 6, 6)
    places = feature.view(2, 6, 4, 5)
    said = torch.nn.functional.cosine_similarity(places[0, 1, 2], places[0, 1, 3], dim=0)
    assert torch.allclose(space[0, 1, 2, 3], said, atol=1e-6)
    means = places.mean(2)
    assert torch.allclose(
        time[1, 0, 5], torch.nn.functional.cosine_similarity(means[1, 0], means[1, 5], dim=0), atol=1e-6
    )


def test_an_edit_begins_at_the_source_and_goes_on():
    network = teacher(channels=1, size=(8, 8), patch=(1, 4, 4), frames=6, classes=2)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # nothing stays at zero
    score = EditScore(guidance=1.0, taps=("blocks.0.qkv",), only_keys=True)
    method = DreamMotion(to={"label": 1}, steps=2, clips=EditedClips(count=4), score=score)
    data = Samples(x=torch.randn(4, *SHAPE), label=torch.zeros(4, dtype=torch.long))
    run = plain.train(method, {"teacher": network}, data=data, size=4)
    subject = run.roles["student"].module
    assert isinstance(subject, Clips) and bool(subject.begun) and Denoise().moves == ("critic",)
    assert 0 < float((subject.clips.detach() - subject.source).abs().max()) < 0.1
    assert sorted(subject.source.flatten(1).sum(1).tolist()) == pytest.approx(
        sorted(data.tensors["x"].flatten(1).sum(1).tolist())
    )
