"""Clips chunk by chunk: as many calls as it takes, files that play, prompts that change, starts from frames."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import soundfile
import torch

from distill.core import Cache, Rng, Role, Sampler
from distill.core.cli import main
from distill.core.contracts import Streaming
from distill.core.errors import DataError, RecipeError
from distill.core.sampling import Consistency
from distill.video.attention import Reach
from distill.video.audio import loudness, track
from distill.video.networks import VideoDiT
from distill.video.streaming import ChunkSampler, Film, Stream, followed, lasting, share, write

TEACHER = (
    "teacher={name: video-dit, channels: 1, size: [8, 8], width: 24, depth: 1, heads: 2, classes: 10, frames: 6, "
    "reach: {chunk: 3, window: 3, sink: 3}, steps: 2}"
)


def frames(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]


def sample(*arguments, teacher=TEACHER):
    with pytest.raises(SystemExit) as done:
        main(["sample", "video-dit", teacher, "--stream", *map(str, arguments)])
    return done.value.code


def student(spoken, **reach):
    denoiser = spoken("video-dit")
    denoiser.network.reach = Reach(**reach)
    return Role("student", denoiser)


@pytest.fixture
def few():
    return ChunkSampler(times=(1.0, 0.6), solver=Consistency())


def test_a_clip_is_made_chunk_by_chunk(spoken, clip, few):
    """The same as a roll-out that writes each clean chunk by a call of its own."""
    role = student(spoken, chunk=2, window=4, sink=2)
    whole = clip(role.denoiser, 6)
    found = few.sample(role, whole.x, whole.cond, Rng(0))
    cache, rng, parts = Cache(), Rng(0), []
    for start in range(0, 6, 2):
        x, _, cond = whole.part(start, start + 2)
        x0 = role.ask(x, 1.0, cond, cache=cache).x0
        noised = role.denoiser.path.noised(x0, rng.normal_like(x0, stream="sample"), torch.tensor([0.6, 0.6]))
        parts.append(role.ask(noised, 0.6, cond, cache=cache).x0)
        cache = role.ask(parts[-1], 0.0, cond, cache=cache).cache
    torch.testing.assert_close(found, torch.cat(parts, 1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_calls_are_those_of_the_sampler_and_one_where_the_conditions_change(spoken, clip, few):
    role = student(spoken, chunk=2, window=4)
    stream, whole = Stream.of(role, few, Rng(0)), clip(role.denoiser, 2)
    for label in (0, 0, 1, 1):
        stream.chunk(whole.x, {**whole.cond, "label": torch.full((2,), label)})
    assert stream.calls == 4 * 2 + 1


@torch.no_grad()
def test_guided_predictions_share_an_ordinary_cache(spoken, clip):
    role = student(spoken, chunk=2, window=4, sink=1)
    whole, sampler = clip(role.denoiser, 8), ChunkSampler(steps=2, guidance=2.0)
    assert torch.isfinite(sampler.sample(role, whole.x, whole.cond, Rng(0))).all()
    assert sampler.calls(role.denoiser.path) == 4


def test_a_network_that_sees_all_frames_is_refused(spoken, clip):
    role = student(spoken)
    with pytest.raises(RecipeError, match="sees all frames of a clip at once"):
        ChunkSampler(steps=1).sample(role, clip(role.denoiser, 4).x)


def test_what_has_one_value_a_frame_is_shared_out_and_must_last():
    cond = {"audio": torch.arange(6.0).view(1, 6, 1), "label": torch.tensor([1])}
    assert share(cond, 2, 3)["audio"].flatten().tolist() == [2, 3, 4] and share(cond, 2, 3)["label"] is cond["label"]
    with pytest.raises(DataError, match="'audio' ends after 6 frames, and the clip goes on to 7"):
        share(cond, 4, 3)


def test_a_causal_network_is_sampled_chunk_by_chunk():
    causal = {"frames": 4, "size": (8, 8), "width": 24, "heads": 2, "depth": 1, "reach": {"chunk": 2}}
    assert type(VideoDiT(**causal).sampler()) is ChunkSampler and type(VideoDiT().sampler()) is Sampler


# ---------------------------------------------------------------- files


def test_the_command_writes_what_was_asked_for_and_says_how_fast(tmp_path, capsys):
    assert sample("-o", tmp_path / "clip.mp4", "--seconds", 1, "--prompt-at", "0.5s=label=3") == 0
    assert len(frames(tmp_path / "clip.mp4")) == 12
    said = capsys.readouterr().out
    assert "12 frames in" in said and "frames a second, first frame after" in said and "2.25 calls a chunk" in said


def test_what_changes_in_the_middle_is_seen_from_there(tmp_path, spoken, clip, few):
    role, told = student(spoken, chunk=2, window=2, sink=2), clip(spoken("video-dit"), 2, size=1).cond
    told["audio"] = torch.zeros(1, 3)
    other, made = {**told, "label": 1 - told["label"].clamp(max=1)}, []
    for name, schedule in (("a", [(0.0, told)]), ("b", [(0.0, told), (1.0, other)])):
        request = Streaming(tmp_path / f"{name}.mp4", 2.0, schedule, few)
        write(role, request, 4.0, lambda x: (255 * (x[0] > 0)).byte().permute(0, 2, 3, 1).expand(-1, -1, -1, 3))
        made.append(frames(request.out))
    same = [bool((a == b).all()) for a, b in zip(*made, strict=True)]
    assert same == [True] * 4 + [False] * 4


@pytest.mark.parametrize("count", [1, 5])
def test_it_goes_on_from_a_picture_and_from_a_clip(tmp_path, count):
    with Film(tmp_path / "given.mp4", 12) as film:
        film.write(torch.full((count, 16, 16, 3), 200, dtype=torch.uint8))
    sample("-o", tmp_path / "clip.mp4", "--seconds", 0.5, "--from", tmp_path / "given.mp4")
    made = frames(tmp_path / "clip.mp4")
    assert len(made) == count + 6 and abs(int(made[0].mean()) - 200) < 5


HEARS = TEACHER.replace("classes: 10", "audio: 8")


@pytest.fixture
def tone(tmp_path):
    """Three seconds of 440 Hz that get louder, in stereo."""
    seconds = np.arange(3 * 22_050) / 22_050
    loud = np.sin(2 * np.pi * 440 * seconds) * seconds / 3
    soundfile.write(tmp_path / "tone.wav", np.stack([loud, loud / 2], 1), 22_050)
    return tmp_path / "tone.wav"


def test_a_track_is_heard_frame_by_frame_and_its_sound_is_in_the_file(tmp_path, tone):
    assert sample("-o", tmp_path / "clip.mp4", "--seconds", 2.5, "--audio", tone, teacher=HEARS) == 0
    with av.open(str(tmp_path / "clip.mp4")) as file:
        times = [frame.time for frame in file.decode(video=0)]
    assert len(times) == 30 and times[-1] - times[0] == pytest.approx(29 / 12, abs=0.01)
    with av.open(str(tmp_path / "clip.mp4")) as file:
        sound = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], 1)
    tones = np.abs(np.fft.rfft(sound[0])) if len(sound) == 2 else []
    assert sound.shape[1] / 48_000 == pytest.approx(2.5, abs=0.05)
    assert np.argmax(tones) * 48_000 / sound.shape[1] == pytest.approx(440, abs=2)


def test_the_features_are_those_of_the_track_and_stay_as_they_end(spoken, tone):
    heard = followed({"audio": tone}, VideoDiT(audio=8).build(), 12.0, 30)
    assert torch.equal(heard["audio"][0], track(tone, 12.0, 8))
    told = lasting({**heard, "label": torch.tensor([1])}, 30, 32)["audio"]
    assert torch.equal(told[:, :30], heard["audio"][:, :30]) and told.shape[1] == 32
    assert torch.equal(told[:, 30], told[:, 29]) and loudness(told[0, 25]) > loudness(told[0, 5])


def test_a_track_that_does_not_fit_is_named(tmp_path, tone, capsys):
    for teacher, seconds, said in (
        (HEARS, 4, r"tone.wav lasts 3.00 s, 36 frames at 12 a second, and the clip has 48: give a longer track"),
        (TEACHER, 1, r"the network takes no 'audio' that follows a file; it takes label"),
    ):
        assert sample("-o", tmp_path / "x.mp4", "--seconds", seconds, "--audio", tone, teacher=teacher) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "x.mp4").exists()


@torch.no_grad()
def test_what_is_given_is_what_the_first_chunk_sees(spoken, clip, few):
    role = student(spoken, chunk=2)
    given, noise = clip(role.denoiser, 4, seed=1), clip(role.denoiser, 2, seed=2)
    stream = Stream.of(role, few, Rng(0))
    stream.follow(given.x, given.cond)
    cond = given.part(0, 2)[2]
    found, cache = stream.chunk(noise.x, cond), Cache()
    for start in (0, 2):
        x, _, said = given.part(start, start + 2)
        cache = role.ask(x, 0.0, said, cache=cache).cache
    alone = Stream(role, few, Rng(0), cache)
    torch.testing.assert_close(found, alone.chunk(noise.x, cond), atol=1e-4, rtol=1e-4)


def test_a_killed_stream_leaves_a_file_that_plays(tmp_path):
    path = tmp_path / "clip.mp4"
    code = f"from distill.core.cli import main; main(['sample', 'video-dit', {TEACHER!r}, '--stream', '-o', '{path}', "
    process = subprocess.Popen([sys.executable, "-c", code + "'--seconds', '100000'])"], env={**os.environ})
    try:
        waited = time.monotonic()
        while (not path.exists() or path.stat().st_size < 20_000) and time.monotonic() - waited < 100:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(frames(path)) > 12


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt-at", "30s=label=3"], "the prompt at 30s is out of range: a stream of 1s"),
        (["--prompt-at", "0s=label=3"], "the prompt at 0s is out of range"),
        (["--prompt-at", "later=label=3"], "says no moment and prompt"),
        (["--prompt", "a", "--prompt", "b"], "one prompt at a time"),
        (["--prompt", "a dog"], "reads no prompts"),
        (["--from", "nowhere.mp4"], "not a readable video"),
    ],
)
def test_bad_requests_say_what_is_wrong(tmp_path, capsys, arguments, said):
    assert sample("-o", tmp_path / "clip.mp4", "--seconds", 1, *arguments) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "clip.mp4").exists()


def test_modalities_that_cannot_be_streamed_say_so(capsys):
    with pytest.raises(SystemExit):
        main(["sample", "digits-teacher", "--stream"])
    assert "Image samples cannot be streamed" in capsys.readouterr().err
