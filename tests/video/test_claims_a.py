"""What the claims of LiveTalk, ASD and Resampling Forcing are measured with."""

from __future__ import annotations

import torch

from distill.core import Cache, Optimiser, Rng, Role, Sampler
from distill.methods import toys as plain
from distill.methods.losses import Denoise
from distill.video.claims import asd_ffe, livetalk
from distill.video.losses import GuidedScore
from distill.video.papers.asd_ffe import ASDFFE
from distill.video.papers.livetalk import LiveTalk


def test_a_listening_student_says_the_same_at_once_and_chunk_by_chunk():
    role, fields = listening(), livetalk.data(4, Rng(0)).tensors
    x, audio = fields["x"], fields["audio"]
    cache, parts = Cache(), []
    for start in range(0, 12, 3):
        told = {"audio": audio[:, start : start + 3]}
        said = role.ask(x[:, start : start + 3], 0.0, told, cache=cache)
        parts, cache = [*parts, said.value], said.cache
    assert torch.allclose(torch.cat(parts, 1), role.ask(x, 0.0, {"audio": audio}).value, atol=1e-5)


def listening():
    torch.manual_seed(0)
    network = livetalk.Listening()
    for parameter in network.parameters():
        parameter.data = 0.1 * torch.randn_like(parameter)
    return Role("student", livetalk.student(network))


def test_the_critic_of_the_talking_student_begins_as_the_teacher():
    fields, t = livetalk.data(4, Rng(0)).tensors, torch.full((4,), 0.5)
    cond = {"audio": fields["audio"]}
    said = livetalk.Listener(livetalk.world()).predict(fields["x"], t, cond).x0
    assert torch.allclose(said, livetalk.world().predict(fields["x"], t, cond).x0, atol=1e-4)


def test_the_average_of_a_talking_student_begins_after_regression():
    method = LiveTalk(
        times=(1.0, 0.5), walk=Sampler(steps=2), at=(0, 1), routes=16, first=5, steps=1, critic_updates=1,
        score=GuidedScore(weights={"audio": 1.0}), critic=Denoise(view="x0"), regression=Optimiser(lr=1e-2),
    )  # fmt: skip
    roles = {"teacher": livetalk.world(), "student": listening(), "critic": livetalk.Listener(livetalk.world())}
    run = plain.train(method, roles, data=livetalk.data(64, Rng(0)), size=8)
    student, average = (run.roles[name].tensors() for name in ("student", "student_ema"))
    assert max(float((student[name] - average[name]).abs().max()) for name in student) < 1e-4


def test_a_walking_student_says_the_same_at_once_and_frame_by_frame():
    torch.manual_seed(0)
    role, x = Role("student", asd_ffe.walker()), asd_ffe.law().data(4, Rng(0))
    cache, parts = Cache(), []
    for frame in x.split(1, 1):
        said = role.ask(frame, 0.0, {}, cache=cache)
        parts, cache = [*parts, said.value], said.cache
    assert torch.allclose(torch.cat(parts, 1), role.ask(x, 0.0, {}).value, atol=1e-5)


def test_the_discriminator_moves_as_often_as_the_critic():
    updates = ASDFFE(critic_updates=3).plan(Sampler()).phases[-1].updates
    assert [(type(update.loss).__name__, update.every) for update in updates] == [
        ("ScoreDifference", 3), ("Denoise", 1), ("RelativisticGenerator", 3), ("RelativisticDiscriminator", 1),
    ]  # fmt: skip
